"""Activations in the protocol, end to end: signed bottlenecks, ignored share bits, layers with moduli of their own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.garbled_sessions import NETWORK, session
from support.made_up_profile import LINK, PROFILE
from support.reference import reference_forward

from autoprivacy.errors import UserError
from autoprivacy.gc.activation import Activation
from autoprivacy.gc.garbling import table_bytes
from autoprivacy.he.parameters.parameter_set import Flooding, Target
from autoprivacy.he.parameters.policy import EXACT_TARGET, Policy
from autoprivacy.protocol.channel import ProtocolError
from autoprivacy.protocol.client import Client
from autoprivacy.protocol.measurement import Contender, MeasureSettings, record
from autoprivacy.protocol.session import Agreement, pack_shares, unpack_shares
from autoprivacy.quantization.evaluation import Evaluator
from autoprivacy.quantization.integer_network import Architecture, IntegerNetwork, LayerShape, LinearLayer, Node
from autoprivacy.quantization.residues import Residues, truncated_activation
from autoprivacy.quantization.windows import Window
from autoprivacy.search.decryption_errors import HALVES, simulated_shares
from autoprivacy.selection.conditions import Selection
from autoprivacy.selection.layer_selection import layer_policy
from autoprivacy.selection.schemes import darl

P_PRIME, P_POWER = 1032193, 1 << 20
IMAGES = np.random.default_rng(8).integers(-128, 128, (6, 3, 8, 8))
FLOODING = Flooding("statistical")
torch.set_num_threads(1)  # batches this small: more threads only wait for each other


def policy_of(
    moduli: Mapping[str, int] | int, ignored: Mapping[str, int] | int = 0, network: IntegerNetwork = NETWORK
) -> Policy:
    """An exact set per layer under a modulus of its own."""
    target = EXACT_TARGET
    layers = []
    for name, layer in network.layers.items():
        p = moduli if isinstance(moduli, int) else moduli[name]
        bits = ignored if isinstance(ignored, int) else ignored.get(name, 0)
        layers.append(
            layer_policy(layer, replace(target, ignored_share_bits=bits), p, Selection(PROFILE, LINK, FLOODING))
        )
    return Policy("small", "by hand", "coefficient", FLOODING, tuple(layers))


def smallest_shift(network: IntegerNetwork) -> int:
    return min(node.shift for node in network.architecture.nodes if node.operation == "activation")


def full_ignored(network: IntegerNetwork = NETWORK) -> dict[str, int]:
    """For every layer t = f of the activation behind it (the smaller of several)."""
    nodes, ignored = network.architecture.nodes, {}
    for name in network.layers:
        reached, shifts = {name}, []
        for node in nodes:
            if reached & set(node.inputs):
                if node.operation == "activation":
                    shifts.append(node.shift)
                elif node.operation != "linear":
                    reached.add(node.name)
        ignored[name] = min(shifts, default=0)
    return ignored


def test_the_network_has_what_it_is_for() -> None:
    nodes = NETWORK.architecture.nodes
    assert {(node.minimum, node.maximum) for node in nodes if node.operation == "activation"} == {(0, 255), (-128, 127)}
    assert any(node.operation == "add" for node in nodes)
    assert {layer.shape.groups for layer in NETWORK.layers.values()} == {1, 8} and smallest_shift(NETWORK) >= 2
    outputs = np.array([reference_forward(NETWORK, image, None) for image in IMAGES])
    assert (outputs.std(0) > 100).all()
    signed = [node.name for node in nodes if node.minimum < 0]
    evaluator = Evaluator(NETWORK, None)
    assert set(evaluator.statistics(IMAGES)) >= {name.removesuffix(".out") for name in signed}


@pytest.mark.parametrize("p", [P_PRIME, P_POWER, 1032191])
def test_inverted_residuals_equal_the_integer_network_bit_for_bit(p: int) -> None:
    with session(darl(NETWORK, "mobile", p, Selection(PROFILE, LINK, FLOODING))) as client:
        for image in IMAGES[:3]:
            assert np.array_equal(client.infer(client.prepare(), image), reference_forward(NETWORK, image, p))


def test_inverted_residuals_in_slot_packing() -> None:
    with session(darl(NETWORK, "mobile", P_PRIME, Selection(PROFILE, LINK, FLOODING, "slot"))) as client:
        outputs = client.infer(client.prepare(), IMAGES[0])
    assert np.array_equal(outputs, reference_forward(NETWORK, IMAGES[0], P_PRIME))


def shares_of(client: Client, bundle: object) -> dict[str, np.ndarray]:
    """The client's share of what every activation reads."""
    agreement = client.agreement
    return {
        node.name: bundle.shares[node.inputs[0]][agreement.read_modulus(node)].copy()  # type: ignore[attr-defined]
        for node in agreement.activation_nodes()
    }


@pytest.mark.parametrize("p", [P_PRIME, P_POWER])
def test_ignored_share_bits_round_as_the_shares_say(p: int) -> None:
    """The protocol with t = f equals the integer network that rounds under the client's shares."""
    policy = policy_of(p, full_ignored())
    residues = policy.residues(NETWORK.architecture)
    assert policy.approximate and max(residues.ignored_bits.values()) >= 6
    with session(policy) as client:
        client._settle = lambda bundle: None  # type: ignore[method-assign]  # it keeps shares that a client forgets
        for image in IMAGES[:3]:
            bundle = client.prepare()
            shares = shares_of(client, bundle)
            outputs = client.infer(bundle, image)
            assert np.array_equal(outputs, reference_forward(NETWORK, image, residues, shares))


@pytest.mark.parametrize("p", [13, 61, 97, 32, 64])
def test_simulated_rounding_is_what_circuits_compute_for_all_values_and_shares(p: int) -> None:
    value, share = (grid.reshape(-1) for grid in np.meshgrid(np.arange(p), np.arange(p)))
    for shift in range(1, (p - 1).bit_length() - 1):
        for ignored in range(1, shift + 1):
            if p % 2 and (p - 1) % (1 << ignored):
                continue
            for low, high in ((0, 15), (-8, 7), (0, 255), (-256, 255)):
                node = Node("a", "activation", shift=shift, minimum=low, maximum=high)
                expected = Activation(p, shift, low, high, ignored).reference(share, (value - share) % p)
                window = Window.signed(p)
                assert np.array_equal(truncated_activation(value, share, node, window, ignored), expected)
                tensors = truncated_activation(torch.tensor(value), torch.tensor(share), node, window, ignored)
                assert np.array_equal(tensors.numpy(), expected)


@pytest.mark.parametrize("p", [P_PRIME, P_POWER])
def test_outputs_with_ignored_bits_have_the_simulations_statistics(p: int) -> None:
    """Mean and spread of the outputs of one image over fresh shares: 60 private inferences, 4,000 simulated ones."""
    network = IntegerNetwork(*_first_block())
    policy = policy_of(p, full_ignored(network), network)
    residues = policy.residues(network.architecture)
    image = IMAGES[0]
    with session(policy, network) as client:
        real = np.array([client.infer(client.prepare(), image) for _ in range(60)])
    evaluator = Evaluator(network, residues, np.random.default_rng(1))
    simulated = evaluator.forward(np.repeat(image[None], 4000, 0)).numpy()
    exact = reference_forward(network, image, p)
    assert (real != exact).any() and (simulated != exact).any()
    spread = simulated.std(0)
    assert (spread > 0).all()
    assert (np.abs(real.mean(0) - simulated.mean(0)) < 4.5 * spread / np.sqrt(60)).all()
    assert ((real.std(0) / spread > 0.6) & (real.std(0) / spread < 1.5)).all()
    assert (np.abs(simulated.mean(0) - exact) < 3 * spread).all()  # little bias: ReLUs and clips are not linear


def _first_block() -> tuple[Architecture, dict[str, LinearLayer], float]:
    """The stem and a fully connected layer behind it."""
    nodes = NETWORK.architecture.nodes[:3]
    shape = LayerShape("out", "fully_connected", (64, 1, 1), 3, (1, 1))
    layer = LinearLayer(shape, np.random.default_rng(1).integers(-40, 40, (3, 64, 1, 1)), np.zeros(3, np.int64))
    more = (Node("flat", "flatten", (nodes[-1].name,), (64, 1, 1)), Node("out", "linear", ("flat",), (3, 1, 1)))
    shapes = (NETWORK.architecture.layers[0], shape)
    architecture = replace(NETWORK.architecture, nodes=(*nodes, *more), layers=shapes)
    return architecture, {"stem": NETWORK.layers["stem"], "out": layer}, 1.0


def test_a_measurement_counts_outputs_that_differ() -> None:
    """Under t = f differing outputs are told, not failed; an exact policy has none and needs more bytes."""
    network = IntegerNetwork(*_first_block())
    records = []
    for ignored in (0, full_ignored(network)):
        policy = policy_of(P_POWER, ignored, network)
        expected = Evaluator(network, policy.residues(network.architecture)).forward(IMAGES[:3]).numpy()
        with session(policy, network) as client:
            outputs = np.array([client.infer(client.prepare(), image) for image in IMAGES[:3]])
        contender, phases = Contender(Path("network.npz"), Path("policy.json"), expected), client.ledger.phases
        records.append(record(policy, phases, phases, outputs, contender, np.zeros(3, int), MeasureSettings(3, 0)))
    exact, ignoring = records
    assert exact["exact"] and not ignoring["exact"]
    assert [image["differing_outputs"] for image in exact["images"]] == [0, 0, 0]
    assert sum(image["differing_outputs"] for image in ignoring["images"]) > 0
    for phase in ("m_pre", "m_on"):
        assert ignoring["summary"][phase]["median"] < exact["summary"][phase]["median"]


def test_the_evaluator_simulates_only_when_asked_and_by_its_generator() -> None:
    residues = policy_of(P_POWER, full_ignored()).residues(NETWORK.architecture)
    plain = Evaluator(NETWORK, P_POWER).forward(IMAGES)
    assert torch.equal(Evaluator(NETWORK, residues).forward(IMAGES), plain)
    draws = [Evaluator(NETWORK, residues, np.random.default_rng(s)).forward(IMAGES) for s in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    none = Residues.uniform(NETWORK.architecture, P_POWER)
    assert torch.equal(Evaluator(NETWORK, none, np.random.default_rng(1)).forward(IMAGES), plain)


@pytest.mark.parametrize("bits", [3, 7, 17])
def test_the_fast_simulation_rounds_as_the_low_bits_that_it_draws(bits: int) -> None:
    """Modulo 2^k, also near the wrap; 17 bits take another width of draws than fewer do."""
    p, shape = 1 << 22, (2, 3, 4, 5)
    node = Node("a", "activation", ("x",), shape[1:], shift=max(bits, 6), minimum=-8, maximum=7)
    nodes = (Node("x", "input", (), shape[1:]), node)
    network = IntegerNetwork(Architecture(nodes, (), (0.5,) * 3, (0.25,) * 3, 0.02), {}, 1.0)
    residues = replace(Residues.uniform(network.architecture, p), ignored_bits={"a": bits})
    evaluator = Evaluator(network, residues, np.random.default_rng(5))
    count = int(np.prod(shape))
    kind = np.int16 if bits < 16 else np.int32
    generator = np.random.default_rng(7)
    for low, high in ((-p // 2, p // 2), (-(16 << node.shift), 16 << node.shift)):
        values = torch.from_numpy(generator.integers(low, high, shape)).double()
        again = np.random.default_rng(5)
        words = again.bit_generator.random_raw(2 * count).view(kind)[:count].astype(np.int64) % (1 << bits)
        share = torch.from_numpy(words.reshape(2, 4, 5, 3).transpose(0, 3, 1, 2))
        expected = truncated_activation(values.long(), share, node, Window.signed(p), bits)
        evaluator._shares = np.random.default_rng(5)
        assert torch.equal(evaluator.activation(node, values).long(), expected)


def test_simulated_shares_follow_seed_and_half() -> None:
    draws = {
        (half, seed): simulated_shares(half, seed).integers(1 << 20, size=8).tolist()
        for half in HALVES
        for seed in (1, 2)
    }
    assert len({tuple(draw) for draw in draws.values()}) == 4
    assert simulated_shares("evaluate", 1).integers(1 << 20, size=8).tolist() == draws["evaluate", 1]


def test_ignored_bits_take_no_labels_transfers_or_gates() -> None:
    exact, short = (Agreement(NETWORK.architecture, policy_of(P_PRIME, bits)) for bits in (0, full_ignored()))
    for node in exact.activation_nodes():
        ignored = short.residues.ignored_bits[node.name]
        before, after = exact.activation(node), short.activation(node)
        assert after.share_bits == before.share_bits - ignored == after.circuit.garbler_bits
        assert (after.circuit.and_count < before.circuit.and_count) == (ignored > 0)
        count = int(np.prod(node.shape))
        gates = 16 + 32 * count * after.circuit.and_count
        assert short.table_lengths(node) == table_bytes(after.circuit, (P_PRIME,), count)
        assert short.table_lengths(node)[0] - gates <= 20 * count * 8 // 8 + 8


def test_bits_are_ignored_as_far_as_every_layer_before_says() -> None:
    ignored = dict.fromkeys(NETWORK.layers, 4) | {"narrow.project": 2, "head": 3}
    bits = policy_of(P_POWER, ignored).residues(NETWORK.architecture).ignored_bits
    # the mean comes from an activation alone, and the residual from the projection and the bottleneck before
    assert bits == {
        node.name: {"pool.out": 0, "narrow.sum.out": 2, "head.out": 3}.get(node.name, 4)
        for node in NETWORK.architecture.nodes
        if node.operation == "activation"
    }


@pytest.mark.parametrize(("p", "ignored", "message"), [(P_POWER, 12, "12 ignored"), (1032191, 2, "== 1 mod 2")])
def test_bits_that_cannot_be_ignored_are_refused(p: int, ignored: int, message: str) -> None:
    with pytest.raises(UserError, match=f"policy by hand of small: stem.out: activation: .*{message}"):
        Agreement(NETWORK.architecture, policy_of(p, ignored))


MODULI = {"stem": 1 << 19, "narrow": P_PRIME, "residual": P_PRIME, "strided": 1 << 21, "head": 1 << 18, "fc": P_POWER}


def moduli_by_block() -> dict[str, int]:
    return {name: MODULI[name.split(".")[0]] for name in NETWORK.layers}


@pytest.mark.parametrize("ignored", [False, True])
def test_layers_may_have_moduli_of_their_own(ignored: bool) -> None:
    policy = policy_of(moduli_by_block(), full_ignored() if ignored else 0)
    residues = policy.residues(NETWORK.architecture)
    with session(policy) as client:
        client._settle = lambda bundle: None  # type: ignore[method-assign]  # it keeps shares that a client forgets
        for image in IMAGES[:3]:
            bundle = client.prepare()
            shares = shares_of(client, bundle)
            expected = reference_forward(NETWORK, image, residues, shares)
            assert np.array_equal(client.infer(bundle, image), expected)
            if not ignored:
                assert np.array_equal(expected, reference_forward(NETWORK, image, None))
    outputs = Evaluator(NETWORK, residues).forward(IMAGES).numpy()
    assert np.array_equal(outputs, [reference_forward(NETWORK, image, residues) for image in IMAGES])


def test_values_are_shared_in_every_modulus_that_reads_them() -> None:
    residues = policy_of(moduli_by_block()).residues(NETWORK.architecture)
    assert residues.moduli["image"] == (1 << 19,)
    assert residues.moduli["stem"] == (1 << 19,) and residues.moduli["stem.out"] == (P_PRIME,)
    assert residues.moduli["strided.project.out"] == (1 << 18,)
    assert residues.moduli["head.out"] == residues.moduli["pool"] == (1 << 21,)  # the largest: no layer feeds the pool
    assert residues.moduli["pool.out"] == (P_POWER,) and residues.read["fc"] == P_POWER
    branching = moduli_by_block() | {"residual.expand": 1 << 19}
    residues = policy_of(branching).residues(NETWORK.architecture)
    assert residues.moduli["narrow.sum.out"] == (1 << 19, P_PRIME)  # the expansion and the residual


def test_an_activation_read_in_two_moduli_and_an_image_too() -> None:
    """Two branches from the image and from a ReLU, under two moduli, joined behind activations."""
    shape = LayerShape("a", "convolution", (2, 4, 4), 2, (3, 3), padding=1, input_maximum=128)
    names, rng = ("a", "b", "c", "d"), np.random.default_rng(4)
    shapes = tuple(replace(shape, name=name, input_maximum=128 if name in "ab" else 255) for name in names)
    sizes = (2, 4, 4)
    nodes = (
        Node("image", "input", (), sizes),
        Node("a", "linear", ("image",), sizes),
        Node("b", "linear", ("image",), sizes),
        Node("ra", "activation", ("a",), sizes, shift=6),
        Node("rb", "activation", ("b",), sizes, shift=6, minimum=-128, maximum=127),
        Node("sum", "add", ("ra", "rb"), sizes),
        Node("c", "linear", ("ra",), sizes),
        Node("d", "linear", ("sum",), sizes),
        Node("rc", "activation", ("c",), sizes, shift=7),
        Node("rd", "activation", ("d",), sizes, shift=7),
        Node("out", "add", ("rc", "rd"), sizes),
    )
    layers = {s.name: LinearLayer(s, rng.integers(-60, 60, (2, 2, 3, 3)), rng.integers(-99, 99, 2)) for s in shapes}
    network = IntegerNetwork(Architecture(nodes, shapes, (0.5,) * 2, (0.2,) * 2, 0.02), layers, 1.0)
    policy = policy_of({"a": 1 << 18, "b": P_PRIME, "c": 1 << 19, "d": P_POWER}, 0, network)
    residues = policy.residues(network.architecture)
    assert residues.moduli["image"] == (1 << 18, P_PRIME) and residues.moduli["ra"] == (1 << 19, P_POWER)
    assert residues.moduli["out"] == residues.moduli["rc"] == (P_POWER,)
    image = np.random.default_rng(5).integers(-128, 128, sizes)
    with session(policy, network) as client:
        outputs = client.infer(client.prepare(), image)
    assert np.array_equal(outputs, reference_forward(network, image, None))


def test_accumulators_that_meet_need_one_modulus() -> None:
    shapes = tuple(LayerShape(name, "convolution", (1, 2, 2), 1, (1, 1)) for name in ("one", "two", "three"))
    sizes = (1, 2, 2)
    nodes = (
        Node("image", "input", (), sizes),
        Node("one", "linear", ("image",), sizes),
        Node("two", "linear", ("image",), sizes),
        Node("scaled", "scale", ("two",), sizes, factor=2),
        Node("sum", "add", ("one", "scaled"), sizes),
        Node("relu", "activation", ("sum",), sizes),
        Node("three", "linear", ("relu",), sizes),
    )
    architecture = Architecture(nodes, shapes, (0.5,), (0.2,), 0.02)
    none = dict.fromkeys(("one", "two", "three"), 0)
    with pytest.raises(UserError, match="node sum: layers one modulo 97, two modulo 61 meet"):
        Residues.of(architecture, {"one": 97, "two": 61, "three": 61}, none)
    assert Residues.of(architecture, {"one": 97, "two": 97, "three": 61}, none).moduli["relu"] == (61,)
    chained = replace(architecture, nodes=(*nodes[:5], replace(nodes[6], inputs=("sum",))))
    with pytest.raises(UserError, match="node one: layers one modulo 97, three modulo 61 meet"):
        Residues.of(chained, {"one": 97, "two": 97, "three": 61}, none)


def test_shares_of_several_moduli_survive_packing_and_damage_is_told() -> None:
    rng, shape = np.random.default_rng(3), (2, 3, 5)
    shares = {p: rng.integers(0, p, shape) for p in (13, 1 << 20, P_PRIME)}
    packed = pack_shares(shares)
    unpacked = unpack_shares(packed, tuple(shares), shape)
    assert all(np.array_equal(unpacked[p], shares[p]) for p in shares)
    with pytest.raises(ProtocolError, match=f"have {len(packed)} bytes, got {len(packed) - 1}"):
        unpack_shares(packed[:-1], tuple(shares), shape)
    with pytest.raises(ProtocolError, match="holds 14, allowed below 13"):
        unpack_shares(pack_shares({16: np.full(shape, 14)}), (13,), shape)


def test_the_client_checks_what_the_server_says_of_moduli() -> None:
    told = json.loads(Agreement(NETWORK.architecture, policy_of(moduli_by_block())).to_bytes())
    layers = [layer["name"] for layer in told["policy"]["layers"]]
    told["policy"]["layers"][layers.index("residual.project")]["target"]["ignored_share_bits"] = 30
    del told["policy"]["approximate"]
    with pytest.raises(UserError, match="30 ignored share bits"):
        Agreement.from_bytes(json.dumps(told).encode())
    assert Target(0.5).ignored_share_bits == 0
