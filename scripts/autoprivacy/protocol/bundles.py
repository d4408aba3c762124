"""What the offline phase leaves with each party for one image, and the rule that it serves one image.

Bundles have random numbers, so those of another session are unknown here. They live in memory, and a party that stops
has lost them, unless it keeps them on disk (`kept_bundles`). Only the bundle that is next is held ready to be used; the
others are packed: lookups as what they are made from, and nothing in memory of those that are on disk.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np

from autoprivacy.errors import UserError
from autoprivacy.protocol.messages import ProtocolError
from autoprivacy.protocol.shares import ModularShares
from autoprivacy.randomness.generator import KEY_BYTES, SecureRandom

if TYPE_CHECKING:
    from autoprivacy.protocol.answers import ClientAnswer, ServerAnswer
    from autoprivacy.protocol.garbled import ClientGarbling, ServerGarbling
    from autoprivacy.protocol.looked_up import Lookups

NUMBER_BYTES = 8  # of a bundle's number on the wire
MAXIMUM_KEPT = 1 << 12  # bundles on disk that a client names when it comes back


@dataclass(frozen=True)
class Seed:
    """32 secret bytes that stand for residues until these are needed; a bundle holds no more of them."""

    key: bytes = field(default_factory=lambda: os.urandom(KEY_BYTES), repr=False)

    def residues(self, modulus: int, shape: tuple[int, ...]) -> np.ndarray:
        """The uniform residues that it stands for, int64; the same at every call."""
        return SecureRandom(self.key).below(modulus, shape).astype(np.int64)


def seeded_shares(seeds: Mapping[int, Seed], moduli: Sequence[int], shape: tuple[int, ...]) -> ModularShares:
    """Uniform shares modulo each p, drawn from a seed each, or all from one of the largest modulus, which the others
    divide.
    """
    if len(seeds) == len(moduli):
        return {p: seeds[p].residues(p, shape) for p in moduli}
    ((largest, seed),) = seeds.items()
    drawn = seed.residues(largest, shape)
    return {p: drawn % p for p in moduli}


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


@runtime_checkable
class Packable(Protocol):
    """What can let go of what can be made again."""

    def pack(self) -> None:
        """Let go of it."""

    def expand(self) -> object:
        """Make it again."""

    def stay_expanded(self) -> None:
        """Let go of what it could be made from again: it is used before it is packed."""


class _Packing:
    """A bundle packs as its activations do."""

    activations: Mapping[str, object]

    def pack(self) -> None:
        """Let go of what can be made again."""
        for kept in self.activations.values():
            if isinstance(kept, Packable):
                kept.pack()

    def expand(self) -> None:
        """Make the bundle ready to be used at once."""
        for kept in self.activations.values():
            if isinstance(kept, Packable):
                kept.expand()

    def stay_expanded(self) -> None:
        """Keep only what using the bundle takes: it is never packed from now on."""
        for kept in self.activations.values():
            if isinstance(kept, Packable):
                kept.stay_expanded()


@dataclass
class ClientBundle(_Packing):
    """What the offline phase leaves with the client for one image; used once.

    Attributes:
        number: random, names it to the server.
        index: how many were prepared before it in this session.
        masks: of the image and of every activation the seeds of its shares, by modulus; see `seeded_shares`.
        shares: its shares of every node's value, each kept once; once the bundle is ready, of the output alone.
        activations: what the protocol of each activation keeps.
        answer: what the last step keeps, where the client does not learn all outputs.
        factors: per squared activation the seed of the factor a of its triples.
        products: per squared activation its share h of a rho, int64 [C, H, W].
    """

    number: int
    index: int
    masks: dict[str, dict[int, Seed]] = field(default_factory=dict)
    shares: OnceWritten = field(default_factory=lambda: OnceWritten())
    activations: dict[str, ClientGarbling | Lookups] = field(default_factory=dict)
    answer: ClientAnswer | None = None
    factors: dict[str, Seed] = field(default_factory=dict)
    products: dict[str, np.ndarray] = field(default_factory=dict)

    def settle(self, output: str) -> None:
        """Forget the shares that were needed for preparing alone: all but those of the output node, unless they come
        from seeds."""
        kept = {} if output in self.masks else {output: self.shares[output]}
        self.shares = OnceWritten(kept)


@dataclass
class ServerBundle(_Packing):
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


class Numbered(Packable, Protocol):
    """A bundle of either party."""

    number: int
    index: int


Bundle = TypeVar("Bundle", bound=Numbered)


class Keeper(Protocol[Bundle]):
    """Where bundles are kept beyond this process; `kept_bundles.KeptBundles`."""

    def save(self, bundle: Bundle) -> None:
        """Keep it; UserError where it cannot be kept."""

    def load(self, number: int) -> Bundle:
        """What was kept; UserError where it is damaged."""

    def destroy(self, number: int) -> None:
        """Make sure that it never comes back; ProtocolError where it is gone already, so used."""


class Pool(Generic[Bundle]):
    """A party's bundles that are ready and unused, the oldest expanded, the others packed.

    Args:
        capacity: how many it may hold in memory.
        keeper: keeps them on disk too; the pool then holds no other than the oldest in memory.
    """

    def __init__(self, capacity: int, keeper: Keeper[Bundle] | None = None) -> None:
        self._capacity, self._keeper = capacity, keeper
        self._ready: dict[int, Bundle | None] = {}  # None: on disk
        self._numbers: set[int] = set()

    def __len__(self) -> int:
        return len(self._ready)

    def keep(self, keeper: Keeper[Bundle], numbers: Sequence[int]) -> None:
        """Keep bundles on disk from now on, and take over those that are there."""
        self._keeper = keeper
        self._numbers.update(numbers)
        self._ready.update(dict.fromkeys(numbers))

    @property
    def packs_next(self) -> bool:
        """Whether the next bundle is packed, or kept on disk, before it is used."""
        return self._keeper is not None or bool(self._ready)

    def open(self, number: int) -> int:
        """Reserve a number for a bundle about to be prepared and return its index.

        Raises:
            ProtocolError: the pool is full, or the number served another bundle of this session.
        """
        if self._keeper is None and len(self._ready) >= self._capacity:
            raise ProtocolError(f"the pool holds {self._capacity} bundles already; use one before the next is prepared")
        if number in self._numbers:
            raise ProtocolError(f"bundle {number} exists already in this session; expected a fresh number")
        self._numbers.add(number)
        return len(self._numbers) - 1

    def put(self, bundle: Bundle) -> None:
        """Keep a bundle that is ready."""
        oldest = not self._ready
        if self._keeper is not None:
            self._keeper.save(bundle)
        elif not oldest:
            bundle.pack()
        if oldest:
            bundle.stay_expanded()
        self._ready[bundle.number] = bundle if oldest or self._keeper is None else None

    def take(self, number: int) -> Bundle:
        """The bundle of that number, which the pool forgets, on disk too: call it before anything is sent that depends
        on the bundle.

        Raises:
            ProtocolError: it was used before, or this session never prepared it.
            UserError: it is damaged on disk.
        """
        if number not in self._ready:
            why = "was used before" if number in self._numbers else "was never prepared in this session"
            raise ProtocolError(f"bundle {number} {why}; prepare a new one")
        bundle = self._ready.pop(number)
        if self._keeper is not None:
            try:
                bundle = bundle or self._keeper.load(number)
            finally:
                self._keeper.destroy(number)
        assert bundle is not None
        return bundle

    def warm(self) -> Bundle | None:
        """The oldest bundle, ready to be used at once; None where there is none.

        Damaged ones are reported and dropped.
        """
        while self._ready:
            number, bundle = next(iter(self._ready.items()))
            try:
                if bundle is None:
                    assert self._keeper is not None
                    bundle = self._ready[number] = self._keeper.load(number)
                bundle.expand()
                bundle.stay_expanded()
                return bundle
            except UserError as error:
                logging.warning("%s", error)
                del self._ready[number]
                with contextlib.suppress(UserError):
                    self._keeper.destroy(number)  # type: ignore[union-attr]
        return None
