"""How much memory a client lets a server's announcement cost it: for one prepared image, and in all.

What a server announces, the client prepares for: a network of many activations under circuits takes a client hundreds
of megabytes an image. Both limits are held against the agreement before anything is sent, so that no announcement can
take more.
"""

from __future__ import annotations

from dataclasses import dataclass

from autoprivacy.errors import UserError
from autoprivacy.protocol.lengths import Lengths
from autoprivacy.protocol.messages import ProtocolError


@dataclass(frozen=True)
class ClientMemory:
    """A client's limits, in bytes.

    Attributes:
        image: that one prepared image may take, while it is prepared and until it is used.
        total: that a session may take: keys, tables, what one image takes while it is worked on, all prepared images.
    """

    image: int = 2 << 30
    total: int = 4 << 30

    def __post_init__(self) -> None:
        if self.image < 1 or self.total < self.image:
            raise UserError(
                f"memory: {self.image} bytes an image, {self.total} in all; expected at least 1 byte an image and no "
                "less in all; set --image-memory and --memory"
            )

    def bundles(self, lengths: Lengths) -> int:
        """How many prepared images there is memory for under an agreement, one at least.

        Raises:
            ProtocolError: there is none for a single one.
        """
        bundle, working = lengths.client_bundle_bytes, lengths.client_working_bytes
        if bundle + working > self.image:
            raise ProtocolError(
                f"a prepared image of the server's network takes {bundle + working} bytes of memory, allowed "
                f"{self.image}; allow more with --image-memory, or leave this server"
            )
        count = (self.total - lengths.set_up_memory - working) // bundle
        if count < 1:
            needed = lengths.set_up_memory + working + bundle
            raise ProtocolError(
                f"a session with this server takes {needed} bytes of memory, allowed {self.total}; allow more with "
                "--memory, or leave this server"
            )
        return count

    def check_pool(self, pool: int, lengths: Lengths) -> None:
        """UserError where so many prepared images are more than there is memory for."""
        if pool > (count := self.bundles(lengths)):
            raise UserError(
                f"--pool {pool}: {self.total} bytes of memory have room for {count} prepared images of "
                f"{lengths.client_bundle_bytes} bytes; expected at most {count}, or more --memory"
            )
