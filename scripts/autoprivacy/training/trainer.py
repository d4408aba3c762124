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
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

from autoprivacy.data.dataset import Dataset, Split
from autoprivacy.errors import UserError
from autoprivacy.storage import write_arrays
from autoprivacy.training.augmentation import erase, resized
from autoprivacy.training.losses import distillation_loss, label_loss
from autoprivacy.training.mixing import Mixed, mix
from autoprivacy.training.optimizers import Muon, Optimizers
from autoprivacy.training.pace import Pace
from autoprivacy.training.weights import check_weights, fitted, read_weights
from autoprivacy.workflow.resumption import load_state, save_state


@dataclass(frozen=True)
class Distillation:
    """How a student learns from its teacher; the defaults are those of the schema in config/schema.yaml."""

    teacher: str  # what the config calls the network
    temperature: float = 4.0  # divides both networks' logits
    weight: float = 0.9  # of the teacher's part of the loss; the labels have the rest


@dataclass(frozen=True)
class Stretch:
    """Consecutive epochs that train on smaller images."""

    share: float  # of the epochs
    pixels: int  # height and width of the images


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of one training run; the defaults are those of the schema in config/schema.yaml."""

    epochs: int  # passes over the training split
    batch_size: int = 256
    learning_rate: float = 0.2  # peak of the one-cycle schedule
    momentum: float = 0.9  # Nesterov; 0.05 less where the learning rate peaks, 0.05 more at both ends
    weight_decay: float = 5e-4  # on weight matrices only, not on biases and batch norm
    label_smoothing: float = 0.1
    warm_up: float = 0.25  # share of the steps in which the learning rate rises
    crop_padding: int = 4  # pixels of zero padding around which crops of the images' size are drawn
    cutout: int = 0  # side of the square that is blanked in every training image; 0: none
    mixup: float = 0.0  # alpha of mixup; 0: none
    cutmix: float = 0.0  # alpha of CutMix; 0: none
    erasing: float = 0.0  # probability that a rectangle of a training image is blanked (random erasing)
    erasing_from: float = 0.0  # share of the epochs before random erasing begins
    resolutions: tuple[Stretch, ...] = ()  # of the first epochs; the rest have the images' own
    optimizer: str = "sgd"  # or "muon": Muon for convolutions, SGD for the rest
    muon: Muon = Muon()
    precision: str = "automatic"  # of the network's activations: PRECISIONS
    distillation: Distillation | None = None
    initial_weights: str | None = None  # checkpoint that training starts from; None starts at random
    ema_decay: float = 0.998  # per step, once warmed up; the averaged weights are the result
    evaluate_every: int = 1  # epochs between evaluations on the test split; the last epoch always has one
    save_every_seconds: float = 60.0  # how much work a kill can cost
    seed: int = 1

    @classmethod
    def from_config(cls, entry: Mapping[str, Any], seed: int) -> TrainingSettings:
        """The settings of a completed `training` section of the configuration."""
        distillation = entry.get("distillation")
        nested = {
            "distillation": distillation and Distillation(**distillation),
            "resolutions": tuple(Stretch(**stretch) for stretch in entry.get("resolutions", ())),
            "muon": Muon(**entry.get("muon", {})),
        }
        return cls(**{**entry, **nested}, seed=seed)

    def pixels(self, epoch: int) -> int | None:
        """Height and width of the images of an epoch, counted from 0; None for their own."""
        end = 0.0
        for stretch in self.resolutions:
            end += stretch.share
            if epoch < round(end * self.epochs):
                return stretch.pixels
        return None

    def erases(self, epoch: int) -> bool:
        """Whether the images of an epoch, counted from 0, are subject to random erasing."""
        return self.erasing > 0 and epoch >= round(self.erasing_from * self.epochs)


@dataclass
class Progress:
    """What happened, for the log and the provenance: the last loss of each epoch, and the evaluations."""

    losses: list[float] = field(default_factory=list)
    evaluated_epochs: list[int] = field(default_factory=list)  # counted from 1
    accuracies: list[float] = field(default_factory=list)  # percent, one for each of them
    seconds: float = 0.0


def device() -> torch.device:
    """The GPU when there is one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """uint8 [N, H, W, C] to normalised float [N, C, H, W] in channels-last memory."""
    scale = images.new_tensor(std, dtype=torch.float32) * 255
    shift = images.new_tensor(mean, dtype=torch.float32) * 255
    return ((images.float() - shift) / scale).permute(0, 3, 1, 2)


def augment(images: Tensor, settings: TrainingSettings, generator: torch.Generator) -> Tensor:
    """Random flip, crop and cutout of normalised images [N, C, H, W]; zero (the mean colour) fills the gaps."""
    count, _, height, width = images.shape
    pad = settings.crop_padding

    def draw(high: int) -> Tensor:
        return torch.randint(high, (count, 1), generator=generator).to(images.device)

    flip, top, left = draw(2), draw(2 * pad + 1), draw(2 * pad + 1)
    rows = torch.arange(height, device=images.device) + top
    columns = torch.arange(width, device=images.device)
    columns = torch.where(flip == 1, width - 1 - columns, columns) + left
    padded = F.pad(images, (pad, pad, pad, pad)).permute(0, 2, 3, 1)
    index = torch.arange(count, device=images.device)[:, None, None]
    cropped = padded[index, rows[:, :, None], columns[:, None, :]]
    if settings.cutout:
        y, x = draw(height), draw(width)
        half = settings.cutout // 2
        inside_rows = (torch.arange(height, device=images.device) - y).abs() <= half
        inside_columns = (torch.arange(width, device=images.device) - x).abs() <= half
        cropped = cropped.masked_fill((inside_rows[:, :, None] & inside_columns[:, None, :])[..., None], 0.0)
    return cropped.permute(0, 3, 1, 2)


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
        self.teacher = teacher and teacher.to(self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.settings = settings
        self.state_file = state_file
        self.dataset = dataset
        model = initialise(model, settings.seed)
        if settings.initial_weights is not None:
            start_from(model, settings.initial_weights)
        self.model = model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
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


def batches(split: Split, size: int = 500) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Consecutive (images, labels) of at most `size`."""
    for start in range(0, len(split.labels), size):
        yield split.images[start : start + size], split.labels[start : start + size]


@torch.no_grad()
def accuracy(model: nn.Module, dataset: Dataset, split: Split) -> float:
    """Top-1 accuracy in percent of the float network on a split of the data set."""
    where = next(model.parameters()).device
    training = model.training
    model.eval()
    right = 0
    for images, labels in batches(split):
        logits = model(normalise(torch.from_numpy(images).to(where), dataset.mean, dataset.std))
        right += int((logits.argmax(1).cpu() == torch.from_numpy(labels)).sum())
    model.train(training)
    return 100.0 * right / len(split.labels)


def round_weights(model: nn.Module) -> nn.Module:
    """Round weights, but not biases and norms, to half precision, as a checkpoint holds them; returns the model."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(parameter.half())
    return model


def save_weights(model: nn.Module, path: str | Path, header: dict[str, Any]) -> None:
    """Write a checkpoint: the state as npz, without pickles, and a JSON header with its provenance.

    Weights take half precision (see `round_weights`), the rest single: 8-bit quantization is 8 times as coarse.
    """
    state = model.state_dict().items()
    arrays = {name: (value.half() if value.ndim > 1 else value).numpy() for name, value in state}
    write_arrays(path, arrays, header=header)


def load_weights(model: nn.Module, path: str | Path) -> dict[str, Any]:
    """Load a checkpoint into `model` and return its header, {} where it has none.

    Args:
        model: the network that the weights belong to.
        path: a file as `training.weights.read_weights` takes it.

    Raises:
        UserError: the file is damaged, holds pickled objects other than tensors, is of another network, or has numbers
            that are not finite.
    """
    weights, header = read_weights(path)
    weights = fitted(weights, model.state_dict())
    check_weights(path, weights, model.state_dict())
    model.load_state_dict(weights)
    return header


def start_from(model: nn.Module, path: str | Path) -> None:
    """Give `model` the weights of a checkpoint wherever name and shape agree; the rest, as a classifier's, stays.

    Args:
        model: the network, initialised.
        path: a checkpoint as `load_weights` takes it, of this network or of one with the same body.

    Raises:
        UserError: the file is damaged, most of the network's weights are not in it, or some are not finite.
    """
    state = model.state_dict()
    weights = fitted(read_weights(path)[0], state)
    fitting = {name: value for name, value in weights.items() if name in state and value.shape == state[name].shape}
    learned = {name for name, value in state.items() if value.is_floating_point()}
    share = sum(state[name].numel() for name in learned & fitting.keys()) / sum(state[name].numel() for name in learned)
    if share < 0.5:
        raise UserError(
            f"training.initial_weights: {path} has {share:.0%} of the network's weights by name and shape; expected at "
            "least half: name a checkpoint of the same network"
        )
    check_weights(path, {**state, **fitting}, state)
    model.load_state_dict({**state, **fitting})
    logging.info("starting from %s, but for %s", path, ", ".join(sorted(state.keys() - fitting.keys())) or "nothing")
