"""CIFAR and prepared files: every form gives the same images, damage is detected and named, the sample is real."""

import hashlib
import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest

from autoprivacy.data import cifar
from autoprivacy.data.cifar import find, pack_sheets, unpack_sheets
from autoprivacy.data.dataset import Split, first_of_each_class, load, load_test, save
from autoprivacy.data.origins import prepare
from autoprivacy.errors import UserError
from autoprivacy.storage import write_arrays

SAMPLE = Path(__file__).parents[2] / "data"


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    output = tmp_path_factory.mktemp("prepared") / "sample.npz"
    prepare("cifar10-sample", output, None, None, SAMPLE, output.parent)
    return load(output)


def test_the_sample_is_real_balanced_and_normalised_as_cifar10(sample):
    assert sample.train.images.shape == (2000, 32, 32, 3) and sample.test.images.shape == (1000, 32, 32, 3)
    assert set(np.bincount(sample.train.labels)) == {200} and set(np.bincount(sample.test.labels)) == {100}
    # a sample of 2,000 images: its channel means are near those of the whole training split
    assert np.allclose(sample.train.images.mean((0, 1, 2)) / 255, sample.mean, atol=0.015)
    assert np.allclose(sample.train.images.std((0, 1, 2)) / 255, sample.std, atol=0.015)
    assert (sample.classes, sample.image_shape) == (10, (3, 32, 32))
    assert len(np.unique(sample.train.images.reshape(2000, -1), axis=0)) == 2000


def test_the_test_split_is_read_alone(sample, tmp_path):
    save(sample, tmp_path / "sample.npz")
    alone, whole = load_test(tmp_path / "sample.npz"), sample.test
    assert np.array_equal(alone.images, whole.images) and np.array_equal(alone.labels, whole.labels)
    write_arrays(tmp_path / "other.npz", {"test_images": whole.images})
    with pytest.raises(UserError, match="no test split"):
        load_test(tmp_path / "other.npz")


def tiny(labels, seed=0):
    images = np.random.default_rng(seed).integers(0, 256, (len(labels), 32, 32, 3), dtype=np.uint8)
    return Split(images, np.asarray(labels, np.int64))


def test_packing_is_lossless(tmp_path):
    split = tiny(np.arange(200) % 10)
    write_arrays(tmp_path / "a.npz", pack_sheets(split))
    back = unpack_sheets(tmp_path / "a.npz")
    assert np.array_equal(back.images, split.images) and np.array_equal(back.labels, split.labels)
    with pytest.raises(ValueError, match="sheets of 100"):
        pack_sheets(split.take(slice(0, 150)))


def test_the_first_of_each_class_in_order():
    split = tiny([1, 0, 1, 0, 1, 0])
    assert first_of_each_class(split, 2).labels.tolist() == [1, 0, 1, 0]
    without = first_of_each_class(split, 2, np.array([0]))
    assert np.array_equal(without.images, split.images[[1, 2, 3, 4]])


def test_of_classes():
    split = tiny([0, 1, 2, 1])
    assert split.of_classes([1]).labels.tolist() == [1, 1]
    with pytest.raises(ValueError, match="no image of the classes"):
        split.of_classes([7])


def official_files(folder, monkeypatch):
    """Small stand-ins for the binary version's files, and their checksums in place of the official ones."""
    splits, sums = {}, {}
    for index, name in enumerate([f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]):
        split = tiny(np.arange(20) % 10, seed=index)
        planes = split.images.transpose(0, 3, 1, 2).reshape(20, 3072)
        content = np.concatenate([split.labels[:, None].astype(np.uint8), planes], 1).tobytes()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        splits[name], sums[name] = split, hashlib.sha1(content).hexdigest()
    monkeypatch.setattr(cifar, "BINARY_SHA1", sums)
    return splits


@pytest.mark.parametrize("form", ["folder", "inner folder", "archive"])
def test_the_binary_version(tmp_path, monkeypatch, form):
    inner = tmp_path / "cifar-10-batches-bin"
    splits = official_files(tmp_path if form == "folder" else inner, monkeypatch)
    if form == "archive":
        with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz") as tar:
            tar.add(inner, "cifar-10-batches-bin")
        for file in inner.iterdir():
            file.unlink()
    train, test, _ = find("cifar10", tmp_path, tmp_path)
    assert len(train.labels) == 100 and np.array_equal(test.images, splits["test_batch.bin"].images)
    assert np.array_equal(train.images[20:40], splits["data_batch_2.bin"].images)


def test_damage_in_the_binary_version_is_named(tmp_path, monkeypatch):
    official_files(tmp_path, monkeypatch)
    path = tmp_path / "data_batch_3.bin"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(UserError, match=r"data_batch_3.bin: damaged: expected SHA-1 \w+, got"):
        find("cifar10", tmp_path, tmp_path)


def test_a_missing_batch_file_is_named(tmp_path, monkeypatch):
    official_files(tmp_path, monkeypatch)
    (tmp_path / "data_batch_3.bin").unlink()
    with pytest.raises(UserError, match="lacks .*data_batch_3.bin"):
        find("cifar10", tmp_path, tmp_path)


def test_a_truncated_archive_is_named(tmp_path):
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(b"\x1f\x8b\x08\0 no archive")
    with pytest.raises(UserError, match="cifar-10-binary.tar.gz: damaged archive"):
        find("cifar10", tmp_path, tmp_path)


def test_packed_archives_are_verified(tmp_path, monkeypatch):
    for split in ("train", "test"):
        write_arrays(tmp_path / f"cifar10-{split}.npz", pack_sheets(tiny(np.arange(100) % 10)))
    with pytest.raises(UserError, match=r"cifar10-train.npz: damaged: expected SHA-256"):
        find("cifar10", tmp_path, tmp_path)
    sums = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in tmp_path.iterdir()}
    monkeypatch.setattr(cifar, "PACKED_SHA256", sums)
    train, _, origin = find("cifar10", tmp_path, tmp_path)
    assert len(train.labels) == 100 and origin == "packed npz archives"
    (tmp_path / "cifar10-test.npz").unlink()
    with pytest.raises(UserError, match="cifar10-test.npz: missing"):
        find("cifar10", tmp_path, tmp_path)


def test_the_python_version_is_verified_by_torchvision(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(pickle.dumps({}))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(folder, "cifar-10-batches-py")
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(buffer.getvalue())
    with pytest.raises(UserError, match="damaged or incomplete"):
        find("cifar10", tmp_path, tmp_path)


def test_an_empty_or_missing_folder_says_what_was_expected(tmp_path):
    with pytest.raises(UserError, match=r"no cifar100 in it; expected cifar100-train.npz .* cifar-100-python.tar.gz"):
        find("cifar100", tmp_path, tmp_path)
    with pytest.raises(UserError, match="no such folder .*AUTOPRIVACY_DATA"):
        find("cifar10", tmp_path / "none", tmp_path)


def test_unbalanced_data_is_refused():
    with pytest.raises(UserError, match="expected 32x32x3 images and 10 equal classes"):
        cifar._sanity("cifar10", tiny([0, 1, 2]), tiny(np.arange(10)))


def test_another_file_is_no_prepared_data_set(tmp_path):
    write_arrays(tmp_path / "a.npz", {"x": np.zeros(1)})
    with pytest.raises(UserError, match="not a prepared data set"):
        load(tmp_path / "a.npz")
