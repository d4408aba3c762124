"""What activations by lookup cost."""

from __future__ import annotations

from collections.abc import Mapping

from autoprivacy.errors import UserError
from autoprivacy.link import Link
from autoprivacy.lookup.batch import Batch, exchange_bytes
from autoprivacy.lookup.rates import OPERATIONS, lookup_counts

LOOKUP_TOTALS = ("lookup_bytes", "lookup_online_bytes", "lookup_compute_seconds", "lookup_seconds")


def lookup_cost(batch: Batch, rates: Mapping[str, float], link: Link, tree_bits: int) -> dict[str, float]:
    """What the lookups of one activation take.

    Args:
        batch: the lookups.
        rates: seconds by operation of `lookup.rates`, both parties together.
        link: what messages go over.
        tree_bits: of the transfers.

    Returns:
        lookup_bytes of both parties, lookup_online_bytes among them; lookup_compute_seconds of both; lookup_seconds,
        the transfer included.

    Raises:
        UserError: a rate is missing.
    """
    missing = set(OPERATIONS) - set(rates)
    if missing:
        raise UserError(f"profile: no measurement of {', '.join(sorted(missing))}; profile again")
    online = batch.question_bytes + batch.answer_bytes
    sent = online + sum(sum(exchange_bytes([batch], tree_bits, client)) for client in (True, False))
    counts = lookup_counts(batch.shape, batch.count, tree_bits)
    compute = sum(count * rates[operation] for operation, count in counts.items())
    return {
        "lookup_bytes": sent,
        "lookup_online_bytes": online,
        "lookup_compute_seconds": compute,
        "lookup_seconds": compute + link.seconds(sent),
    }
