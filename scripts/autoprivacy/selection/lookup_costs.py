"""What activations by lookup cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from autoprivacy.errors import UserError
from autoprivacy.link import Link
from autoprivacy.lookup.batch import Batch, exchange_bytes
from autoprivacy.lookup.rates import READING, TRANSFERS, lookup_counts
from autoprivacy.ot.transfers import TransferKind

LOOKUP_TOTALS = ("lookup_bytes", "lookup_online_bytes", "lookup_compute_seconds", "lookup_seconds")


def lookup_cost(batch: Batch, rates: Mapping[str, float], link: Link, kind: TransferKind) -> dict[str, float]:
    """What the lookups of one activation take.

    They are made by both parties at once: messages go both ways while both compute the next ones, so that the slower of
    link and parties decides (`exchanges_seconds` is what the image adds once). Online the server asks and the client
    answers, one after the other.

    Args:
        batch: the lookups.
        rates: seconds by operation of `lookup.rates`, both parties together.
        link: what messages go over, either way at once; a round trip is online.
        kind: of the transfers.

    Returns:
        lookup_bytes of both parties, lookup_online_bytes among them; lookup_compute_seconds of both; lookup_seconds,
        the transfer and the round trip included.

    Raises:
        UserError: a rate is missing.
    """
    counts = lookup_counts(batch.shape, batch.count, kind)
    _check_measured(counts, rates)
    online = batch.question_bytes + batch.answer_bytes
    ways = [sum(exchange_bytes([batch], kind, client)) for client in (True, False)]
    seconds = {operation: count * rates[operation] for operation, count in counts.items()}
    reading = seconds.pop(READING)
    making = max(sum(seconds.values()) / 2, link.seconds(max(ways)))
    return {
        "lookup_bytes": online + sum(ways),
        "lookup_online_bytes": online,
        "lookup_compute_seconds": sum(seconds.values()) + reading,
        "lookup_seconds": making + reading + link.seconds(online) + link.round_trip_seconds,
    }


def exchanges_seconds(batches: Sequence[Batch], link: Link) -> float:
    """What the link's delay adds once for all lookups of an image: half a round trip for every exchange of a wave."""
    return max((batch.shape.exchanges for batch in batches), default=0) * link.round_trip_seconds / 2


def transfer_set_up_cost(kind: TransferKind, rates: Mapping[str, float], link: Link) -> dict[str, float]:
    """What transfers of a kind take in the set-up beyond base transfers and trees, which all kinds need.

    Both parties send at once, and the last message takes half a round trip that extended transfers do not.

    Args:
        kind, rates, link: as for `lookup_cost`.

    Returns:
        transfer_set_up_bytes of both parties, transfer_set_up_seconds.

    Raises:
        UserError: a rate is missing.
    """
    if kind.table_bits is None:
        return {"transfer_set_up_bytes": 0, "transfer_set_up_seconds": 0.0}
    first, rounds = kind.silent
    extended, smallest = TRANSFERS[kind.extended], TRANSFERS[replace(kind, table_bits=first.table_bits)]
    _check_measured((extended, smallest, TRANSFERS[kind]), rates)
    compute = first.base * rates[extended] + rounds.base * rates[smallest]
    seconds = compute + link.seconds(kind.set_up_bytes // 2) + link.round_trip_seconds / 2
    return {"transfer_set_up_bytes": kind.set_up_bytes, "transfer_set_up_seconds": seconds}


def _check_measured(operations: Iterable[str], rates: Mapping[str, float]) -> None:
    missing = sorted(set(operations) - set(rates))
    if missing:
        raise UserError(f"profile: no measurement of {', '.join(missing)}; profile again")
