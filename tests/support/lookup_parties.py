"""Both parties of lookups in one process."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Queue

import numpy as np

from autoprivacy.lookup.batch import Batch, Messages, Questions, answers, exchange_bytes, prepare
from autoprivacy.lookup.hash_keys import HashKeys
from autoprivacy.lookup.wave import Party, Wave
from autoprivacy.ot.labels import random_delta
from autoprivacy.ot.setup import TransferSetup
from autoprivacy.ot.transfers import TransferKind
from autoprivacy.randomness.generator import SecureRandom

KIND = TransferKind(4)
TIMEOUT = 60


def parties(key: bytes = b"l", backend: str | None = None, kind: TransferKind = KIND) -> tuple[Party, Party]:
    """Client and server with transfers in both directions, from a fixed key."""
    randoms = [SecureRandom(key * 32), SecureRandom(key * 31 + b"s")]
    deltas = [random_delta(random) for random in randoms]
    setups = [TransferSetup(delta, kind, random, backend) for delta, random in zip(deltas, randoms, strict=True)]
    hellos = [setup.hello() for setup in setups]
    replies = [setup.answer(hello) for setup, hello in zip(setups, hellos[::-1], strict=True)]
    trees = [setup.trees(reply) for setup, reply in zip(setups, replies[::-1], strict=True)]
    for setup, tree in zip(setups, trees[::-1], strict=True):
        setup.finish(tree)
    rounds = [setup.round() for setup in setups]
    transfers = [setup.transfers(first) for setup, first in zip(setups, rounds[::-1], strict=True)]
    keys = [HashKeys(setup.session_key(b"lookup")) for setup in setups]
    client, server = (
        Party(place == 0, delta, own, hash_keys, backend)
        for place, (delta, own, hash_keys) in enumerate(zip(deltas, transfers, keys, strict=True))
    )
    return client, server


def prepared(
    client: Party, server: Party, batches: Sequence[Batch], shares: Sequence[np.ndarray], kind: TransferKind = KIND
) -> tuple[list[list[Wave]], list[list[Wave]], list[tuple[bytes, bytes]]]:
    """Both parties' waves of all batches, and the messages of every slot, the client's first."""
    queues: list[Queue[bytes]] = [Queue(), Queue()]
    sent: list[list[bytes]] = [[], []]

    def run(party: Party) -> list[list[Wave]]:
        own, other = (0, 1) if party.client else (1, 0)

        def send(message: bytes) -> None:
            sent[own].append(message)
            queues[own].put(message)

        def receive(length: int) -> bytes:
            received = queues[other].get(timeout=TIMEOUT)
            assert len(received) == length
            return received

        return prepare(party, batches, kind, Messages(send, receive), shares if party.client else None)

    with ThreadPoolExecutor(2) as threads:
        waves = list(threads.map(run, (client, server)))
    for is_client, messages in zip((True, False), sent, strict=True):
        assert [len(message) for message in messages] == exchange_bytes(batches, kind, is_client)
    return waves[0], waves[1], list(zip(*sent, strict=True))


def looked_up(client: Party, server: Party, batch: Batch, shares: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The outputs of one batch for both parties' shares of its inputs, uint64 modulo 2^k."""
    (own,), (others,), _ = prepared(client, server, [batch], [shares[0]])
    return online(batch, own, others, shares[1])


def online(batch: Batch, own: list[Wave], others: list[Wave], share: np.ndarray) -> np.ndarray:
    """What a batch that is prepared gives for the server's share."""
    masks = SecureRandom().below(1 << batch.modulus_bits, batch.count)
    questions = Questions(batch, others, share)
    assert len(questions.message) == batch.question_bytes
    reply = answers(batch, own, questions.message, masks)
    assert len(reply) == batch.answer_bytes
    return questions.finish(reply) + masks & np.uint64((1 << batch.modulus_bits) - 1)
