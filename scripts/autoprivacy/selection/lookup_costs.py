"""What activations by lookup cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from autoprivacy.errors import UserError
from autoprivacy.link import Link
from autoprivacy.lookup.batch import Batch, exchange_bytes
from autoprivacy.lookup.rates import OPERATIONS, READING, lookup_counts

LOOKUP_TOTALS = ("lookup_bytes", "lookup_online_bytes", "lookup_compute_seconds", "lookup_seconds")


def lookup_cost(batch: Batch, rates: Mapping[str, float], link: Link, tree_bits: int) -> dict[str, float]:
    """What the lookups of one activation take.

    They are made by both parties at once: messages go both ways while both compute the next ones, so that the slower of
    link and parties decides (`exchanges_seconds` is what the image adds once). Online the server asks and the client
    answers, one after the other.

    Args:
        batch: the lookups.
        rates: seconds by operation of `lookup.rates`, both parties together.
        link: what messages go over, either way at once; a round trip is online.
        tree_bits: of the transfers.

    Returns:
        lookup_bytes of both parties, lookup_online_bytes among them; lookup_compute_seconds of both; lookup_seconds,
        the transfer and the round trip included.

    Raises:
        UserError: a rate is missing.
    """
    missing = set(OPERATIONS) - set(rates)
    if missing:
        raise UserError(f"profile: no measurement of {', '.join(sorted(missing))}; profile again")
    online = batch.question_bytes + batch.answer_bytes
    ways = [sum(exchange_bytes([batch], tree_bits, client)) for client in (True, False)]
    counts = lookup_counts(batch.shape, batch.count, tree_bits)
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
