"""Images of one's own for a network: files, folders and npz archives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from autoprivacy.data.images import as_array, fitted, open_image, scaled
from autoprivacy.data.sources import files_of
from autoprivacy.errors import UserError
from autoprivacy.storage import read_arrays

ARRAYS = ("images", "test_images")  # names of arrays in an npz, the first that is there


def own_images(paths: list[str], shape: tuple[int, int, int], resize: bool) -> Iterator[tuple[str, np.ndarray]]:
    """The name and the pixels, uint8 [H, W, C], of every image at some paths.

    Args:
        paths: image files, folders of them, or npz archives.
        shape: channels, height, width that the network takes.
        resize: scale images of other sizes.

    Raises:
        UserError: one is missing or damaged, or has another size and `resize` is not set.
    """
    for path in paths:
        for name, pixels in _images(Path(path)):
            channels, height, width = shape
            if pixels.shape[:2] != (height, width) and not resize:
                got = f"{pixels.shape[1]}x{pixels.shape[0]}"
                raise UserError(f"{name}: {got} pixels; the network takes {width}x{height}: give --resize to scale it")
            yield name, fitted(pixels[None], channels, (height, width))[0]


def _images(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    if path.is_dir():
        yield from _folder(path)
    elif path.suffix == ".npz":
        yield from _archive(path)
    else:
        yield str(path), _file(path)


def _file(path: Path) -> np.ndarray:
    pixels = as_array(str(path), open_image(path))
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    return scaled(str(path), (pixels, pixels))[0]


def _folder(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    from PIL import Image

    known = Image.registered_extensions()
    files = [Path(file) for file in files_of(path) if Path(file).suffix.lower() in known]
    if not files:
        raise UserError(f"{path}: no image files in it")
    for file in files:
        yield str(file), _file(file)


def _archive(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    arrays, _ = read_arrays(path)
    name = next((name for name in ARRAYS if name in arrays), next(iter(arrays)) if len(arrays) == 1 else None)
    if name is None:
        raise UserError(f"{path}: arrays {', '.join(arrays) or 'none'}; expected images or test_images")
    images = arrays[name]
    images = images[None] if images.ndim == 3 else images
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise UserError(f"{path}: {name} is {images.dtype} of shape {images.shape}; expected uint8 [N, H, W, 1 or 3]")
    for index, pixels in enumerate(images):
        yield f"{path}[{index}]", pixels
