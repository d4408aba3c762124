"""Parameter selection: the cheapest secure parameter set that meets a target, per layer or for a whole network.

The schemes: `delphi` (one published set), `darl` (one set for the network, from average-case noise), `layerwise` (a
set per layer, which is what AutoPrivacy's search chooses targets for).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from functools import cache

from autoprivacy.errors import UserError
from autoprivacy.he.encoding import MAXIMUM_PLAINTEXT_BITS
from autoprivacy.he.latency import Link, layer_cost, operation_counts
from autoprivacy.he.noise import (
    LayerNoise,
    decryption_error_rate,
    deployed_noise,
    tau_of,
    z_of,
)
from autoprivacy.he.packing import packing_named
from autoprivacy.he.packing.plan import Plan
from autoprivacy.he.parameters import Flooding, ParameterSet, Target
from autoprivacy.he.primes import MAXIMUM_PRIME_BITS, PRIME_SIZES, ntt_primes
from autoprivacy.he.profiling import OperationProfile
from autoprivacy.he.security import security_bits
from autoprivacy.he.smallest_set import secure_set
from autoprivacy.policy import EXACT_TARGET, LayerPolicy, Policy
from autoprivacy.provenance import provenance
from autoprivacy.quantization.integer_network import IntegerNetwork, LayerShape, LinearLayer, sign_threshold

# The paper's Table 1, row DELPHI: log p = 22, log n = 13, log q = 180 = 3 x 60.
DELPHI_PLAINTEXT_BITS, DELPHI_DEGREE, DELPHI_PRIMES, DELPHI_PRIME_BITS = 22, 1 << 13, 3, 60
COEFFICIENT = "coefficient"  # the packing where none is named

Choice = tuple[ParameterSet, Plan, dict[str, float]]


def plaintext_modulus(
    maximum: int,
    minimum: int,
    bits: int | None = None,
    degree_for_batching: int = DELPHI_DEGREE,
    power_of_two: bool = False,
) -> int:
    """The plaintext modulus p of the fewest bits (or of `bits`) that holds a signed range.

    Residues with the top bit set are negative (`to_signed`), so p of k bits holds p - 2^(k-1) negative numbers and
    2^(k-1) others. p is the largest prime of its k bits that is == 1 mod 2n, or 2^k.

    Args:
        maximum, minimum: the largest and the smallest number to be held.
        bits: k; None takes the fewest.
        degree_for_batching: n, a power of two.
        power_of_two: take 2^k.

    Raises:
        UserError: `bits` are too few, or more than the encoding takes are needed.
    """
    sizes = range(2, MAXIMUM_PLAINTEXT_BITS + 1) if bits is None else (bits,)
    for size in sizes:
        modulus = 1 << size if power_of_two else _batching_prime(size, degree_for_batching)
        if modulus is None or modulus >> MAXIMUM_PLAINTEXT_BITS:
            continue
        if maximum < sign_threshold(modulus) and minimum >= sign_threshold(modulus) - modulus:
            return modulus
    kind = "a power of two" if power_of_two else f"a prime == 1 mod {2 * degree_for_batching}"
    raise UserError(
        f"plaintext modulus of {bits or f'at most {MAXIMUM_PLAINTEXT_BITS}'} bits, {kind}: does not hold {minimum} to "
        f"{maximum}; allow more bits, or make accumulators smaller"
    )


def _batching_prime(bits: int, degree: int) -> int | None:
    """The largest prime of exactly that many bits that is == 1 mod 2n."""
    try:
        prime = ntt_primes(1 << bits, degree, 1)[0]
    except UserError:
        return None
    return prime if prime.bit_length() == bits else None


def select_layer(
    layer: LinearLayer,
    target: Target,
    p: int,
    flooding: Flooding,
    profile: OperationProfile,
    link: Link,
    maximum_prime_bits: int = MAXIMUM_PRIME_BITS,
    packing: str = COEFFICIENT,
) -> Choice:
    """The set and tiling of least predicted latency that meet a layer's target, and what is predicted for them.

    Args:
        layer: the layer with its weights, whose 2-norm the noise grows by.
        target: the error rate or noise that it tolerates.
        p: the plaintext modulus; in slot packing it may be a product of distinct primes that batch.
        flooding: how replies hide the weights.
        profile, link: what latency is predicted with; n, prime counts and sizes that the profile lacks are not
            considered.
        maximum_prime_bits: no prime of q is larger; among the sizes that there are kernels for the latency decides.
        packing: the packing's name. In slot packing the target's error rate is a ciphertext's.

    Returns:
        The set, the packing plan, and the numbers that `predict` lists.

    Raises:
        UserError: no secure set that the profile covers meets the target, or the packing cannot use p.
    """
    choices = [
        (parameters, plan)
        for degree in packing_named(packing).degrees(profile.degrees, p)
        for factors in [packing_named(packing).plaintext_factors(p, degree)]
        for plan in _plans(packing, layer.shape, degree, p)
        for size in _sizes(maximum_prime_bits)
        if (parameters := secure_set(plan.noise(layer.weight), degree, target, p, flooding, size, factors))
        and _covered(plan, parameters, profile)
    ]
    if not choices:
        raise UserError(_nothing_meets(f"layer {layer.shape.name}", target, p, flooding, profile))
    parameters, plan = min(choices, key=lambda choice: _latency(choice[1], choice[0], profile, link))
    return parameters, plan, predict(layer, target, parameters, plan, flooding, profile, link)


def _sizes(maximum_prime_bits: int) -> tuple[int, ...]:
    """Bounds on the bits of primes that are worth trying: the sizes of the kernels as far as they are allowed."""
    return tuple(sorted({min(size, maximum_prime_bits) for size in PRIME_SIZES}))


@cache
def _plans(packing: str, shape: LayerShape, degree: int, p: int) -> tuple[Plan, ...]:
    return tuple(packing_named(packing).plans(shape, degree, p))


def _covered(plan: Plan, parameters: ParameterSet, profile: OperationProfile) -> bool:
    needed = [operation for operation, count in operation_counts(plan).items() if count]
    return profile.covers(parameters, needed)


def cheapest_plan(plans: Iterable[Plan], parameters: ParameterSet, profile: OperationProfile, link: Link) -> Plan:
    """The tiling of least predicted latency under a set."""
    return min(plans, key=lambda plan: _latency(plan, parameters, profile, link))


def _latency(plan: Plan, parameters: ParameterSet, profile: OperationProfile, link: Link) -> float:
    return layer_cost(plan, parameters, profile, link)["latency_seconds"]


def predict(
    layer: LinearLayer,
    target: Target,
    parameters: ParameterSet,
    plan: Plan,
    flooding: Flooding,
    profile: OperationProfile,
    link: Link,
) -> dict[str, float]:
    """What is predicted for a layer as deployed.

    Returns:
        log2_noise (of the standard deviation, all parts), z, tau in accumulator LSBs where an output hangs on one
        coefficient, decryption_error_rate of an output (in slot packing that of its ciphertext), security_bits, and
        what `layer_cost` lists.
    """
    noise = plan.noise(layer.weight)
    total = deployed_noise(noise, parameters, flooding, target).total
    z = z_of(parameters.q, parameters.largest_factor, total)
    tau = tau_of(parameters.q, parameters.largest_factor, total)
    return {
        "log2_noise": math.log2(total),
        "z": z,
        **({"tau": tau} if noise.coefficients == 1 else {}),
        "decryption_error_rate": decryption_error_rate(z, noise.coefficients),
        "security_bits": security_bits(parameters.polynomial_degree, parameters.log2_q),
        **layer_cost(plan, parameters, profile, link),
    }


def layer_policy(
    layer: LinearLayer,
    target: Target,
    p: int,
    flooding: Flooding,
    profile: OperationProfile,
    link: Link,
    maximum_prime_bits: int = MAXIMUM_PRIME_BITS,
    packing: str = COEFFICIENT,
) -> LayerPolicy:
    """`select_layer`'s choice as a policy holds it."""
    parameters, plan, predicted = select_layer(layer, target, p, flooding, profile, link, maximum_prime_bits, packing)
    return LayerPolicy(layer.shape.name, target, parameters, predicted, plan.tiling)


def delphi(
    network: IntegerNetwork,
    name: str,
    required: tuple[int, int],
    flooding: Flooding,
    profile: OperationProfile,
    link: Link,
    packing: str = COEFFICIENT,
) -> Policy:
    """DELPHI's published set for every layer: log p = 22, n = 2^13, log q = 180 in three primes (the paper's Table 1).

    In slot packing the third prime is the key-switching prime. The target is 2^-40, which the set surpasses by far:
    under statistical flooding it makes no errors at all.

    Raises:
        UserError: p of 22 bits does not hold the network's `required` range, its smallest and largest accumulator.
    """
    minimum, maximum = required
    p = plaintext_modulus(maximum, minimum, DELPHI_PLAINTEXT_BITS, DELPHI_DEGREE)
    primes = ntt_primes(1 << DELPHI_PRIME_BITS, DELPHI_DEGREE, DELPHI_PRIMES)
    parameters = ParameterSet(p, DELPHI_DEGREE, primes)
    if packing_named(packing).in_slots:
        parameters = ParameterSet(p, DELPHI_DEGREE, primes[:-1], primes[-1])
    plans = {}
    for shape in network.architecture.layers:
        tilings = _plans(packing, shape, DELPHI_DEGREE, p)
        if not tilings:
            raise UserError(f"layer {shape.name}: one row of one channel does not fit delphi's n = {DELPHI_DEGREE}")
        plans[shape.name] = cheapest_plan(tilings, parameters, profile, link)
    return _uniform("delphi", network, name, packing, parameters, plans, flooding, profile, link)


def darl(
    network: IntegerNetwork,
    name: str,
    p: int,
    flooding: Flooding,
    profile: OperationProfile,
    link: Link,
    maximum_prime_bits: int = MAXIMUM_PRIME_BITS,
    packing: str = COEFFICIENT,
) -> Policy:
    """One set for the network, the cheapest that gives every layer an error rate of 2^-40 by average-case noise.

    After DARL (Bian, Hiromoto, Sato, DATE 2019), with p from the calibrated range of accumulators.

    Raises:
        UserError: no secure set that the profile covers meets the target in every layer.
    """
    candidates = [
        candidate
        for degree in packing_named(packing).degrees(profile.degrees, p)
        for size in _sizes(maximum_prime_bits)
        for candidate in _network_sets(network, packing, degree, p, flooding, profile, link, size)
    ]
    if not candidates:
        raise UserError(_nothing_meets(f"network {name}", EXACT_TARGET, p, flooding, profile))

    def latency(candidate: tuple[ParameterSet, dict[str, Plan]]) -> float:
        return sum(_latency(plan, candidate[0], profile, link) for plan in candidate[1].values())

    parameters, plans = min(candidates, key=latency)
    return _uniform("darl", network, name, packing, parameters, plans, flooding, profile, link)


def _network_sets(
    network: IntegerNetwork,
    packing: str,
    degree: int,
    p: int,
    flooding: Flooding,
    profile: OperationProfile,
    link: Link,
    maximum_prime_bits: int,
) -> Iterator[tuple[ParameterSet, dict[str, Plan]]]:
    """Sets at n that serve every layer, each with the layers' cheapest tilings of at most the norm it was sized for.

    A tiling with more output channels in a ciphertext costs fewer ciphertexts and brings more noise, so q and tilings
    are chosen together: one set per bound on the norm, once without rotations and once with.
    """
    noises = {
        shape.name: {plan: plan.noise(network.layers[shape.name].weight) for plan in _plans(packing, shape, degree, p)}
        for shape in network.architecture.layers
    }
    rotations = {noise.rotations for layer in noises.values() for noise in layer.values()}
    for most in {0.0, max(rotations, default=0.0)}:
        kept = {
            layer: {plan: noise for plan, noise in plans.items() if noise.rotations <= most}
            for layer, plans in noises.items()
        }
        if not all(kept.values()):
            continue
        smallest = max(min(noise.norm for noise in layer.values()) for layer in kept.values())
        norms = {noise.norm for layer in kept.values() for noise in layer.values() if noise.norm >= smallest}
        for bound in sorted(norms):
            largest = LayerNoise(bound, most, next(iter(next(iter(kept.values())).values())).coefficients)
            factors = packing_named(packing).plaintext_factors(p, degree)
            parameters = secure_set(largest, degree, EXACT_TARGET, p, flooding, maximum_prime_bits, factors)
            if parameters is None:
                break  # larger norms need still more
            plans = {
                layer: [
                    plan for plan, noise in own.items() if noise.norm <= bound and _covered(plan, parameters, profile)
                ]
                for layer, own in kept.items()
            }
            if all(plans.values()):
                yield parameters, {layer: cheapest_plan(own, parameters, profile, link) for layer, own in plans.items()}


def layerwise(
    network: IntegerNetwork,
    name: str,
    p: int,
    targets: Mapping[str, Target],
    flooding: Flooding,
    profile: OperationProfile,
    link: Link,
    scheme: str = "autoprivacy",
    maximum_prime_bits: int = MAXIMUM_PRIME_BITS,
    packing: str = COEFFICIENT,
) -> Policy:
    """A set per layer: for each the cheapest that meets its own target.

    Raises:
        UserError: a layer has no target, or no secure set that the profile covers meets it.
    """
    names = [shape.name for shape in network.architecture.layers]
    if set(targets) != set(names):
        raise UserError(f"policy {scheme} of {name}: targets for {sorted(targets)}; the network has {names}")
    layers = tuple(
        layer_policy(network.layers[layer], targets[layer], p, flooding, profile, link, maximum_prime_bits, packing)
        for layer in names
    )
    return _policy(scheme, name, packing, flooding, layers)


def _uniform(
    scheme: str,
    network: IntegerNetwork,
    name: str,
    packing: str,
    parameters: ParameterSet,
    plans: Mapping[str, Plan],
    flooding: Flooding,
    profile: OperationProfile,
    link: Link,
) -> Policy:
    """A policy with one set for all layers, each with its own tiling; the target is 2^-40."""
    layers = []
    for layer, plan in plans.items():
        predicted = predict(network.layers[layer], EXACT_TARGET, parameters, plan, flooding, profile, link)
        layers.append(LayerPolicy(layer, EXACT_TARGET, parameters, predicted, plan.tiling))
    return _policy(scheme, name, packing, flooding, tuple(layers))


def _policy(scheme: str, name: str, packing: str, flooding: Flooding, layers: tuple[LayerPolicy, ...]) -> Policy:
    totals = {
        key: sum(layer.predicted[key] for layer in layers)
        for key in ("latency_seconds", "compute_seconds", "transfer_seconds", "bytes_up", "bytes_down")
    }
    return Policy(name, scheme, packing, flooding, layers, totals, provenance())


def _nothing_meets(what: str, target: Target, p: int, flooding: Flooding, profile: OperationProfile) -> str:
    if target.decryption_error_rate is not None:
        wish = f"a decryption error rate of 2^{math.log2(target.decryption_error_rate):g}"
    else:
        wish = f"tau {target.tau}"
    return (
        f"{what}: no secure set with p = {p} gives {wish} under flooding {flooding.kind} among the profile's "
        f"{sorted(profile.table)} (n, primes, bits of a prime); profile larger n or more primes, or flood less"
    )
