"""What the offline phase leaves with each party for one image, and the rule that it serves one image.

Bundles live in memory alone: a party that stops has lost them, and no bundle comes back from a disk. They have random
numbers, so those of another session, of before a restart for instance, are unknown here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import numpy as np

from autoprivacy.protocol.messages import ProtocolError
from autoprivacy.protocol.shares import ModularShares
from autoprivacy.randomness.generator import KEY_BYTES, SecureRandom

if TYPE_CHECKING:
    from autoprivacy.protocol.answers import ClientAnswer, ServerAnswer
    from autoprivacy.protocol.garbled import ClientGarbling, ServerGarbling
    from autoprivacy.protocol.looked_up import Lookups

NUMBER_BYTES = 8  # of a bundle's number on the wire


@dataclass(frozen=True)
class Seed:
    """32 secret bytes that stand for residues until these are needed; a bundle holds no more of them."""

    key: bytes = field(default_factory=lambda: os.urandom(KEY_BYTES), repr=False)

    def residues(self, modulus: int, shape: tuple[int, ...]) -> np.ndarray:
        """The uniform residues that it stands for, int64; the same at every call."""
        return SecureRandom(self.key).below(modulus, shape).astype(np.int64)


class OnceWritten(dict[str, "ModularShares"]):
    """Shares by node: a share is a one-time pad, so one that was drawn is never replaced.

    Raises:
        ProtocolError: the node has had a share already, be it taken out since.
    """

    def __init__(self, shares: Mapping[str, ModularShares] | None = None) -> None:
        super().__init__(shares or {})
        self._written = set(self)

    def __setitem__(self, node: str, shares: ModularShares) -> None:
        if node in self._written:
            raise ProtocolError(f"node {node} has a share already; a share is never replaced")
        self._written.add(node)
        super().__setitem__(node, shares)


@dataclass
class ClientBundle:
    """What the offline phase leaves with the client for one image; used once.

    Attributes:
        number: random, names it to the server.
        index: how many were prepared before it in this session.
        shares: its shares of every node's value, each kept once.
        activations: what the protocol of each activation keeps.
        answer: what the last step keeps, where the client does not learn all outputs.
        factors: per squared activation the factor a of its triples, int64 [C, H, W].
        products: per squared activation its share h of a rho, int64 [C, H, W].
    """

    number: int
    index: int
    shares: OnceWritten = field(default_factory=lambda: OnceWritten())
    activations: dict[str, ClientGarbling | Lookups] = field(default_factory=dict)
    answer: ClientAnswer | None = None
    factors: dict[str, np.ndarray] = field(default_factory=dict)
    products: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass
class ServerBundle:
    """What the offline phase leaves with the server for one image; used once.

    Attributes:
        number, index: as the client's.
        masks: per linear layer the seed of its mask s, which `Seed.residues` draws.
        activations: what the protocol of each activation keeps.
        answer: as the client's.
        products: per squared activation the seed of its share m of a rho.
    """

    number: int
    index: int
    masks: dict[str, Seed] = field(default_factory=dict)
    activations: dict[str, ServerGarbling | Lookups] = field(default_factory=dict)
    answer: ServerAnswer | None = None
    products: dict[str, Seed] = field(default_factory=dict)


class Numbered(Protocol):
    """Anything with a number."""

    number: int


Bundle = TypeVar("Bundle", bound=Numbered)


class Pool(Generic[Bundle]):
    """A party's bundles that are ready and unused.

    Args:
        capacity: how many it may hold.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._ready: dict[int, Bundle] = {}
        self._numbers: set[int] = set()

    def open(self, number: int) -> int:
        """Reserve a number for a bundle about to be prepared and return its index.

        Raises:
            ProtocolError: the pool is full, or the number served another bundle of this session.
        """
        if len(self._ready) >= self._capacity:
            raise ProtocolError(f"the pool holds {self._capacity} bundles already; use one before the next is prepared")
        if number in self._numbers:
            raise ProtocolError(f"bundle {number} exists already in this session; expected a fresh number")
        self._numbers.add(number)
        return len(self._numbers) - 1

    def put(self, bundle: Bundle) -> None:
        """Keep a bundle that is ready."""
        self._ready[bundle.number] = bundle

    def take(self, number: int) -> Bundle:
        """The bundle of that number, which the pool forgets: call it before anything is sent that depends on the
        bundle.

        Raises:
            ProtocolError: it was used before, or this session never prepared it.
        """
        bundle = self._ready.pop(number, None)
        if bundle is None:
            why = "was used before" if number in self._numbers else "was never prepared in this session"
            raise ProtocolError(f"bundle {number} {why}; prepare a new one")
        return bundle
