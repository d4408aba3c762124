"""Measure private inference of one network under every scheme and compare the outputs with the integer network's."""

from pathlib import Path
from typing import Any

from autoprivacy.data.dataset import load
from autoprivacy.he.parameters.policy import Policy
from autoprivacy.protocol.measurement import Contender, MeasureSettings, NetworkSetting, Throughput, measure
from autoprivacy.quantization.integer_network import IntegerNetwork
from autoprivacy.search.differences import nearest, simulated_rms
from autoprivacy.storage import write_json
from autoprivacy.workflow.logs import run_script
from autoprivacy.workflow.provenance import provenance


def main(snakemake: Any) -> None:
    params, files = snakemake.params, snakemake.input
    setting = {key: value for key, value in params.setting.items() if key != "source"}
    many = params.measure["throughput"]
    settings = MeasureSettings(
        **{**params.measure, "throughput": many and Throughput(**many)},
        network=NetworkSetting(snakemake.wildcards.setting, **setting),
    )
    test = load(files.dataset).test.take(slice(0, settings.images))
    contenders = []
    for policy_file, network_file in zip(files.policies, files.networks, strict=True):
        network = IntegerNetwork.load(network_file)
        images = network.architecture.quantize_images(test.images)
        policy = Policy.load(policy_file)
        simulated = simulated_rms(network, policy, images, params.seed)
        contenders.append(Contender(Path(network_file), Path(policy_file), nearest(network, policy, images), simulated))
    records = measure(contenders, Path(files.dataset), test.labels, settings)
    for path, record in zip(snakemake.output, records, strict=True):
        write_json(path, {**record, "provenance": provenance({**params.measure, "network_setting": params.setting})})


run_script(main, snakemake)  # type: ignore[name-defined]  # noqa: F821
