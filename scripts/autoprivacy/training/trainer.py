"""Training: one loop for every network; deterministic for a seed, resumable at any step, on a GPU when there is one.

Every random choice of step k of epoch e is drawn from generators keyed by (seed, e, k), so a run that was killed and
goes on from its last saved step ends with the same weights as one that was not. Options beside the plain loop: mixed
images (autoprivacy.training.mixing), distillation from a teacher (autoprivacy.training.losses), Muon
(autoprivacy.training.optimizers), smaller images in the first epochs (Tan and Le, EfficientNetV2, ICML 2021, section
4), bfloat16, and random erasing.
"""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from autoprivacy.data.dataset import Dataset
from autoprivacy.errors import UserError
from autoprivacy.networks import layout
from autoprivacy.training.augmentation import augment, erase, resized
from autoprivacy.training.batches import accuracy, device, normalise
from autoprivacy.training.checkpoints import start_from
from autoprivacy.training.losses import distillation_loss, label_loss
from autoprivacy.training.mixing import Mixed, mix
from autoprivacy.training.optimizers import Optimizers
from autoprivacy.training.pace import Pace
from autoprivacy.training.settings import TrainingSettings
from autoprivacy.workflow.resumption import load_state, save_state


def _generator(seed: int, epoch: int, step: int = -1) -> torch.Generator:
    key = np.random.SeedSequence([seed, epoch, step + 1]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(key[0]) << 31 | int(key[1]) >> 1)


def warmed_up(decay: float, updates: int) -> float:
    """The decay of the moving average at a step: smaller at first, so that the initial weights are soon forgotten.

    As tf.train.ExponentialMovingAverage has it with num_updates.
    """
    return min(decay, (1 + updates) / (10 + updates))


def _average(averages: tuple[Tensor, ...] | list[Tensor], values: tuple[Tensor, ...] | list[Tensor], d: float) -> None:
    """averages <- d * averages + (1 - d) * values, in place; counters are copied."""
    if averages[0].is_floating_point():
        torch._foreach_lerp_(averages, values, 1 - d)
    else:
        torch._foreach_copy_(averages, values)


@dataclass
class Progress:
    """What happened, for the log and the provenance: the last loss of each epoch, and the evaluations."""

    losses: list[float] = field(default_factory=list)
    evaluated_epochs: list[int] = field(default_factory=list)  # counted from 1
    accuracies: list[float] = field(default_factory=list)  # percent, one for each of them
    seconds: float = 0.0


class Trainer:
    """One training run and its state on disk.

    Args:
        model: the network, freshly built; its weights are initialised here, from the seed or from a checkpoint.
        dataset: the prepared data set.
        settings: see TrainingSettings.
        state_file: where the resumable state is kept; a run goes on from it when it exists.
        teacher: the trained network that settings.distillation names; needed with it, not used without.
    """

    def __init__(
        self,
        model: nn.Module,
        dataset: Dataset,
        settings: TrainingSettings,
        state_file: Path,
        teacher: nn.Module | None = None,
    ) -> None:
        if (teacher is None) != (settings.distillation is None):
            raise ValueError("distillation needs both a teacher and its settings")
        self.device = device()
        self.teacher = teacher and teacher.to(self.device, memory_format=layout(teacher)).eval()  # type: ignore[call-overload]
        self.settings = settings
        self.state_file = state_file
        self.dataset = dataset
        model = initialise(model, settings.seed)
        if settings.initial_weights is not None:
            start_from(model, settings.initial_weights)
        self.model = model.to(self.device, memory_format=layout(model))  # type: ignore[call-overload]
        self.average = AveragedModel(
            self.model,
            # the number of updates is the step's; reading torch's own counter would wait for the GPU
            multi_avg_fn=lambda averages, values, _: _average(
                averages, values, warmed_up(settings.ema_decay, self.step)
            ),
            use_buffers=True,
        )
        self.half = settings.precision == "bfloat16" or (
            settings.precision == "automatic" and self.device.type == "cuda"
        )
        _check_resolutions(self.model, dataset, settings)
        self.steps_per_epoch = len(dataset.train.labels) // settings.batch_size
        if self.steps_per_epoch == 0:
            raise UserError(
                f"training on {dataset.name}: batch_size {settings.batch_size} exceeds the "
                f"{len(dataset.train.labels)} training images; choose a smaller one"
            )
        self.optimizers = Optimizers(
            self.model,
            settings.learning_rate,
            settings.momentum,
            settings.weight_decay,
            settings.muon if settings.optimizer == "muon" else None,
            settings.warm_up,
            self.steps_per_epoch * settings.epochs,
        )
        self.pace = Pace(
            [settings.pixels(epoch) or dataset.image_shape[1] for epoch in range(settings.epochs)],
            self.steps_per_epoch,
            [self._evaluates(epoch) for epoch in range(settings.epochs)],
        )
        self.step = 0
        self.saved = time.monotonic()
        self.progress = Progress()
        if (state := load_state(state_file, self.device)) is not None:
            self._resume(state)

    def _resume(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizers.load_state(state["optimizers"])
        self.step = state["step"]
        self.progress = Progress(**state["progress"])
        logging.info("going on at step %d of %d", self.step, self.steps_per_epoch * self.settings.epochs)

    def save(self) -> None:
        """Write the resumable state."""
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": self.optimizers.state(),
            "step": self.step,
            "progress": asdict(self.progress),
        }
        save_state(self.state_file, state)
        self.saved = time.monotonic()

    def _train_step(self, images: Tensor, labels: Tensor, epoch: int, step: int) -> Tensor:
        settings = self.settings
        generator = _generator(settings.seed, epoch, step)
        batch = augment(normalise(images, self.dataset.mean, self.dataset.std), settings, generator)
        if settings.erases(epoch):
            batch = erase(batch, settings.erasing, generator)
        mixed = mix(batch, settings.mixup, settings.cutmix, generator)
        # of dropout, which knows no generator but torch's own
        torch.manual_seed(int(torch.randint(1 << 62, (1,), generator=generator)))
        batch = resized(batch if mixed is None else mixed.images, settings.pixels(epoch))
        loss = self._loss(batch, labels, mixed)
        loss.backward()
        self.optimizers.step()
        self.average.update_parameters(self.model)
        return loss.detach()

    def _loss(self, batch: Tensor, labels: Tensor, mixed: Mixed | None) -> Tensor:
        distillation = self.settings.distillation
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            logits = self.model(batch).float()
            if self.teacher is not None:
                with torch.no_grad():
                    teacher_logits = self.teacher(batch).float()
        loss = label_loss(logits, labels, mixed, self.settings.label_smoothing)
        if distillation is None:
            return loss
        taught = distillation_loss(logits, teacher_logits, distillation.temperature)
        return (1 - distillation.weight) * loss + distillation.weight * taught

    def run(self) -> nn.Module:
        """Train to the end and return the averaged network, in evaluation mode on the processor."""
        images = torch.from_numpy(self.dataset.train.images).to(self.device)
        labels = torch.from_numpy(self.dataset.train.labels).to(self.device)
        self.model.train()
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            while self.step < self.steps_per_epoch * self.settings.epochs:
                self._run_epoch(images, labels)
        self.save()
        return self.average.module.eval().cpu()

    def _run_epoch(self, images: Tensor, labels: Tensor) -> None:
        """The rest of the epoch that the current step belongs to, and its evaluation when it is due."""
        settings = self.settings
        epoch, first = divmod(self.step, self.steps_per_epoch)
        order = torch.randperm(len(labels), generator=_generator(settings.seed, epoch))
        before = time.monotonic()
        for step in range(first, self.steps_per_epoch):
            chosen = order[step * settings.batch_size : (step + 1) * settings.batch_size].to(self.device)
            loss = self._train_step(images[chosen], labels[chosen], epoch, step)
            self.step += 1
            now = time.monotonic()
            self.progress.seconds += self.pace.add(epoch, now - before)
            # the last step of an epoch belongs to the state only together with the epoch's record
            if step + 1 < self.steps_per_epoch and now - self.saved > settings.save_every_seconds:
                self._say(epoch, step, float(loss))
                self.save()
            before = time.monotonic()
        self.progress.losses.append(float(loss))
        if self._evaluates(epoch):
            self._evaluate(epoch)
        if time.monotonic() - self.saved > settings.save_every_seconds:
            self.save()

    def _evaluates(self, epoch: int) -> bool:
        """Whether an evaluation follows an epoch, counted from 0."""
        return (epoch + 1) % self.settings.evaluate_every == 0 or epoch + 1 == self.settings.epochs

    def _evaluate(self, epoch: int) -> None:
        started = time.monotonic()
        self.progress.evaluated_epochs.append(epoch + 1)
        self.progress.accuracies.append(accuracy(self.average.module, self.dataset, self.dataset.test))
        self.pace.add_evaluation(time.monotonic() - started)
        logging.info(
            "epoch %d of %d: test accuracy %.2f%%", epoch + 1, self.settings.epochs, self.progress.accuracies[-1]
        )

    def _say(self, epoch: int, step: int, loss: float) -> None:
        logging.info(
            "epoch %d of %d, step %d of %d, loss %.3f, %.0f minutes left",
            epoch + 1,
            self.settings.epochs,
            step + 1,
            self.steps_per_epoch,
            loss,
            self.pace.seconds_left(self.step - 1) / 60,
        )


def _check_resolutions(model: nn.Module, dataset: Dataset, settings: TrainingSettings) -> None:
    """UserError where the stretches exceed the epochs or the images, or the network does not take their images."""
    channels, height, width = dataset.image_shape
    total = sum(stretch.share for stretch in settings.resolutions)
    if total > 1 + 1e-9:
        raise UserError(f"training.resolutions: the shares add up to {total:g}; expected at most 1")
    for pixels in {stretch.pixels for stretch in settings.resolutions}:
        if pixels > min(height, width):
            raise UserError(
                f"training.resolutions: {pixels} pixels, but the images of {dataset.name} have {height}x{width}; "
                "expected at most as many"
            )
        training = model.training
        try:
            with torch.no_grad():
                model.eval()(torch.zeros(1, channels, pixels, pixels, device=next(model.parameters()).device))
        except RuntimeError as error:
            raise UserError(
                f"training.resolutions: the network does not take {pixels}x{pixels} images "
                f"({' '.join(str(error).split())}); expected one that averages over all pixels before its classifier"
            ) from None
        finally:
            model.train(training)


def initialise(model: nn.Module, seed: int) -> nn.Module:
    """He initialisation of convolutions, torch's own elsewhere, from the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in model.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()  # type: ignore[operator]
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model
