"""CIFAR-10 and CIFAR-100: found in a folder or downloaded, and verified; and the committed sample.

They are taken from, in this order: a folder (the packed npz archives, the official archives or the official batch
files, binary or Python version), torchvision's download.
Krizhevsky, Learning Multiple Layers of Features from Tiny Images, technical report, 2009.
"""

from __future__ import annotations

import hashlib
import io
import logging
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from autoprivacy.data.dataset import Split
from autoprivacy.errors import UserError
from autoprivacy.storage import read_arrays

# Per channel over the training split, pixels / 255 (checked by tests/test_data.py on the committed sample's origin).
NORMALIZATION = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}
SAMPLE_OF = {"cifar10-sample": "cifar10"}
NAMES = (*NORMALIZATION, *SAMPLE_OF)

# SHA-256 of the packed archives (lossless WebP sheets of 100 images).
PACKED_SHA256 = {
    "cifar10-train.npz": "9391c5d05aa6f525587b790b96ce22e65ff483cf78557482ce3e46b7bf38a4f0",
    "cifar10-test.npz": "fbc8e9954ae99f2a4d8eb33e5310b75a16f9af95df9450cc51c28b755f76825b",
    "cifar100-train.npz": "d89c573aaa27482efaaddad455e6dcd0fec7d76f58bf7b0f443147e825798855",
    "cifar100-test.npz": "bcbb6f5218829256787875f5895f24fc06e1045b0335f40065534e9272c148ae",
}
# SHA-1 of the binary version's files, as the CIFAR loaders of Apache MXNet list them.
BINARY_SHA1 = {
    "data_batch_1.bin": "aadd24acce27caa71bf4b10992e9e7b2d74c2540",
    "data_batch_2.bin": "c0ba65cce70568cd57b4e03e9ac8d2a5367c1795",
    "data_batch_3.bin": "1dd00a74ab1d17a6e7d73e185b69dbf31242f295",
    "data_batch_4.bin": "aab85764eb3584312d3c7f65fd2fd016e36a258e",
    "data_batch_5.bin": "26e2849e66a845b7f1e4614ae70f4889ae604628",
    "test_batch.bin": "67eb016db431130d61cd03c7ad570b013799c88c",
    "train.bin": "e207cd2e05b73b1393c74c7f5e7bea451d63e08e",
    "test.bin": "8fb6623e830365ff53cf14adec797474f5478006",
}
BINARY_FILES = {
    "cifar10": ([f"data_batch_{i}.bin" for i in range(1, 6)], ["test_batch.bin"], 1),
    "cifar100": (["train.bin"], ["test.bin"], 2),  # a coarse label byte stands before the fine one
}
BINARY_PLACES = {
    "cifar10": ("cifar-10-batches-bin", "cifar-10-binary.tar.gz"),
    "cifar100": ("cifar-100-binary", "cifar-100-binary.tar.gz"),
}
PYTHON_PLACES = {
    "cifar10": ("cifar-10-batches-py", "cifar-10-python.tar.gz"),
    "cifar100": ("cifar-100-python", "cifar-100-python.tar.gz"),
}
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CIFAR100 = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly "
    "camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup "
    "dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower "
    "leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid "
    "otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray "
    "road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar "
    "sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle "
    "wardrobe whale willow_tree wolf woman worm "
)
CLASS_NAMES = {"cifar10": CIFAR10_CLASSES, "cifar100": tuple(_CIFAR100.split())}


def _digest(path: Path, kind: str) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, kind).hexdigest()


def _check(path: Path, got: str, expected: str, kind: str) -> None:
    if got != expected:
        raise UserError(f"{path}: damaged: expected {kind} {expected}, got {got}; fetch the file again")


def unpack_sheets(path: Path) -> Split:
    """Decode a packed npz: lossless WebP sheets 32 wide and 3200 tall, 100 images each."""
    from PIL import Image

    arrays, _ = read_arrays(path)
    blob, offsets = arrays["webp"].tobytes(), arrays["offsets"]
    sheets = [
        np.asarray(Image.open(io.BytesIO(blob[a:b])).convert("RGB"))
        for a, b in zip(offsets[:-1], offsets[1:], strict=True)
    ]
    return Split(np.concatenate(sheets).reshape(-1, 32, 32, 3), arrays["labels"].astype(np.int64))


def _from_packed(name: str, folder: Path) -> tuple[Split, Split] | None:
    paths = [folder / f"{name}-{split}.npz" for split in ("train", "test")]
    if not any(path.exists() for path in paths):
        return None
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: missing, though the other split of {name} is there; put both in {folder}")
        _check(path, _digest(path, "sha256"), PACKED_SHA256[path.name], "SHA-256")
    return unpack_sheets(paths[0]), unpack_sheets(paths[1])


def _parse_binary(content: bytes, label_bytes: int) -> Split:
    records = np.frombuffer(content, np.uint8).reshape(-1, label_bytes + 3072)
    images = records[:, label_bytes:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return Split(np.ascontiguousarray(images), records[:, label_bytes - 1].astype(np.int64))


def _from_binary(name: str, folder: Path) -> tuple[Split, Split] | None:
    inner, archive = BINARY_PLACES[name]
    train, test, label_bytes = BINARY_FILES[name]
    for place in (folder / inner, folder):
        if (place / train[0]).exists() and (place / test[0]).exists():
            files = {file: place / file for file in (*train, *test)}
            missing = [str(path) for path in files.values() if not path.exists()]
            if missing:
                raise UserError(f"{place}: the binary version of {name} lacks {', '.join(missing)}")
            contents = {file: path.read_bytes() for file, path in files.items()}
            break
    else:
        path = folder / archive
        if not path.exists():
            return None
        place = path
        try:
            with tarfile.open(path) as tar:
                contents = {Path(m.name).name: tar.extractfile(m).read() for m in tar if m.name.endswith(".bin")}  # type: ignore[union-attr]
        except (tarfile.TarError, EOFError, OSError) as error:
            raise UserError(f"{path}: damaged archive ({error}); fetch it again") from None
    parts = {}
    for file in (*train, *test):
        if file not in contents:
            raise UserError(f"{place}: the binary version of {name} lacks {file}")
        _check(place / file, hashlib.sha1(contents[file]).hexdigest(), BINARY_SHA1[file], "SHA-1")
        parts[file] = _parse_binary(contents[file], label_bytes)
    return _joined([parts[file] for file in train]), parts[test[0]]


def _joined(splits: list[Split]) -> Split:
    return Split(np.concatenate([s.images for s in splits]), np.concatenate([s.labels for s in splits]))


def _from_torchvision(name: str, folder: Path, download: bool) -> tuple[Split, Split] | None:
    """torchvision reads (and verifies by MD5) the Python version, extracted or as an archive, or downloads it."""
    inner, archive = PYTHON_PLACES[name]
    if not download and not (folder / inner).exists() and not (folder / archive).exists():
        return None
    from autoprivacy.data.torchvision_operators import declare_missing_operators

    declare_missing_operators()
    from torchvision import datasets

    kind = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    try:
        # with download=True torchvision also extracts and verifies an archive that is already there
        parts = [kind(str(folder), train=train, download=True) for train in (True, False)]
    except Exception as error:  # urllib, tarfile and torchvision each raise their own kinds
        if download:
            raise UserError(
                f"{name}: no data folder has it and the download failed ({error}); put {name}-train.npz and "
                f"{name}-test.npz, {archive} or {BINARY_PLACES[name][1]} in a folder and name it in the config "
                f"(data: folder) or in AUTOPRIVACY_DATA"
            ) from None
        raise UserError(f"{folder / archive}: damaged or incomplete ({error}); fetch it again") from None
    train, test = (Split(np.asarray(p.data, np.uint8), np.asarray(p.targets, np.int64)) for p in parts)
    return train, test


def find(name: str, folder: Path | None, download_to: Path) -> tuple[Split, Split, str]:
    """The two splits of `cifar10` or `cifar100` and where they came from.

    Raises UserError naming what was expected where, when a named folder has none of the known forms.
    """
    if folder is not None:
        if not folder.is_dir():
            raise UserError(f"data folder {folder}: no such folder (config data: folder, or AUTOPRIVACY_DATA)")
        readers: list[tuple[str, Callable[[], tuple[Split, Split] | None]]] = [
            ("packed npz archives", lambda: _from_packed(name, folder)),
            ("official binary version", lambda: _from_binary(name, folder)),
            ("official Python version", lambda: _from_torchvision(name, folder, download=False)),
        ]
        for form, read in readers:
            found = read()
            if found is not None:
                return *found, form
        raise UserError(
            f"data folder {folder}: no {name} in it; expected {name}-train.npz and {name}-test.npz, "
            f"{' or '.join(BINARY_PLACES[name])}, or {' or '.join(PYTHON_PLACES[name])}"
        )
    logging.info("%s: no data folder is named; downloading the official archive", name)
    download_to.mkdir(parents=True, exist_ok=True)
    downloaded = _from_torchvision(name, download_to, download=True)
    assert downloaded is not None
    return *downloaded, "torchvision download"


def read(name: str, folder: Path | None, sample_folder: Path, download_to: Path) -> tuple[Split, Split, str]:
    """The two verified splits of one of NAMES, and where they came from.

    Args:
        name: of the data set.
        folder: where the user keeps data sets, if anywhere.
        sample_folder: of the sample committed in the repository.
        download_to: where torchvision's download goes when there is no `folder`.
    """
    if name in SAMPLE_OF:
        train, test = (unpack_sheets(sample_folder / f"{name}-{split}.npz") for split in ("train", "test"))
        origin = "the sample committed in the repository"
    else:
        train, test, origin = find(name, folder, download_to)
    _sanity(name, train, test)
    return train, test, origin


def _sanity(name: str, train: Split, test: Split) -> None:
    classes = 100 if SAMPLE_OF.get(name, name) == "cifar100" else 10
    for kind, split in (("training", train), ("test", test)):
        counts = np.bincount(split.labels, minlength=classes)
        if split.images.shape != (len(split.labels), 32, 32, 3) or len(set(counts)) != 1 or len(counts) != classes:
            raise UserError(
                f"{name}: the {kind} split has shape {split.images.shape} and per-class counts "
                f"{sorted(set(counts.tolist()))}; expected 32x32x3 images and {classes} equal classes"
            )


def pack_sheets(split: Split) -> dict[str, np.ndarray]:
    """The inverse of `unpack_sheets`; the number of images must be a multiple of 100 (ValueError)."""
    from PIL import Image

    if len(split.labels) % 100:
        raise ValueError(f"{len(split.labels)} images do not fill sheets of 100")
    blobs = []
    for sheet in split.images.reshape(-1, 3200, 32, 3):
        buffer = io.BytesIO()
        Image.fromarray(sheet).save(buffer, "WEBP", lossless=True, quality=100, method=4)
        blobs.append(buffer.getvalue())
    return {
        "webp": np.frombuffer(b"".join(blobs), np.uint8),
        "offsets": np.cumsum([0, *map(len, blobs)]),
        "labels": split.labels.astype(np.uint8),
    }
