"""Garbling kernels compiled by numba around the AES-NI instructions. Same functions and bits as `garbling_numpy`.

numba has no 128-bit type, so what touches labels as a whole is written in LLVM's intermediate representation: an
intrinsic garbles or evaluates one AND gate of one instance from and to memory. Everything runs without the interpreter's
lock. x86 processors with AES instructions only: `kernels.numba_supported` asks first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from autoprivacy.gc.circuit import AND, LEFT_INVERTED, RIGHT_INVERTED, Circuit

# Instances walked through the whole circuit at once: their wires, 2 KiB each, stay in the second-level cache.
BLOCK = 128
AES_ROUNDS = 10
KEY_WORDS = 2 * (AES_ROUNDS + 1)
# Round constants of the AES-128 key schedule (FIPS 197, section 5.2).
ROUND_CONSTANTS = (0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0x1B, 0x36)

HALF = np.uint64(32)
LOW_HALF = np.uint64((1 << 32) - 1)
ONE = np.uint64(1)
NONE = np.uint64(0)
ALL = np.uint64((1 << 64) - 1)

WORD = ir.IntType(64)
LABEL = ir.VectorType(WORD, 2)
QUARTERS = ir.VectorType(ir.IntType(32), 4)


def _label(builder: Any, low: Any, high: Any) -> Any:
    """A label of two words."""
    value = builder.insert_element(ir.Constant(LABEL, ir.Undefined), low, ir.IntType(32)(0))
    return builder.insert_element(value, high, ir.IntType(32)(1))


def _shuffle(builder: Any, value: Any, order: list[int]) -> Any:
    """The elements of `value`, followed by zeros, in this order."""
    mask = ir.Constant(ir.VectorType(ir.IntType(32), len(order)), order)
    return builder.shuffle_vector(value, ir.Constant(value.type, None), mask)


def _sigma(builder: Any, label: Any) -> Any:
    """(l ^ r, l) for a label (l, r)."""
    return builder.xor(_shuffle(builder, label, [1, 0]), _shuffle(builder, label, [0, 2]))


def _colour_mask(builder: Any, label: Any) -> Any:
    """All ones where the label's lowest bit is set, else zero."""
    low = _shuffle(builder, label, [0, 0])
    return builder.sub(ir.Constant(LABEL, None), builder.and_(low, ir.Constant(LABEL, [1, 1])))


def _call(builder: Any, name: str, *arguments: Any) -> Any:
    function_type = ir.FunctionType(LABEL, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, function_type, name), arguments)


def _hash(builder: Any, keys: list[Any], labels: list[Any]) -> list[Any]:
    """H of every label, the rounds of all of them interleaved; `keys` are the 11 round keys."""
    inputs = [_sigma(builder, label) for label in labels]
    blocks = [builder.xor(block, keys[0]) for block in inputs]
    for key in keys[1:-1]:
        blocks = [_call(builder, "llvm.x86.aesni.aesenc", block, key) for block in blocks]
    blocks = [_call(builder, "llvm.x86.aesni.aesenclast", block, keys[-1]) for block in blocks]
    return [builder.xor(block, one) for block, one in zip(blocks, inputs, strict=True)]


class _Memory:
    """Labels in the flat uint64 arrays that an intrinsic was called with, found by argument number and word index."""

    def __init__(self, context: Any, builder: Any, signature: Any, arguments: Any) -> None:
        self._builder = builder
        self._arguments = arguments
        self._data = {
            i: context.make_array(kind)(context, builder, arguments[i]).data
            for i, kind in enumerate(signature.args)
            if isinstance(kind, types.Array)
        }

    def _pointer(self, argument: int, index: int | Any) -> Any:
        if isinstance(index, int):
            index = ir.Constant(WORD, index)
        return self._builder.bitcast(self._builder.gep(self._data[argument], [index]), LABEL.as_pointer())

    def load(self, argument: int, index: int | Any) -> Any:
        return self._builder.load(self._pointer(argument, index), align=8)

    def store(self, value: Any, argument: int, index: int | Any) -> None:
        self._builder.store(value, self._pointer(argument, index), align=8)

    def round_keys(self, argument: int) -> list[Any]:
        return [self.load(argument, 2 * i) for i in range(AES_ROUNDS + 1)]


@intrinsic
def _expand_key(typingctx: Any, key: Any, expanded: Any) -> Any:
    """The round keys of an AES-128 key: two words in, 22 words out."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        memory = _Memory(context, builder, signature, arguments)
        key = memory.load(0, 0)
        memory.store(key, 1, 0)
        for i, constant in enumerate(ROUND_CONSTANTS):
            assist = _call(builder, "llvm.x86.aesni.aeskeygenassist", key, ir.IntType(8)(constant))
            words = builder.bitcast(key, QUARTERS)
            last = _shuffle(builder, builder.bitcast(assist, QUARTERS), [3, 3, 3, 3])
            for order in ([4, 0, 1, 2], [4, 4, 0, 1], [4, 4, 4, 0]):  # word i of a round key sums words 0 to i
                last = builder.xor(last, _shuffle(builder, words, order))
            key = builder.bitcast(builder.xor(words, last), LABEL)
            memory.store(key, 1, 2 * (i + 1))
        return context.get_dummy_value()

    return types.none(key, expanded), generate


@intrinsic
def _garble_and(
    typingctx: Any,
    keys: Any,
    delta: Any,
    x: Any,
    y: Any,
    flip_x: Any,
    flip_y: Any,
    out: Any,
    index: Any,
    table: Any,
    first: Any,
    second: Any,
) -> Any:
    """Both half-gates of one AND gate (Zahur, Rosulek, Evans, EUROCRYPT 2015, figure 2) of one instance.

    keys: the gate's 22 words. x, y, out: the wires' labels of value 0, this instance's at word `index`. flip_x, flip_y:
    all ones where the input is inverted, else zero. table: receives the ciphertexts at words `first` and `second`.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        memory = _Memory(context, builder, signature, arguments)
        flip_x, flip_y, index, first, second = (arguments[n] for n in (4, 5, 7, 9, 10))
        offset = memory.load(1, 0)
        x = builder.xor(memory.load(2, index), builder.and_(offset, _label(builder, flip_x, flip_x)))
        y = builder.xor(memory.load(3, index), builder.and_(offset, _label(builder, flip_y, flip_y)))
        labels = [x, builder.xor(x, offset), y, builder.xor(y, offset)]
        generator, generator_one, evaluator, evaluator_one = _hash(builder, memory.round_keys(0), labels)
        mask_x, mask_y = _colour_mask(builder, x), _colour_mask(builder, y)
        generator_sum = builder.xor(generator, generator_one)
        evaluator_sum = builder.xor(evaluator, evaluator_one)
        generator_row = builder.xor(generator_sum, builder.and_(mask_y, offset))
        memory.store(generator_row, 8, first)
        memory.store(builder.xor(evaluator_sum, x), 8, second)
        zero = builder.xor(generator, builder.and_(mask_x, generator_row))
        zero = builder.xor(zero, builder.xor(evaluator, builder.and_(mask_y, evaluator_sum)))
        memory.store(zero, 6, index)
        return context.get_dummy_value()

    return types.none(keys, delta, x, y, flip_x, flip_y, out, index, table, first, second), generate


@intrinsic
def _evaluate_and(
    typingctx: Any, keys: Any, x: Any, y: Any, out: Any, index: Any, table: Any, first: Any, second: Any
) -> Any:
    """One AND gate of one instance, evaluated; arguments as in `_garble_and`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        memory = _Memory(context, builder, signature, arguments)
        index, first, second = (arguments[n] for n in (4, 6, 7))
        x, y = memory.load(1, index), memory.load(2, index)
        generator, evaluator = _hash(builder, memory.round_keys(0), [x, y])
        row = builder.and_(_colour_mask(builder, x), memory.load(5, first))
        label = builder.xor(generator, row)
        row = builder.and_(_colour_mask(builder, y), builder.xor(memory.load(5, second), x))
        label = builder.xor(label, builder.xor(evaluator, row))
        memory.store(label, 3, index)
        return context.get_dummy_value()

    return types.none(keys, x, y, out, index, table, first, second), generate


@intrinsic
def _hash_word(typingctx: Any, keys: Any, low: Any, high: Any) -> Any:
    """The first word of H(low, high)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        memory = _Memory(context, builder, signature, arguments)
        (hashed,) = _hash(builder, memory.round_keys(0), [_label(builder, arguments[1], arguments[2])])
        return builder.extract_element(hashed, ir.IntType(32)(0))

    return types.uint64(keys, low, high), generate


@njit(cache=True, nogil=True, inline="always")
def _scale(word: Any, modulus: Any) -> Any:
    """floor(word * p / 2^64): a uniform word to a residue, at most p / 2^64 away from uniform; p at most 2^32."""
    return ((word >> HALF) * modulus + ((word & LOW_HALF) * modulus >> HALF)) >> HALF


@njit(cache=True, nogil=True, inline="always")
def _reduce(value: Any, modulus: Any) -> Any:
    """A value below 2 p modulo p; division would cost as much as the hashes."""
    return value - modulus if value >= modulus else value


@njit(cache=True, nogil=True)
def _expand_keys(keys: Any) -> Any:
    """Round keys, uint64 [keys, 22], of AES keys, uint64 [keys, 2]."""
    expanded = np.empty((len(keys), KEY_WORDS), np.uint64)
    for i in range(len(keys)):
        _expand_key(keys[i], expanded[i])
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
def _garble_outputs(outputs: Any, wires: Any, keys: Any, delta: Any, modulus: Any, ciphertexts: Any, mask: Any) -> None:
    size = len(mask)
    for i in range(size):
        mask[i] = NONE
    for bit in range(len(outputs)):
        zero, key, row, weight = wires[outputs[bit, 0]], keys[bit], ciphertexts[bit], ONE << np.uint64(bit)
        flip = ALL if outputs[bit, 1] else NONE
        for i in range(size):
            low, high = zero[2 * i] ^ (flip & delta[0]), zero[2 * i + 1] ^ (flip & delta[1])
            of_zero = _scale(_hash_word(key, low, high), modulus)
            of_one = _scale(_hash_word(key, low ^ delta[0], high ^ delta[1]), modulus)
            # What the hash of the label of value 1 lacks. The other one's lack is its negative; colour 0 is to lack
            # nothing. No branch on the colour, which nothing could predict.
            lack = _reduce(_reduce(of_zero + (modulus - of_one), modulus) + weight, modulus)
            colour = low & ONE
            mask[i] += of_zero + colour * (modulus - lack)
            row[i] = _reduce(lack + colour * (modulus - lack - lack), modulus)


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
            _garble_and(key, delta, x, y, flip_x, flip_y, out, i, table, start + i, start + row + i)
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
    modulus: Any,
    ands: Any,
    ciphertexts: Any,
    mask: Any,
) -> None:
    expanded = _expand_keys(keys)
    for first in range(0, len(mask), BLOCK):
        size = min(BLOCK, len(mask) - first)
        _load_inputs(wires, garbler, evaluator, chunk_start + first, size)
        _garble_gates(gates, wires, expanded, delta, ands, first, size)
        of_block = slice(first, first + size)
        of_outputs = expanded[len(ands) :]
        _garble_outputs(outputs, wires, of_outputs, delta, modulus, ciphertexts[:, of_block], mask[of_block])


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
            _evaluate_and(key, x, y, out, i, table, start + i, start + row + i)
        index_and += 1


@njit(cache=True, nogil=True)
def _evaluate_outputs(outputs: Any, wires: Any, keys: Any, modulus: Any, ciphertexts: Any, result: Any) -> None:
    for i in range(len(result)):
        result[i] = NONE
    for bit in range(len(outputs)):
        label, key, row = wires[outputs[bit, 0]], keys[bit], ciphertexts[bit]
        for i in range(len(result)):
            low, high = label[2 * i], label[2 * i + 1]
            result[i] += _scale(_hash_word(key, low, high), modulus) + (low & ONE) * np.uint64(row[i])


@njit(cache=True, nogil=True)
def _evaluate(
    gates: Any,
    outputs: Any,
    wires: Any,
    keys: Any,
    garbler: Any,
    evaluator: Any,
    chunk_start: Any,
    modulus: Any,
    ands: Any,
    ciphertexts: Any,
    result: Any,
) -> None:
    expanded = _expand_keys(keys)
    for first in range(0, len(result), BLOCK):
        size = min(BLOCK, len(result) - first)
        _load_inputs(wires, garbler, evaluator, chunk_start + first, size)
        _evaluate_gates(gates, wires, expanded, ands, first, size)
        of_block = slice(first, first + size)
        _evaluate_outputs(outputs, wires, expanded[len(ands) :], modulus, ciphertexts[:, of_block], result[of_block])


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
    modulus: int,
    ands: np.ndarray,
    ciphertexts: np.ndarray,
    mask: np.ndarray,
) -> None:
    """Garble one chunk; arguments as in `garbling_numpy.garble`."""
    arguments = (_words(keys), delta, garbler_zero, evaluator_zero, start, np.uint64(modulus), ands, ciphertexts, mask)
    _garble(circuit.gates, circuit.outputs, workspace.wires, *arguments)


def evaluate(
    workspace: Workspace,
    circuit: Circuit,
    keys: np.ndarray,
    garbler_labels: np.ndarray,
    evaluator_labels: np.ndarray,
    start: int,
    modulus: int,
    ands: np.ndarray,
    ciphertexts: np.ndarray,
    outputs: np.ndarray,
) -> None:
    """Evaluate one chunk; arguments as in `garbling_numpy.evaluate`."""
    arguments = (_words(keys), garbler_labels, evaluator_labels, start, np.uint64(modulus), ands, ciphertexts, outputs)
    _evaluate(circuit.gates, circuit.outputs, workspace.wires, *arguments)


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
