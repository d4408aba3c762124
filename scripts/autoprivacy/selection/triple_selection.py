"""Parameter selection for the Beaver triples of squared activations: the cheapest secure set that meets the target."""

from __future__ import annotations

import math
from dataclasses import replace

from autoprivacy.errors import UserError
from autoprivacy.he.bfv.triples import TripleLayout
from autoprivacy.he.packing import SLOT
from autoprivacy.he.packing.batching import batching_factors
from autoprivacy.he.parameters.parameter_set import Target
from autoprivacy.he.parameters.policy import EXACT_TARGET, TriplePolicy
from autoprivacy.quantization.integer_network import Architecture
from autoprivacy.selection.conditions import Selection
from autoprivacy.selection.layer_selection import prediction
from autoprivacy.selection.least_latency import least_latency


def triple_policy(
    architecture: Architecture, p: int, selection: Selection, target: Target = EXACT_TARGET
) -> TriplePolicy | None:
    """What a policy holds of the triples of one image.

    For every n at which p batches and every size of primes the smallest q by average-case noise is considered, as for
    layers; the least predicted latency wins. Triples are always in slots, also where layers are in coefficients.

    Args:
        architecture: of the network.
        p: the plaintext modulus of all its layers.
        selection: what layers and triples have in common.
        target: an error rate of ciphertexts.

    Returns:
        None where the network squares nothing.

    Raises:
        UserError: p batches at no n of the profile, or no secure set that it covers meets the target.
    """
    count = sum(math.prod(node.shape) for node in architecture.squares)
    if not count:
        return None
    layouts = [
        TripleLayout(count, degree, factors)
        for degree in selection.profile.degrees
        if (factors := batching_factors(p, degree))
    ]
    if not layouts:
        raise UserError(
            f"squared activations: plaintext modulus {p} batches at no n of {list(selection.profile.degrees)}; their "
            "triples need a prime == 1 mod 2n or a product of distinct such primes"
        )
    in_slots = replace(selection, packing=SLOT)
    found = least_latency(((layout, layout.noise) for layout in layouts), p, target, in_slots)
    if found is None:
        raise UserError(
            f"squared activations: no secure set with p = {p} among the profile's {sorted(selection.profile.table)} "
            f"(n, primes, bits of a prime) serves their triples under flooding {selection.flooding.kind}; profile "
            "larger n, take fewer bits in the squares, or flood less"
        )
    choice, bits = found
    predicted = prediction(choice.noise, target, choice.parameters, choice.plan.workload, bits, selection)
    return TriplePolicy(target, choice.parameters, bits, predicted)
