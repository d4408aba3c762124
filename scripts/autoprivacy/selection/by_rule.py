"""The schemes that choose parameters by rule: from a scheme's name to its policy, without a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autoprivacy.errors import UserError
from autoprivacy.he.parameters.policy import Policy
from autoprivacy.quantization.integer_network import IntegerNetwork
from autoprivacy.quantization.quantize import required_range, required_ranges
from autoprivacy.selection.conditions import Selection
from autoprivacy.selection.exact import EXACT_SCHEME, autoprivacy_plus, fastest
from autoprivacy.selection.garbled_costs import with_garbling
from autoprivacy.selection.plaintext_modulus import PlaintextRule
from autoprivacy.selection.schemes import darl, delphi, delphi_worst_case

RULES = ("delphi", "delphi-worst-case", "darl", EXACT_SCHEME)


def chosen_by_rule(
    scheme: str,
    network: IntegerNetwork,
    name: str,
    rows: Sequence[Mapping[str, Any]],
    selection: Selection,
    plaintext: PlaintextRule,
) -> Policy:
    """The policy of a scheme, with the predicted cost of its activations.

    Args:
        scheme: one of RULES.
        network: its integer form, and `name`, what the config calls it.
        rows: the network's per-layer table, of `quantize.layer_rows`.
        selection: profile, link, flooding, packing.
        plaintext: rule for p, which the delphi schemes do not take.
    """
    table = [dict(row) for row in rows]
    degrees, squares = selection.profile.degrees, bool(network.architecture.squares)
    if scheme == "delphi":
        policy = delphi(network, name, required_range(table), selection)
    elif scheme == "delphi-worst-case":
        ranges = required_ranges(table, "worst_case")
        p = PlaintextRule(kind="prime").modulus(ranges, selection.packing, degrees, squares)
        policy = delphi_worst_case(network, name, p, selection)
    elif scheme == EXACT_SCHEME:
        policy = autoprivacy_plus(network, name, required_ranges(table), selection, plaintext)
    elif scheme == "darl":
        moduli = plaintext.candidates(required_ranges(table), selection.packing, degrees, squares)
        policy = fastest(network, moduli, selection, lambda p: darl(network, name, p, selection))
    else:
        raise UserError(f"scheme {scheme}: expected one of {', '.join(RULES)}")
    return with_garbling(policy, network.architecture, selection.profile, selection.link)
