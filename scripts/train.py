"""Train one network from scratch and write its checkpoint with its provenance."""

from dataclasses import asdict
from typing import Any

from torch import nn

from autoprivacy.data import Dataset, load
from autoprivacy.logs import run_script
from autoprivacy.networks import build
from autoprivacy.provenance import provenance
from autoprivacy.resumption import resumable
from autoprivacy.storage import write_json
from autoprivacy.training import Trainer, TrainingSettings, accuracy, device, save_weights


def main(snakemake: Any) -> None:
    network = snakemake.params.network
    settings = TrainingSettings(**network["training"], seed=snakemake.params.seed)
    dataset = load(snakemake.input.dataset)
    with resumable(snakemake.params.state, snakemake.input, snakemake.params.library) as state:
        trainer = Trainer(build(network["model"], network["classes"]), dataset, settings, state)
        write(trainer.run(), trainer, dataset, settings, snakemake)


def write(model: nn.Module, trainer: Trainer, dataset: Dataset, settings: TrainingSettings, snakemake: Any) -> None:
    """Write the checkpoint and the record of how it came about."""
    network = snakemake.params.network
    record = {
        "model": network["model"],
        "classes": network["classes"],
        "dataset": dataset.name,
        "training_images": len(dataset.train.labels),
        "test_images": len(dataset.test.labels),
        "test_accuracy_percent": round(accuracy(model, dataset, dataset.test), 2),
        "device": device().type,
        "progress": asdict(trainer.progress),
        "provenance": provenance(asdict(settings), settings.seed),
    }
    save_weights(model, snakemake.output.weights, record)
    write_json(snakemake.output.provenance, record)


run_script(main, snakemake)  # type: ignore[name-defined]  # noqa: F821
