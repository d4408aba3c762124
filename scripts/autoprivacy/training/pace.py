"""The pace of a training run: seconds of its steps, and the time that is left."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from statistics import fmean, median

WINDOW = 100  # steps that the pace is taken from: the machine's load may change
# A step that takes this many times the median and this many seconds was interrupted: the process was stopped.
STOPPED_RATIO, STOPPED_SECONDS = 10, 10.0


class Pace:
    """Seconds of training steps, by the size of their images.

    Args:
        pixels: height of the images of each epoch.
        steps_per_epoch: steps of each.
        evaluations: one entry an epoch: whether an evaluation follows it.
    """

    def __init__(self, pixels: Sequence[int], steps_per_epoch: int, evaluations: Sequence[bool]) -> None:
        self.pixels = pixels
        self.steps_per_epoch = steps_per_epoch
        self.evaluations = evaluations
        self.recent: dict[int, deque[float]] = {}
        self.evaluation_seconds = 0.0

    def add(self, epoch: int, seconds: float) -> float:
        """Note how long a step of an epoch took; returns the seconds without the time that the process was stopped."""
        recent = self.recent.setdefault(self.pixels[epoch], deque(maxlen=WINDOW))
        if recent and seconds > max(STOPPED_RATIO * median(recent), STOPPED_SECONDS):
            return median(recent)
        recent.append(seconds)
        return seconds

    def add_evaluation(self, seconds: float) -> None:
        """Note how long an evaluation took; the shortest counts, as others may have been interrupted."""
        self.evaluation_seconds = min(seconds, self.evaluation_seconds or seconds)

    def seconds_left(self, step: int) -> float:
        """From the end of step number `step`, counted from 0 over the whole run, to the end of the run.

        Images of a size that no step has had yet take time in proportion to their pixels.
        """
        epoch, done = divmod(step + 1, self.steps_per_epoch)
        steps = [self.steps_per_epoch] * len(self.pixels)
        if epoch < len(steps):
            steps[epoch] -= done
        training = sum(steps[e] * self._seconds(self.pixels[e]) for e in range(epoch, len(steps)))
        return training + self.evaluation_seconds * sum(self.evaluations[epoch:])

    def _seconds(self, pixels: int) -> float:
        nearest = min(self.recent, key=lambda known: abs(known - pixels))
        return fmean(self.recent[nearest]) * (pixels / nearest) ** 2
