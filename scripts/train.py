"""Train one network from scratch and write its checkpoint with its provenance."""

from dataclasses import asdict

from autoprivacy.data import load
from autoprivacy.logs import run_script
from autoprivacy.networks import build
from autoprivacy.provenance import provenance
from autoprivacy.resumption import resumable
from autoprivacy.storage import write_json
from autoprivacy.training import Trainer, TrainingSettings, accuracy, device, save_weights


def main(snakemake):
    network = snakemake.params.network
    settings = TrainingSettings(**network["training"], seed=snakemake.params.seed)
    dataset = load(snakemake.input.dataset)
    with resumable(snakemake.params.state, snakemake.input) as state:
        trainer = Trainer(build(network["model"], network["classes"]), dataset, settings, state)
        write(trainer.run(), trainer, dataset, settings, snakemake)


def write(model, trainer, dataset, settings, snakemake):
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


run_script(main, snakemake)  # noqa: F821
