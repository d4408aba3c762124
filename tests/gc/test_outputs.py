"""The circuits of scores and labels against integer arithmetic, garbled too; what AND gates have for inputs."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from support.random_circuits import random_circuit

from autoprivacy.errors import UserError
from autoprivacy.gc.activation import Activation, modulus_bits
from autoprivacy.gc.circuit import AND, FALSE, Circuit, CircuitBuilder, evaluate_plain
from autoprivacy.gc.garbling import evaluate, garble
from autoprivacy.gc.outputs import Label, OutputFunction, Scores, output_function
from autoprivacy.ot.kernels import numba_supported
from autoprivacy.ot.labels import encode, random_delta, zero_labels
from autoprivacy.quantization.integer_network import sign_threshold, to_signed
from autoprivacy.quantization.outputs import predicted_class, score_range, shown
from autoprivacy.randomness.generator import SecureRandom

BACKENDS = ["numpy", "numba"] if numba_supported() else ["numpy"]
MODULI = (1 << 20, 1 << 9, 1032193, 114689, 12289, 2056193, 65537, 114690)


def shares_of(logits: np.ndarray, modulus: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    client = rng.integers(0, modulus, logits.shape)
    return client.astype(np.uint64), ((logits - client) % modulus).astype(np.uint64)


def garbled_answer(function: OutputFunction, client: np.ndarray, server: np.ndarray, backend: str) -> np.ndarray:
    """What the client learns when both parties run the circuit, as the protocol lays labels out."""
    random, outputs, bits = SecureRandom(bytes(32)), len(client), function.share_bits
    delta, theirs = random_delta(random), zero_labels(bytes([2]) * 32, bits, outputs)
    circuit, instances, moduli = function.circuit, function.instances, (function.answer_modulus,)
    form = (bits * outputs // instances, instances, 2)
    garbled = garble(circuit, instances, delta, theirs.reshape(form), moduli, random, backend)
    zero = garbled.garbler_zero.reshape(bits, outputs, 2)
    own = encode(zero, delta, function.garbler_input(server)).reshape(form)
    labels = encode(theirs, delta, function.evaluator_input(client)).reshape(form)
    masked = evaluate(circuit, instances, garbled.tables, own, labels, moduli, backend)
    return function.answer(masked[0], garbled.output_masks[0])


@pytest.mark.parametrize("output", ["label", "scores"])
@pytest.mark.parametrize("modulus", MODULI)
@pytest.mark.parametrize("outputs", [2, 3, 10])
def test_answers_are_what_the_integer_network_shows(output: str, modulus: int, outputs: int) -> None:
    rng = np.random.default_rng(outputs)
    threshold = sign_threshold(modulus)
    lowest, highest = threshold - modulus, threshold - 1
    function = output_function(output, modulus, outputs)
    assert function is not None
    for logits in (
        rng.integers(lowest, highest + 1, outputs),
        np.full(outputs, lowest),
        np.where(np.arange(outputs) % 2, highest, lowest),
        np.full(outputs, 7),
        np.full(outputs, -1) - (np.arange(outputs) == 0),
    ):
        logits = np.clip(logits, lowest, highest)
        client, server = shares_of(logits, modulus, rng)
        expected = shown(logits, output, modulus)
        np.testing.assert_array_equal(function.reference(client, server), expected)
        np.testing.assert_array_equal(garbled_answer(function, client, server, BACKENDS[-1]), expected)
        if output == "label":
            assert expected == [np.argmax(logits)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("output", ["label", "scores"])
def test_backends_agree(output: str, backend: str) -> None:
    function = output_function(output, 1 << 18, 5)
    assert function is not None
    logits = np.array([100, -5, 131071, 131070, -131072])
    client, server = shares_of(logits, 1 << 18, np.random.default_rng(1))
    answer = garbled_answer(function, client, server, backend)
    np.testing.assert_array_equal(answer, shown(logits, output, 1 << 18))


@pytest.mark.parametrize("modulus", [5, 8, 12, 13, 17])
def test_the_label_is_right_for_all_pairs_of_outputs_of_small_moduli(modulus: int) -> None:
    """All values of two outputs with a share of each at random; the circuit in the clear."""
    label, rng = Label(modulus, 2), np.random.default_rng(modulus)
    values = np.array(list(product(range(modulus), repeat=2)))
    client = rng.integers(0, modulus, values.shape)
    server = (values - client) % modulus
    circuit, bits = label.circuit, label.share_bits
    own, theirs = label.garbler_input(server), label.evaluator_input(client)
    wires = [
        np.array([share[:, j] >> np.uint64(i) & np.uint64(1) for i in range(bits) for j in range(2)], np.uint8)
        for share in (own, theirs)
    ]
    (answers,) = evaluate_plain(circuit, *wires)
    np.testing.assert_array_equal(answers, shown(to_signed(values, modulus), "label", modulus)[:, 0])


def test_gates_of_a_label_and_of_scores() -> None:
    """Additions, comparisons, numbers carried on, and an index bit where the two indices differ in more than one."""
    assert Label(1 << 20, 2).circuit.and_count == 2 * 19 + 20
    assert Label(1 << 20, 10).circuit.and_count <= 10 * 19 + 9 * 20 + 8 * 20 + 9 * 3
    assert Label(1 << 20, 100).circuit.and_count <= 100 * 19 + 99 * 20 + 98 * 20 + 99 * 6
    assert Label(1 << 20, 10).circuit.output_bits == 4 and Label(1 << 20, 10).answer_modulus == 16
    scores = Scores(1 << 20, 10)
    assert scores.instances == 10 and scores.answer_modulus == 1 << 7 and scores.circuit.and_count == 19


@pytest.mark.parametrize("modulus", MODULI)
def test_scores_are_coarse_and_keep_the_order(modulus: int) -> None:
    low, high = score_range(modulus)
    assert high - low + 1 <= 128
    threshold = sign_threshold(modulus)
    logits = np.sort(np.random.default_rng(3).integers(threshold - modulus, threshold * 3 // 4, 50))
    scores = shown(logits, "scores", modulus)
    assert (np.diff(scores) >= 0).all() and scores.min() >= low and scores.max() <= high
    assert predicted_class(scores, "scores") <= predicted_class(logits, "logits") == 49
    assert shown(logits, "logits", modulus) is logits
    assert predicted_class(shown(logits, "label", modulus), "label") == 49


def test_mistakes_are_named() -> None:
    assert output_function("logits", 1 << 20, 10) is None
    with pytest.raises(UserError, match="output 'top5'; expected one of logits, scores, label"):
        output_function("top5", 1 << 20, 10)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="label: 1 outputs; expected 2 to 4096"):
        Label(1 << 20, 1)
    with pytest.raises(UserError, match="label: plaintext modulus 3"):
        Label(3, 10)


def tied_gates(circuit: Circuit) -> int:
    """AND gates whose inputs are constant, equal or inverse of each other as sums of inputs and of AND gates."""
    terms = circuit.garbler_bits + circuit.evaluator_bits
    slots, tied = {i: 1 << i for i in range(terms)}, 0
    for operation, left, right, out in circuit.gates.tolist():
        if operation & AND:
            tied += not slots[left] or not slots[right] or slots[left] == slots[right]
            slots[out] = 1 << terms
            terms += 1
        else:
            slots[out] = slots[left] ^ slots[right]
    return tied


def test_inputs_of_every_and_gate_are_independent() -> None:
    """Of activations under every modulus that selection may choose, of scores and of labels."""
    moduli = [
        *(1 << k for k in range(4, 31)),
        *MODULI,
        61,
        97,
        4093,
        131071,
        4079617,
        8380417,
        12289 * 18433 % (1 << 32),
    ]
    circuits = 0
    for modulus in moduli:
        bits = modulus_bits(modulus)
        for shift, high, signed in product(range(0, bits - 1, 2), (1, 127, 255), (False, True)):
            for ignored in {0, shift}:
                try:
                    activation = Activation(modulus, shift, -high - 1 if signed else 0, high, ignored)
                except UserError:  # p admits no ignored bits
                    continue
                assert tied_gates(activation.circuit) == 0
                circuits += 1
        for function in (Label(modulus, 10), Scores(modulus, 10)):
            assert tied_gates(function.circuit) == 0
    assert circuits > 2000


@pytest.mark.parametrize("seed", range(20))
def test_no_circuit_can_tie_the_inputs_of_an_and_gate(seed: int) -> None:
    rng = np.random.default_rng(seed)
    garbler, evaluator = rng.integers(0, 2, (3, 8)) == 1, rng.integers(0, 2, (2, 8)) == 1
    circuit, expected = random_circuit(rng, garbler, evaluator, gates=200, outputs=6)
    assert tied_gates(circuit) == 0
    np.testing.assert_array_equal(evaluate_plain(circuit, garbler, evaluator), expected)


def test_a_sum_put_together_in_two_ways_is_one_wire() -> None:
    builder = CircuitBuilder()
    (g,), (e, f) = builder.garbler_inputs(1), builder.evaluator_inputs(2)
    x, y = builder.xor(builder.xor(g, e), f), builder.xor(g, builder.xor(e, f))
    assert x == y == builder.and_(x, y) and builder.and_(x, builder.not_(y)) == FALSE
    assert builder.xor(builder.xor(x, g), builder.xor(e, f)) == FALSE
