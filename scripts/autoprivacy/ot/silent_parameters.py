"""Parameters of silent transfers, and how many trees and bytes they take.

A round has `blocks` trees of 2^depth leaves. Its samples of learning parity with noise are transfers, of which every
tree gives `reserved` to the next round: 2^table_bits for the table and depth for every tree. `lpn_security` estimates
what breaking them takes; the tests hold every set to 128 bits.
"""

from __future__ import annotations

from dataclasses import dataclass

from autoprivacy.ot.labels import LABEL_BYTES
from autoprivacy.ot.lpn_security import LpnInstance

# Of Ferret's code: rows of the table that a transfer adds up.
LOCALITY = 10
# Samples a secret bit. The more, the fewer secret bits contain as many samples as they are (`lpn_security.restricted`);
# the fewer, the larger the share that goes to the next round, here a tenth.
SAMPLES_PER_BIT = 12
# log2 of a table's rows less a tree's depth: an error in 2^depth samples, 128 in as many samples as secret bits.
ERRORS_BITS = 7


@dataclass(frozen=True)
class SilentParameters:
    """A set of parameters.

    Attributes:
        table_bits: log2 of the secret bits, rows of the table.
        blocks: trees of a round, errors in its samples.
        reserved: transfers of each tree for the next round, an even number; none where there is no next round.
    """

    table_bits: int
    blocks: int
    reserved: int

    @classmethod
    def endless(cls, table_bits: int) -> SilentParameters:
        """Rounds without end, each out of the one before."""
        depth = table_bits - ERRORS_BITS
        blocks = SAMPLES_PER_BIT << table_bits >> depth
        needed = -(-((1 << table_bits) + depth * blocks) // blocks)
        return cls(table_bits, blocks, needed + needed % 2)

    @classmethod
    def first(cls, count: int) -> SilentParameters:
        """A single round of `count` transfers, and some more, out of fewer."""
        return cls(FIRST_TABLE_BITS, -(-count // (1 << FIRST_TABLE_BITS - ERRORS_BITS)), 0)

    @property
    def depth(self) -> int:
        """Levels of a tree."""
        return self.table_bits - ERRORS_BITS

    @property
    def instance(self) -> LpnInstance:
        """What it takes to be hard."""
        return LpnInstance(1 << self.table_bits, self.blocks, self.depth, LOCALITY)

    @property
    def base(self) -> int:
        """Transfers that a round is made from."""
        return (1 << self.table_bits) + self.depth * self.blocks

    @property
    def given(self) -> int:
        """Transfers of a tree for use."""
        return (1 << self.depth) - self.reserved

    def trees(self, count: int) -> int:
        """Trees for so many transfers."""
        return -(-count // self.given)

    def message_bytes(self, count: int) -> int:
        """Bytes of the sender's message for so many transfers: a label for every level of their trees."""
        return LABEL_BYTES * self.depth * self.trees(count)


FIRST_TABLE_BITS = 16
# By bits of the table: 1, 2 and 4 MiB; 2.5, 1.4 and 0.8 bits a transfer. Which is the fastest depends on caches.
SILENT_PARAMETERS = {bits: SilentParameters.endless(bits) for bits in (16, 17, 18)}
