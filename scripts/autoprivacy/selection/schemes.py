"""The schemes: rules by which every layer of a network gets its parameter set.

`delphi` (the published set), `delphi_worst_case` (DELPHI's rule applied to the network: one set by worst-case bounds),
`darl` (one set by average-case noise), `layerwise` (a set per layer, which is what AutoPrivacy's search chooses targets
for).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from autoprivacy.errors import UserError
from autoprivacy.he.bfv.reply_bits import REPLY_SHARE
from autoprivacy.he.packing import packing_named
from autoprivacy.he.packing.plan import Plan
from autoprivacy.he.parameters.commitment import NetworkCommitment, coarse_bound
from autoprivacy.he.parameters.parameter_set import ParameterSet, Target
from autoprivacy.he.parameters.policy import EXACT_TARGET, LayerPolicy, Policy
from autoprivacy.he.ring.primes import ntt_primes
from autoprivacy.quantization.integer_network import IntegerNetwork, Interval, LinearLayer
from autoprivacy.quantization.windows import Window
from autoprivacy.selection.activation_choice import squares_by_lookup, with_needed_lookups
from autoprivacy.selection.conditions import Selection
from autoprivacy.selection.layer_selection import layer_policy, nothing_meets, predict
from autoprivacy.selection.plaintext_modulus import plaintext_modulus
from autoprivacy.selection.secure_set import AverageCase, Growth, NoiseRule, Setting, WorstCase, secure_set
from autoprivacy.selection.share_windows import with_share_windows
from autoprivacy.selection.triple_selection import triple_policy
from autoprivacy.workflow.provenance import provenance

# The paper's Table 1, row DELPHI: log p = 22, log n = 13, log q = 180 = 3 x 60.
DELPHI_PLAINTEXT_BITS, DELPHI_DEGREE, DELPHI_PRIMES, DELPHI_PRIME_BITS = 22, 1 << 13, 3, 60
# What policies hold sums of.
TOTALS = ("latency_seconds", "compute_seconds", "transfer_seconds", "bytes_up", "bytes_down")
# Shares of the noise that `darl` may leave to the rounding of replies: the smallest q, and half a bit more for replies
# of fewer bits.
NETWORK_SHARES = (REPLY_SHARE, 1 / 2)

Candidate = tuple[ParameterSet, dict[str, Plan]]


def delphi(network: IntegerNetwork, name: str, required: Interval, selection: Selection) -> Policy:
    """DELPHI's published set for every layer: log p = 22, n = 2^13, log q = 180 in three primes (the paper's Table 1).

    In slot packing the third prime is the key-switching prime. The target is 2^-40. The set alone would surpass it by
    far: that room is spent on replies of few bits.

    Raises:
        UserError: p of 22 bits does not hold the network's `required` range, its smallest and largest accumulator.
    """
    minimum, maximum = required
    p = plaintext_modulus(maximum, minimum, DELPHI_PLAINTEXT_BITS, DELPHI_DEGREE)
    primes = ntt_primes(1 << DELPHI_PRIME_BITS, DELPHI_DEGREE, DELPHI_PRIMES)
    parameters = ParameterSet(p, DELPHI_DEGREE, primes)
    if packing_named(selection.packing).in_slots:
        parameters = ParameterSet(p, DELPHI_DEGREE, primes[:-1], primes[-1])
    plans, rule = {}, AverageCase(EXACT_TARGET)
    for shape in network.architecture.layers:
        tilings = selection.plans(shape, DELPHI_DEGREE, p)
        if not tilings:
            raise UserError(
                f"layer {shape.name}: one row of one channel of {shape.output_shape} outputs does not fit delphi's n = "
                f"{DELPHI_DEGREE}; take another scheme"
            )
        plans[shape.name] = _cheapest_plan(network.layers[shape.name], tilings, parameters, rule, selection)
    return _uniform("delphi", network, name, (parameters, plans), rule, selection)


def delphi_worst_case(network: IntegerNetwork, name: str, p: int, selection: Selection) -> Policy:
    """DELPHI's rule for the given network: the cheapest one set under which no draw of noise can decrypt wrongly.

    The paper's Figure 2(a) with worst-case bounds, as in GAZELLE and DELPHI: q exceeds 2 p times the bound that fresh
    noise (he.parameters.noise_bounds), the 1-norm of the weights, rotations and the flood give together. `p` is to hold
    the largest accumulator that any image can give (`required_ranges` of quantization.quantize).

    Raises:
        UserError: no secure set that the profile covers has room for the bounds of every layer.
    """
    best = _cheapest_set(network, name, p, [WorstCase()], selection)
    return _uniform("delphi-worst-case", network, name, best, WorstCase(), selection)


def darl(network: IntegerNetwork, name: str, p: int, selection: Selection) -> Policy:
    """One set for the network, the cheapest that gives every layer an error rate of 2^-40 by average-case noise.

    After DARL (Bian, Hiromoto, Sato, DATE 2019), with p from the calibrated range of accumulators.

    Raises:
        UserError: no secure set that the profile covers meets the target in every layer.
    """
    best = _cheapest_set(network, name, p, [AverageCase(EXACT_TARGET, share) for share in NETWORK_SHARES], selection)
    return _uniform("darl", network, name, best, AverageCase(EXACT_TARGET), selection)


def _latency(
    layer: LinearLayer, plan: Plan, parameters: ParameterSet, rule: NoiseRule[Any], selection: Selection
) -> float:
    """The predicted latency of a layer under a tiling and a set."""
    return selection.latency(plan.workload, parameters, rule.reply_bits(layer, plan, parameters, selection.flooding))


def _cheapest_plan(
    layer: LinearLayer, plans: Iterable[Plan], parameters: ParameterSet, rule: NoiseRule[Any], selection: Selection
) -> Plan:
    """The tiling of least predicted latency under a set."""
    return min(plans, key=lambda plan: _latency(layer, plan, parameters, rule, selection))


def _cheapest_set(
    network: IntegerNetwork, name: str, p: int, rules: Sequence[NoiseRule[Any]], selection: Selection
) -> Candidate:
    """The one set for all layers, and their tilings, of least predicted latency.

    Args:
        network, name, p, selection: as in `darl`.
        rules: by what rules on noise sets are sized; replies are sent in the bits of the first.
    """
    candidates: list[Candidate] = []
    for degree in selection.degrees(p):
        plans = {shape.name: selection.plans(shape, degree, p) for shape in network.architecture.layers}
        growths = {
            layer: {plan: rules[0].growth(network.layers[layer], plan, selection.flooding) for plan in own}
            for layer, own in plans.items()
        }
        for setting, rule in itertools.product(selection.settings(p, degree), rules):
            candidates += _candidates(network, growths, rule, setting, selection)
    if not candidates:
        raise UserError(nothing_meets(f"network {name}", EXACT_TARGET, p, selection))

    def latency(found: Candidate) -> float:
        parameters, plans = found
        return sum(
            _latency(network.layers[layer], plan, parameters, rules[0], selection) for layer, plan in plans.items()
        )

    return min(candidates, key=latency)


def _candidates(
    network: IntegerNetwork,
    growths: Mapping[str, Mapping[Plan, Growth]],
    rule: NoiseRule[Growth],
    setting: Setting,
    selection: Selection,
) -> Iterator[Candidate]:
    """Sets that serve every layer, each with the layers' cheapest tilings of at most the norm it was sized for.

    A tiling with more output channels in a ciphertext costs fewer ciphertexts and brings more noise, so q and tilings
    are chosen together: for bounds on the norm, once without rotations and once with.
    """
    rotations = {growth.rotations for layer in growths.values() for growth in layer.values()}
    for most in {0.0, max(rotations, default=0.0)}:
        kept = {
            layer: {plan: growth for plan, growth in plans.items() if growth.rotations <= most}
            for layer, plans in growths.items()
        }
        if not all(kept.values()):
            continue
        smallest = max(min(growth.norm for growth in layer.values()) for layer in kept.values())
        bounds = {
            replace(growth, rotations=most)
            for layer in kept.values()
            for growth in layer.values()
            if growth.norm >= smallest
        }
        for bound, parameters in _cheapest_bounds(sorted(bounds, key=lambda bound: bound.norm), rule, setting):
            admissible = {
                layer: [
                    plan
                    for plan, growth in own.items()
                    if growth.norm <= bound.norm and selection.covers(plan.workload, parameters)
                ]
                for layer, own in kept.items()
            }
            if all(admissible.values()):
                plans = {
                    layer: _cheapest_plan(network.layers[layer], own, parameters, rule, selection)
                    for layer, own in admissible.items()
                }
                norm = max(kept[layer][plan].norm for layer, plan in plans.items())
                tight = secure_set(replace(bound, norm=norm), rule, setting)
                fits = tight is not None and all(selection.covers(plan.workload, tight) for plan in plans.values())
                yield tight if tight is not None and fits else parameters, plans


def _cheapest_bounds(
    bounds: Iterable[Growth], rule: NoiseRule[Growth], setting: Setting
) -> Iterator[tuple[Growth, ParameterSet]]:
    """Of the bounds whose sets cost the same, the largest, which admits most tilings; each with its set."""
    largest: dict[tuple[int, ...], tuple[Growth, ParameterSet]] = {}
    for bound in bounds:
        parameters = secure_set(bound, rule, setting)
        if parameters is None:
            break  # larger norms need still more
        # seconds and bytes depend on n, which is the same here, and on the bits of the primes
        bits = tuple(prime.bit_length() for prime in parameters.deployed_primes)
        largest[bits] = (bound, parameters)
    yield from largest.values()


def layerwise(
    network: IntegerNetwork,
    name: str,
    p: int | Mapping[str, int],
    targets: Mapping[str, Target],
    selection: Selection,
    scheme: str = "autoprivacy",
) -> Policy:
    """A set per layer: for each the cheapest that meets its own target.

    Args:
        network: the network.
        name: of the network, for the policy.
        p: the plaintext modulus, or one for every layer by its name.
        targets: one for every layer by its name; in coefficient packing error rates or tau, in slot packing error rates
            of ciphertexts.
        selection: what all layers have in common.
        scheme: the policy's name for itself.

    Raises:
        UserError: a layer has no target or no p, or no secure set that the profile covers meets the target.
    """
    names = [shape.name for shape in network.architecture.layers]
    moduli = dict.fromkeys(names, p) if isinstance(p, int) else p
    for what, given in (("targets", targets), ("plaintext moduli", moduli)):
        if set(given) != set(names):
            raise UserError(f"policy {scheme} of {name}: {what} for {sorted(given)}; the network has {names}")
    layers = (layer_policy(network.layers[layer], targets[layer], moduli[layer], selection) for layer in names)
    return of_layers(scheme, network, name, layers, selection)


def _uniform(
    scheme: str,
    network: IntegerNetwork,
    name: str,
    chosen: Candidate,
    rule: NoiseRule[Any],
    selection: Selection,
) -> Policy:
    """A policy with one set for all layers, each with its own tiling; the target is 2^-40."""
    parameters, plans = chosen
    layers = []
    for layer, plan in plans.items():
        bits = rule.reply_bits(network.layers[layer], plan, parameters, selection.flooding)
        predicted = predict(network.layers[layer], EXACT_TARGET, parameters, plan, bits, selection)
        bound = coarse_bound(network.layers[layer].weight_norm)
        layers.append(LayerPolicy(layer, EXACT_TARGET, parameters, bound, predicted, plan.tiling, bits))
    return of_layers(scheme, network, name, layers, selection)


def of_layers(
    scheme: str,
    network: IntegerNetwork,
    name: str,
    layers: Iterable[LayerPolicy],
    selection: Selection,
    windows: Mapping[str, Window] | None = None,
) -> Policy:
    """The policy of layers in the network's order, bound to the network, its predictions added up.

    The triples of squared activations that are not looked up are chosen here, alike in every scheme. `windows`, by
    layer, are those of shares whose activations read fewer bits than p has.

    Raises:
        UserError: no set serves the triples, there are several plaintext moduli where the network squares, or an
            activation that has no circuit cannot be looked up.
    """
    commitment = NetworkCommitment.of(network)
    policy = Policy(
        name,
        scheme,
        selection.packing,
        selection.flooding,
        tuple(layers),
        provenance=provenance(),
        output=selection.output,
        commitment=commitment,
    )
    if network.architecture.squares and not squares_by_lookup(policy, selection.activation):
        policy = replace(policy, triples=triple_policy(network.architecture, policy.plaintext_modulus, selection))
    policy = with_needed_lookups(with_share_windows(policy, windows or {}), network.architecture, selection.activation)
    totals = {key: sum(entry.predicted[key] for entry in policy.evaluations) for key in TOTALS}
    return replace(policy, predicted=totals)
