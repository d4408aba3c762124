"""Replies on the wire: switched to a power-of-two modulus, bit-packed, and only the coefficients that the client needs.

The server sends round(2^b c / q) modulo 2^b for a coefficient c modulo q, c1 in more bits than c0 because decryption
multiplies c1's rounding by the secret. The client computes 2^b / q (c0 + c1 s) from that: it never needs q again.

A message is every c1, n coefficients each, packed in lanes, then c0's coefficients at the sent positions of all
ciphertexts as one run of bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from autoprivacy.he.bfv.reply_bits import reply_bytes
from autoprivacy.he.packing.plan import EvaluationPlan
from autoprivacy.he.parameters.parameter_set import ReplyBits
from autoprivacy.he.ring import words64_numba as kernels
from autoprivacy.he.ring.bit_packing import pack_bits, pack_polynomials, packed_bytes, unpack_bits, unpack_polynomials
from autoprivacy.he.ring.primes import MAXIMUM_PRIME_BITS, WORD32_PRIME_BITS, ntt_primes
from autoprivacy.he.ring.ring import Ring

# Ciphertexts worked on at a time: enough to spread the cost of a call, few enough for the cache.
CHUNK = 4
FRACTION_BITS = 64  # of `Ring.fraction`
# Moduli under which the client multiplies exactly, as size and number of primes: two small ones are the fastest, one
# large one has room for MAXIMUM_REPLY_BITS at every n.
EXACT_PRIMES = ((WORD32_PRIME_BITS, 2), (MAXIMUM_PRIME_BITS, 1))


def chunks(count: int) -> list[slice]:
    """Runs of at most CHUNK ciphertexts."""
    return [slice(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]


@dataclass(frozen=True, eq=False)
class ReplyForm:
    """What a reply of several ciphertexts looks like; both parties know it.

    Attributes:
        degree: n.
        ciphertexts: how many there are.
        bits: of each coefficient.
        positions: the coefficients of c0 that are sent, of [ciphertexts * n], ascending, int64; None: all.
    """

    degree: int
    ciphertexts: int
    bits: ReplyBits
    positions: np.ndarray | None = None

    @classmethod
    def of(cls, plan: EvaluationPlan, bits: ReplyBits) -> ReplyForm:
        """The reply of a layer under a plan."""
        return cls(plan.degree, plan.output_ciphertexts, bits, plan.reply_positions)

    @property
    def coefficients(self) -> int:
        """How many coefficients of c0 are sent."""
        return self.ciphertexts * self.degree if self.positions is None else len(self.positions)

    @property
    def size(self) -> int:
        """Bytes of the message."""
        return reply_bytes(self.degree, self.ciphertexts, self.coefficients, self.bits)

    def sent(self, chunk: slice) -> tuple[slice, np.ndarray | slice]:
        """Of a run of ciphertexts: where it stands among all sent coefficients, and which of its own are sent."""
        first, end = chunk.start * self.degree, chunk.stop * self.degree
        if self.positions is None:
            return slice(first, end), slice(None)
        start, stop = np.searchsorted(self.positions, (first, end)).tolist()
        return slice(start, stop), self.positions[start:stop] - first


class ReplyPacker:
    """The server's part: ciphertexts modulo q to messages.

    Args:
        ring: the ring modulo q.
    """

    def __init__(self, ring: Ring) -> None:
        self._ring = ring
        q = math.prod(ring.primes)
        self._cofactor_inverses = [pow(q // prime, -1, prime) for prime in ring.primes]

    def switch(self, values: np.ndarray, bits: int) -> np.ndarray:
        """round(2^bits v / q) modulo 2^bits of coefficients [..., k, n], uint64 [..., n].

        v / q modulo 1 is the sum of y_i / prime_i with y_i = v (q / prime_i)^-1, known as a 64-bit fraction up to 2k
        units too small, so with k units added up to k units off. The result is at most 1/2 + k 2^(bits - 64) from the
        true quotient, which `noise.rounding_noise` counts.
        """
        fractions = self._ring.fraction(self._ring.scale(values, self._cofactor_inverses))
        fractions += np.uint64(len(self._ring.primes) + (1 << FRACTION_BITS - 1 - bits))
        fractions >>= np.uint64(FRACTION_BITS - bits)
        return fractions

    def pack(self, ciphertexts: Iterable[np.ndarray], form: ReplyForm) -> bytes:
        """The message of ciphertexts (c0, c1), coefficients [<= CHUNK, 2, k, n], in the runs of `chunks`."""
        first = np.empty(form.coefficients, np.uint64)
        parts = []
        for chunk, pairs in zip(chunks(form.ciphertexts), ciphertexts, strict=True):
            place, own = form.sent(chunk)
            first[place] = self.switch(pairs[:, 0], form.bits.c0).reshape(-1)[own]
            second = self.switch(pairs[:, 1], form.bits.c1)
            parts.append(pack_polynomials(second[:, None], (form.bits.c1,)))
        return b"".join([*parts, pack_bits(first, form.bits.c0)])


class _ExactProduct:
    """Products of unsigned polynomials of some bits with a ternary one, over the integers modulo 2^64.

    Integers of absolute value at most n 2^bits are computed modulo an odd number above twice that.
    """

    def __init__(self, secret: np.ndarray, bits: int) -> None:
        degree, self._offset = len(secret), len(secret) << bits
        moduli = (ntt_primes(1 << size, degree, count) for size, count in EXACT_PRIMES)
        primes = next(primes for primes in moduli if math.prod(primes) > 2 * self._offset)
        self._ring = Ring(degree, primes)
        modulus = math.prod(primes)
        self._modulus = np.uint64(modulus)
        cofactors = [modulus // prime for prime in primes]
        self._inverses = [pow(cofactor, -1, prime) for cofactor, prime in zip(cofactors, primes, strict=True)]
        # The offset makes all results positive; being a multiple of 2^bits it does not change them modulo 2^bits. The
        # fraction, up to 2k units too small, and the offset's, up to one, leave N / modulus at most k + 1 units off:
        # below 1/8 of 1 / modulus, so that rounding finds N.
        self._shift = np.uint64((self._offset << FRACTION_BITS) // modulus + len(primes))
        self._secret = self._ring.forward(self._ring.reduce(secret))

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """values [T, n] times the secret modulo 2^bits, in the low bits of uint64 [T, n]."""
        residues = self._ring.forward(self._ring.reduce(values.view(np.int64)))
        products = self._ring.inverse(self._ring.multiply(residues, self._secret))
        fractions = self._ring.fraction(self._ring.scale(products, self._inverses))
        fractions += self._shift
        flat = fractions.reshape(-1)
        kernels.round_fractions(flat, self._modulus, flat)
        return fractions


class ReplyReader:
    """The client's part: messages to plaintexts. Calls may run in several threads.

    Args:
        secret: the ternary secret key, int64 [n].
    """

    def __init__(self, secret: np.ndarray) -> None:
        self._secret = secret
        self._products: dict[int, _ExactProduct] = {}

    def read(self, message: bytes, form: ReplyForm, plaintext_modulus: int) -> np.ndarray:
        """round(p (c0 + c1 s) / q) modulo p at the sent coefficients, uint64 [coefficients].

        Raises:
            ValueError: the length is wrong or unused bits are not zero.
        """
        plain = np.empty(form.coefficients, np.uint64)
        for place, fractions in self._phases(message, form):
            kernels.round_fractions(fractions, np.uint64(plaintext_modulus), plain[place])
        return plain

    def _phases(self, message: bytes, form: ReplyForm) -> Iterator[tuple[slice, np.ndarray]]:
        """(c0 + c1 s) / q modulo 1 in units of 2^-64, run by run, with the place among all sent coefficients."""
        if len(message) != form.size:
            raise ValueError(f"reply of {form.ciphertexts} ciphertexts: expected {form.size} bytes, got {len(message)}")
        bits, view, size = form.bits, memoryview(message), packed_bytes(form.degree, form.bits.c1)
        first = unpack_bits(view[form.ciphertexts * size :], bits.c0, form.coefficients)
        first <<= np.uint64(FRACTION_BITS - bits.c0)
        if bits.c1 not in self._products:
            self._products[bits.c1] = _ExactProduct(self._secret, bits.c1)
        times_secret = self._products[bits.c1]
        for chunk in chunks(form.ciphertexts):
            second = np.empty((chunk.stop - chunk.start, 1, form.degree), np.uint64)
            unpack_polynomials(view[chunk.start * size : chunk.stop * size], (bits.c1,), second)
            place, own = form.sent(chunk)
            phases = times_secret(second[:, 0]).reshape(-1)[own] << np.uint64(FRACTION_BITS - bits.c1)
            yield place, phases + first[place]
