"""What each idea of parameter selection is worth: one network's parameters under a ladder of rules, layer by layer.

The steps go from DELPHI's rule to tolerated noise, each with one change to the step before. All of them are
predictions: noise by he.parameters.noise, seconds by the profile.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from autoprivacy.errors import UserError
from autoprivacy.he.packing import packing_named
from autoprivacy.he.parameters.noise import decryption_error_rate
from autoprivacy.he.parameters.parameter_set import Target
from autoprivacy.he.parameters.policy import EXACT_TARGET, LayerPolicy, Policy
from autoprivacy.he.profiling.profile import OPERATIONS
from autoprivacy.quantization.integer_network import IntegerNetwork, Interval, LayerShape
from autoprivacy.selection.conditions import Selection
from autoprivacy.selection.plaintext_modulus import PlaintextRule
from autoprivacy.selection.schemes import darl, delphi, delphi_worst_case, layerwise

# The columns that identify the choice of a row.
KEYS = ("network", "weights", "packing", "flooding", "flooding_bits", "step")
NUMBERS = (
    "plaintext_modulus",
    "plaintext_bits",
    "polynomial_degree",
    "primes",
    "log2_q",
    "security_bits",
    "target_decryption_error_rate",
    "target_tau",
    "log2_noise",
    "tau",
    "error_rate_per_coefficient",
    "error_rate_per_ciphertext",
    "failures_per_image",
    *OPERATIONS,
    "bytes_up",
    "bytes_down",
    "latency_seconds",
)


@dataclass(frozen=True)
class Subject:
    """A network and what quantisation measured of it.

    Attributes:
        name: the network's.
        weights: `trained` or `random`; random weights stand for a network that nobody has trained yet.
        network: the integer network.
        calibrated, possible: by layer, the range that p has to hold as calibrated, and for any image.
        shifts: by layer, the shift f of the activation that follows it.
    """

    name: str
    weights: str
    network: IntegerNetwork
    calibrated: Mapping[str, Interval]
    possible: Mapping[str, Interval]
    shifts: Mapping[str, int]


@dataclass(frozen=True)
class Tolerances:
    """What the last steps tolerate.

    Attributes:
        coefficient_rate: decryption error rate of an output in coefficient packing.
        ciphertext_rate: of a ciphertext in slot packing, where it spoils the image.
        steps: tau in units of the step 2^f that an activation rounds to.
    """

    coefficient_rate: float = 2.0**-5
    ciphertext_rate: float = 2.0**-7
    steps: float = 1.0


@dataclass(frozen=True)
class Case:
    """What a step chooses parameters for."""

    subject: Subject
    selection: Selection
    rule: PlaintextRule
    tolerances: Tolerances

    def p(self, ranges: Mapping[str, Interval], rule: PlaintextRule) -> int:
        """The plaintext modulus for these ranges."""
        squares = bool(self.subject.network.architecture.squares)
        return rule.modulus(ranges, self.selection.packing, self.selection.profile.degrees, squares)

    def per_layer(self, target: Callable[[str], Target], scheme: str) -> Policy:
        """A set per layer modulo the calibrated p."""
        subject = self.subject
        targets = {name: target(name) for name in subject.network.layers}
        p = self.p(subject.calibrated, self.rule)
        return layerwise(subject.network, subject.name, p, targets, self.selection, scheme)


def published(case: Case) -> Policy:
    """The paper's Table 1, row DELPHI; the ladder begins after it."""
    lowest, highest = zip(*case.subject.calibrated.values(), strict=True)
    return delphi(case.subject.network, case.subject.name, (min(lowest), max(highest)), case.selection)


def worst_case(case: Case) -> Policy:
    """One set, worst-case noise, p for every possible image."""
    p = case.p(case.subject.possible, PlaintextRule())
    return delphi_worst_case(case.subject.network, case.subject.name, p, case.selection)


def average_case(case: Case) -> Policy:
    """One set, 2^-40 by average-case noise, p as before."""
    return darl(case.subject.network, case.subject.name, case.p(case.subject.possible, PlaintextRule()), case.selection)


def calibrated_p(case: Case) -> Policy:
    """One set, p from the calibrated range: the scheme darl."""
    return darl(case.subject.network, case.subject.name, case.p(case.subject.calibrated, case.rule), case.selection)


def layer_wise(case: Case) -> Policy:
    """A set per layer, still 2^-40."""
    return case.per_layer(lambda _: EXACT_TARGET, "layer-wise")


def tolerated_errors(case: Case) -> Policy:
    """A set per layer for the tolerated rate: of an output, or in slot packing of a ciphertext."""
    in_slots = packing_named(case.selection.packing).in_slots
    rate = case.tolerances.ciphertext_rate if in_slots else case.tolerances.coefficient_rate
    return case.per_layer(lambda _: Target(decryption_error_rate=rate), "tolerated-errors")


def tolerated_noise(case: Case) -> Policy:
    """A set per layer for noise of the size of a step 2^f; slot packing refuses it."""
    shifts = case.subject.shifts
    return case.per_layer(lambda name: Target(tau=case.tolerances.steps * 2.0 ** shifts[name]), "tolerated-noise")


STEPS: dict[str, Callable[[Case], Policy]] = {
    "published": published,
    "worst-case": worst_case,
    "average-case": average_case,
    "calibrated-p": calibrated_p,
    "layer-wise": layer_wise,
    "tolerated-errors": tolerated_errors,
    "tolerated-noise": tolerated_noise,
}


def parameter_rows(
    subject: Subject,
    selections: Iterable[Selection],
    steps: Iterable[str],
    rule: PlaintextRule,
    tolerances: Tolerances,
) -> list[dict[str, Any]]:
    """One row per packing, flooding, step and layer; where a step has no admissible set, one with the reason in `note`.

    Returns:
        Rows with KEYS, layer, NUMBERS (None in rows with a note) and note. failures_per_image is the expected number of
        wrong outputs, or in slot packing of ciphertexts whose outputs are all wrong; bytes are ciphertexts' as sent,
        latency includes the link.
    """
    rows: list[dict[str, Any]] = []
    steps = list(steps)
    for selection in selections:
        flooding = selection.flooding
        bits = flooding.kappa if flooding.kind == "statistical" else None
        for step in steps:
            values = (subject.name, subject.weights, selection.packing, flooding.kind, bits, step)
            keys = dict(zip(KEYS, values, strict=True))
            try:
                policy = STEPS[step](Case(subject, selection, rule, tolerances))
            except UserError as error:
                rows.append({**keys, "layer": None, **dict.fromkeys(NUMBERS), "note": str(error)})
                logging.info("%s, %s, %s, %s: %s", subject.name, selection.packing, flooding.kind, step, error)
                continue
            for layer in policy.layers:
                shape = subject.network.layers[layer.name].shape
                rows.append({**keys, "layer": layer.name, **_numbers(layer, shape, selection.packing), "note": None})
    return rows


def _numbers(layer: LayerPolicy, shape: LayerShape, packing: str) -> dict[str, float | None]:
    parameters, predicted = layer.parameters, layer.predicted
    per_coefficient = decryption_error_rate(predicted["z"])
    per_ciphertext = decryption_error_rate(predicted["z"], parameters.polynomial_degree)
    if packing_named(packing).in_slots:
        failures = per_ciphertext * predicted["reply"]
    else:
        failures = per_coefficient * math.prod(shape.output_shape)
    own = {
        "plaintext_modulus": parameters.plaintext_modulus,
        "plaintext_bits": (parameters.plaintext_modulus - 1).bit_length(),
        "polynomial_degree": parameters.polynomial_degree,
        "primes": len(parameters.deployed_primes),
        "log2_q": parameters.log2_q,
        "target_decryption_error_rate": layer.target.decryption_error_rate,
        "target_tau": layer.target.tau,
        "error_rate_per_coefficient": per_coefficient,
        "error_rate_per_ciphertext": per_ciphertext,
        "failures_per_image": failures,
    }
    return {name: own.get(name, predicted.get(name)) for name in NUMBERS}
