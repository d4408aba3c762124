"""Measure private inference under one policy over a shaped link: bytes, seconds, memory, beside what was predicted."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from autoprivacy.cli.tables import table
from autoprivacy.data.dataset import load
from autoprivacy.errors import UserError
from autoprivacy.he.parameters.policy import Policy
from autoprivacy.protocol.measurement import Contender, MeasureSettings, NetworkSetting, measure
from autoprivacy.quantization.integer_network import IntegerNetwork
from autoprivacy.search.differences import nearest
from autoprivacy.workflow.config import load_schema

PHASES = {"set-up": "setup", "offline": "pre", "online": "on"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of the command."""
    parser.add_argument("--network", required=True, help="the integer network, results/<study>/networks/<network>.npz")
    parser.add_argument("--policy", required=True, help="of the network")
    parser.add_argument("--dataset", required=True, help="prepared, results/<study>/datasets/<dataset>.npz")
    parser.add_argument("--link", default="loopback", help="of network_settings in the config (%(default)s)")
    parser.add_argument("--bits-per-second", type=float, help="in place of --link")
    parser.add_argument("--round-trip-seconds", type=float, default=0.0, help="with --bits-per-second")
    parser.add_argument("--images", type=int, default=3, help="after one that warms up (%(default)s)")
    parser.add_argument("--json", action="store_true", help="the whole record as JSON")


def run(options: argparse.Namespace) -> int:
    """Print the measurement; 0 when all outputs were those of the integer network, or the policy is approximate."""
    if options.images < 1:
        raise UserError(f"--images {options.images}; expected 1 or more")
    network, policy = IntegerNetwork.load(options.network), Policy.load(options.policy)
    test = load(options.dataset).test.take(slice(0, options.images))
    expected = nearest(network, policy, network.architecture.quantize_images(test.images))
    contender = Contender(Path(options.network), Path(options.policy), expected)
    settings = MeasureSettings(images=len(test.labels), network=setting_of(options))
    (record,) = measure([contender], Path(options.dataset), test.labels, settings)
    differing = sum(image["differing_outputs"] > 0 for image in record["images"])
    if options.json:
        print(json.dumps(record))
    else:
        print(in_words(record, policy, differing))
    return int(differing > 0 and record["exact"])


def setting_of(options: argparse.Namespace) -> NetworkSetting:
    """The link that the options describe; UserError for one that is unknown."""
    if options.bits_per_second is not None:
        return NetworkSetting("given", options.bits_per_second, options.round_trip_seconds)
    known = load_schema()["properties"]["network_settings"]["properties"]
    if options.link not in known:
        raise UserError(f"--link {options.link}; expected one of {', '.join(known)}, or give --bits-per-second")
    entry = {key: value for key, value in known[options.link]["default"].items() if key != "source"}
    return NetworkSetting(options.link, **entry)


def in_words(record: dict[str, Any], policy: Policy, differing: int) -> str:
    """A table for people."""
    summary, rows = record["summary"], list[list[object]]()
    for name, key in PHASES.items():
        seconds, count, cpu = (_median(summary[f"{what}_{key}"]) for what in ("t", "m", "cpu"))
        rows.append([name, seconds, count / 1e6, cpu])
    total = [_median(summary["t_total"]), *(rows[1][column] + rows[2][column] for column in (2, 3))]  # type: ignore[operator]
    rows.append(["image in all", *total])
    memory = ", ".join(f"{party} {size / 1e6:.0f} MB" for party, size in record["peak_memory_bytes"].items())
    predicted = policy.predicted.get("image_seconds")
    lines = [
        f"{policy.network} under {policy.scheme} over {record['network_setting']}: medians of {len(record['images'])} "
        f"images, {differing} with outputs other than the integer network's",
        "",
        table(["phase", "seconds", "MB", "cpu seconds"], rows),
        "",
        f"peak memory: {memory}",
    ]
    if predicted is not None:
        lines.append(f"predicted for the link that the policy was chosen for: {predicted:.3g} s an image")
    return "\n".join(lines)


def _median(value: Any) -> float:
    return float(value["median"] if isinstance(value, dict) else value)
