"""What the offline phase leaves with each party for one image, and the rule that it serves one image.

Bundles live in memory alone: a party that stops has lost them, and no bundle comes back from a disk. They have random
numbers, so those of another session, of before a restart for instance, are unknown here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import numpy as np

from autoprivacy.protocol.channel import ProtocolError
from autoprivacy.protocol.shares import ModularShares

NUMBER_BYTES = 8  # of a bundle's number on the wire


@dataclass
class ClientBundle:
    """What the offline phase leaves with the client for one image; used once.

    Attributes:
        number: random, names it to the server.
        index: how many were prepared before it in this session.
        shares: its shares of every node's value.
        labels: per activation the wire labels of its input share, uint64 [bits, ReLUs, 2].
        tables: per activation the garbled tables, chunk by chunk.
        factors: per squared activation the factor a of its triples, int64 [C, H, W].
        products: per squared activation its share h of a rho, int64 [C, H, W].
    """

    number: int
    index: int
    shares: dict[str, ModularShares] = field(default_factory=dict)
    labels: dict[str, np.ndarray] = field(default_factory=dict)
    tables: dict[str, list[bytearray]] = field(default_factory=dict)
    factors: dict[str, np.ndarray] = field(default_factory=dict)
    products: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass
class ServerBundle:
    """What the offline phase leaves with the server for one image; used once.

    Attributes:
        number, index: as the client's.
        masks: per linear layer the mask s, int64 [C, H, W] modulo p.
        garbler_zero: per activation the zero labels of its input share, uint64 [bits, ReLUs, 2].
        output_masks: per activation the mask rho of its output by modulus, uint64 [moduli, ReLUs].
        products: per squared activation its share m of a rho, int64 [C, H, W].
    """

    number: int
    index: int
    masks: dict[str, np.ndarray] = field(default_factory=dict)
    garbler_zero: dict[str, np.ndarray] = field(default_factory=dict)
    output_masks: dict[str, np.ndarray] = field(default_factory=dict)
    products: dict[str, np.ndarray] = field(default_factory=dict)


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
        """The bundle of that number, which the pool forgets: call it before anything is sent that hangs on the bundle.

        Raises:
            ProtocolError: it was used before, or this session never prepared it.
        """
        bundle = self._ready.pop(number, None)
        if bundle is None:
            why = "was used before" if number in self._numbers else "was never prepared in this session"
            raise ProtocolError(f"bundle {number} {why}; prepare a new one")
        return bundle
