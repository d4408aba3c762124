"""The parameter sets that the paper prints for prior systems (its Table 1), recomputed: security and error rates.

The paper floods by 4n and 3 log q (section 2). It does not say whether Table 1 lists sets before or after that, so each
set is computed under three readings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from autoprivacy.errors import UserError
from autoprivacy.he.packing.plan import Plan
from autoprivacy.he.parameters.noise import decryption_error_rate, fresh_noise, rerandomisation_noise, z_of
from autoprivacy.he.parameters.security import max_log2_q, security_bits
from autoprivacy.he.ring.primes import ntt_primes
from autoprivacy.quantization.integer_network import IntegerNetwork
from autoprivacy.selection.conditions import Selection

# What the reading does to (log2 n, log2 q): as printed; before the paper's flooding; after it.
READINGS = {
    "as printed": (0, 1.0),
    "before flooding (n / 4, log q / 3)": (-2, 1 / 3),
    "after flooding (4 n, 3 log q)": (2, 3.0),
}
SECURE_BITS = 128


@dataclass(frozen=True)
class PublishedSet:
    """A row of the paper's Table 1."""

    system: str
    plaintext_bits: int
    log2_n: int
    log2_q: int


def security_rows(published: Iterable[PublishedSet]) -> list[dict[str, Any]]:
    """One row per system and reading: n, log2 q, security in bits, and whether that is at least 128."""
    rows = []
    for one in published:
        for reading, (steps, factor) in READINGS.items():
            degree, log2_q = 1 << (one.log2_n + steps), round(one.log2_q * factor)
            rows.append(
                {
                    "system": one.system,
                    "reading": reading,
                    "plaintext_bits": one.plaintext_bits,
                    "polynomial_degree": degree,
                    "log2_q": log2_q,
                    "security_bits": round(security_bits(degree, log2_q), 1),
                    "secure": log2_q <= max_log2_q(degree, SECURE_BITS),
                }
            )
    return rows


def error_rows(
    rows: Iterable[Mapping[str, Any]], name: str, network: IntegerNetwork, selection: Selection
) -> list[dict[str, Any]]:
    """For every row of `security_rows` the largest decryption error rate that a network's layers have under its set.

    Without flooding, by average-case noise, each layer tiled so that its noise is least. Rotations are left out: their
    noise depends on the primes, which the paper does not print, so rates in slot packing are lower bounds.

    Returns:
        The rows with network, packing, layer (the worst), rate_per_value, rate_per_ciphertext, plaintext_modulus (its
        kind), and note, the reason where there is no rate.
    """
    return [{**row, "network": name, "packing": selection.packing, **_worst(row, network, selection)} for row in rows]


def _worst(row: Mapping[str, Any], network: IntegerNetwork, selection: Selection) -> dict[str, Any]:
    empty = {"layer": "", "plaintext_modulus": "", "rate_per_value": "", "rate_per_ciphertext": "", "note": ""}
    degree = row["polynomial_degree"]
    try:
        p = _modulus(row["plaintext_bits"], degree, selection)
        noises = {name: _least_noise(layer, degree, p, selection) for name, layer in network.layers.items()}
    except UserError as error:
        return {**empty, "note": str(error)}
    layer = max(noises, key=lambda name: noises[name])
    z = z_of(1 << row["log2_q"], p, noises[layer])
    return {
        "layer": layer,
        "plaintext_modulus": p,
        "rate_per_value": decryption_error_rate(z),
        "rate_per_ciphertext": decryption_error_rate(z, degree),
        "note": "",
    }


def _modulus(bits: int, degree: int, selection: Selection) -> int:
    """A p of so many bits that the packing can use: the largest prime that batches, or a power of two."""
    if selection.packing != "slot":
        return 1 << bits
    return ntt_primes(1 << bits, degree, 1)[0]


def _least_noise(layer: Any, degree: int, p: int, selection: Selection) -> float:
    plans: tuple[Plan, ...] = selection.plans(layer.shape, degree, p)
    if not plans:
        raise UserError(f"layer {layer.shape.name}: one row of one channel does not fit n = {degree}")
    norm = min(plan.noise(layer.weight).norm for plan in plans)
    return float(((fresh_noise() * norm) ** 2 + rerandomisation_noise(degree) ** 2) ** 0.5)
