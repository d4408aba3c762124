"""Garbling kernels compiled by numba around the AES-NI instructions. Same functions and bits as `garbling_numpy`.

Everything runs without the interpreter's lock, so threads overlap. `kernels.numba_supported` says whether the processor
has what this needs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from autoprivacy.gc.circuit import AND, LEFT_INVERTED, RIGHT_INVERTED, Circuit
from autoprivacy.gc.half_gates_llvm import KEY_WORDS, evaluate_and, expand_key, garble_and, hash_word
from autoprivacy.gc.projection import Projection

# Instances walked through the whole circuit at once: their wires, 2 KiB each, stay in the second-level cache.
BLOCK = 128
HALF = np.uint64(32)
LOW_HALF = np.uint64((1 << 32) - 1)
ONE = np.uint64(1)
NONE = np.uint64(0)
ALL = np.uint64((1 << 64) - 1)


@njit(cache=True, nogil=True, inline="always")
def _scale(word: Any, modulus: Any) -> Any:
    """floor(word * p / 2^64): a uniform word to a residue, at most p / 2^64 away from uniform; p at most 2^32."""
    return ((word >> HALF) * modulus + ((word & LOW_HALF) * modulus >> HALF)) >> HALF


@njit(cache=True, nogil=True, inline="always")
def _reduce(value: Any, modulus: Any) -> Any:
    """A value below 2 p modulo p: of v and v - p, which wraps around where v < p, the smaller one. No branch."""
    return min(value, value - modulus)


@njit(cache=True, nogil=True)
def _expand_keys(keys: Any) -> Any:
    """Round keys, uint64 [keys, 22], of AES keys, uint64 [keys, 2]."""
    expanded = np.empty((len(keys), KEY_WORDS), np.uint64)
    for i in range(len(keys)):
        expand_key(keys[i], expanded[i])
    return expanded


@njit(cache=True, nogil=True)
def _xor(x: Any, y: Any, out: Any, words: Any) -> None:
    for i in range(words):
        out[i] = x[i] ^ y[i]


@njit(cache=True, nogil=True)
def _load_inputs(wires: Any, garbler: Any, evaluator: Any, first: Any, size: Any) -> None:
    """The labels of instances first .. first + size of all, uint64 [bits, count, 2], into the lowest slots."""
    for i in range(len(garbler)):
        wires[i, : 2 * size] = garbler[i, first : first + size].reshape(-1)
    for i in range(len(evaluator)):
        wires[len(garbler) + i, : 2 * size] = evaluator[i, first : first + size].reshape(-1)


@njit(cache=True, nogil=True)
def _garble_outputs(
    outputs: Any, weights: Any, wires: Any, keys: Any, delta: Any, modulus: Any, ciphertexts: Any, mask: Any
) -> None:
    hashes = np.empty((2, BLOCK), np.uint64)
    mask[:] = NONE
    for bit in range(len(outputs)):
        zero, key = wires[outputs[bit, 0]], keys[bit]
        flip = ALL if outputs[bit, 1] else NONE
        flip_low, flip_high = flip & delta[0], flip & delta[1]
        for i in range(len(mask)):
            low, high = zero[2 * i] ^ flip_low, zero[2 * i + 1] ^ flip_high
            hashes[0, i] = hash_word(key, low, high)
            hashes[1, i] = hash_word(key, low ^ delta[0], high ^ delta[1])
        _project(hashes, zero, flip_low, weights[bit], modulus, ciphertexts[bit], mask)


@njit(cache=True, nogil=True)
def _project(hashes: Any, zero: Any, flip_low: Any, weight: Any, modulus: Any, ciphertexts: Any, mask: Any) -> None:
    """One output bit's ciphertexts and its part of the masks, from the hashes of its labels of value 0 and 1."""
    for i in range(len(mask)):
        of_zero, of_one = _scale(hashes[0, i], modulus), _scale(hashes[1, i], modulus)
        # What the hash of value 1's label lacks. The other one's lack is its negative; colour 0 is to lack nothing.
        lack = _reduce(_reduce(of_zero + (modulus - of_one), modulus) + weight, modulus)
        colour = (zero[2 * i] ^ flip_low) & ONE
        mask[i] += of_zero + colour * (modulus - lack)
        ciphertexts[i] = _reduce(lack + colour * (modulus - lack - lack), modulus)


@njit(cache=True, nogil=True)
def _garble_gates(gates: Any, wires: Any, keys: Any, delta: Any, ands: Any, first: Any, size: Any) -> None:
    row = ands.shape[2] * 2
    index_and = 0
    table = ands.reshape(-1)
    for gate in range(len(gates)):
        operation = gates[gate, 0]
        x, y, out = wires[gates[gate, 1]], wires[gates[gate, 2]], wires[gates[gate, 3]]
        if not operation & AND:
            _xor(x, y, out, 2 * size)
            continue
        key = keys[index_and]
        flip_x = ALL if operation & LEFT_INVERTED else NONE
        flip_y = ALL if operation & RIGHT_INVERTED else NONE
        start = 2 * index_and * row + 2 * first
        for i in range(0, 2 * size, 2):
            garble_and(key, delta, x, y, flip_x, flip_y, out, i, table, start + i, start + row + i)
        index_and += 1


@njit(cache=True, nogil=True)
def _garble(
    gates: Any,
    outputs: Any,
    wires: Any,
    keys: Any,
    delta: Any,
    garbler: Any,
    evaluator: Any,
    chunk_start: Any,
    moduli: Any,
    weights: Any,
    ands: Any,
    ciphertexts: Any,
    masks: Any,
) -> None:
    expanded = _expand_keys(keys)
    count = masks.shape[1]
    for first in range(0, count, BLOCK):
        size = min(BLOCK, count - first)
        _load_inputs(wires, garbler, evaluator, chunk_start + first, size)
        _garble_gates(gates, wires, expanded, delta, ands, first, size)
        for j in range(len(moduli)):
            own = expanded[len(ands) + j * len(outputs) :]
            lacks, mask = ciphertexts[j, :, first : first + size], masks[j, first : first + size]
            _garble_outputs(outputs, weights[j], wires, own, delta, moduli[j], lacks, mask)


@njit(cache=True, nogil=True)
def _evaluate_gates(gates: Any, wires: Any, keys: Any, ands: Any, first: Any, size: Any) -> None:
    row = ands.shape[2] * 2
    index_and = 0
    table = ands.reshape(-1)
    for gate in range(len(gates)):
        x, y, out = wires[gates[gate, 1]], wires[gates[gate, 2]], wires[gates[gate, 3]]
        if not gates[gate, 0] & AND:
            _xor(x, y, out, 2 * size)
            continue
        key = keys[index_and]
        start = 2 * index_and * row + 2 * first
        for i in range(0, 2 * size, 2):
            evaluate_and(key, x, y, out, i, table, start + i, start + row + i)
        index_and += 1


@njit(cache=True, nogil=True)
def _evaluate_outputs(outputs: Any, wires: Any, keys: Any, modulus: Any, ciphertexts: Any, result: Any) -> None:
    for i in range(len(result)):
        result[i] = NONE
    for bit in range(len(outputs)):
        label, key, row = wires[outputs[bit, 0]], keys[bit], ciphertexts[bit]
        for i in range(len(result)):
            low, high = label[2 * i], label[2 * i + 1]
            result[i] += _scale(hash_word(key, low, high), modulus) + (low & ONE) * np.uint64(row[i])


@njit(cache=True, nogil=True)
def _evaluate(
    gates: Any,
    outputs: Any,
    wires: Any,
    keys: Any,
    garbler: Any,
    evaluator: Any,
    chunk_start: Any,
    moduli: Any,
    ands: Any,
    ciphertexts: Any,
    results: Any,
) -> None:
    expanded = _expand_keys(keys)
    count = results.shape[1]
    for first in range(0, count, BLOCK):
        size = min(BLOCK, count - first)
        _load_inputs(wires, garbler, evaluator, chunk_start + first, size)
        _evaluate_gates(gates, wires, expanded, ands, first, size)
        for j in range(len(moduli)):
            own = expanded[len(ands) + j * len(outputs) :]
            lacks, result = ciphertexts[j, :, first : first + size], results[j, first : first + size]
            _evaluate_outputs(outputs, wires, own, moduli[j], lacks, result)


class Workspace:
    """Memory for the temporaries of one chunk after the other, all of the same size."""

    def __init__(self, circuit: Circuit, size: int) -> None:
        self.size = size
        self.wires = np.empty((circuit.slot_count, 2 * BLOCK), np.uint64)


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
    wires = (workspace.wires, _words(keys), delta, garbler_zero, evaluator_zero, start)
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
    wires = (workspace.wires, _words(keys), garbler_labels, evaluator_labels, start)
    _evaluate(circuit.gates, circuit.outputs, *wires, projection.moduli, ands, ciphertexts, outputs)


def _words(keys: np.ndarray) -> np.ndarray:
    return keys.copy().view(np.uint64)


@njit(cache=True, nogil=True)
def _transpose(rows: Any, labels: Any) -> None:
    block = np.empty(64, np.uint64)
    for word in range(rows.shape[1]):
        for half in range(2):
            for i in range(64):
                block[i] = rows[64 * half + i, word]
            distance, mask = 32, LOW_HALF
            while distance:
                shift = np.uint64(distance)
                for start in range(0, 64, 2 * distance):
                    for i in range(start, start + distance):
                        swap = ((block[i] >> shift) ^ block[i + distance]) & mask
                        block[i + distance] ^= swap
                        block[i] ^= swap << shift
                distance >>= 1
                mask ^= mask << np.uint64(distance)
            for i in range(64):
                labels[64 * word + i, half] = block[i]


def transpose(rows: np.ndarray) -> np.ndarray:
    """A bit matrix's columns as labels; as `garbling_numpy.transpose`."""
    labels = np.empty((64 * rows.shape[1], 2), np.uint64)
    _transpose(rows, labels)
    return labels
