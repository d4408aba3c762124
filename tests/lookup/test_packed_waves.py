"""Packed waves: the same lookups again, in at most 200 bytes each for a client of a slow link."""

import numpy as np
import pytest
from support.lookup_parties import KIND, parties, prepared

from autoprivacy.gc.activation import Activation
from autoprivacy.lookup.batch import Batch
from autoprivacy.lookup.shape import LookupShape
from autoprivacy.lookup.table import LookupTable
from autoprivacy.lookup.wave import Wave
from autoprivacy.ot.transfers import TransferKind

FIELDS = ("carry", "differences", "products", "choices", "labels", "difference_labels", "carry_labels", "output_keys")


def assert_equal_waves(wave: Wave, again: Wave, client: bool) -> None:
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(wave, name), getattr(again, name), name)
    lists = ("vectors",) if client else ("vectors", "places")
    for name in lists:
        for own, other in zip(getattr(wave, name), getattr(again, name), strict=True):
            np.testing.assert_array_equal(own, other, name)


@pytest.mark.parametrize(("shift", "ignored"), [(9, 0), (9, 9), (4, 0)])
def test_a_packed_wave_expands_to_what_it_was(shift: int, ignored: int) -> None:
    rng, count = np.random.default_rng(2), 300
    batches = [Batch(LookupTable(Activation(1 << bits, shift, 0, 255, ignored)), 20, count) for bits in (16, 15, 16)]
    shares = [rng.integers(0, 1 << 15, count).astype(np.uint64) for _ in batches]
    pair = parties(b"p")
    for party, own in zip(pair, prepared(*pair, batches, shares)[:2], strict=True):
        place, drawn = party.transfers.receiver.place, party.keys.drawn
        for wave in (wave for waves in own for wave in waves):
            packed = wave.packed()
            assert_equal_waves(wave, packed.expand(party), party.client)
            assert wave._messages == []
            kept = sum(map(len, packed.messages))
            assert kept == sum(wave.shape.offline_bytes(count, KIND, not party.client))
        assert (party.transfers.receiver.place, party.keys.drawn) == (
            place,
            drawn,
        )  # the session's own streams stand still


@pytest.mark.parametrize(("shift", "tree_bits"), [(8, 8), (9, 8), (10, 8), (9, 6)])
def test_a_client_keeps_at_most_200_bytes_a_lookup(shift: int, tree_bits: int) -> None:
    """p = 2^20, exact, 8 bits out, under the trees that slow links take."""
    shape, count = LookupShape.of(LookupTable(Activation(1 << 19, shift, 0, 255)), 20), 8192
    packed = sum(shape.offline_bytes(count, TransferKind(tree_bits), client=False)) / count
    assert packed <= 200 < shape.kept_bytes
