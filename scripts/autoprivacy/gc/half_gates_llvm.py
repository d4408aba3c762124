"""The half-gates' inner loop bodies in LLVM's intermediate representation, around the AES-NI instructions.

numba has no 128-bit type, so what touches labels as a whole is written here: an intrinsic garbles or evaluates one AND
gate of one instance from and to memory. x86 processors with AES instructions only.

After an edit here, touch garbling_numba.py: numba's cache of compiled kernels looks at that file alone.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

AES_ROUNDS = 10
KEY_WORDS = 2 * (AES_ROUNDS + 1)
# Round constants of the AES-128 key schedule (FIPS 197, section 5.2).
ROUND_CONSTANTS = (0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0x1B, 0x36)

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


def _hash_word(typingctx: Any, keys: Any, low: Any, high: Any) -> Any:
    """The first word of H(low, high)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        memory = _Memory(context, builder, signature, arguments)
        (hashed,) = _hash(builder, memory.round_keys(0), [_label(builder, arguments[1], arguments[2])])
        return builder.extract_element(hashed, ir.IntType(32)(0))

    return types.uint64(keys, low, high), generate


expand_key: Any = intrinsic(_expand_key)
garble_and: Any = intrinsic(_garble_and)
evaluate_and: Any = intrinsic(_evaluate_and)
hash_word: Any = intrinsic(_hash_word)
