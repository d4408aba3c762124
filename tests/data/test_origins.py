"""Data sets of the config's own: folders, npz arrays and torchvision's classes, and what is wrong with the others."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from autoprivacy.data.dataset import load
from autoprivacy.data.origins import prepare, statistics
from autoprivacy.data.torchvision_operators import declare_missing_operators
from autoprivacy.errors import UserError
from autoprivacy.storage import write_arrays

declare_missing_operators()
from torchvision import datasets as torchvision_datasets  # noqa: E402


def arrays(classes=3, train=12, test=6, shape=(8, 10, 3)):
    rng = np.random.default_rng(1)
    result = {}
    for split, count in (("train", train), ("test", test)):
        result[f"{split}_images"] = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
        result[f"{split}_labels"] = (np.arange(count) % classes).astype(np.int32)
    return result


def prepared(tmp_path, source, folder=None):
    output = tmp_path / "prepared.npz"
    prepare("mine", output, source, folder, tmp_path, tmp_path / "downloads")
    return load(output)


def from_npz(tmp_path, **changes):
    write_arrays(tmp_path / "mine.npz", {**arrays(), **changes})
    return prepared(tmp_path, {"npz": str(tmp_path / "mine.npz")})


def test_npz_arrays(tmp_path):
    dataset = from_npz(tmp_path)
    given = arrays()
    assert np.array_equal(dataset.train.images, given["train_images"])
    assert dataset.test.labels.dtype == np.int64 and dataset.test.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert (dataset.name, dataset.classes, dataset.image_shape) == ("mine", 3, (3, 8, 10))
    pixels = given["train_images"].reshape(-1, 3) / 255
    assert np.allclose(dataset.mean, pixels.mean(0)) and np.allclose(dataset.std, pixels.std(0))


def test_statistics_of_more_images_than_are_taken_at_a_time(monkeypatch):
    monkeypatch.setattr("autoprivacy.data.origins.CHUNK", 5)
    images = arrays()["train_images"]
    mean, std = statistics("here", images)
    assert np.allclose(mean, images.mean((0, 1, 2)) / 255) and np.allclose(std, images.std((0, 1, 2)) / 255)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_images": np.zeros((12, 8, 10, 3))}, r"training images are float64 .*expected uint8 \[N, H, W, C\]"),
        ({"test_images": np.zeros((6, 3, 8, 10), np.uint8)}, r"test images are uint8 of shape \(6, 3, 8, 10\)"),
        ({"test_images": np.zeros((6, 8, 12, 3), np.uint8)}, "training images are 8x10x3, test images 8x12x3"),
        ({"train_labels": np.zeros(11, int)}, r"training labels are int64 of shape \(11,\).* 12 images"),
        ({"test_labels": np.zeros(6)}, "test labels are float64"),
        ({"train_labels": np.arange(12) % 3 + 1}, "3 different numbers from 1 to 3; expected 0 to"),
        ({"train_labels": np.arange(12) % 3 * 2}, "3 different numbers from 0 to 4"),
        ({"train_labels": np.zeros(12, int)}, "two classes or more"),
        ({"test_labels": np.array([0, 1, 2, 3, 0, 1])}, "a test label is 3; expected 0 to 2"),
        ({"train_images": np.full((12, 8, 10, 3), 7, np.uint8)}, "the same value in channel 0"),
    ],
)
def test_what_is_wrong_with_arrays_is_told_in_one_line(tmp_path, changes, message):
    with pytest.raises(UserError, match=rf"^data set mine \(npz .*mine.npz\): .*{message}") as error:
        from_npz(tmp_path, **changes)
    assert "\n" not in str(error.value)


def test_a_missing_array_or_file_is_named(tmp_path):
    with pytest.raises(UserError, match="none.npz: no such file"):
        prepared(tmp_path, {"npz": str(tmp_path / "none.npz")})
    write_arrays(tmp_path / "part.npz", {"train_images": np.zeros(1), "labels": np.zeros(1)})
    with pytest.raises(UserError, match="no array train_labels; got train_images, labels; expected train_images, "):
        prepared(tmp_path, {"npz": str(tmp_path / "part.npz")})


def folder_of(tmp_path, mode="RGB", test_name="test"):
    """The arrays above as PNG files, class names in another order than their creation's."""
    given = arrays()
    for split, name in (("train", "train"), ("test", test_name)):
        for index, (image, label) in enumerate(zip(given[f"{split}_images"], given[f"{split}_labels"], strict=True)):
            place = tmp_path / "images" / name / ("apple", "bee", "cat")[label]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).convert(mode).save(place / f"{index:03}.png")
    return tmp_path / "images"


@pytest.mark.parametrize("test_name", ["test", "val"])
def test_an_image_folder(tmp_path, test_name):
    folder = folder_of(tmp_path, test_name=test_name)
    (folder / "train" / "bee" / "notes.txt").write_text("no image")
    dataset, given = prepared(tmp_path, {"folder": str(folder)}), arrays()
    order = np.argsort(given["train_labels"], kind="stable")
    assert np.array_equal(dataset.train.images, given["train_images"][order])
    assert dataset.test.labels.tolist() == [0, 0, 1, 1, 2, 2] and dataset.origin == f"folder {folder}"


def test_grey_images_have_one_channel_and_mixed_ones_three(tmp_path):
    folder = folder_of(tmp_path, "L")
    assert prepared(tmp_path, {"folder": str(folder)}).image_shape == (1, 8, 10)
    for file in (folder / "train" / "cat").iterdir():
        with Image.open(file) as image:
            image.convert("P").save(file)
    for part in ("train", "test"):
        Image.new("RGB", (10, 8), (250, 20, 30)).save(folder / part / "apple" / "000.png")
    dataset = prepared(tmp_path, {"folder": str(folder)})
    assert dataset.image_shape == (3, 8, 10) and dataset.train.images[0, 0, 0].tolist() == [250, 20, 30]
    assert np.array_equal(dataset.train.images[-1, :, :, 0], dataset.train.images[-1, :, :, 2])


def test_what_is_wrong_with_a_folder_is_named(tmp_path):
    with pytest.raises(UserError, match="images/train: no such folder; expected train/ and test/"):
        prepared(tmp_path, {"folder": str(tmp_path / "images")})
    folder = folder_of(tmp_path)
    Image.new("RGB", (9, 8)).save(folder / "train" / "bee" / "odd.png")
    with pytest.raises(UserError, match=r"odd.png: 9x8 pixels, but .*000.png has 10x8; scale all images"):
        prepared(tmp_path, {"folder": str(folder)})
    (folder / "train" / "bee" / "odd.png").write_bytes(b"\x89PNG no image")
    with pytest.raises(UserError, match="odd.png: damaged image"):
        prepared(tmp_path, {"folder": str(folder)})
    (folder / "train" / "bee" / "odd.png").unlink()
    (folder / "test" / "dog").mkdir()
    with pytest.raises(UserError, match="class folders are .*'dog'.* in test/ and .*expected the same"):
        prepared(tmp_path, {"folder": str(folder)})


class Fake(torchvision_datasets.VisionDataset):
    """What torchvision's classes have in common: samples of PIL images and labels, found in `root` or downloaded."""

    def _fill(self, root, split, download):
        super().__init__(root)
        place = datasets_place(root)
        if download:
            place.mkdir(parents=True, exist_ok=True)
        if not place.is_dir():
            raise RuntimeError("Dataset not found.\nYou can use download=True to download it")
        given = arrays()
        self.images, self.labels = given[f"{split}_images"], given[f"{split}_labels"].tolist()

    def __getitem__(self, index):
        return Image.fromarray(self.images[index]), self.labels[index]

    def __len__(self):
        return len(self.images)


def datasets_place(root):
    return Path(root) / "fake"


class FakeTrain(Fake):
    def __init__(self, root, train=True, transform=None, download=False):
        self._fill(root, "train" if train else "test", download)


class FakeSplit(Fake):
    def __init__(self, root, split="train", download=False):
        if split not in ("train", "val"):
            raise ValueError(f"Unknown value '{split}' for argument split")
        self._fill(root, "train" if split == "train" else "test", download)


class FakeFeatures(FakeTrain):
    def __getitem__(self, index):
        return super().__getitem__(index)[0], (1, 2)


class FakeWhole(Fake):
    def __init__(self, root, download=False):
        self._fill(root, "train", download)


@pytest.fixture
def fakes(monkeypatch):
    for kind in (FakeTrain, FakeSplit, FakeFeatures, FakeWhole):
        monkeypatch.setattr(torchvision_datasets, kind.__name__, kind, raising=False)


@pytest.mark.parametrize("name", ["FakeTrain", "FakeSplit"])
def test_a_torchvision_class_is_downloaded(tmp_path, fakes, name):
    dataset, given = prepared(tmp_path, {"torchvision": name}), arrays()
    assert np.array_equal(dataset.train.images, given["train_images"]) and dataset.origin == f"torchvision {name}"
    assert np.array_equal(dataset.test.images, given["test_images"])
    assert dataset.test.labels.tolist() == given["test_labels"].tolist()
    assert datasets_place(tmp_path / "downloads").is_dir()


def test_a_torchvision_class_is_taken_from_the_data_folder_first(tmp_path, fakes):
    folder = tmp_path / "data"
    datasets_place(folder).mkdir(parents=True)
    prepared(tmp_path, {"torchvision": "FakeTrain"}, folder)
    assert not datasets_place(tmp_path / "downloads").exists()
    prepared(tmp_path, {"torchvision": "FakeTrain"}, tmp_path / "empty")
    assert datasets_place(tmp_path / "downloads").exists()


def test_what_is_wrong_with_a_torchvision_class_is_named(tmp_path, fakes, monkeypatch):
    for name in ("Nothing", "folder", "MNIST.x"):
        with pytest.raises(UserError, match="torchvision.datasets has no such class"):
            prepared(tmp_path, {"torchvision": name})
    with pytest.raises(UserError, match="sample 0 is Image with a label of type tuple; expected a classification"):
        prepared(tmp_path, {"torchvision": "FakeFeatures"})
    with pytest.raises(UserError, match='splits are not chosen by train=True/False or split="train"/"test"'):
        prepared(tmp_path, {"torchvision": "FakeWhole"})

    def offline(self, root, split, download):
        raise OSError("no network\nat all")

    monkeypatch.setattr(Fake, "_fill", offline)
    with pytest.raises(UserError, match=r"FakeTrain.: not in a data folder, no download \(no network at all\)"):
        prepared(tmp_path, {"torchvision": "FakeTrain"})
