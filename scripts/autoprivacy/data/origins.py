"""Where data sets come from: CIFAR by name, or the config's own: torchvision's classes, image folders, npz arrays."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from autoprivacy.data import cifar
from autoprivacy.data.dataset import Dataset, Split, save
from autoprivacy.data.images import open_image, scaled, stack
from autoprivacy.errors import UserError
from autoprivacy.storage import read_arrays

TEST_NAMES = ("test", "val", "valid")  # what torchvision and image folders call the split that is tested on
SPLIT_FORMS = 'train=True/False or split="train"/"test"'
CLASS_NAMES = "class_names"  # an npz data set may have this array of text
CHUNK = 1000  # images whose statistics are taken at a time


def prepare(
    name: str,
    output: Path,
    source: Mapping[str, str] | None,
    folder: Path | None,
    sample_folder: Path,
    download_to: Path,
) -> None:
    """Find, check and write the data set `name` at `output`.

    Args:
        name: one of cifar.NAMES, or a key of the config's datasets section.
        output: of data.save.
        source: the entry of the datasets section, {"torchvision" | "folder" | "npz": where}; None for cifar.NAMES.
        folder: where the user keeps data sets, if anywhere.
        sample_folder: of the sample committed in the repository.
        download_to: where downloads go.

    Raises:
        UserError: it is missing, damaged, or no classification data set with images of one size.
    """
    if source is None:
        train, test, origin = cifar.read(name, folder, sample_folder, download_to)
        names = cifar.CLASS_NAMES[cifar.SAMPLE_OF.get(name, name)]
        measured: tuple[tuple[float, ...], tuple[float, ...]] = cifar.NORMALIZATION[cifar.SAMPLE_OF.get(name, name)]
    else:
        ((kind, where),) = source.items()
        if kind == "torchvision":
            train, test, names = _from_torchvision(where, folder, download_to)
        else:
            train, test, names = {"folder": _from_folder, "npz": _from_npz}[kind](Path(where))
        origin = f"{kind} {where}"
        images = scaled(f"data set {name} ({origin})", (train.images, test.images))
        train, test = (replace(split, images=part) for split, part in zip((train, test), images, strict=True))
        check(f"data set {name} ({origin})", train, test)
        train, test = (Split(split.images, split.labels.astype(np.int64)) for split in (train, test))
        measured = statistics(f"data set {name} ({origin})", train.images)
    save(Dataset(name, train, test, *measured, origin, checked_names(name, names, train)), output)
    logging.info("%s: %d training and %d test images (%s)", name, len(train.labels), len(test.labels), origin)


def check(where: str, train: Split, test: Split) -> None:
    """UserError unless both splits are labelled uint8 images of one size, and the classes are 0, 1, 2, ..."""
    for kind, split in (("training", train), ("test", test)):
        images, labels = split.images, split.labels
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3) or not len(images):
            raise UserError(
                f"{where}: the {kind} images are {images.dtype} of shape {images.shape}; expected uint8 [N, H, W, C] "
                f"with N at least 1 and C 1 or 3"
            )
        if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
            raise UserError(
                f"{where}: the {kind} labels are {labels.dtype} of shape {labels.shape}; expected integers, one for "
                f"each of the {len(images)} images"
            )
    if train.images.shape[1:] != test.images.shape[1:]:
        raise UserError(
            f"{where}: training images are {_size(train.images)}, test images {_size(test.images)}; expected one size"
        )
    classes = np.unique(train.labels)
    if not np.array_equal(classes, np.arange(len(classes))) or len(classes) < 2:
        raise UserError(
            f"{where}: the training labels are {len(classes)} different numbers from {classes[0]} to {classes[-1]}; "
            f"expected 0 to the number of classes less 1, each at least once, and two classes or more"
        )
    if not np.isin(test.labels, classes).all():
        stray = test.labels[~np.isin(test.labels, classes)][0]
        raise UserError(f"{where}: a test label is {stray}; expected 0 to {classes[-1]}, as in the training split")


def checked_names(name: str, names: Iterable[str], train: Split) -> tuple[str, ...]:
    """Class names, or none where there are not as many as classes."""
    names, classes = tuple(names), int(train.labels.max()) + 1
    if names and len(names) != classes:
        logging.info("%s: %d class names for %d classes are left out", name, len(names), classes)
        return ()
    return names


def _size(images: np.ndarray) -> str:
    return "x".join(map(str, images.shape[1:]))


def statistics(where: str, images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of uint8 images [N, H, W, C], in pixels / 255.

    Raises UserError, beginning with `where`, when a channel is constant: nothing can be normalised by it.
    """
    counts = np.zeros((images.shape[3], 256))
    for start in range(0, len(images), CHUNK):
        for channel, histogram in enumerate(counts):
            histogram += np.bincount(images[start : start + CHUNK, ..., channel].ravel(), minlength=256)
    values, total = np.arange(256) / 255, counts.sum(1)
    mean = counts @ values / total
    std = np.sqrt((counts * (values - mean[:, None]) ** 2).sum(1) / total)
    if not std.all():
        raise UserError(
            f"{where}: every training pixel has the same value in channel {int(np.argmin(std))}; leave it out"
        )
    return tuple(map(float, mean)), tuple(map(float, std))


def _from_npz(path: Path) -> tuple[Split, Split, tuple[str, ...]]:
    arrays, _ = read_arrays(path)
    names = [f"{split}_{kind}" for split in ("train", "test") for kind in ("images", "labels")]
    missing = [name for name in names if name not in arrays]
    if missing:
        got = ", ".join(arrays) or "none"
        raise UserError(f"{path}: no array {missing[0]}; got {got}; expected {', '.join(names)}")
    train, test = (Split(arrays[f"{split}_images"], arrays[f"{split}_labels"]) for split in ("train", "test"))
    return train, test, tuple(map(str, arrays.get(CLASS_NAMES, ())))


def _from_folder(path: Path) -> tuple[Split, Split, tuple[str, ...]]:
    """train/<class>/<image> and test/<class>/<image> (or val, valid); classes are numbered in alphabetical order."""
    train = path / "train"
    test = next((path / name for name in TEST_NAMES if (path / name).is_dir()), path / TEST_NAMES[0])
    for part in (train, test):
        if not part.is_dir():
            raise UserError(f"{part}: no such folder; expected train/ and test/ (or val/) with one folder per class")
    classes = _folders(train)
    if not classes or not set(_folders(test)) <= set(classes):
        raise UserError(
            f"{path}: class folders are {_folders(test)[:5]} in {test.name}/ and {classes[:5]} in train/ (the first "
            f"five); expected the same"
        )
    return _folder_split(train, classes), _folder_split(test, classes), tuple(classes)


def _folders(path: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(path) if entry.is_dir() and not entry.name.startswith("."))


def _folder_split(path: Path, classes: list[str]) -> Split:
    from PIL import Image

    known = Image.registered_extensions()  # by which other files, as lists and notes, are left out
    files = [
        (file, label)
        for label, name in enumerate(classes)
        if (path / name).is_dir()
        for file in sorted((path / name).iterdir())
        if file.suffix.lower() in known and not file.name.startswith(".")
    ]

    images = ((str(file), open_image(file)) for file, _ in files)
    return Split(stack(images), np.array([label for _, label in files], np.int64))


def _from_torchvision(name: str, folder: Path | None, download_to: Path) -> tuple[Split, Split, tuple[str, ...]]:
    """Splits and class names of a class of torchvision.datasets, from `folder` when it is there, else downloaded."""
    from autoprivacy.data.torchvision_operators import declare_missing_operators

    declare_missing_operators()
    from torchvision import datasets

    kind = getattr(datasets, name, None)
    if not inspect.isclass(kind) or not issubclass(kind, datasets.VisionDataset):
        raise UserError(f'data set torchvision "{name}": torchvision.datasets has no such class; spelt as in CIFAR10')
    download_to.mkdir(parents=True, exist_ok=True)
    for root, download in ([(folder, False)] if folder else []) + [(download_to, True)]:
        try:
            train, test = _torchvision_splits(kind, root, download)
        except UserError:
            raise
        except Exception as error:  # urllib, tarfile and every data set's class raise their own kinds
            failure = " ".join(str(error).split())
            logging.info("torchvision %s is not in %s (%s)", name, root, failure)
            continue
        names = getattr(train, "classes", None) or ()
        return _torchvision_split(name, train), _torchvision_split(name, test), tuple(map(str, names))
    raise UserError(f'data set torchvision "{name}": not in {folder or "a data folder"}, no download ({failure})')


def _torchvision_splits(kind: Any, root: Path, download: bool) -> tuple[Any, Any]:
    allowed = inspect.signature(kind.__init__).parameters
    options = {"download": download} if "download" in allowed else {}
    if "train" in allowed and "split" not in allowed:
        return kind(str(root), train=True, **options), kind(str(root), train=False, **options)
    if "split" not in allowed or "train" in allowed:
        raise UserError(f'data set torchvision "{kind.__name__}": its splits are not chosen by {SPLIT_FORMS}')
    train = kind(str(root), split="train", **options)
    for name in TEST_NAMES:
        try:
            return train, kind(str(root), split=name, **options)
        except ValueError:  # torchvision's for a name that is not one of the class's splits
            continue
    raise UserError(f'data set torchvision "{kind.__name__}": no split {", ".join(TEST_NAMES)}; use a folder or npz')


def _torchvision_split(name: str, dataset: Any) -> Split:
    labels: list[int] = []

    def images() -> Iterator[tuple[str, Any]]:
        for index in range(len(dataset)):
            image, label = dataset[index]
            if not isinstance(label, int | np.integer) or not hasattr(image, "convert"):
                raise UserError(
                    f'data set torchvision "{name}": sample {index} is {type(image).__name__} with a label of type '
                    f"{type(label).__name__}; expected a classification data set: an image and an integer"
                )
            labels.append(int(label))
            yield f"torchvision {name}, image {index}", image

    stacked = stack(images())  # which also fills labels
    return Split(stacked, np.array(labels, np.int64))
