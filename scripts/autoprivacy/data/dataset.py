"""Prepared data sets: images and labels as plain arrays, and the mean and standard deviation that normalise them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from autoprivacy.errors import UserError
from autoprivacy.storage import read_arrays, write_arrays


@dataclass(frozen=True)
class Split:
    """images uint8 [N, H, W, C], labels int64 [N]."""

    images: np.ndarray
    labels: np.ndarray

    def take(self, indices: np.ndarray | slice) -> Split:
        """The images and labels at `indices`, in that order."""
        return Split(self.images[indices], self.labels[indices])

    def of_classes(self, classes: list[int]) -> Split:
        """Only the images of these classes, labels unchanged; ValueError when none is left."""
        keep = np.isin(self.labels, classes)
        if not keep.any():
            raise ValueError(f"no image of the classes {classes} among {len(self.labels)}")
        return self.take(np.flatnonzero(keep))


@dataclass(frozen=True)
class Dataset:
    """A prepared data set and the per-channel mean and standard deviation that normalise it (pixels / 255)."""

    name: str
    train: Split
    test: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]
    origin: str
    class_names: tuple[str, ...] = ()  # of class 0, 1, ...; none where they are not known

    @property
    def classes(self) -> int:
        """Number of classes: one more than the largest training label."""
        return int(self.train.labels.max()) + 1

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width), as a network sees an image."""
        _, height, width, channels = self.train.images.shape
        return channels, height, width


def save(dataset: Dataset, path: str | Path) -> None:
    """Write a prepared data set: uncompressed npz arrays and a header with its name, origin, mean and std."""
    write_arrays(
        path,
        {
            "train_images": dataset.train.images,
            "train_labels": dataset.train.labels,
            "test_images": dataset.test.images,
            "test_labels": dataset.test.labels,
        },
        header={
            "name": dataset.name,
            "origin": dataset.origin,
            "mean": dataset.mean,
            "std": dataset.std,
            "class_names": dataset.class_names,
        },
        compress=False,
    )


def load(path: str | Path, normalisation: Mapping[str, Sequence[float]] | None = None) -> Dataset:
    """Read a prepared data set.

    Args:
        path: of `save`.
        normalisation: mean and std, one number a channel or one for all, that take the place of the data set's own;
            None leaves those.

    Raises:
        UserError: the file is none, or the normalisation has other channels.
    """
    dataset = _read(path)
    if normalisation is None:
        return dataset
    channels = dataset.image_shape[0]
    values = {}
    for key in ("mean", "std"):
        numbers = tuple(map(float, normalisation[key]))
        values[key] = numbers * channels if len(numbers) == 1 else numbers
        if len(values[key]) != channels:
            raise UserError(
                f"normalisation: {key} has {len(numbers)} numbers; the images of {dataset.name} have {channels} "
                f"channel{'s' if channels > 1 else ''}: give one number for each, or one for all"
            )
    return replace(dataset, mean=values["mean"], std=values["std"])


def load_test(path: str | Path) -> Split:
    """The test split alone of what `save` wrote, without the memory that the rest takes; UserError as `load`."""
    arrays, _ = read_arrays(path, "test_")
    if not {"test_images", "test_labels"} <= arrays.keys():
        raise UserError(f"{path}: not a prepared data set (no test split); make it with the prepare_dataset rule")
    return Split(arrays["test_images"], arrays["test_labels"])


def _read(path: str | Path) -> Dataset:
    arrays, header = read_arrays(path)
    try:
        return Dataset(
            header["name"],
            Split(arrays["train_images"], arrays["train_labels"]),
            Split(arrays["test_images"], arrays["test_labels"]),
            tuple(header["mean"]),
            tuple(header["std"]),
            header["origin"],
            tuple(header.get("class_names", ())),
        )
    except (TypeError, KeyError) as error:
        raise UserError(
            f"{path}: not a prepared data set (no {error}); make it with the prepare_dataset rule"
        ) from None


def first_of_each_class(split: Split, per_class: int, without: np.ndarray | None = None) -> Split:
    """The first `per_class` images of each class in the official order, the indices in `without` passed over."""
    usable = np.setdiff1d(np.arange(len(split.labels)), [] if without is None else without)
    firsts = [usable[split.labels[usable] == label][:per_class] for label in np.unique(split.labels)]
    return split.take(np.sort(np.concatenate(firsts)))
