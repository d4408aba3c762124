"""Garbling kernels compiled by numba around the AES-NI instructions. Same functions and bits as `garbling_numpy`.

Everything runs without the interpreter's lock, so threads overlap. `kernels.numba_supported` says whether the processor
has what this needs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from autoprivacy.gc.circuit import AND, LEFT_INVERTED, RIGHT_INVERTED, Circuit
from autoprivacy.gc.half_gates_llvm import evaluate_and, garble_and, hash_outputs, xor_labels
from autoprivacy.gc.projection import Projection
from autoprivacy.kernel_cache import njit
from autoprivacy.ot.aes_llvm import ROUND_KEY_BYTES
from autoprivacy.ot.kernels_numba import address, round_keys
from autoprivacy.ot.labels import LABEL_BYTES

# Instances walked through the whole circuit at once: their wires, 2 KiB each, stay in the second-level cache.
BLOCK = 128
CACHE_LINE_WORDS = 8
WORD_BYTES = 8
HALF = np.uint64(32)
LOW_HALF = np.uint64((1 << 32) - 1)
ONE = np.uint64(1)
NONE = np.uint64(0)


@njit(cache=True, nogil=True, inline="always")
def _scale(low: Any, high: Any, modulus: Any) -> Any:
    """floor(x p / 2^128) for x = low + 2^64 high: uniform to a residue, at most p / 2^128 off uniform; p <= 2^32."""
    carry = (low >> HALF) * modulus + ((low & LOW_HALF) * modulus >> HALF) >> HALF
    carry = (high & LOW_HALF) * modulus + carry >> HALF
    return (high >> HALF) * modulus + carry >> HALF


@njit(cache=True, nogil=True, inline="always")
def _reduce(value: Any, modulus: Any) -> Any:
    """A value below 2 p modulo p: of v and v - p, which wraps around where v < p, the smaller one. No branch."""
    return min(value, value - modulus)


@njit(cache=True, nogil=True)
def _place_inputs(places: Any, garbler: Any, evaluator: Any, first: Any) -> None:
    """Where the inputs' labels, uint64 [bits, count, 2], stand, from instance `first` on: in the lowest slots."""
    for i in range(len(garbler)):
        places[i] = address(garbler) + LABEL_BYTES * (i * garbler.shape[1] + first)
    for i in range(len(evaluator)):
        places[len(garbler) + i] = address(evaluator) + LABEL_BYTES * (i * evaluator.shape[1] + first)


@njit(cache=True, nogil=True)
def _garble_gates(
    gates: Any, places: Any, wires: Any, keys: Any, offsets: Any, ands: Any, first: Any, size: Any
) -> None:
    row = ands.shape[2] * LABEL_BYTES
    table, key = address(ands) + LABEL_BYTES * first, address(keys)
    delta = address(offsets) + LABEL_BYTES
    for gate in range(len(gates)):
        operation = gates[gate, 0]
        x, y, out = places[gates[gate, 1]], places[gates[gate, 2]], address(wires[gates[gate, 3]])
        places[gates[gate, 3]] = out
        if not operation & AND:
            xor_labels(x, y, out, size)
            continue
        flip_x = -1 if operation & LEFT_INVERTED else 0
        flip_y = -1 if operation & RIGHT_INVERTED else 0
        garble_and(key, delta, x, y, out, flip_x, flip_y, table, row, size)
        table += 2 * row
        key += 2 * ROUND_KEY_BYTES


@njit(cache=True, nogil=True)
def _garble_outputs(
    outputs: Any,
    weights: Any,
    places: Any,
    keys: Any,
    offsets: Any,
    hashes: Any,
    modulus: Any,
    ciphertexts: Any,
    mask: Any,
) -> None:
    """The ciphertexts of one block, uint32 [outputs, size], and the sums of its masks."""
    size = len(mask)
    mask[:] = NONE
    for bit in range(len(outputs)):
        for value in range(2):
            offset = address(offsets) + LABEL_BYTES * (value ^ outputs[bit, 1])
            key, own = address(keys) + bit * ROUND_KEY_BYTES, hashes[value]
            hash_outputs(key, places[outputs[bit, 0]], offset, address(own[0]), address(own[1]), address(own[2]), size)
        for i in range(size):
            of_zero, of_one = (
                _scale(hashes[0, 0, i], hashes[0, 1, i], modulus),
                _scale(hashes[1, 0, i], hashes[1, 1, i], modulus),
            )
            # What the hash of value 1's label lacks. The other one's lack is its negative; colour 0 is to lack nothing.
            lack = _reduce(_reduce(of_zero + (modulus - of_one), modulus) + weights[bit], modulus)
            colour = hashes[0, 2, i] & ONE
            mask[i] += of_zero + colour * (modulus - lack)
            ciphertexts[bit, i] = _reduce(lack + colour * (modulus - lack - lack), modulus)


@njit(cache=True, nogil=True)
def _garble(
    gates: Any,
    outputs: Any,
    places: Any,
    wires: Any,
    hashes: Any,
    keys: Any,
    offsets: Any,
    garbler: Any,
    evaluator: Any,
    chunk_start: Any,
    moduli: Any,
    weights: Any,
    ands: Any,
    ciphertexts: Any,
    masks: Any,
) -> None:
    count = masks.shape[1]
    for first in range(0, count, BLOCK):
        size = min(BLOCK, count - first)
        _place_inputs(places, garbler, evaluator, chunk_start + first)
        _garble_gates(gates, places, wires, keys, offsets, ands, first, size)
        for j in range(len(moduli)):
            own = keys[2 * len(ands) + j * len(outputs) :]
            lacks, mask = ciphertexts[j, :, first : first + size], masks[j, first : first + size]
            _garble_outputs(outputs, weights[j], places, own, offsets, hashes, moduli[j], lacks, mask)


@njit(cache=True, nogil=True)
def _evaluate_gates(gates: Any, places: Any, wires: Any, keys: Any, ands: Any, first: Any, size: Any) -> None:
    row = ands.shape[2] * LABEL_BYTES
    table, key = address(ands) + LABEL_BYTES * first, address(keys)
    for gate in range(len(gates)):
        x, y, out = places[gates[gate, 1]], places[gates[gate, 2]], address(wires[gates[gate, 3]])
        places[gates[gate, 3]] = out
        if not gates[gate, 0] & AND:
            xor_labels(x, y, out, size)
            continue
        evaluate_and(key, x, y, out, table, row, size)
        table += 2 * row
        key += 2 * ROUND_KEY_BYTES


@njit(cache=True, nogil=True)
def _evaluate_outputs(
    outputs: Any, places: Any, keys: Any, offsets: Any, hashes: Any, modulus: Any, ciphertexts: Any, result: Any
) -> None:
    result[:] = NONE
    for bit in range(len(outputs)):
        key, own, wire = address(keys) + bit * ROUND_KEY_BYTES, hashes[0], places[outputs[bit, 0]]
        hash_outputs(key, wire, address(offsets), address(own[0]), address(own[1]), address(own[2]), len(result))
        for i in range(len(result)):
            result[i] += _scale(own[0, i], own[1, i], modulus) + (own[2, i] & ONE) * np.uint64(ciphertexts[bit, i])


@njit(cache=True, nogil=True)
def _evaluate(
    gates: Any,
    outputs: Any,
    places: Any,
    wires: Any,
    hashes: Any,
    keys: Any,
    offsets: Any,
    garbler: Any,
    evaluator: Any,
    chunk_start: Any,
    moduli: Any,
    ands: Any,
    ciphertexts: Any,
    results: Any,
) -> None:
    count = results.shape[1]
    for first in range(0, count, BLOCK):
        size = min(BLOCK, count - first)
        _place_inputs(places, garbler, evaluator, chunk_start + first)
        _evaluate_gates(gates, places, wires, keys, ands, first, size)
        for j in range(len(moduli)):
            own = keys[2 * len(ands) + j * len(outputs) :]
            lacks, result = ciphertexts[j, :, first : first + size], results[j, first : first + size]
            _evaluate_outputs(outputs, places, own, offsets, hashes, moduli[j], lacks, result)


class Workspace:
    """Memory for the temporaries of one chunk after the other, all of the same size.

    Attributes:
        size: instances of a chunk.
        temporaries: of a block. Where the labels in every slot stand, the wires that gates fill, uint64
            [slots, BLOCK, 2], and for both values of an output both words of the hashes and the labels' first words
            [2, 3, BLOCK].
    """

    def __init__(self, circuit: Circuit, size: int) -> None:
        self.size = size
        places = np.empty(circuit.slot_count, np.int64)
        wires = _aligned(circuit.slot_count * BLOCK * 2).reshape(-1, BLOCK, 2)
        self.temporaries = (places, wires, _aligned(6 * BLOCK).reshape(2, 3, BLOCK))


def _aligned(words: int) -> np.ndarray:
    """uint64 [words] that begin with a cache line: vectors that straddle two take twice the time."""
    memory = np.empty(words + CACHE_LINE_WORDS - 1, np.uint64)
    start = -memory.ctypes.data // WORD_BYTES % CACHE_LINE_WORDS
    return memory[start : start + words]


def garble(
    workspace: Workspace,
    circuit: Circuit,
    keys: np.ndarray,
    delta: np.ndarray,
    garbler_zero: np.ndarray,
    evaluator_zero: np.ndarray,
    start: int,
    projection: Projection,
    ands: np.ndarray,
    ciphertexts: np.ndarray,
    masks: np.ndarray,
) -> None:
    """Garble one chunk; arguments as in `garbling_numpy.garble`."""
    offsets = np.array([np.zeros(2, np.uint64), delta])
    wires = (*workspace.temporaries, round_keys(keys), offsets, garbler_zero, evaluator_zero, start)
    _garble(circuit.gates, circuit.outputs, *wires, projection.moduli, projection.weights, ands, ciphertexts, masks)


def evaluate(
    workspace: Workspace,
    circuit: Circuit,
    keys: np.ndarray,
    garbler_labels: np.ndarray,
    evaluator_labels: np.ndarray,
    start: int,
    projection: Projection,
    ands: np.ndarray,
    ciphertexts: np.ndarray,
    outputs: np.ndarray,
) -> None:
    """Evaluate one chunk; arguments as in `garbling_numpy.evaluate`."""
    offsets = np.zeros((1, 2), np.uint64)
    wires = (*workspace.temporaries, round_keys(keys), offsets, garbler_labels, evaluator_labels, start)
    _evaluate(circuit.gates, circuit.outputs, *wires, projection.moduli, ands, ciphertexts, outputs)
