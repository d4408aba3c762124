"""Bring a prepared data set's images to the channels and the size that a network takes."""

from dataclasses import replace
from typing import Any

from autoprivacy.data.dataset import load, save
from autoprivacy.data.images import fitted
from autoprivacy.data.origins import statistics
from autoprivacy.workflow.logs import run_script


def main(snakemake: Any) -> None:
    dataset, wanted = load(snakemake.input[0]), snakemake.params.wanted
    _, height, width = dataset.image_shape
    size = (wanted["height"] or height, wanted["width"] or width)
    splits = {}
    for name in ("train", "test"):
        split = getattr(dataset, name)
        splits[name] = replace(split, images=fitted(split.images, wanted["channels"], size))
    mean, std = statistics(f"data set {dataset.name}", splits["train"].images)
    save(replace(dataset, **splits, mean=mean, std=std), snakemake.output[0])


run_script(main, snakemake)  # type: ignore[name-defined]  # noqa: F821
