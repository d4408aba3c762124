"""Files of users' cases, in tests/workflow/cases, and the small data set that their networks were trained on."""

from pathlib import Path

import numpy as np

from autoprivacy.data.origins import prepare

CASES = Path(__file__).parents[1] / "workflow" / "cases"
CLASSES = 4


def tiny_arrays(size=16, classes=CLASSES, train=200, test=80):
    """Each class has its own fixed pattern, plus noise: what the checkpoints of the cases were trained on."""
    generator = np.random.default_rng(1)
    pattern = generator.integers(40, 216, (classes, size, size, 3))
    arrays = {}
    for split, count in (("train", train), ("test", test)):
        labels = np.arange(count) % classes
        noise = generator.normal(0, 40, (count, size, size, 3))
        arrays[f"{split}_images"] = np.clip(pattern[labels] + noise, 0, 255).astype(np.uint8)
        arrays[f"{split}_labels"] = labels.astype(np.int64)
    return arrays


def prepare_tiny(folder):
    """The data set as the prepare_dataset rule writes it: folder/tiny.npz of folder/arrays.npz."""
    np.savez(folder / "arrays.npz", **tiny_arrays())
    prepare("tiny", folder / "tiny.npz", {"npz": str(folder / "arrays.npz")}, None, folder, folder)
    return folder / "tiny.npz"
