"""What a data set holds before it is prepared, and the files of an image folder, links followed."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoprivacy.data.cifar import SAMPLE_OF
from autoprivacy.errors import UserError

CIFAR = {"cifar10": (10, 5000), "cifar100": (100, 500)}  # classes, and training images of each
CIFAR_TEST = 10000
TEST_NAMES = ("test", "val", "valid")  # what torchvision and image folders call the split that is tested on


@dataclass(frozen=True)
class Counts:
    """Images of both splits, and of each class of the training split."""

    train: int
    test: int
    per_class: tuple[int, ...]

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.per_class)


def files_of(folder: str | Path) -> Iterator[str]:
    """Every file of a folder and those below it in order, links followed, each folder once however often it is linked.

    Raises UserError for a link that leads nowhere.
    """
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        for name in sorted(files):
            path = os.path.join(place, name)
            if not os.path.exists(path):
                raise UserError(f"{path}: a link to {os.readlink(path)}, where nothing is; mend or remove it")
            yield path


def folder_listing(folder: str | Path | None) -> str:
    """A digest of the names, sizes and times of all files of a folder: one that changes is prepared again."""
    digest = hashlib.sha256()
    for path in files_of(folder) if folder else ():
        status = os.stat(path)
        digest.update(f"{path} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def counts(name: str, source: Mapping[str, str] | None, sample_folder: Path) -> Counts | None:
    """What a data set will hold; None where only preparing it shows.

    Args:
        name: of the data set.
        source: its entry of `datasets`; None for a built-in one.
        sample_folder: of the committed sample.

    Raises:
        UserError: a file or folder that the entry names is missing or damaged, or has a link that leads nowhere.
    """
    if source is None:
        if name not in SAMPLE_OF:
            classes, each = CIFAR[name]
            return Counts(classes * each, CIFAR_TEST, (each,) * classes)
        return _of_labels(*(_labels(sample_folder / f"{name}-{split}.npz", "labels") for split in ("train", "test")))
    ((kind, where),) = source.items()
    if kind == "npz":
        return _of_labels(*(_labels(Path(where), f"{split}_labels") for split in ("train", "test")))
    if kind == "folder":
        return _of_folder(name, Path(where))
    return None


def image_shape(source: Mapping[str, str] | None) -> tuple[int, int, int] | None:
    """Channels, height and width of a data set's images from one of its files; None where only preparing it shows."""
    ((kind, where),) = (source or {"built-in": ""}).items()
    if kind == "built-in":
        return (3, 32, 32)
    try:
        if kind == "npz":
            with zipfile.ZipFile(where) as archive, archive.open("train_images.npy") as stream:
                version = np.lib.format.read_magic(stream)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                height, width, channels = read(stream)[0][1:]
            return channels, height, width
        if kind == "folder":
            from PIL import Image

            known = Image.registered_extensions()
            file = next(file for file in files_of(Path(where) / "train") if Path(file).suffix.lower() in known)
            with Image.open(file) as image:
                return (1 if image.mode in ("1", "L", "I", "I;16") else 3), image.height, image.width
    except (OSError, KeyError, ValueError, StopIteration, zipfile.BadZipFile):
        return None
    return None


def _labels(path: Path, array: str) -> np.ndarray | None:
    """One array of an npz archive, without reading the others; None where it is missing, which preparing reports."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{array}.npy") as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: a folder; expected an npz file, or name it as folder") from None
    except PermissionError:
        raise UserError(f"{path}: cannot be read (permission denied)") from None
    except (KeyError, ValueError, OSError, zipfile.BadZipFile):
        return None


def _of_labels(train: np.ndarray | None, test: np.ndarray | None) -> Counts | None:
    if train is None or test is None or train.dtype.kind not in "iu" or not train.size or train.min() < 0:
        return None
    return Counts(len(train), len(test), tuple(np.bincount(train.reshape(-1)).tolist()))


def _of_folder(name: str, folder: Path) -> Counts:
    from PIL import Image

    if not folder.is_dir():
        raise UserError(f"datasets.{name}.folder: {folder}: no such folder")
    known = Image.registered_extensions()

    def images(place: Path) -> int:
        files = (Path(path) for path in files_of(place))
        return sum(file.suffix.lower() in known and file.name[0] != "." for file in files)

    entries = (folder / "train").iterdir() if (folder / "train").is_dir() else ()
    classes = sorted(entry for entry in entries if entry.is_dir() and entry.name[0] != ".")
    test = next((split for split in TEST_NAMES if (folder / split).is_dir()), TEST_NAMES[0])
    per_class = tuple(images(entry) for entry in classes)
    return Counts(sum(per_class), images(folder / test), per_class)
