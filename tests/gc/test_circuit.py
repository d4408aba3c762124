"""Circuits: the builder's folding and slots, and the activation circuit against integer arithmetic."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from support.random_circuits import number, random_circuit

from autoprivacy.errors import UserError
from autoprivacy.gc.activation import Activation, modulus_bits
from autoprivacy.gc.circuit import FALSE, TRUE, CircuitBuilder, evaluate_plain
from autoprivacy.quantization.integer_network import to_signed

SMALL_MODULI = (13, 61, 97, 251, 4, 16, 32, 64, 128, 256)
ODD_MODULI = (5, 6, 9, 12, 15, 17, 193, 257)  # composite, even, and primes just above a power of two
REAL_MODULI = (4093, 12289, 65537, 114689, 131071, 1032193, 2056193, 4079617, 8380417, 1 << 14, 1 << 17, 1 << 20)


def bits_of(values: np.ndarray, bits: int) -> np.ndarray:
    return (values >> np.arange(bits, dtype=np.uint64)[:, None] & np.uint64(1)).astype(np.uint8)


def check_activation(client: np.ndarray, server: np.ndarray, activation: Activation) -> None:
    """The circuit's outputs and integer arithmetic agree for every pair of shares."""
    circuit, bits = activation.circuit, activation.share_bits
    garbler, evaluator = activation.garbler_input(server), activation.evaluator_input(client)
    assert circuit.garbler_bits == circuit.evaluator_bits == bits
    assert int(garbler.max()) < 1 << bits and int(evaluator.max()) < 1 << bits
    outputs = evaluate_plain(circuit, bits_of(garbler, bits), bits_of(evaluator, bits))
    values = np.asarray(circuit.weights) @ outputs.astype(np.int64)
    np.testing.assert_array_equal(values, activation.reference(client, server))


CLIPS = tuple((low, high) for high in (1, 3, 15, 255) for low in (0, -high - 1))


def every_pair(modulus: int) -> tuple[np.ndarray, np.ndarray]:
    every = np.arange(modulus, dtype=np.uint64)
    return np.repeat(every, modulus), np.tile(every, modulus)


@pytest.mark.parametrize("modulus", SMALL_MODULI + ODD_MODULI)
def test_activation_is_exact_for_all_shares_of_small_moduli(modulus: int) -> None:
    client, server = every_pair(modulus)
    for shift, clip in product(range(modulus_bits(modulus) - 1), CLIPS):
        activation = Activation(modulus, shift, *clip)
        check_activation(client, server, activation)
        half = 1 << shift >> 1
        expected = np.clip(to_signed(client.astype(np.int64) + server.astype(np.int64) + half, modulus) >> shift, *clip)
        np.testing.assert_array_equal(activation.reference(client, server), expected)


def admits(modulus: int, ignored: int) -> bool:
    """Whether that many bits can be ignored."""
    power, before = modulus & (modulus - 1) == 0, modulus - 1
    return power or (before % (1 << ignored) == 0 and before & (before - 1) != 0)


IGNORING_MODULI = (13, 61, 97, 193, 241, 225, 16, 64, 256)


@pytest.mark.parametrize("modulus", IGNORING_MODULI)
def test_ignored_bits_for_all_shares_of_small_moduli(modulus: int) -> None:
    client, server = every_pair(modulus)
    for shift, clip in product(range(1, modulus_bits(modulus) - 1), CLIPS):
        for ignored in range(1, shift + 1):
            if admits(modulus, ignored):
                check_activation(client, server, Activation(modulus, shift, *clip, ignored))


@pytest.mark.parametrize("modulus", IGNORING_MODULI)
def test_ignored_bits_round_without_bias(modulus: int) -> None:
    """Over all shares of x, 2^t X is x + (2^f - 2^t) / 2 in the mean, up to 1, and never off by 2^t or more."""
    bits = modulus_bits(modulus)
    for shift in range(1, bits - 1):
        for ignored in (t for t in range(1, shift + 1) if admits(modulus, t)):
            activation = Activation(modulus, shift, -(1 << bits), (1 << bits) - 1, ignored)
            unit, half = 1 << ignored, ((1 << shift) - (1 << ignored)) // 2
            # before the shift's own rounding: an activation with a shift of t has X itself as output
            raw = Activation(modulus, ignored, -(1 << bits), (1 << bits) - 1, ignored)
            highest, lowest = (1 << bits - 1) - 1 - activation.constant, (1 << bits - 1) - modulus + 2 * unit
            for x in range(lowest, highest):
                client = np.arange(modulus)
                results = raw.reference(client, (x - client) % modulus) * unit - x
                assert np.abs(results).max() <= unit and abs(results.mean()) <= 1
                if modulus % 2 == 0:
                    assert results.mean() == 0 and (x % unit or not results.any())
                shifted = activation.reference(client, (x - client) % modulus)
                assert np.abs((shifted << shift) - x).max() <= half + unit


def edge_shares(activation: Activation) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of shares around every boundary: of the shares themselves, and of their rounded sum."""
    modulus, shift, maximum = activation.modulus, activation.shift, activation.maximum
    bits = modulus_bits(modulus)
    powers = [1 << i for i in range(bits)]
    centres = [0, modulus // 2, *powers, *(modulus - power for power in powers), maximum << shift, 255 << shift]
    centres += [-(maximum + 1) << shift, (1 << bits - 1) + (1 << shift)]
    edges = np.unique([(centre + step) % modulus for centre in centres for step in range(-2, 3)])
    client, other = (grid.reshape(-1) for grid in np.meshgrid(edges, edges))
    rounded = (other - client - activation.constant) % modulus  # so that the sum after rounding is the other edge
    return np.tile(client, 2).astype(np.uint64), np.concatenate([other, rounded]).astype(np.uint64)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("modulus", REAL_MODULI)
def test_activation_is_exact_at_edges_and_random_shares_of_real_moduli(modulus: int, signed: bool) -> None:
    rng = np.random.default_rng(modulus)
    bits = modulus_bits(modulus)
    for shift, maximum in ((0, 255), (max(0, bits - 11), 255), (bits - 4, 255), (bits - 2, 1), (5, 15)):
        for ignored in {0, shift // 2, shift}:
            if ignored and not admits(modulus, ignored):
                continue
            activation = Activation(modulus, shift, -maximum - 1 if signed else 0, maximum, ignored)
            check_activation(*edge_shares(activation), activation)
            client, server = rng.integers(0, modulus, (2, 20_000)).astype(np.uint64)
            check_activation(client, server, activation)


@pytest.mark.parametrize("shift", [0, 1, 2])
@pytest.mark.parametrize(("minimum", "maximum"), [(0, 1), (0, 7), (0, 31), (-2, 1), (-8, 7)])
def test_activations_of_every_window_and_all_shares(shift: int, minimum: int, maximum: int) -> None:
    """The shares are of 2^7: the windows of 2^5 drop two bits."""
    shares = np.arange(1 << 7, dtype=np.uint64)
    client, server = (grid.reshape(-1) for grid in np.meshgrid(shares, shares))
    step, size = 1 << shift, 1 << 5
    for lowest in range(2 * step - size, 0, step):
        for ignored in range(shift + 1):
            activation = Activation(size, shift, minimum, maximum, ignored, lowest)
            check_activation(client, server, activation)
            if not ignored:
                rounded = (client + server + np.uint64(activation.constant)).astype(np.int64) % size
                read = np.where(rounded >= lowest + size, rounded - size, rounded)
                wanted = np.clip(read >> shift, minimum, maximum)
                np.testing.assert_array_equal(activation.reference(client, server), wanted)


def test_and_gates_of_windows() -> None:
    """One for every bit of the threshold between the top one and the last that is set; none for a quarter."""
    plain = Activation(1 << 20, 9, 0, 255)
    for thirty_seconds, more in ((16, 0), (8, 0), (24, 1), (20, 2), (17, 4), (28, 2), (31, 4)):
        window = replace(plain, lowest=(thirty_seconds << 15) - (1 << 20))
        assert window.circuit.and_count == plain.circuit.and_count + more, thirty_seconds


@pytest.mark.parametrize(
    ("modulus", "lowest"), [(1 << 10, -3), (1 << 10, 0), (1 << 10, -1024), (1 << 10, -1020), (1032193, -4)]
)
def test_windows_that_no_activation_reads_are_refused(modulus: int, lowest: int) -> None:
    with pytest.raises(UserError, match="numbers from"):
        Activation(modulus, 2, 0, 63, 0, lowest)


def test_reference_rounds_and_clips_by_hand() -> None:
    # p = 2^10, shift 2: 6/4 rounds to 2, 5/4 to 1, a negative sum to 0, 300 to the maximum of 63.
    client, server = np.array([1, 2, 1000, 200]), np.array([5, 3, 20, 100])
    assert Activation(1 << 10, 2, 0, 63).reference(client, server).tolist() == [2, 1, 0, 63]
    assert Activation(1 << 10, 2, -64, 63).reference(client, server).tolist() == [2, 1, -1, 63]
    # p = 13 has 4 bits: residues from 8 are negative.
    assert Activation(13, 0, 0, 15).reference(np.array([3, 4]), np.array([4, 4])).tolist() == [7, 0]
    assert Activation(13, 0, -16, 15).reference(np.array([3, 4]), np.array([4, 4])).tolist() == [7, -5]


@pytest.mark.parametrize(
    ("modulus", "relu", "signed"),
    [
        (1 << 14, 23, 22),
        (1 << 17, 26, 25),
        (1 << 20, 29, 28),
        (1 << 22, 31, 30),
        (12289, 25, 25),  # 3 * 2^12 + 1, where a clip below zero leaves no room for m = 12
        (114689, 29, 28),  # 7 * 2^14 + 1
        (1032193, 35, 34),  # 63 * 2^14 + 1
        (4079617, 39, 38),  # 249 * 2^14 + 1
        (16381, 35, 34),  # 4095 * 2^2 + 1
        (131071, 42, 41),
        (65537, 43, 42),  # the only negative residue is p - 1: nothing to save
    ],
)
def test_and_gates_of_8_bit_activations(modulus: int, relu: int, signed: int) -> None:
    shift = modulus_bits(modulus) - 11  # two bits between a ReLU's output and the sign, three in a signed one
    for minimum, maximum, and_gates in ((0, 255, relu), (-128, 127, signed)):
        circuit = Activation(modulus, shift, minimum, maximum).circuit
        assert circuit.and_count == and_gates
        assert circuit.output_bits == 8
        assert circuit.slot_count <= circuit.garbler_bits + circuit.evaluator_bits + 4


@pytest.mark.parametrize(
    ("modulus", "relu", "signed"), [(114689, 17, 10), (1032193, 26, 25), (1 << 17, 14, 7), (1 << 20, 20, 19)]
)
def test_and_gates_with_nine_of_nine_bits_ignored(modulus: int, relu: int, signed: int) -> None:
    assert Activation(modulus, 9, 0, 255, 9).circuit.and_count == relu
    assert Activation(modulus, 9, -128, 127, 9).circuit.and_count == signed


@pytest.mark.parametrize(
    ("modulus", "shift", "minimum", "maximum", "ignored", "named"),
    [
        (114689, 16, 0, 255, 0, "0 to 15"),
        (114689, -1, 0, 255, 0, "0 to 15"),
        (114689, 6, -128, 255, 0, "clipped ReLU"),
        (114689, 6, -3, 3, 0, "clipped ReLU"),
        (114689, 6, 0, 200, 0, "clipped ReLU"),
        (114689, 6, 0, 0, 0, "clipped ReLU"),
        (2, 0, 0, 1, 0, "4 to 2"),
        ((1 << 32) + 1, 0, 0, 255, 0, "4 to 2"),
        (114689, 6, 0, 255, 7, "7 ignored share bits; expected 0 to its shift, 6"),
        (114689, 6, 0, 255, -1, "expected 0 to its shift"),
        (16381, 6, 0, 255, 3, "3 ignored share bits modulo 16381; expected a modulus 2.k, or one == 1 mod 2.3"),
        (65537, 6, 0, 255, 3, "other than 2.k"),
        (60, 3, 0, 255, 1, "== 1 mod 2.1"),
    ],
)
def test_unsupported_activations_say_what_is_supported(
    modulus: int, shift: int, minimum: int, maximum: int, ignored: int, named: str
) -> None:
    with pytest.raises(UserError, match=named):
        Activation(modulus, shift, minimum, maximum, ignored)


def test_constants_and_equal_wires_fold() -> None:
    builder = CircuitBuilder()
    x, y = builder.garbler_inputs(1)[0], builder.evaluator_inputs(1)[0]
    assert builder.and_(x, FALSE) == FALSE and builder.and_(TRUE, x) == x
    assert builder.and_(x, x) == x and builder.and_(x, builder.not_(x)) == FALSE
    assert builder.xor(x, x) == FALSE and builder.xor(x, builder.not_(x)) == TRUE
    assert builder.xor(x, FALSE) == x and builder.xor(TRUE, x) == builder.not_(x)
    assert builder.or_(x, TRUE) == TRUE and builder.or_(FALSE, x) == x
    assert builder.and_(TRUE, TRUE) == TRUE and builder.xor(TRUE, TRUE) == FALSE
    assert builder.not_(builder.not_(x)) == x
    assert builder.and_(x, y) == builder.and_(y, x)
    assert builder.xor(builder.not_(x), y) == builder.not_(builder.xor(y, x))


def test_gates_that_no_output_needs_are_dropped() -> None:
    builder = CircuitBuilder()
    x, y = builder.garbler_inputs(1)[0], builder.evaluator_inputs(1)[0]
    builder.and_(x, builder.not_(y))
    circuit = builder.build([builder.xor(x, y)])
    assert circuit.and_count == 0 and len(circuit.gates) == 1


@pytest.mark.parametrize("outputs", [[], [TRUE]])
def test_no_outputs_or_constant_ones_are_refused(outputs: list[int]) -> None:
    with pytest.raises(ValueError, match="none constant"):
        CircuitBuilder().build(outputs)


def test_all_forms_of_and_gates() -> None:
    garbler, evaluator = np.array([[0, 0, 1, 1]], np.uint8), np.array([[0, 1, 0, 1]], np.uint8)
    for flip_x, flip_y, flip_out in product((0, 1), repeat=3):
        builder = CircuitBuilder()
        x, y = builder.garbler_inputs(1)[0], builder.evaluator_inputs(1)[0]
        circuit = builder.build([builder.and_(x ^ flip_x, y ^ flip_y) ^ flip_out])
        expected = (garbler ^ flip_x) & (evaluator ^ flip_y) ^ flip_out
        np.testing.assert_array_equal(evaluate_plain(circuit, garbler, evaluator), expected)


def test_adder_of_three_bits_with_carry() -> None:
    every = np.arange(128, dtype=np.uint64)
    x, y, carry = every % 8, every // 8 % 8, every // 64
    builder = CircuitBuilder()
    left, right = builder.garbler_inputs(3), builder.evaluator_inputs(4)
    total, carry_out = builder.add(left, right[:3], right[3])
    circuit = builder.build([*total, carry_out])
    assert circuit.and_count == 3
    outputs = evaluate_plain(circuit, bits_of(x, 3), bits_of(y + 8 * carry, 4))
    np.testing.assert_array_equal(number(outputs), (x + y + carry).astype(np.int64))


def test_inputs_may_be_outputs_inverted_and_unused() -> None:
    builder = CircuitBuilder()
    x, y = builder.garbler_inputs(2), builder.evaluator_inputs(2)
    circuit = builder.build([builder.not_(x[1]), y[0], y[0]])
    outputs = evaluate_plain(circuit, np.array([[0], [1]]), np.array([[1], [0]]))
    assert outputs[:, 0].tolist() == [0, 1, 1]


@pytest.mark.parametrize("seed", range(20))
def test_random_circuits_survive_slot_reuse(seed: int) -> None:
    rng = np.random.default_rng(seed)
    garbler, evaluator = rng.integers(0, 2, (5, 64)) == 1, rng.integers(0, 2, (4, 64)) == 1
    circuit, expected = random_circuit(rng, garbler, evaluator, gates=120, outputs=6)
    np.testing.assert_array_equal(evaluate_plain(circuit, garbler, evaluator), expected)
    assert not (circuit.gates[:, 3:] == circuit.gates[:, 1:3]).any()  # garbling writes while it reads


def test_a_long_chain_needs_few_slots() -> None:
    builder = CircuitBuilder()
    x = builder.garbler_inputs(2)
    wire = builder.evaluator_inputs(1)[0]
    for i in range(1000):
        wire = builder.xor(builder.and_(wire, x[i % 2]), x[1 - i % 2])
    circuit = builder.build([wire])
    assert circuit.and_count == 1000 and circuit.slot_count <= 5
