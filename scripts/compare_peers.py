"""Run SPU's Cheetah and our protocol in turn on the same networks, over loopback and a shaped link; a table."""

import logging
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autoprivacy.bench.peers import cheetah_inference, export
from autoprivacy.data.dataset import load
from autoprivacy.he.parameters.policy import Policy
from autoprivacy.he.profiling.profile import OperationProfile
from autoprivacy.link import LOOPBACK, Link
from autoprivacy.networks import build_for
from autoprivacy.protocol.measurement import Contender, MeasureSettings, NetworkSetting, measure
from autoprivacy.quantization.importer import import_module
from autoprivacy.quantization.integer_network import IntegerNetwork
from autoprivacy.report.table_formats import TextTable
from autoprivacy.report.text import megabytes, significant
from autoprivacy.search.differences import nearest
from autoprivacy.selection.by_rule import chosen_by_rule
from autoprivacy.selection.conditions import COEFFICIENT, Selection
from autoprivacy.selection.plaintext_modulus import PlaintextRule
from autoprivacy.storage import read_rows, write_rows, write_text
from autoprivacy.training.batches import normalise
from autoprivacy.training.checkpoints import load_weights
from autoprivacy.workflow.logs import run_script
from autoprivacy.workflow.provenance import cpu_model

TITLE = "SPU's Cheetah beside this project"
CAPTION = (
    "In turn on one machine; set-up is in no number of seconds. SPU 0.9.5, Cheetah over 64-bit rings, one image, "
    "weights and image secret-shared beforehand; its bytes are counted where its connection is shaped. "
    "Ours: parameters and activations chosen for the link, the median of two images, offline and online together. "
    "Errors: of SPU's outputs against floats, of ours against the integer network."
)


def chosen(snakemake: Any, number: int, network: IntegerNetwork, setting: NetworkSetting, folder: Path) -> list[Path]:
    """Files of the policies of every scheme, chosen for the link that they are measured over."""
    params, files, written = snakemake.params, snakemake.input, []
    settings, name = params.selection, params.networks[number]
    selection = Selection.from_config(settings, OperationProfile.load(files.profile), COEFFICIENT)
    rate = setting.bits_per_second
    selection = replace(selection, link=Link(rate, setting.round_trip_seconds) if rate else LOOPBACK)
    rule, rows = PlaintextRule(**settings["plaintext"]), read_rows(files.layers[number])
    for scheme in params.schemes:
        written.append(folder / f"{scheme}.json")
        chosen_by_rule(scheme, network, name, rows, selection, rule).save(written[-1])
    return written


def ours(snakemake: Any, number: int, setting: NetworkSetting, folder: Path) -> list[dict[str, Any]]:
    """Our protocol on one network under every policy."""
    files = snakemake.input
    network_file, dataset_file = Path(files.networks[number]), Path(files.datasets[number])
    network, test = IntegerNetwork.load(network_file), load(dataset_file).test.take(slice(0, 2))
    images = network.architecture.quantize_images(test.images)
    policies = chosen(snakemake, number, network, setting, folder)
    contenders = [Contender(network_file, path, nearest(network, Policy.load(path), images), None) for path in policies]
    records = measure(contenders, dataset_file, test.labels, MeasureSettings(2, 1, 600.0, network=setting))
    return [
        {
            "system": f"this project, {record['scheme']}",
            "seconds": record["summary"]["t_total"]["median"],
            "online_seconds": record["summary"]["t_on"]["median"],
            "bytes": record["summary"]["m_pre"]["median"] + record["summary"]["m_on"]["median"],
            "largest_error": max(image["largest_difference"] for image in record["images"]),
        }
        for record in records
    ]


def theirs(snakemake: Any, number: int, setting: NetworkSetting, folder: Path) -> dict[str, Any]:
    """Cheetah on the float network of the same checkpoint."""
    params, files = snakemake.params, snakemake.input
    dataset = load(files.datasets[number])
    model = build_for(params.models[number], params.classes[number], dataset)
    load_weights(model, files.checkpoints[number])
    image = normalise(torch.from_numpy(dataset.test.images[:1]), dataset.mean, dataset.std)
    export(import_module(model.eval(), dataset.image_shape), image.numpy(), folder / "network")
    run = cheetah_inference(
        Path(params.python),
        Path(files.script),
        folder / "network.npz",
        setting.bits_per_second,
        setting.round_trip_seconds,
    )
    error = float(np.abs(np.subtract(run["outputs"], run["reference"])).max())
    return {
        "system": "SPU's Cheetah",
        "seconds": run["seconds"],
        "online_seconds": "",
        "bytes": "" if run["bytes"] is None else run["bytes"],
        "largest_error": error,
    }


def main(snakemake: Any) -> None:
    params, rows = snakemake.params, []
    for number, name in enumerate(params.networks):
        for label, values in params.settings.items():
            shape = {key: value for key, value in values.items() if key != "source"}
            setting = NetworkSetting(label, **shape)
            with tempfile.TemporaryDirectory() as folder:
                found = [
                    theirs(snakemake, number, setting, Path(folder)),
                    *ours(snakemake, number, setting, Path(folder)),
                ]
            rows += [{"network": name, "network_setting": label, **row} for row in found]
            for row in found:
                logging.info("%s, %s, %s: %.3g s", name, label, row["system"], row["seconds"])
    header = ["network", "setting", "system", "seconds", "of them online", "MB", "largest error of an output"]
    body = [
        [
            *(str(row[key]) for key in ("network", "network_setting", "system")),
            significant(row["seconds"]),
            "" if row["online_seconds"] == "" else significant(row["online_seconds"]),
            "" if row["bytes"] == "" else megabytes(row["bytes"]),
            f"{row['largest_error']:.2g}",
        ]
        for row in rows
    ]
    table = TextTable(TITLE, f"{CAPTION} Machine: {cpu_model()}.", header, body, text_columns=3)
    write_rows(snakemake.output.table, rows)
    write_text(snakemake.output.markdown, table.markdown())
    write_text(snakemake.output.latex, table.latex("tab:peers"))


run_script(main, snakemake)  # type: ignore[name-defined]  # noqa: F821
