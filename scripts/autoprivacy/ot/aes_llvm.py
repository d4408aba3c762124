"""Loops over 128-bit labels in LLVM's intermediate representation, around the processor's AES instructions.

numba has no type for a label, so the loops that hash many of them are written here, as intrinsics. Four labels go into
one vector where the processor has AVX-512 and its AES instructions take such vectors (VAES), two elsewhere, where
without VAES they are taken apart for AES; the last few labels go one by one. The bits are the same everywhere. x86
processors with AES instructions only.

Arguments are int64 all of them: numbers, and addresses of uint64 words at any multiple of 8, unchecked.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from autoprivacy.ot.labels import LABEL_BYTES

AES_ROUNDS = 10
ROUND_KEY_BYTES = LABEL_BYTES * (AES_ROUNDS + 1)
# Round constants of the AES-128 key schedule (FIPS 197, section 5.2).
ROUND_CONSTANTS = (0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0x1B, 0x36)

WORD = ir.IntType(64)
WORD_BYTES = 8
INDEX = ir.IntType(32)
LABEL = ir.VectorType(WORD, 2)
QUARTERS = ir.VectorType(INDEX, 4)
# How the names of LLVM's AES instructions end, by labels to a vector.
AES_WIDTHS = {1: "", 2: ".256", 4: ".512"}


def shuffle(builder: Any, value: Any, order: list[int]) -> Any:
    """The elements of `value`, followed by zeros, in this order."""
    mask = ir.Constant(ir.VectorType(INDEX, len(order)), order)
    return builder.shuffle_vector(value, ir.Constant(value.type, None), mask)


def _in_each(value: Any, order: list[int]) -> list[int]:
    """An order of the two words of a label, for each label of a vector."""
    return [word + label for label in range(0, value.type.count, 2) for word in order]


def both_words(builder: Any, word: Any) -> Any:
    """A label of one word twice."""
    return shuffle(builder, builder.insert_element(ir.Constant(LABEL, ir.Undefined), word, INDEX(0)), [0, 0])


def _join(builder: Any, first: Any, second: Any) -> Any:
    """Two vectors as one."""
    places = range(2 * first.type.count)
    return builder.shuffle_vector(first, second, ir.Constant(ir.VectorType(INDEX, len(places)), list(places)))


def repeat(builder: Any, label: Any, lanes: int) -> Any:
    """One label in every lane."""
    return shuffle(builder, label, [0, 1] * lanes)


def _sigma(builder: Any, labels: Any) -> Any:
    """(l ^ r, l) for labels (l, r)."""
    low = ir.Constant(labels.type, [(1 << 64) - 1, 0] * (labels.type.count // 2))
    return builder.xor(shuffle(builder, labels, _in_each(labels, [1, 0])), builder.and_(labels, low))


def where_coloured(builder: Any, labels: Any, values: Any) -> Any:
    """The values whose label has its lowest bit set, zero for the others."""
    ones = ir.Constant(labels.type, [1] * labels.type.count)
    zeros = ir.Constant(labels.type, None)
    colours = builder.and_(shuffle(builder, labels, _in_each(labels, [0, 0])), ones)
    return builder.select(builder.icmp_unsigned("!=", colours, zeros), values, zeros)


def _call(builder: Any, name: str, *arguments: Any) -> Any:
    function_type = ir.FunctionType(arguments[0].type, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, function_type, name), arguments)


class Loop:
    """A loop over the labels of a gate's instances, several at once."""

    def __init__(self, context: Any, builder: Any) -> None:
        features = context.codegen().magic_tuple()[2].split(",")  # of the processor that this is compiled for
        wide = "+vaes" in features
        self._lanes = 4 if wide and "+avx512f" in features else 2
        self._aes_lanes = self._lanes if wide else 1
        self.widths = (self._lanes, 1)  # labels to a vector in `run`
        self.builder = builder

    def load(self, address: Any, offset: Any | None = None, lanes: int = 1) -> Any:
        kind = ir.VectorType(WORD, 2 * lanes)
        return self.builder.load(self._pointer(address, offset, kind), align=WORD_BYTES)

    def store(self, value: Any, address: Any, offset: Any | None = None) -> None:
        self.builder.store(value, self._pointer(address, offset, value.type), align=WORD_BYTES)

    def prefetch(self, address: Any, offset: Any, write: bool) -> None:
        """Ask for a cache line, to read or to write it soon; there need not be one."""
        pointer = self._pointer(address, offset, ir.IntType(8))
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, INDEX, INDEX, INDEX])
        prefetch = cgutils.get_or_insert_function(self.builder.module, kind, "llvm.prefetch.p0")
        self.builder.call(prefetch, [pointer, INDEX(int(write)), INDEX(3), INDEX(1)])

    def _pointer(self, address: Any, offset: Any | None, kind: Any) -> Any:
        place = address if offset is None else self.builder.add(address, offset)
        return self.builder.inttoptr(place, kind.as_pointer())

    def run(self, size: Any, body: Callable[[int, Any], None]) -> None:
        """`body(lanes, offset)` for all of `size` labels, offsets in bytes: many at once, then the rest one by one."""
        start, end = WORD(0), self.builder.mul(size, WORD(LABEL_BYTES))
        for lanes in self.widths:
            stop = self.builder.and_(end, WORD(-LABEL_BYTES * lanes))
            with cgutils.for_range_slice(self.builder, start, stop, WORD(LABEL_BYTES * lanes), WORD) as (offset, _):
                body(lanes, offset)
            start = stop

    def round_keys(self, address: Any) -> list[Any]:
        return [self.load(address, WORD(LABEL_BYTES * i)) for i in range(AES_ROUNDS + 1)]

    def hash(self, keys: list[Any], labels: list[Any]) -> list[Any]:
        """H of vectors of labels, the rounds of all of them interleaved; `keys` are the 11 round keys."""
        return self.hash_under([keys] * len(labels), labels)

    def hash_under(self, schedules: list[list[Any]], labels: list[Any]) -> list[Any]:
        """H of vectors of labels, each under round keys of its own."""
        builder, lanes = self.builder, labels[0].type.count // 2
        width = min(lanes, self._aes_lanes)
        inputs = [_sigma(builder, vector) for vector in labels]
        parts = [[2 * start + word for word in range(2 * width)] for start in range(0, lanes, width)]
        # by round the key of every block; a schedule that several labels have is repeated for the lanes once
        known = {id(keys): [repeat(builder, key, width) for key in keys] for keys in schedules}
        first, *rounds, last = zip(*(known[id(keys)] for keys in schedules for _ in parts), strict=True)
        blocks = [shuffle(builder, vector, part) for vector in inputs for part in parts]
        blocks = [builder.xor(block, key) for block, key in zip(blocks, first, strict=True)]
        for name, keys in (*(("aesenc", keys) for keys in rounds), ("aesenclast", last)):
            function = f"llvm.x86.aesni.{name}{AES_WIDTHS[width]}"
            blocks = [_call(builder, function, block, key) for block, key in zip(blocks, keys, strict=True)]
        if len(parts) == 2:
            blocks = [_join(builder, *pair) for pair in zip(blocks[::2], blocks[1::2], strict=True)]
        return [builder.xor(block, vector) for block, vector in zip(blocks, inputs, strict=True)]


def typed(count: int, generate: Callable[..., None]) -> tuple[Any, Callable[..., Any]]:
    """What an intrinsic returns: its signature, `count` times int64, and `generate(loop, *arguments)` for its code."""

    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        generate(Loop(context, builder), *arguments)
        return context.get_dummy_value()

    return types.none(*[types.int64] * count), lower


def _expand_key(typingctx: Any, key: Any, expanded: Any) -> Any:
    """The round keys of an AES-128 key: 16 bytes at one address, 176 bytes to another."""

    def generate(loop: Loop, address: Any, expanded: Any) -> None:
        builder = loop.builder
        key = loop.load(address)
        loop.store(key, expanded)
        for i, constant in enumerate(ROUND_CONSTANTS):
            assist = _call(builder, "llvm.x86.aesni.aeskeygenassist", key, ir.IntType(8)(constant))
            words = builder.bitcast(key, QUARTERS)
            last = shuffle(builder, builder.bitcast(assist, QUARTERS), [3, 3, 3, 3])
            for order in ([4, 0, 1, 2], [4, 4, 0, 1], [4, 4, 4, 0]):  # word i of a round key sums words 0 to i
                last = builder.xor(last, shuffle(builder, words, order))
            key = builder.bitcast(builder.xor(words, last), LABEL)
            loop.store(key, expanded, WORD(LABEL_BYTES * (i + 1)))

    return typed(2, generate)


def _hash_words(typingctx: Any, key: Any, wire: Any, offset: Any, hashes: Any, words: Any, size: Any) -> Any:
    """For label ^ offset of the `size` labels of a wire the first word of its hash, and its own.

    All but `size` are addresses; a word of each goes to `hashes` and to `words` for every instance.
    """

    def generate(loop: Loop, key: Any, wire: Any, offset: Any, hashes: Any, words: Any, size: Any) -> None:
        builder = loop.builder
        keys, offset = loop.round_keys(key), loop.load(offset)

        def body(lanes: int, place: Any) -> None:
            labels = builder.xor(loop.load(wire, place, lanes), repeat(builder, offset, lanes))
            (hashed,) = loop.hash(keys, [labels])
            for values, out in ((hashed, hashes), (labels, words)):
                first = shuffle(builder, values, list(range(0, 2 * lanes, 2)))
                loop.store(first, out, builder.lshr(place, WORD(1)))

        loop.run(size, body)

    return typed(6, generate)


def _fold(bits: int, loop: Loop, arguments: tuple[Any, ...]) -> None:
    """2^bits streams of `size` blocks H(leaf ^ counter), H(leaf ^ counter + 1), ... added up by bits of leaves'
    numbers.

    Addresses: round keys, leaves, and out, where `bits` rows of `stride` bytes go and then the sum of all streams.
    """
    key, leaves, counter, out, stride, size = arguments
    builder, keys = loop.builder, loop.round_keys(key)
    seeds = [loop.load(leaves, WORD(LABEL_BYTES * i)) for i in range(1 << bits)]

    def body(lanes: int, place: Any) -> None:
        first = builder.add(counter, builder.lshr(place, WORD(4)))
        numbers = ir.Constant(ir.VectorType(WORD, 2 * lanes), None)
        for lane in range(lanes):
            numbers = builder.insert_element(numbers, builder.add(first, WORD(lane)), INDEX(2 * lane))
        streams: list[Any] = []
        for start in range(0, len(seeds), 4):  # four at a time: more would not stay in registers
            group = [builder.xor(repeat(builder, seed, lanes), numbers) for seed in seeds[start : start + 4]]
            streams += loop.hash(keys, group)
        for bit in range(bits + 1):
            row = streams[0] if bit == bits else reduce(builder.xor, streams[1::2])
            loop.store(row, builder.add(out, builder.add(builder.mul(stride, WORD(bit)), place)))
            streams = [builder.xor(left, right) for left, right in zip(streams[::2], streams[1::2], strict=False)]

    loop.run(size, body)


def _fold4(typingctx: Any, key: Any, leaves: Any, counter: Any, out: Any, stride: Any, size: Any) -> Any:
    """`_fold` of four leaves."""
    return typed(6, lambda loop, *arguments: _fold(2, loop, arguments))


def _fold8(typingctx: Any, key: Any, leaves: Any, counter: Any, out: Any, stride: Any, size: Any) -> Any:
    """`_fold` of eight leaves."""
    return typed(6, lambda loop, *arguments: _fold(3, loop, arguments))


def _fold16(typingctx: Any, key: Any, leaves: Any, counter: Any, out: Any, stride: Any, size: Any) -> Any:
    """`_fold` of sixteen leaves."""
    return typed(6, lambda loop, *arguments: _fold(4, loop, arguments))


expand_key: Any = intrinsic(_expand_key)
hash_words: Any = intrinsic(_hash_words)
fold4: Any = intrinsic(_fold4)
fold8: Any = intrinsic(_fold8)
fold16: Any = intrinsic(_fold16)
