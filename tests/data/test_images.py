"""Image files of all kinds: 16 bits are scaled, palettes become colours, links are followed, dangling ones named."""

import os

import numpy as np
import pytest
from PIL import Image

from autoprivacy.data.dataset import load
from autoprivacy.data.images import fitted, stack
from autoprivacy.data.origins import prepare
from autoprivacy.data.sources import Counts, counts, folder_listing
from autoprivacy.errors import UserError


def image_folder(place, pixels, count=6):
    """train/ and test/ with the classes a and b, `pixels(label, index)` an array or a PIL image."""
    for split in ("train", "test"):
        for label, name in enumerate("ab"):
            folder = place / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                image = pixels(label, index)
                image = image if isinstance(image, Image.Image) else Image.fromarray(image)
                image.save(folder / f"{index}.png")
    return place


def prepared(tmp_path, folder):
    output = tmp_path / "prepared.npz"
    prepare("mine", output, {"folder": str(folder)}, None, tmp_path, tmp_path)
    return load(output)


def deep(top):
    generator = np.random.default_rng(1)
    return lambda label, index: generator.integers(0, top + 1, (8, 8)).astype(np.uint16)


@pytest.mark.parametrize(("top", "bits"), [(887, 10), (4095, 12), (65535, 16), (255, 8)])
def test_images_of_more_than_8_bits_keep_their_contrast(tmp_path, top, bits):
    folder = image_folder(tmp_path / "deep", deep(top))
    dataset = prepared(tmp_path, folder)
    original = np.asarray(Image.open(folder / "train" / "a" / "0.png")).astype(float)
    assert np.array_equal(dataset.train.images[0, ..., 0], np.rint(original * 255 / (2**bits - 1)))
    assert dataset.train.images.max() > 200 and (dataset.train.images == 255).mean() < 0.02
    assert dataset.class_names == ("a", "b")


def test_palettes_and_mixed_depths(tmp_path):
    colours = np.random.default_rng(2).integers(0, 256, (8, 8, 3), dtype=np.uint8) // 64 * 64
    palette = Image.fromarray(colours).quantize(64)
    folder = image_folder(tmp_path / "palette", lambda label, index: palette)
    assert np.array_equal(prepared(tmp_path, folder).train.images[0], np.asarray(palette.convert("RGB")))
    with pytest.raises(UserError, match="b: 16 bits a channel, but a has 8; save all with 8"):
        stack([("a", Image.fromarray(colours[..., 0])), ("b", Image.fromarray(deep(999)(0, 0)))])
    with pytest.raises(UserError, match="a: floating-point pixels"):
        stack([("a", Image.fromarray(np.zeros((4, 4), np.float32)))])


def grey(label, index):
    return np.random.default_rng([label, index]).integers(0, 256, (8, 8), dtype=np.uint8)


def test_a_change_behind_a_link_is_seen(tmp_path):
    store = image_folder(tmp_path / "store", grey)
    for split in ("train", "test"):
        (tmp_path / "linked" / split).mkdir(parents=True)
        for name in "ab":
            os.symlink(store / split / name, tmp_path / "linked" / split / name)
    linked = tmp_path / "linked"
    os.symlink(linked, linked / "train" / "a" / "loop")  # a folder that holds itself is read once
    before = folder_listing(linked)
    assert prepared(tmp_path, linked).train.images.shape == (12, 8, 8, 1)
    assert counts("mine", {"folder": str(linked)}, tmp_path).test == 12
    (store / "train" / "a" / "0.png").write_bytes((store / "train" / "b" / "1.png").read_bytes() + b" ")
    assert folder_listing(linked) != before


def test_a_link_to_nowhere_is_named(tmp_path):
    folder = image_folder(tmp_path / "images", grey)
    (folder / "train" / "a" / "zzz.png").symlink_to("/nowhere/x.png")
    for read in (folder_listing, lambda place: counts("mine", {"folder": str(place)}, tmp_path)):
        with pytest.raises(UserError, match="zzz.png: a link to /nowhere/x.png, where nothing is; mend or remove it"):
            read(folder)
    with pytest.raises(UserError, match="zzz.png: a link to /nowhere/x.png"):
        prepared(tmp_path, folder)


def test_what_a_data_set_will_hold(tmp_path):
    folder = image_folder(tmp_path / "images", grey, count=3)
    assert counts("mine", {"folder": str(folder)}, tmp_path) == Counts(6, 6, (3, 3))
    np.savez(tmp_path / "a.npz", train_labels=np.array([0, 1, 1]), test_labels=np.array([0]), train_images=np.zeros(3))
    assert counts("mine", {"npz": str(tmp_path / "a.npz")}, tmp_path) == Counts(3, 1, (1, 2))
    assert counts("cifar100", None, tmp_path) == Counts(50000, 10000, (500,) * 100)
    assert counts("mine", {"torchvision": "SVHN"}, tmp_path) is None
    with pytest.raises(UserError, match="none.npz: no such file"):
        counts("mine", {"npz": str(tmp_path / "none.npz")}, tmp_path)
    with pytest.raises(UserError, match="datasets.mine.folder: .*nothing: no such folder"):
        counts("mine", {"folder": str(tmp_path / "nothing")}, tmp_path)


def test_images_are_brought_to_what_a_network_takes():
    images = np.random.default_rng(3).integers(0, 256, (2, 8, 6, 3), dtype=np.uint8)
    small = fitted(images, 1, (4, 3))
    luma = np.asarray(Image.fromarray(images[1]).convert("L").resize((3, 4), Image.Resampling.BILINEAR))
    assert small.shape == (2, 4, 3, 1) and np.array_equal(small[1, ..., 0], luma)
    assert np.array_equal(fitted(small, 3, None), np.repeat(small, 3, 3))
    assert fitted(images, None, None) is images


def test_another_normalisation(tmp_path):
    prepared(tmp_path, image_folder(tmp_path / "images", grey))
    path = tmp_path / "prepared.npz"
    assert load(path, {"mean": [0], "std": [1]}).mean == (0.0,)
    with pytest.raises(UserError, match="normalisation: mean has 3 numbers; the images of mine have 1 channel: give"):
        load(path, {"mean": [0, 0, 0], "std": [1]})
