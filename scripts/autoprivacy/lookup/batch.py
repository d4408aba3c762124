"""All lookups of an image: prepared in few exchanges with bounded memory, then asked and answered activation by
activation.

Lookups go in waves of at most `WAVE`, and every slot starts as many waves as have that many lookups together, so that
messages of several waves travel at once and no more than about `STRIDE` times as many waves are in the making as a wave
has exchanges. A wave's exchanges are `STRIDE` slots apart: while its message is on the way, both parties compute and
send those of other waves, so that a slow link is kept busy. Both walk the same schedule, so every length is known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from autoprivacy.errors import UserError
from autoprivacy.gc.activation import Activation, modulus_bits
from autoprivacy.lookup.online import Question, answer
from autoprivacy.lookup.shape import LookupShape, fields_bytes
from autoprivacy.lookup.table import LookupTable
from autoprivacy.lookup.wave import Party, Wave
from autoprivacy.ot.transfers import TransferKind
from autoprivacy.quantization.architecture import Node
from autoprivacy.quantization.residues import Residues

# Lookups of a wave, whose labels take about 6 MiB.
WAVE = 1 << 12
STRIDE = 2


@dataclass(frozen=True)
class Messages:
    """What carries messages.

    Attributes:
        send: sends this party's next one, without waiting for it to arrive.
        receive: the other party's next one, which has so many bytes.
    """

    send: Callable[[bytes], None]
    receive: Callable[[int], bytes | bytearray | memoryview]


@dataclass(frozen=True)
class Batch:
    """The lookups of one activation.

    Attributes:
        table: what is looked up.
        modulus_bits: k, of the shares that come out.
        count: how many.
    """

    table: LookupTable
    modulus_bits: int
    count: int

    @classmethod
    def of(cls, node: Node, residues: Residues) -> Batch:
        """The lookups of an activation of a graph; shares come out modulo the largest of its moduli, which others
        divide.

        Raises:
            UserError: it cannot be looked up.
        """
        moduli = residues.moduli[node.name]
        if any(p & (p - 1) for p in moduli):
            raise UserError(f"lookup: output modulo {', '.join(map(str, moduli))}; expected powers of two")
        table = LookupTable(Activation.of(node, residues), node.outputs)
        bits = modulus_bits(max(moduli))
        if table.output_bits > bits:
            raise UserError(f"lookup: values of {table.output_bits} bits modulo 2^{bits}; expected at most {bits} bits")
        return cls(table, bits, math.prod(node.shape))

    @cached_property
    def shape(self) -> LookupShape:
        """What its lookups have in common."""
        return LookupShape.of(self.table, self.modulus_bits)

    @cached_property
    def slices(self) -> list[slice]:
        """Its waves."""
        return [slice(start, min(start + WAVE, self.count)) for start in range(0, self.count, WAVE)]

    @property
    def question_bytes(self) -> int:
        """Of the server's message online."""
        fields = self.shape.question_fields
        return sum(fields_bytes(fields, part.stop - part.start) for part in self.slices)

    @property
    def answer_bytes(self) -> int:
        """Of the client's."""
        fields = self.shape.answer_fields
        return sum(fields_bytes(fields, part.stop - part.start) for part in self.slices)


def schedule(batches: Sequence[Batch]) -> list[list[tuple[int, int, int]]]:
    """What happens in every slot: number of the batch, of its wave, and of the wave's own exchange."""
    waves = [(index, number) for index, batch in enumerate(batches) for number in range(len(batch.slices))]
    slots: list[list[tuple[int, int, int]]] = []
    slot = started = 0
    for index, number in waves:
        part = batches[index].slices[number]
        if started and started + part.stop - part.start > WAVE:
            slot, started = slot + 1, 0
        started += part.stop - part.start
        exchanges = batches[index].shape.exchanges
        slots += [[] for _ in range(slot + STRIDE * (exchanges - 1) + 1 - len(slots))]
        for exchange in range(exchanges):
            slots[slot + STRIDE * exchange].append((index, number, exchange))
    return slots


def exchange_bytes(batches: Sequence[Batch], kind: TransferKind, client: bool) -> list[int]:
    """Bytes of one party's messages, slot by slot; slots in which nothing happens have none."""
    sizes = {
        (index, number): batch.shape.offline_bytes(part.stop - part.start, kind, client)
        for index, batch in enumerate(batches)
        for number, part in enumerate(batch.slices)
    }
    slots = filter(None, schedule(batches))
    return [sum(sizes[index, number][exchange] for index, number, exchange in slot) for slot in slots]


def prepare(
    party: Party,
    batches: Sequence[Batch],
    kind: TransferKind,
    messages: Messages,
    shares: Sequence[np.ndarray] | None = None,
    packable: bool = True,
) -> list[list[Wave]]:
    """One party's waves of all batches, in the same order.

    Args:
        party: this party.
        batches: of an image.
        kind: of the transfers.
        messages: carries them.
        shares: of the client: its shares of the inputs of every batch, uint64 [count].
        packable: whether `Wave.packed` is asked for later, which takes the messages.

    Raises:
        ValueError: a message has the wrong length.
    """
    waves: list[list[Wave]] = [[] for _ in batches]
    lengths = iter(exchange_bytes(batches, kind, not party.client))
    slots, nothing = schedule(batches), list[list[tuple[int, int, int]]]([[]] * STRIDE)
    for arriving, leaving in zip(nothing + slots, slots + nothing, strict=True):
        view = memoryview(messages.receive(next(lengths)) if arriving else b"")
        for index, number, step in arriving:
            wave = waves[index][number]
            size = wave.shape.offline_bytes(wave.count, kind, not party.client)[step]
            wave.receive(bytes(view[:size]))
            view = view[size:]
        for index, number, step in leaving:
            if step == 0:
                own = shares[index] if shares else None
                waves[index].append(_started(party, batches[index], number, own, packable))
        if leaving:
            messages.send(b"".join(waves[index][number].send() for index, number, _ in leaving))
    return waves


def _started(party: Party, batch: Batch, number: int, shares: np.ndarray | None, packable: bool) -> Wave:
    part = batch.slices[number]
    parts = None if shares is None else batch.table.client_parts(shares[part])
    return Wave(party, batch.shape, part.stop - part.start, parts, packable)


class Questions:
    """The server's side of a batch online.

    Args:
        batch: the lookups.
        waves: what `prepare` left, used once.
        shares: of the inputs, uint64 [count].
    """

    def __init__(self, batch: Batch, waves: Sequence[Wave], shares: np.ndarray) -> None:
        self._batch = batch
        self._asked = [
            Question(wave, batch.table, shares[part]) for wave, part in zip(waves, batch.slices, strict=True)
        ]

    @property
    def message(self) -> bytes:
        """For the client, `Batch.question_bytes` long."""
        return b"".join(question.message for question in self._asked)

    def finish(self, message: bytes | bytearray | memoryview) -> np.ndarray:
        """This party's shares of the outputs modulo 2^k, uint64 [count], from the client's answer."""
        parts = _parts(message, self._batch, self._batch.shape.answer_fields)
        finished = (question.finish(part) for question, part in zip(self._asked, parts, strict=True))
        return np.concatenate([np.empty(0, np.uint64), *finished])


def answers(batch: Batch, waves: Sequence[Wave], message: bytes | bytearray | memoryview, masks: np.ndarray) -> bytes:
    """The client's answer, `Batch.answer_bytes` long; its shares of the outputs are `masks`, uint64 [count].

    Raises:
        ValueError: the server's message has the wrong length.
    """
    parts = _parts(message, batch, batch.shape.question_fields)
    triples = zip(waves, batch.slices, parts, strict=True)
    return b"".join(answer(wave, batch.table, part, masks[place]) for wave, place, part in triples)


def _parts(message: bytes | bytearray | memoryview, batch: Batch, fields: list[int]) -> Iterator[memoryview]:
    """The waves' parts of a message; ValueError where it is longer or shorter."""
    lengths = [fields_bytes(fields, part.stop - part.start) for part in batch.slices]
    if len(message) != sum(lengths):
        raise ValueError(f"{batch.count} lookups: expected {sum(lengths)} bytes, got {len(message)}")
    view = memoryview(message)
    for length in lengths:
        yield view[:length]
        view = view[length:]
