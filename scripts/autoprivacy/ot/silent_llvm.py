"""Loops of silent transfers in LLVM's intermediate representation, as those of `aes_llvm`: a level of a tree of seeds,
and the sums of a local linear code.

Arguments are int64 all of them: numbers, and addresses of uint64 words at any multiple of 8, unchecked.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

from autoprivacy.ot.aes_llvm import INDEX, LABEL, WORD, Loop, repeat, shuffle, typed
from autoprivacy.ot.labels import LABEL_BYTES
from autoprivacy.ot.silent_parameters import LOCALITY

INDEX_BYTES = 4


def _add(loop: Loop, address: Any, value: Any) -> None:
    """XOR into memory."""
    loop.store(loop.builder.xor(loop.load(address), value), address)


def _lane_sum(builder: Any, value: Any) -> Any:
    """The sum of a vector's labels."""
    lanes = range(0, value.type.count, 2)
    return reduce(builder.xor, [shuffle(builder, value, [lane, lane + 1]) for lane in lanes])


def _grow(typingctx: Any, key: Any, nodes: Any, size: Any, left: Any) -> Any:
    """The children of `size` nodes in their place: all left ones H(x), then all right ones x ^ H(x).

    Addresses: the 11 round keys, the nodes with room for as many more, and a label that the left children are added to.
    """

    def generate(loop: Loop, key: Any, nodes: Any, size: Any, left: Any) -> None:
        builder, keys = loop.builder, loop.round_keys(key)
        distance = builder.mul(size, WORD(LABEL_BYTES))
        zeros = {lanes: ir.Constant(ir.VectorType(WORD, 2 * lanes), None) for lanes in loop.widths}
        sums = {lanes: cgutils.alloca_once_value(builder, zero) for lanes, zero in zeros.items()}

        def body(lanes: int, place: Any) -> None:
            parents = loop.load(nodes, place, lanes)
            (hashed,) = loop.hash(keys, [parents])
            loop.store(hashed, nodes, place)
            loop.store(builder.xor(parents, hashed), nodes, builder.add(place, distance))
            builder.store(builder.xor(builder.load(sums[lanes]), hashed), sums[lanes])

        loop.run(size, body)
        for total in sums.values():
            _add(loop, left, _lane_sum(builder, builder.load(total)))

    return typed(4, generate)


def _draw_blocks(typingctx: Any, key: Any, counter: Any, mask: Any, out: Any, size: Any) -> Any:
    """H(counter), H(counter + 1), ..., both words of each under a mask; addresses: the 11 round keys, out."""

    def generate(loop: Loop, key: Any, counter: Any, mask: Any, out: Any, size: Any) -> None:
        builder, keys = loop.builder, loop.round_keys(key)
        masks = builder.insert_element(ir.Constant(LABEL, ir.Undefined), mask, INDEX(0))
        masks = shuffle(builder, masks, [0, 0])

        def body(lanes: int, place: Any) -> None:
            first = builder.add(counter, builder.lshr(place, WORD(4)))
            numbers = ir.Constant(ir.VectorType(WORD, 2 * lanes), None)
            for lane in range(lanes):
                numbers = builder.insert_element(numbers, builder.add(first, WORD(lane)), INDEX(2 * lane))
            (hashed,) = loop.hash(keys, [numbers])
            loop.store(builder.and_(hashed, repeat(builder, masks, lanes)), out, place)

        loop.run(size, body)

    return typed(5, generate)


def _add_rows(typingctx: Any, places: Any, table: Any, labels: Any, out: Any, size: Any) -> Any:
    """out = each label plus `LOCALITY` rows of a table; `places` are the rows' distances in bytes, 4 bytes each."""

    def generate(loop: Loop, places: Any, table: Any, labels: Any, out: Any, size: Any) -> None:
        builder = loop.builder
        with cgutils.for_range(builder, size, intp=WORD) as step:
            offset = builder.mul(step.index, WORD(LABEL_BYTES))
            first = builder.add(places, builder.mul(step.index, WORD(LOCALITY * INDEX_BYTES)))
            total = loop.load(labels, offset)
            for i in range(LOCALITY):
                pointer = builder.inttoptr(builder.add(first, WORD(INDEX_BYTES * i)), INDEX.as_pointer())
                place = builder.zext(builder.load(pointer, align=INDEX_BYTES), WORD)
                total = builder.xor(total, loop.load(table, place))
            loop.store(total, out, offset)

    return typed(5, generate)


grow: Any = intrinsic(_grow)
draw_blocks: Any = intrinsic(_draw_blocks)
add_rows: Any = intrinsic(_add_rows)
