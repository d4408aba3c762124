"""Correlated oblivious transfers of random bits at about a bit each: Ferret with regular noise, tree by tree.

As in `extension` the receiver has a bit u and a label t, the sender a label q, t = q ^ u delta. Here the lowest bit of
q is 0 and that of t is u, so that labels carry the bits. The sender alone sends, a label for every level of a tree of
2^depth leaves. Trees come one after the other, as many as are asked for; a tree that was asked for is used up, so that
no transfer is used twice and both parties know all lengths. Semi-honest parties; malformed messages raise ValueError.

How: a round has k transfers as its table, and depth more for each tree. The nodes of every level of a tree add up to
delta, so a random transfer gives the receiver what the level's left or right nodes add up to, and the choices lead it
to all leaves but one, of which it gets leaf ^ delta: transfers with one choice of 1. Adding `LOCALITY` rows of the
table, the same ones for both parties, hides where: that is learning parity with noise, the table's choices its secret.
The first transfers of every tree are the next round's table and trees.

Security: the receiver sees sums masked by H of the node that it lacks, which is delta more than what it can compute:
it takes that H is circular correlation robust, as free XOR takes it to be. Every level of every tree has a key of its
own. The sender sees nothing; that the receiver's bits are pseudorandom to it is the assumption of learning parity with
noise with this code, one error in each block; `silent_parameters` has its parameters.

Source: Yang, Weng, Lan, Zhang, Wang, "Ferret: fast extension for correlated OT with small communication", CCS 2020
(semi-honest, regular noise, the local code of its appendix A); Guo, Yang, Wang, Zhang, Xie, Liu, Zhao, "Half-tree:
halving the cost of tree expansion in COT and DPF", EUROCRYPT 2023 (trees whose levels add up to delta).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from autoprivacy.ot.kernels import default_backend
from autoprivacy.ot.labels import LABEL_BYTES
from autoprivacy.ot.silent_parameters import LOCALITY, SilentParameters
from autoprivacy.randomness.generator import SecureRandom

CODE_NUMBER_BYTES = 4
LOWEST = np.uint64(1)


@dataclass(frozen=True)
class PublicKeys:
    """Keys that both parties know and that serve one direction of one session: of the trees' levels, of the code."""

    trees: bytes
    code: bytes


@dataclass(frozen=True)
class _Piece:
    """Trees of one round.

    Attributes:
        place: where among the trees that are asked for.
        base: rows of the round's base, one for every level.
        kept: trees of the round, whose first transfers go to the next one.
        keys: of the levels but the first, uint64 [trees, depth - 1, 2].
        first: block of the code.
    """

    place: slice
    base: slice
    kept: slice
    keys: np.ndarray
    first: int


class _Rounds:
    """The rounds of one party: labels of the round's base, and those that are there of the next one."""

    def __init__(self, base: np.ndarray, parameters: SilentParameters, keys: PublicKeys, backend: str | None) -> None:
        if base.shape != (parameters.base, 2):
            raise ValueError(f"silent transfers: a base of {len(base)} labels; expected {parameters.base}")
        self.parameters, self.keys, self.kernels = parameters, keys, load_kernels(backend)
        self._tree = self._drawn = 0
        self.base, self.next = np.ascontiguousarray(base), self._empty()

    def _empty(self) -> np.ndarray:
        return np.empty((self.parameters.blocks, self.parameters.reserved, 2), np.uint64)

    @property
    def table(self) -> np.ndarray:
        """Rows that the code adds up."""
        return self.base[: 1 << self.parameters.table_bits]

    def pieces(self, trees: int) -> Iterator[_Piece]:
        """The next trees, round by round; every one is handed out once."""
        parameters, done = self.parameters, 0
        levels = parameters.depth
        while done < trees:
            if self._tree == parameters.blocks:
                if not parameters.reserved:
                    raise ValueError(f"silent transfers: {parameters.blocks} trees are used up; there is no next round")
                self.base, self.next, self._tree = self.next.reshape(-1, 2)[: parameters.base].copy(), self._empty(), 0
            size = min(trees - done, parameters.blocks - self._tree)
            first, self._tree = self._tree, self._tree + size
            keys = self.kernels.public_blocks(self.keys.trees, self._drawn * (levels - 1), size * (levels - 1))
            start = (1 << parameters.table_bits) + levels * first
            yield _Piece(
                slice(done, done + size),
                slice(start, start + levels * size),
                slice(first, first + size),
                keys.reshape(size, levels - 1, 2),
                (self._drawn << levels) * LOCALITY * CODE_NUMBER_BYTES // LABEL_BYTES,
            )
            self._drawn += size
            done += size

    def parts(self, piece: _Piece, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the results of a piece go: to the next round, and to who asked."""
        return self.next[piece.kept], labels[piece.place]


class SilentSender:
    """The side that gets the labels of 0.

    Args:
        delta: the offset, uint64 [2], its lowest bit 1.
        base: labels of 0 of `parameters.base` random transfers, uint64 [base, 2], used for this alone.
        parameters: the same for both parties.
        keys: the same for both parties.
        random: None (the default) is fresh randomness; tests pass their own.
        backend: "numba" or "numpy", the same bits; None takes the faster one that this machine has.
    """

    def __init__(
        self,
        delta: np.ndarray,
        base: np.ndarray,
        parameters: SilentParameters,
        keys: PublicKeys,
        random: SecureRandom | None = None,
        backend: str | None = None,
    ) -> None:
        cleared = base.copy()
        cleared[:, 0] &= ~LOWEST
        self._rounds = _Rounds(cleared, parameters, keys, backend)
        self._delta, self._random = delta, random or SecureRandom()

    def send(self, count: int) -> tuple[np.ndarray, bytes]:
        """Labels of 0 of so many transfers, uint64 [count, 2], and the message, `parameters.message_bytes(count)`."""
        rounds, parameters = self._rounds, self._rounds.parameters
        trees, message = parameters.trees(count), []
        labels = np.empty((trees, parameters.given, 2), np.uint64)
        for piece in rounds.pieces(trees):
            roots = self._random.words((piece.place.stop - piece.place.start, 2))
            code, parts = (rounds.keys.code, piece.first), rounds.parts(piece, labels)
            sums = rounds.kernels.send_trees(piece.keys, roots, self._delta, code, rounds.table, parts)
            message.append((sums ^ rounds.base[piece.base].reshape(sums.shape)).tobytes())
        return labels.reshape(-1, 2)[:count], b"".join(message)


class SilentReceiver:
    """The side that gets bits and their labels.

    Args:
        base: labels of `parameters.base` random transfers, uint64 [base, 2].
        choices: their bits, uint8 [base].
        parameters, keys, backend: as for the sender.
    """

    def __init__(
        self,
        base: np.ndarray,
        choices: np.ndarray,
        parameters: SilentParameters,
        keys: PublicKeys,
        backend: str | None = None,
    ) -> None:
        marked = base.copy()
        marked[:, 0] = marked[:, 0] & ~LOWEST | choices
        self._rounds = _Rounds(marked, parameters, keys, backend)

    def receive(self, message: bytes | bytearray | memoryview, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Bits of so many transfers, uint8 [count], and their labels, uint64 [count, 2].

        Every call goes on where the last one stopped, so the sender must make the same calls in the same order.

        Raises:
            ValueError: the message has the wrong length.
        """
        rounds, parameters = self._rounds, self._rounds.parameters
        trees, expected = parameters.trees(count), parameters.message_bytes(count)
        if len(message) != expected:
            raise ValueError(f"silent transfers: expected {expected} bytes for {count}, got {len(message)}")
        sums = np.frombuffer(message, "<u8").reshape(trees, parameters.depth, 2)
        labels = np.empty((trees, parameters.given, 2), np.uint64)
        for piece in rounds.pieces(trees):
            own = rounds.base[piece.base].reshape(-1, parameters.depth, 2)
            code, parts = (rounds.keys.code, piece.first), rounds.parts(piece, labels)
            choices = np.ascontiguousarray(own[..., 0] & LOWEST)
            rounds.kernels.receive_trees(piece.keys, sums[piece.place] ^ own, choices, code, rounds.table, parts)
        flat = labels.reshape(-1, 2)[:count]
        return (flat[:, 0] & LOWEST).astype(np.uint8), flat


def load_kernels(backend: str | None) -> ModuleType:
    """The kernels of a backend; as `kernels.load_kernels`, from which the reason for imports in here is."""
    if (backend or default_backend()) == "numba":
        from autoprivacy.ot import silent_kernels_numba

        return silent_kernels_numba
    from autoprivacy.ot import silent_kernels_numpy

    return silent_kernels_numpy
