"""Prepare one data set: find, verify, unpack; keep a part of it where the config asks for it."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from autoprivacy.data.dataset import Dataset, Split, load, save
from autoprivacy.data.origins import prepare
from autoprivacy.workflow.logs import run_script


def limited(dataset: Dataset, images: dict[str, int | None]) -> Dataset:
    """So many images of each split, at random with a fixed seed, in their order; all where it has no more or None."""
    train, test = (_limited(getattr(dataset, split), images[split]) for split in ("train", "test"))
    return replace(dataset, train=train, test=test)


def _limited(split: Split, count: int | None) -> Split:
    order = np.random.default_rng(0).permutation(len(split.labels))
    return split.take(np.sort(order[:count]))


def main(snakemake: Any) -> None:
    folder = snakemake.config["data"]["folder"] or os.environ.get("AUTOPRIVACY_DATA")
    prepare(
        snakemake.wildcards.dataset,
        Path(snakemake.output[0]),
        snakemake.params.source,
        Path(folder) if folder else None,
        Path(snakemake.params.sample_folder),
        Path(snakemake.params.download_to),
    )
    images = dict(snakemake.params.images)
    if any(images.values()):
        save(limited(load(snakemake.output[0]), images), snakemake.output[0])


run_script(main, snakemake)  # type: ignore[name-defined]  # noqa: F821
