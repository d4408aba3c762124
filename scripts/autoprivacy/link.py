"""The network between client and server, as latency is predicted over it and as the channel behaves."""

from __future__ import annotations

from dataclasses import dataclass

from autoprivacy.errors import UserError


@dataclass(frozen=True)
class Link:
    """The network between client and server.

    Attributes:
        bits_per_second: throughput.
        round_trip_seconds: of a small message there and back; a layer is charged one.
    """

    bits_per_second: float
    round_trip_seconds: float

    def __post_init__(self) -> None:
        if not self.bits_per_second > 0 or not self.round_trip_seconds >= 0:
            raise UserError(f"link: {self}; expected a throughput above 0 and a round-trip time of 0 or more")

    def seconds(self, count: int) -> float:
        """Time that `count` bytes take, without the round trip."""
        return 8 * count / self.bits_per_second


# Both parties on one machine: what one core copies to another by TCP, of the order of 10 Gbit/s.
LOOPBACK = Link(1e10, 1e-4)
