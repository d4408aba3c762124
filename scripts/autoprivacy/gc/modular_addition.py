"""Circuits that add two residues and read the sum as a signed number, and what the two parties feed into them.

Residues modulo M of k bits with the top bit set are negative (`to_signed`). The client's input is its residue less M;
the server's is its own plus an offset, which makes the most negative number the first residue: the carry out of one
adder then says whether to subtract M, and the correction brings the offset back for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autoprivacy.gc.circuit import FALSE, TRUE, CircuitBuilder, Wire


@dataclass(frozen=True)
class ModularAddition:
    """v = to_signed(c + s mod M), in two's complement of k bits; exact where v >= `lowest`, else any v below it.

    M = C 2^m + e, hi() and lo() split a number at bit m, h = k - m, and c, s are residues modulo M. The server adds
    `offset` = a, so that the adder sees w = v + a mod M, and v = w - a.

    e = 0 (M even, or m = 0): a is the count of negative residues, C 2^m - 2^(k-1), so 0 <= w < M and no v is special.
    The lower parts are added first. The upper adder gives u = hi(c) + hi(s) + carry - C, and hi(v) is u + C - hi(a) if
    u < 0, else u - hi(a), that is u + 2^(h-1) plus (2^h - C where u >= 0), modulo 2^h.

    e = 1 (M odd, m > 0): let d = c - 1. Then w = d + s + 1 if that is below M, else w = d + s - C 2^m: subtracting M
    touches the upper part alone, and the lower part needs one adder whose carry in tells the two cases apart. An adder
    on the upper parts, with a carry in of 1, gives u = hi(d) + hi(s) + 1 - C.

    - u < 0: d + s + 1 < M. Carry in 1.
    - u > 0: d + s + 1 >= M. Carry in 0.
    - u = 0: d + s + 1 >= M exactly if lo(d) + lo(s) carries. If it does, carry in 0 is right. If not, w is one of the
      2^m residues under M and comes out as w - M.

    So with carry in = (u < 0), hi(w) = u + carry + (C - 1 if u < 0 else -1). Here a = (C - 1) 2^m - 2^(k-1) takes the
    2^m + 1 lowest v to residues from M - 2^m - 1 on: such a v comes out as v, or as v + M - 2^k, which the bits of
    v + a + M = w < M mean in two's complement, and is negative in both cases. All others have w < M - 2^m - 1. The
    correction, C - 1 or -1 less hi(a) = C - 1 - 2^(h-1), is that of e = 0.

    Attributes:
        modulus: M, at least 3.
        lowest: 0, or a negative number from -2^(k-2) on.
    """

    modulus: int
    lowest: int

    @property
    def bits(self) -> int:
        """k: bits of a residue, of each party's input and of v."""
        return (self.modulus - 1).bit_length()

    @property
    def _split(self) -> tuple[int, int]:
        """m and e."""
        threshold, low = 1 << (self.bits - 1), 0
        if self.modulus % 2 == 0:
            while self.modulus % (2 << low) == 0:
                low += 1
            return low, 0
        for low in range(self.bits - 2, 0, -1):
            offset = self.modulus - 1 - (1 << low) - threshold
            clear = -offset <= self.lowest and (1 << low) - threshold < self.lowest
            if (self.modulus - 1) % (1 << low) == 0 and clear:
                return low, 1
        return 0, 0

    @property
    def offset(self) -> int:
        """a: what the server adds to its share."""
        if self.modulus == 1 << self.bits:
            return 0
        low, one = self._split
        return self.modulus - one - (one << low) - (1 << (self.bits - 1))

    def server_input(self, residue: np.ndarray) -> np.ndarray:
        """The server's input for its residues, uint64."""
        return (np.asarray(residue, np.uint64) + np.uint64(self.offset)) % np.uint64(self.modulus)

    def client_input(self, residue: np.ndarray) -> np.ndarray:
        """The client's input for its residues, uint64: c - M modulo 2^k."""
        return np.asarray(residue, np.uint64) + np.uint64((1 << self.bits) - self.modulus)

    def build(self, builder: CircuitBuilder, client: list[Wire], server: list[Wire]) -> list[Wire]:
        """The bits of v from the bits of the two inputs.

        k - 1 AND gates for M = 2^k, else k + h - 1.
        """
        if self.modulus == 1 << self.bits:
            return builder.add(client, server)[0]
        low, one = self._split
        if one:
            upper, wraps = builder.add(client[low:], server[low:], TRUE)
            lower, carry = builder.add(client[:low], server[:low], builder.not_(wraps))
        else:
            lower, carry = builder.add(client[:low], server[:low])
            upper, wraps = builder.add(client[low:], server[low:], carry)
            carry = FALSE
        spare = (1 << len(upper)) - (self.modulus >> low)  # 2^h - C, below 2^(h-1)
        correction = [wraps if spare >> i & 1 else FALSE for i in range(len(upper) - 1)] + [TRUE]
        return lower + builder.add(upper, correction, carry)[0]
