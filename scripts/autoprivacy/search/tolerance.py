"""What errors a network tolerates: its accuracy with errors of one size everywhere, and in one layer at a time.

Tests the paper's statement (section 3.1, Reward) that no accuracy is lost until the decryption error rate reaches 2^-7,
with errors as the packing has them: single values in coefficient packing, whole ciphertexts in slot packing. Beside it
the share bits that circuits ignore, with the roundings that follow from uniform shares.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from autoprivacy.data.dataset import Split
from autoprivacy.errors import UserError
from autoprivacy.gc.activation import ignorable_bits
from autoprivacy.he.packing import packing_named
from autoprivacy.he.parameters.noise import LayerNoise, required_z
from autoprivacy.he.parameters.parameter_set import Target
from autoprivacy.he.parameters.policy import Policy
from autoprivacy.quantization.evaluation import Evaluator
from autoprivacy.quantization.integer_network import IntegerNetwork
from autoprivacy.quantization.residues import Residues
from autoprivacy.search.decryption_errors import (
    CoefficientErrors,
    LayerErrors,
    PackedErrors,
    Perturbation,
    simulated_shares,
)
from autoprivacy.search.space import roundings
from autoprivacy.workflow.resumption import load_state, save_state

# What is varied: levels are base-2 logarithms throughout.
RATE, TAU, STEP = "rate", "tau", "step"
IGNORED = "ignored"  # low share bits t, or all that a layer's circuits can where they can ignore fewer
RATES = range(-15, 0)  # of an output in coefficient packing, of a ciphertext in slot packing
TAUS = range(-3, 13)  # accumulator LSBs
STEPS = range(-2, 5)  # tau in units of the layer's step
LAYER_STEPS = (1, 3)  # for one layer alone
LAYER_RATES = (-5, -1)
NORMAL_95 = 1.96  # standard deviations of a 95% interval


@dataclass(frozen=True)
class Disturbance:
    """One way to disturb a network.

    Attributes:
        kind: what `level` counts: RATE, TAU, STEP, IGNORED or any other name.
        level: base-2 logarithm of the size; of ignored bits their number.
        layer: the one layer that is disturbed; empty for all.
        perturb: makes, afresh, what the evaluator calls with a layer's name and its accumulators; errors of any kind
            that can be expressed there can be studied.
        evaluator: makes the evaluator, where it is not the study's own.
    """

    kind: str
    level: float
    layer: str
    perturb: Callable[[], Callable[[str, Tensor], Tensor] | None]
    evaluator: Callable[[], Evaluator] | None = None


def disturbances(network: IntegerNetwork, policy: Policy, seed: int) -> list[Disturbance]:
    """All that is studied for a network in a policy's packing; the policy's tilings say what is in a ciphertext.

    In coefficient packing every rate, every tau, every tau relative to the layers' steps, every number of ignored share
    bits, and single layers. In slot packing every rate of a ciphertext, and single layers: there the size of the noise
    has no meaning of its own. Circuits are the same in both.
    """
    names = [layer.name for layer in network.architecture.layers]
    policy.check_layers(names)

    def alike(kind: str, level: int, errors: Mapping[str, LayerErrors], layer: str = "") -> Disturbance:
        if layer:
            errors = {name: one if name == layer else CoefficientErrors(0.0) for name, one in errors.items()}
        return Disturbance(kind, level, layer, lambda: Perturbation(errors, "evaluate", seed))

    if packing_named(policy.packing).in_slots:
        rates = {level: _slot_errors(network, policy, level) for level in RATES}
        found = [alike(RATE, level, rates[level]) for level in RATES]
        return found + [alike(RATE, level, rates[level], name) for name in names for level in LAYER_RATES]
    steps = network.architecture.layer_steps()
    relative = {
        k: {name: CoefficientErrors(2.0**k * steps.get(name, 1.0)) for name in names} for k in {*STEPS, *LAYER_STEPS}
    }
    found = [alike(RATE, level, dict.fromkeys(names, CoefficientErrors(_tau_of_rate(level)))) for level in RATES]
    found += [alike(TAU, level, dict.fromkeys(names, CoefficientErrors(2.0**level))) for level in TAUS]
    found += [alike(STEP, level, relative[level]) for level in STEPS]
    found += [alike(STEP, level, relative[level], name) for name in names for level in LAYER_STEPS]
    return found + ignored_bits(network, policy, seed)


def ignored_bits(network: IntegerNetwork, policy: Policy, seed: int) -> list[Disturbance]:
    """Activations whose circuits ignore low share bits: every number t up to the largest shift, in each layer at most
    those of its own activations' shift and of p; and single layers that ignore all they can."""
    architecture = network.architecture
    p = policy.plaintext_modulus
    shifts = {node.name: node.shift for node in architecture.activations}
    found = roundings(network)
    most = {
        name: min(ignorable_bits(p), *(shifts[activation] for activation in rounding.activations))
        for name, rounding in found.items()
        if rounding.activations
    }

    def disturbed(level: int, deciding: Mapping[str, int], layer: str = "") -> Disturbance:
        bits = {name: deciding.get(rounding.decided_by, 0) for name, rounding in found.items()}
        residues = Residues.of(architecture, dict.fromkeys(bits, p), bits)
        evaluator = partial(Evaluator, network, residues)
        return Disturbance(IGNORED, level, layer, lambda: None, lambda: evaluator(simulated_shares("evaluate", seed)))

    everywhere = [
        disturbed(t, {n: min(t, own) for n, own in most.items()}) for t in range(max(most.values(), default=0) + 1)
    ]
    return everywhere + [disturbed(own, {name: own}, name) for name, own in most.items() if own]


def _tau_of_rate(level: int, coefficients: int = 1) -> float:
    """The noise at which one of so many coefficients is wrong at the rate 2^level."""
    return 1 / (2 * required_z(Target(decryption_error_rate=2.0**level), LayerNoise(1.0, coefficients=coefficients)))


def _slot_errors(network: IntegerNetwork, policy: Policy, level: int) -> dict[str, LayerErrors]:
    errors: dict[str, LayerErrors] = {}
    for layer in policy.layers:
        p, degree = layer.parameters.plaintext_modulus, layer.parameters.polynomial_degree
        shape = network.architecture.layer(layer.name)
        plan = packing_named(policy.packing).from_tiling(shape, degree, p, layer.tiling)
        errors[layer.name] = PackedErrors(_tau_of_rate(level, degree), plan, p)
    return errors


def paired_interval(before: np.ndarray, after: np.ndarray) -> tuple[float, float, float]:
    """The difference of two shares of right answers to the same questions, and its 95% interval.

    The adjusted Wald interval of Bonett and Price (Journal of Educational and Behavioral Statistics 37, 2012), which
    stays honest where no answer differs.

    Args:
        before, after: which answers are right, bool [N].

    Returns:
        Difference after less before, lower and upper bound, as fractions.
    """
    count = len(before)
    lost, won = int((before & ~after).sum()), int((after & ~before).sum())
    p_lost, p_won = (lost + 1) / (count + 2), (won + 1) / (count + 2)
    centre, variance = p_won - p_lost, (p_won + p_lost - (p_won - p_lost) ** 2) / (count + 2)
    half = NORMAL_95 * math.sqrt(variance)
    return (won - lost) / count, max(centre - half, -1.0), min(centre + half, 1.0)


def study_split(test: Split, images: int, seed: int) -> Split:
    """So many random images of the test split; UserError where it has fewer."""
    if not 1 <= images <= len(test.labels):
        raise UserError(f"tolerance images: got {images}; expected 1 to the {len(test.labels)} of the test split")
    return test.take(np.random.default_rng(seed).permutation(len(test.labels))[:images])


def study_rows(
    evaluator: Evaluator, split: Split, studied: Sequence[Disturbance], state_file: Path | None = None
) -> list[dict[str, Any]]:
    """One row per disturbance: kind, level, layer, images, accuracy_percent, and against the undisturbed network
    difference_points with its 95% interval (low_points, high_points), and loss: whether that lies below 0.

    Rows are written to `state_file` one by one, and a study that was killed goes on after the last of them.
    """
    rows: list[dict[str, Any]] = load_state(state_file) or []
    clean = evaluator.predictions(split) == split.labels
    started, first = time.monotonic(), len(rows)
    for number, disturbance in enumerate(studied[first:], first + 1):
        own = disturbance.evaluator() if disturbance.evaluator else evaluator
        right = own.predictions(split, disturbance.perturb()) == split.labels
        rows.append(_row(disturbance, clean, right))
        save_state(state_file, rows)
        left = (time.monotonic() - started) / (number - first) * (len(studied) - number)
        logging.info("tolerance: %d of %d, %s, %.1f minutes left", number, len(studied), _told(rows[-1]), left / 60)
    return rows


def _row(disturbance: Disturbance, clean: np.ndarray, right: np.ndarray) -> dict[str, Any]:
    difference, low, high = paired_interval(clean, right)
    return {
        "kind": disturbance.kind,
        "level": disturbance.level,
        "layer": disturbance.layer,
        "images": len(right),
        "accuracy_percent": round(100 * float(right.mean()), 4),
        "difference_points": round(100 * difference, 4),
        "low_points": round(100 * low, 4),
        "high_points": round(100 * high, 4),
        "loss": high < 0,
    }


def _told(row: Mapping[str, Any]) -> str:
    where, power = row["layer"] or "all layers", "" if row["kind"] == IGNORED else "2^"
    return f"{row['kind']} {power}{row['level']} in {where}: {row['difference_points']:+.2f} points"


def harmless_level(rows: Iterable[Mapping[str, Any]], kind: str) -> float | None:
    """The largest level of a kind in all layers at which no loss shows; None where every one shows a loss."""
    levels = [row["level"] for row in rows if row["kind"] == kind and not row["layer"] and not row["loss"]]
    return max(levels, default=None)
