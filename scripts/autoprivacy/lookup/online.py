"""Lookups online: one message of the server, one of the client.

The parties open the place x - a by which the one-hot vector of a has to move for the table to be read at x, and read
shares of L, the value without a carry, and of D, what a carry changes in it. The carry kappa is read from the other
one-hot vector. What is looked up is y = L ^ kappa D; with kappa and D opened under masks, as u = kappa ^ mu and v = D
^ nu, that is L ^ u v ^ u nu ^ v mu ^ mu nu, of which each party has its share.

The client turns y into integers: bit by bit it transfers 1 - 2 y_C, in arithmetic, with the server's share y_S of the
bit as the choice, as y = y_C + y_S (1 - 2 y_C). The server's choice is the sum of random choices that opened bits
select, and a correction that it opened before; so the client knows the labels of y_S as soon as it has read the
server's message.
"""

from __future__ import annotations

import numpy as np

from autoprivacy.lookup.kernels import load_kernels, load_making
from autoprivacy.lookup.table import LookupTable
from autoprivacy.lookup.wave import Wave

ONE = np.uint64(1)


class Question:
    """The server's side of a wave online.

    Args:
        wave: what it kept.
        table: what is looked up.
        share: its shares of the inputs, uint64 [count].
    """

    def __init__(self, wave: Wave, table: LookupTable, share: np.ndarray) -> None:
        self._wave, self._table = wave, table
        places = [part + place for part, place in zip(table.server_parts(share), wave.places, strict=False)]
        self._value, self._difference, carry = _read(wave, table, places)
        opened = [carry ^ wave.carry, self._difference ^ wave.differences] if wave.shape.low else []
        self._opened = opened
        correction = self._value ^ wave.products ^ wave.choices
        fields = [*places, *opened, correction]
        self.message = wave.pack(fields, wave.shape.question_fields)

    def finish(self, answer: bytes | bytearray | memoryview) -> np.ndarray:
        """This party's shares of the outputs modulo 2^k, uint64 [count]; ValueError for an answer of a wrong length."""
        wave, shape = self._wave, self._wave.shape
        fields = wave.unpack(answer, shape.answer_fields)
        bits, making = self._value ^ wave.products, load_making(wave.party.backend)
        u = v = np.zeros(wave.count, np.uint64)
        if shape.low:
            u, v = (
                own ^ other & _ones(width)
                for own, other, width in zip(self._opened, fields[:2], (1, shape.output), strict=True)
            )
            v &= _ones(shape.output)
            bits = bits ^ _all(u) & wave.differences ^ v & _all(wave.carry)
        chosen = _selected(wave, np.zeros(wave.count, np.uint64), u, v)
        own = making.received_integers(wave.output_keys, chosen, bits, fields[-1 - shape.output : -1])
        total: np.ndarray = (fields[-1] + own) & _ones(shape.modulus)
        return total


def answer(wave: Wave, table: LookupTable, question: bytes | bytearray | memoryview, mask: np.ndarray) -> bytes:
    """The client's answer.

    Args:
        wave: what it kept.
        table: what is looked up.
        question: the server's message.
        mask: the client's shares of the outputs modulo 2^k, uint64 [count], drawn before.

    Raises:
        ValueError: the question has the wrong length.
    """
    shape, opened = wave.shape, list[np.ndarray]()
    fields = wave.unpack(question, shape.question_fields)
    correction = fields[-1]
    value, difference, carry = _read(wave, table, fields[: len(shape.indices)])
    bits = value ^ wave.products
    u = v = np.zeros(wave.count, np.uint64)
    if shape.low:
        opened = [carry ^ wave.carry, difference ^ wave.differences]
        u, v = (own ^ other for own, other in zip(opened, fields[-3:-1], strict=True))
        bits = bits ^ _all(u) & (v ^ wave.differences) ^ v & _all(wave.carry)
    making, chosen = load_making(wave.party.backend), _selected(wave, correction, u, v)
    transfers, own = making.sent_integers(wave.output_keys, chosen, wave.party.delta, bits)
    total = np.uint64(table.smallest & (1 << shape.modulus) - 1) - mask + own
    return wave.pack([*opened, *transfers, total], shape.answer_fields)


def _selected(wave: Wave, correction: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Labels of the server's output bits: of the masks, as corrected, of the differences where u is set, of the carry
    where v is.
    """
    own = (wave.labels, correction, wave.party.delta, wave.difference_labels, wave.carry_labels)
    chosen: np.ndarray = load_making(wave.party.backend).selected(*own, u, v)
    return chosen


def _read(wave: Wave, table: LookupTable, places: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """This party's shares of the value without a carry, of its difference with one, and of the carry."""
    shape, kernels, nothing = wave.shape, load_kernels(wave.party.backend), np.zeros(wave.count, np.uint64)
    places = [place & _ones(index.bits) for place, index in zip(places, shape.indices, strict=True)]
    read = kernels.read(wave.vectors[0], places[0], shape.high, table.bit_words)
    if not shape.low:
        return read, nothing, nothing
    carry = kernels.read(wave.vectors[1], places[1], shape.low, table.carry_words)
    return read & _ones(shape.output), read >> np.uint64(shape.output), carry


def _all(bits: np.ndarray) -> np.ndarray:
    """All ones where the lowest bit is 1, for bits 0 or 1."""
    return np.uint64(0) - bits


def _ones(count: int) -> np.uint64:
    return np.uint64((1 << count) - 1)
