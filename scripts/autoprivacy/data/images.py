"""Image files and PIL images as arrays: grey, colour, palette and 16-bit ones, brought to sizes and channels."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from autoprivacy.errors import UserError

GREY, DEEP = ("1", "L", "LA"), ("I", "I;16", "I;16B", "I;16L", "I;16N")  # PIL's modes of one channel


def open_image(path: str | Path) -> Any:
    """The PIL image of a file, upright as its camera says.

    Raises:
        UserError: it is missing, a link to nothing, no image, or damaged.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image)
    except FileNotFoundError:
        if os.path.islink(path):
            raise UserError(f"{path}: a link to {os.readlink(path)}, where nothing is; mend or remove it") from None
        raise UserError(f"{path}: no such file") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # PIL's for damaged files
        raise UserError(f"{path}: damaged image or none ({error}); replace or remove it") from None


def as_array(name: str, image: Any) -> np.ndarray:
    """A PIL image as uint8 [H, W] where it is grey, else [H, W, 3]; of more than 8 bits a channel uint16 [H, W].

    Raises UserError, beginning with `name`, for pixels that are no integers of at most 16 bits.
    """
    if image.mode in DEEP:
        pixels = np.asarray(image)
        if pixels.min(initial=0) < 0 or pixels.max(initial=0) > 0xFFFF:
            raise UserError(f"{name}: pixels from {pixels.min()} to {pixels.max()}; expected 0 to 65535 at most")
        return pixels.astype(np.uint16)
    if image.mode == "F":
        raise UserError(f"{name}: floating-point pixels; save it with 8 or 16 bits a channel")
    return np.asarray(image.convert("L" if image.mode in GREY else "RGB"))


def stack(images: Iterable[tuple[str, Any]]) -> np.ndarray:
    """Named PIL images of one size as one array [N, H, W, C]: one channel where all of them are grey, else RGB.

    Returns:
        uint8, or uint16 where the images have more than 8 bits (see `scaled`).

    Raises:
        UserError: they differ in size or depth.
    """
    arrays: list[np.ndarray] = []
    grey, first = True, ""
    for name, image in images:
        arrays.append(as_array(name, image))
        grey = grey and arrays[-1].ndim == 2
        first = first or name
        if arrays[-1].shape[:2] != arrays[0].shape[:2]:
            sizes = [f"{a.shape[1]}x{a.shape[0]}" for a in (arrays[-1], arrays[0])]
            raise UserError(
                f"{name}: {sizes[0]} pixels, but {first} has {sizes[1]}; scale all images to one size first"
            )
        if arrays[-1].dtype != arrays[0].dtype:
            bits = [8 * a.dtype.itemsize for a in (arrays[-1], arrays[0])]
            raise UserError(f"{name}: {bits[0]} bits a channel, but {first} has {bits[1]}; save all with 8")
    three = [a if a.ndim == 3 else np.repeat(a[..., None], 1 if grey else 3, axis=2) for a in arrays]
    return np.stack(three) if three else np.zeros((0, 0, 0, 3), np.uint8)


def scaled(where: str, splits: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Images of more than 8 bits as uint8; others as they are.

    Files of 10 or 12 bits have 16 on disk, so the range that the largest pixel of all images needs is what becomes 0 to
    255.

    Args:
        where: the data set, for messages.
        splits: training and test images.
    """
    deep = [images.dtype == np.uint16 for images in splits]
    if not any(deep):
        return splits
    if not all(deep):
        raise UserError(f"{where}: one split has 8, the other 16 bits a channel; save all images with one depth")
    bits = max(8, *(int(images.max(initial=0)).bit_length() for images in splits))
    logging.info("%s: images of %d bits, of which 0 to %d become 0 to 255", where, bits, (1 << bits) - 1)
    table = np.rint(np.arange(1 << bits) * (255 / ((1 << bits) - 1))).astype(np.uint8)
    return table[splits[0]], table[splits[1]]


def fitted(images: np.ndarray, channels: int | None, size: tuple[int, int] | None) -> np.ndarray:
    """Images of other channels and sizes.

    Args:
        images: uint8 [N, H, W, C], C 1 or 3.
        channels: 1 takes the luma of colours (ITU-R BT.601), 3 repeats grey; None leaves them.
        size: height and width, by bilinear interpolation with the filter that shrinking needs; None leaves it.
    """
    from PIL import Image

    mode = {1: "L", 3: "RGB", None: None}[channels]
    if mode is None and size is None:
        return images
    result = []
    for pixels in images:
        image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        image = image if mode is None else image.convert(mode)
        if size is not None and image.size != size[::-1]:
            image = image.resize(size[::-1], Image.Resampling.BILINEAR)
        result.append(np.asarray(image).reshape(image.height, image.width, -1))
    return np.stack(result)
