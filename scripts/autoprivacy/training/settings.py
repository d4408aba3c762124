"""Settings of a training run, as the `training` section of a network's entry in the config gives them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autoprivacy.training.optimizers import Muon


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
