"""The half-gates' inner loops in LLVM's intermediate representation: intrinsics that `garbling_numba` compiles.

Arguments are int64 all of them: numbers, and addresses of uint64 words at any multiple of 8, unchecked.
"""

from __future__ import annotations

from typing import Any

from numba.extending import intrinsic

from autoprivacy.ot.aes_llvm import ROUND_KEY_BYTES, WORD, Loop, both_words, repeat, shuffle, typed, where_coloured


def _xor_labels(typingctx: Any, x: Any, y: Any, out: Any, size: Any) -> Any:
    """An XOR gate of `size` instances, whose labels are at the addresses x, y and out."""

    def generate(loop: Loop, x: Any, y: Any, out: Any, size: Any) -> None:
        def body(lanes: int, place: Any) -> None:
            loop.store(loop.builder.xor(loop.load(x, place, lanes), loop.load(y, place, lanes)), out, place)

        loop.run(size, body)

    return typed(4, generate)


def _both_keys(loop: Loop, key: Any) -> list[list[Any]]:
    """The round keys of a gate's two halves, which stand one behind the other."""
    return [loop.round_keys(key), loop.round_keys(loop.builder.add(key, WORD(ROUND_KEY_BYTES)))]


def _half_gates(loop: Loop, keys: list[list[Any]], offset: Any, x: Any, y: Any) -> tuple[Any, Any, Any]:
    """Both half-gates of x AND y (Zahur, Rosulek, Evans, EUROCRYPT 2015, figure 2): ciphertexts, label of 0."""
    xor = loop.builder.xor
    labels = [x, xor(x, offset), y, xor(y, offset)]
    schedules = [keys[0], keys[0], keys[1], keys[1]]
    generator, generator_one, evaluator, evaluator_one = loop.hash_under(schedules, labels)
    first = xor(xor(generator, generator_one), where_coloured(loop.builder, y, offset))
    difference = xor(evaluator, evaluator_one)
    zero = xor(generator, where_coloured(loop.builder, x, first))
    return first, xor(difference, x), xor(zero, xor(evaluator, where_coloured(loop.builder, y, difference)))


def _garble_and(
    typingctx: Any,
    key: Any,
    delta: Any,
    x: Any,
    y: Any,
    out: Any,
    flip_x: Any,
    flip_y: Any,
    table: Any,
    row: Any,
    size: Any,
) -> Any:
    """An AND gate of `size` instances, garbled.

    Addresses: `key` of the round keys of the gate's halves, `delta` of the offset, x, y, out of labels of value 0,
    `table` of where the first ciphertexts go. The second ones go `row` bytes further, the next gate's two and three
    times `row`: their cache lines are asked for meanwhile. flip_x, flip_y: -1 where the input is inverted, else 0.
    """

    def generate(loop: Loop, *arguments: Any) -> None:
        key, delta, x, y, out, flip_x, flip_y, table, row, size = arguments
        builder = loop.builder
        keys, delta = _both_keys(loop, key), loop.load(delta)
        flip_x, flip_y = (builder.and_(delta, both_words(builder, flip)) for flip in (flip_x, flip_y))
        ahead = builder.shl(row, WORD(1))

        def body(lanes: int, place: Any) -> None:
            left = builder.xor(loop.load(x, place, lanes), repeat(builder, flip_x, lanes))
            right = builder.xor(loop.load(y, place, lanes), repeat(builder, flip_y, lanes))
            *ciphertexts, zero = _half_gates(loop, keys, repeat(builder, delta, lanes), left, right)
            start = builder.add(table, place)
            for ciphertext, own in zip(ciphertexts, (start, builder.add(start, row)), strict=True):
                loop.store(ciphertext, own)
                loop.prefetch(own, ahead, write=True)
            loop.store(zero, out, place)

        loop.run(size, body)

    return typed(10, generate)


def _evaluate_and(typingctx: Any, key: Any, x: Any, y: Any, out: Any, table: Any, row: Any, size: Any) -> Any:
    """An AND gate of `size` instances, evaluated; arguments as in `_garble_and`."""

    def generate(loop: Loop, key: Any, x: Any, y: Any, out: Any, table: Any, row: Any, size: Any) -> None:
        builder = loop.builder
        keys, ahead = _both_keys(loop, key), builder.shl(row, WORD(1))

        def body(lanes: int, place: Any) -> None:
            left, right = loop.load(x, place, lanes), loop.load(y, place, lanes)
            start = builder.add(table, place)
            first, second = loop.load(start, None, lanes), loop.load(start, row, lanes)
            loop.prefetch(start, ahead, write=False)
            loop.prefetch(builder.add(start, row), ahead, write=False)
            generator, evaluator = loop.hash_under(keys, [left, right])
            generator = builder.xor(generator, where_coloured(builder, left, first))
            evaluator = builder.xor(evaluator, where_coloured(builder, right, builder.xor(second, left)))
            loop.store(builder.xor(generator, evaluator), out, place)

        loop.run(size, body)

    return typed(7, generate)


def _hash_outputs(typingctx: Any, key: Any, wire: Any, offset: Any, low: Any, high: Any, words: Any, size: Any) -> Any:
    """For label ^ offset of the `size` labels of a wire both words of its hash, and its own first word.

    All but `size` are addresses; a word of each goes to `low`, `high` and `words` for every instance.
    """

    def generate(loop: Loop, key: Any, wire: Any, offset: Any, low: Any, high: Any, words: Any, size: Any) -> None:
        builder = loop.builder
        keys, offset = loop.round_keys(key), loop.load(offset)

        def body(lanes: int, place: Any) -> None:
            labels = builder.xor(loop.load(wire, place, lanes), repeat(builder, offset, lanes))
            (hashed,) = loop.hash(keys, [labels])
            for values, word, out in ((hashed, 0, low), (hashed, 1, high), (labels, 0, words)):
                loop.store(shuffle(builder, values, list(range(word, 2 * lanes, 2))), out, builder.lshr(place, WORD(1)))

        loop.run(size, body)

    return typed(7, generate)


hash_outputs: Any = intrinsic(_hash_outputs)
xor_labels: Any = intrinsic(_xor_labels)
garble_and: Any = intrinsic(_garble_and)
evaluate_and: Any = intrinsic(_evaluate_and)
