"""Measured seconds of what lookups are made of: random transfers, making, and reading; both parties together."""

from __future__ import annotations

import time
from collections.abc import Callable

from autoprivacy.errors import UserError
from autoprivacy.gc.activation import Activation
from autoprivacy.lookup.hash_keys import HashKeys
from autoprivacy.lookup.online import Question, answer
from autoprivacy.lookup.shape import LookupShape
from autoprivacy.lookup.table import LookupTable
from autoprivacy.lookup.wave import Party, Wave
from autoprivacy.memory import keep_freed_memory
from autoprivacy.ot.labels import random_delta
from autoprivacy.ot.setup import TransferSetup
from autoprivacy.ot.silent_parameters import SILENT_PARAMETERS
from autoprivacy.ot.transfers import TransferKind
from autoprivacy.randomness.generator import SecureRandom

# The random transfers worth comparing, and their names: fewer and fewer bytes.
TRANSFERS = {TransferKind(bits): f"random_transfer_{bits}" for bits in (4, 6, 8)} | {
    TransferKind(8, bits): f"silent_transfer_{bits}" for bits in SILENT_PARAMETERS
}
CHEAP = TransferKind(4)  # by which lookups are made while these are timed
# Counted by `lookup_counts`: random transfers of each kind; a lookup made, without its transfers and words; a word of
# its one-hot vectors; a lookup read.
READING = "lookup_read"
OPERATIONS = (*TRANSFERS.values(), "lookup", "lookup_word", READING)
LOOKUPS, TRANSFER_COUNT = 1 << 13, 1 << 17
# Two tables that differ in their words: one word without a carry, and 48.
SMALL, LARGE = Activation(1 << 10, 4, 0, 15, 4), Activation(1 << 20, 9, 0, 255)


def lookup_counts(shape: LookupShape, count: int, kind: TransferKind) -> dict[str, int]:
    """How often each operation happens for so many lookups."""
    return {
        TRANSFERS[kind]: shape.transfers * count,
        "lookup": count,
        "lookup_word": count * sum(index.words for index in shape.indices),
        READING: count,
    }


class LookupTimer:
    """Times every operation once a call.

    Args:
        backend: "numba" or "numpy"; None takes the faster one that this machine has.
    """

    def __init__(self, backend: str | None = None) -> None:
        keep_freed_memory()  # as both parties do
        self._pairs = {kind: _parties(kind, backend) for kind in TRANSFERS}
        self._shares = SecureRandom().words(LOOKUPS)

    def _transfer(self, kind: TransferKind) -> None:
        client, server = (party.transfers for party in self._pairs[kind])
        (first, received), (second, sent) = client.begin(TRANSFER_COUNT, 0), server.begin(0, TRANSFER_COUNT)
        received(second)
        sent(first)

    def _make(self, table: LookupTable) -> tuple[Wave, Wave]:
        client, server = self._pairs[CHEAP]
        shape = LookupShape.of(table, 20)
        waves = Wave(client, shape, LOOKUPS, table.client_parts(self._shares)), Wave(server, shape, LOOKUPS)
        for _ in range(shape.exchanges):
            messages = [wave.send() for wave in waves]
            for wave, message in zip(waves, messages[::-1], strict=True):
                wave.receive(message)
        return waves

    def _read(self, table: LookupTable, waves: tuple[Wave, Wave]) -> None:
        question = Question(waves[1], table, self._shares)
        question.finish(answer(waves[0], table, question.message, self._shares))

    def times(self) -> dict[str, float]:
        """CPU seconds of each of `OPERATIONS`."""
        transfers = {name: _seconds(self._transfer, kind) / TRANSFER_COUNT for kind, name in TRANSFERS.items()}
        made, words, read = [], [], 0.0
        for activation in (SMALL, LARGE):
            table = LookupTable(activation)
            counts = lookup_counts(LookupShape.of(table, 20), 1, CHEAP)
            seconds = _seconds(self._make, table) / LOOKUPS
            made.append(max(0.0, seconds - counts[TRANSFERS[CHEAP]] * transfers[TRANSFERS[CHEAP]]))
            words.append(counts["lookup_word"])
            waves = self._make(table)
            read = _seconds(self._read, table, waves) / LOOKUPS
        word = max(0.0, made[1] - made[0]) / (words[1] - words[0])
        return {**transfers, "lookup": max(0.0, made[0] - word * words[0]), "lookup_word": word, READING: read}


def _parties(kind: TransferKind, backend: str | None) -> tuple[Party, Party]:
    """Client and server with transfers of a kind."""
    deltas = [random_delta(SecureRandom()) for _ in range(2)]
    setups = [TransferSetup(delta, kind, backend=backend) for delta in deltas]
    answers = [setup.answer(other.hello()) for setup, other in zip(setups, setups[::-1], strict=True)]
    trees = [setup.trees(reply) for setup, reply in zip(setups, answers[::-1], strict=True)]
    for setup, tree in zip(setups, trees[::-1], strict=True):
        setup.finish(tree)
    rounds = [setup.round() for setup in setups]
    client, server = (
        Party(place == 0, deltas[place], setup.transfers(first), HashKeys(setup.session_key(b"rates")), backend)
        for place, (setup, first) in enumerate(zip(setups, rounds[::-1], strict=True))
    )
    return client, server


def _seconds(operation: Callable[..., object], *arguments: object) -> float:
    start = time.thread_time()
    operation(*arguments)
    return time.thread_time() - start


def lookup_times(repeats: int) -> dict[str, list[float]]:
    """CPU seconds of every operation, `repeats` times after once that does not count."""
    if repeats < 1:
        raise UserError(f"lookup profile: {repeats} repeats; expected at least 1")
    timer = LookupTimer()
    passes = [timer.times() for _ in range(repeats + 1)][1:]
    return {name: [times[name] for times in passes] for name in OPERATIONS}
