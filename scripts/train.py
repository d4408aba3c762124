"""Train one network from scratch and write its checkpoint with its provenance."""

from dataclasses import asdict
from typing import Any

from torch import nn

from autoprivacy.data.dataset import Dataset, load
from autoprivacy.memory import keep_freed_memory
from autoprivacy.networks import build_for
from autoprivacy.selection.network_check import check_network
from autoprivacy.storage import digest, write_json
from autoprivacy.training.batches import accuracy, device
from autoprivacy.training.checkpoints import load_weights, round_weights, save_weights
from autoprivacy.training.settings import TrainingSettings
from autoprivacy.training.trainer import Trainer
from autoprivacy.workflow.logs import run_script
from autoprivacy.workflow.provenance import provenance
from autoprivacy.workflow.resumption import resumable


def main(snakemake: Any) -> None:
    network = snakemake.params.network
    settings = TrainingSettings.from_config(network["training"], snakemake.params.seed)
    keep_freed_memory()  # an activation of one batch is a few MiB: a quarter of a step's time at 16x16 pixels
    dataset = load(snakemake.input.dataset, network["normalisation"])
    check_network(network["model"], network["classes"], dataset, snakemake.params.seed)
    model = build_for(network["model"], network["classes"], dataset)
    with resumable(snakemake) as state:
        trainer = Trainer(model, dataset, settings, state, teacher(snakemake, dataset))
        write(trainer.run(), trainer, dataset, settings, snakemake)


def teacher(snakemake: Any, dataset: Dataset) -> nn.Module | None:
    """The trained network that this one is distilled from, if any."""
    if snakemake.params.teacher_model is None:
        return None
    model = build_for(snakemake.params.teacher_model, snakemake.params.network["classes"], dataset)
    load_weights(model, snakemake.input.teacher)
    return model


def write(model: nn.Module, trainer: Trainer, dataset: Dataset, settings: TrainingSettings, snakemake: Any) -> None:
    """Write the checkpoint and the record of how it came about."""
    network = snakemake.params.network
    round_weights(model)  # the accuracy is that of the checkpoint
    record = {
        "model": network["model"],
        "classes": network["classes"],
        "dataset": dataset.name,
        "training_images": len(dataset.train.labels),
        "test_images": len(dataset.test.labels),
        "test_accuracy_percent": round(accuracy(model, dataset, dataset.test), 2),
        "device": device().type,
        "initial_weights_sha256": digest(settings.initial_weights) if settings.initial_weights else None,
        "progress": asdict(trainer.progress),
        "provenance": provenance(asdict(settings), settings.seed),
    }
    save_weights(model, snakemake.output.weights, record)
    write_json(snakemake.output.provenance, record)


run_script(main, snakemake)  # type: ignore[name-defined]  # noqa: F821
