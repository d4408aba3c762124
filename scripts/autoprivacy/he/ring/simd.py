"""Vectors of eight 32-bit integers for kernels that numba compiles, as LLVM's own vector type.

LLVM turns them into AVX2 instructions where the processor has them and into whatever it has elsewhere, so results are
the same on every machine. numba has no such type and leaves the vectorisation of butterflies and of 32 x 32-bit
products to chance: plain loops take up to three times as long.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

LANES = 8
HALF_TYPE = ir.IntType(32)
WORD_TYPE = ir.IntType(64)
LANES_TYPE = ir.VectorType(HALF_TYPE, LANES)
PAIRS_TYPE = ir.VectorType(WORD_TYPE, LANES // 2)
LOW_HALVES = ir.Constant(PAIRS_TYPE, [(1 << 32) - 1] * (LANES // 2))
HALF_SHIFT = ir.Constant(PAIRS_TYPE, [32] * (LANES // 2))
# Lanes of two vectors numbered 0 to 15: the lower, and the upper halves of 64-bit integers, alternately from both.
LOWER = [0, 8, 2, 10, 4, 12, 6, 14]
UPPER = [1, 9, 3, 11, 5, 13, 7, 15]
EVEN = [0, 2, 4, 6, 8, 10, 12, 14]
# The steps of an 8 x 8 transpose: distance of the rows that meet, and what the first and the second of them becomes.
TRANSPOSE = (
    (4, [0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15]),
    (2, [0, 1, 8, 9, 4, 5, 12, 13], [2, 3, 10, 11, 6, 7, 14, 15]),
    (1, LOWER, UPPER),
)


class _Vector(types.Type):
    """A vector as numba knows it."""


# Eight uint32; and four uint64, each the place of two lanes: sums and products of every second lane.
lanes = _Vector("eight uint32")
pairs = _Vector("four uint64")


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    """A vector as LLVM knows it."""

    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, LANES_TYPE if kind == lanes else PAIRS_TYPE)


def _pointer(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), LANES_TYPE.as_pointer())


def _load(typingctx: Any, array: Any, index: Any) -> Any:
    """Eight elements of a contiguous uint32 array from an index on, any alignment, unchecked."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_pointer(context, builder, signature.args[0], *arguments), align=4)

    return lanes(array, types.intp), generate


def _store(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
    """Undoes `load`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], *arguments[:2])
        builder.store(arguments[2], pointer, align=4)
        return context.get_dummy_value()

    return types.none(array, types.intp, lanes), generate


def _spread(typingctx: Any, value: Any) -> Any:
    """One integer in every lane."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        undefined = ir.Constant(LANES_TYPE, ir.Undefined)
        first = builder.insert_element(undefined, arguments[0], HALF_TYPE(0))
        return builder.shuffle_vector(first, undefined, ir.Constant(LANES_TYPE, [0] * LANES))

    return lanes(types.uint32), generate


def _transpose(typingctx: Any, rows: Any) -> Any:
    """Eight vectors as the columns of eight vectors."""
    kind = types.UniTuple(lanes, LANES)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows = cgutils.unpack_tuple(builder, arguments[0])
        for gap, first, second in TRANSPOSE:
            for i in (i for i in range(LANES) if not i & gap):
                pair = rows[i], rows[i + gap]
                rows[i], rows[i + gap] = (_shuffle(builder, *pair, order) for order in (first, second))
        return context.make_tuple(builder, kind, rows)

    return kind(kind), generate


def _shuffle(builder: Any, x: Any, y: Any, order: list[int]) -> Any:
    return builder.shuffle_vector(x, y, ir.Constant(LANES_TYPE, order))


def _products(builder: Any, x: Any, y: Any) -> tuple[Any, Any]:
    """The 64-bit products of the even and of the odd lanes."""
    x, y = builder.bitcast(x, PAIRS_TYPE), builder.bitcast(y, PAIRS_TYPE)
    even = builder.mul(builder.and_(x, LOW_HALVES), builder.and_(y, LOW_HALVES))
    return even, builder.mul(builder.lshr(x, HALF_SHIFT), builder.lshr(y, HALF_SHIFT))


def _multiply_high(builder: Any, x: Any, y: Any) -> Any:
    even, odd = (builder.bitcast(product, LANES_TYPE) for product in _products(builder, x, y))
    return _shuffle(builder, even, odd, UPPER)


def _minimum(builder: Any, x: Any, y: Any) -> Any:
    return builder.select(builder.icmp_unsigned("<", x, y), x, y)


def _lower(builder: Any, even: Any, odd: Any) -> Any:
    return _shuffle(builder, builder.bitcast(even, LANES_TYPE), builder.bitcast(odd, LANES_TYPE), LOWER)


def _upper(builder: Any, even: Any, odd: Any) -> Any:
    return _shuffle(builder, builder.bitcast(even, LANES_TYPE), builder.bitcast(odd, LANES_TYPE), UPPER)


def _even(builder: Any, x: Any) -> Any:
    return builder.and_(builder.bitcast(x, PAIRS_TYPE), LOW_HALVES)


def _odd(builder: Any, x: Any) -> Any:
    return builder.lshr(builder.bitcast(x, PAIRS_TYPE), HALF_SHIFT)


def _multiply_add_even(builder: Any, sums: Any, x: Any, y: Any) -> Any:
    return builder.add(sums, _products(builder, x, y)[0])


def _operation(result: Any, operands: tuple[Any, ...], generate: Callable[..., Any]) -> Any:
    """A function of one to three vectors for kernels, from one that builds its instructions."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return generate(builder, *arguments)

    def one(typingctx: Any, x: Any) -> Any:
        return result(*operands), emit

    def two(typingctx: Any, x: Any, y: Any) -> Any:
        return result(*operands), emit

    def three(typingctx: Any, x: Any, y: Any, z: Any) -> Any:
        return result(*operands), emit

    return intrinsic((one, two, three)[len(operands) - 1])


load: Any = intrinsic(_load)
store: Any = intrinsic(_store)
spread: Any = intrinsic(_spread)
transpose: Any = intrinsic(_transpose)
add = _operation(lanes, (lanes, lanes), lambda builder, x, y: builder.add(x, y))
subtract = _operation(lanes, (lanes, lanes), lambda builder, x, y: builder.sub(x, y))
# The lower, and the upper 32 bits of products.
multiply_low = _operation(lanes, (lanes, lanes), lambda builder, x, y: builder.mul(x, y))
multiply_high = _operation(lanes, (lanes, lanes), _multiply_high)
minimum = _operation(lanes, (lanes, lanes), _minimum)
# The even lanes of two vectors alternately; and one after the other.
alternate = _operation(lanes, (lanes, lanes), lambda builder, x, y: _shuffle(builder, x, y, LOWER))
join_even = _operation(lanes, (lanes, lanes), lambda builder, x, y: _shuffle(builder, x, y, EVEN))
# The even lanes as 64-bit integers, and the odd ones.
even_lanes = _operation(pairs, (lanes,), _even)
odd_lanes = _operation(pairs, (lanes,), _odd)
# Odd lanes moved to the even ones, which alone `multiply_add_even` looks at.
odd_to_even = _operation(lanes, (lanes,), lambda builder, x: builder.bitcast(_odd(builder, x), LANES_TYPE))
# sums + the 64-bit products of even lanes.
multiply_add_even = _operation(pairs, (pairs, lanes, lanes), _multiply_add_even)
# From the 64-bit integers of the even and of the odd lanes, their lower and their upper halves in lane order.
lower_halves = _operation(lanes, (pairs, pairs), _lower)
upper_halves = _operation(lanes, (pairs, pairs), _upper)
