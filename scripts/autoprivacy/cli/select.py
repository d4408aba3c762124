"""Choose a network's encryption parameters by rule, without a study."""

from __future__ import annotations

import argparse
from pathlib import Path

from autoprivacy.errors import UserError
from autoprivacy.he.packing import PACKINGS
from autoprivacy.he.parameters.parameter_set import Flooding
from autoprivacy.he.profiling.profile import OperationProfile
from autoprivacy.link import Link
from autoprivacy.quantization.integer_network import IntegerNetwork
from autoprivacy.selection.activation_choice import CHOICES
from autoprivacy.selection.by_rule import RULES, chosen_by_rule
from autoprivacy.selection.conditions import Selection
from autoprivacy.selection.plaintext_modulus import PlaintextRule
from autoprivacy.storage import read_rows

KAPPA = 40  # of statistical flooding, as in config/schema.yaml


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of the command."""
    parser.add_argument("--network", required=True, help="the integer network, results/<study>/networks/<network>.npz")
    parser.add_argument("--layers", help="its table, by default ../quantization/<network>.csv beside it")
    parser.add_argument("--profile", required=True, help="of this machine: `profile` or a study makes it")
    parser.add_argument("--scheme", choices=RULES, default="autoprivacy+", help="%(default)s")
    parser.add_argument("--packing", choices=list(PACKINGS), default="coefficient", help="%(default)s")
    parser.add_argument("--bits-per-second", type=float, default=1e9, help="of the link (%(default)g)")
    parser.add_argument("--round-trip-seconds", type=float, default=0.001, help="of the link (%(default)s)")
    parser.add_argument("--activation", choices=list(CHOICES), default="auto", help="of autoprivacy+ (%(default)s)")
    parser.add_argument("--output", required=True, help="policy file to write")


def run(options: argparse.Namespace) -> int:
    """Write the policy."""
    file = Path(options.network)
    layers = Path(options.layers) if options.layers else file.parents[1] / "quantization" / f"{file.stem}.csv"
    if not layers.exists():
        raise UserError(f"{layers}: no such file; the quantize step writes it, name it with --layers")
    link = Link(options.bits_per_second, options.round_trip_seconds)
    profile, flooding = OperationProfile.load(options.profile), Flooding("statistical", KAPPA)
    selection = Selection(profile, link, flooding, options.packing, options.activation)
    network = IntegerNetwork.load(file)
    rule = PlaintextRule(kind="cheapest")
    policy = chosen_by_rule(options.scheme, network, file.stem, read_rows(layers), selection, rule)
    policy.save(options.output)
    print(options.output)
    return 0
