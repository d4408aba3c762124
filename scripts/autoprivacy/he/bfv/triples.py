"""Beaver triples of multiplications of which the server knows one factor: Enc(a) up, Enc(a rho - m) down.

Beaver (CRYPTO 1991), generated under encryption as in DELPHI (Mishra et al., USENIX Security 2020, section 4.3). The
client's a and the server's rho are uniform; h = a rho - m and m are additive shares of their product. The values stand
in the slots of ciphertexts, where one product with a plaintext polynomial multiplies n of them. They always stand in
slots, whatever packing the linear layers have.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autoprivacy.he.bfv.chinese_remainder import combine, moduli_of, pieces_of, residues
from autoprivacy.he.bfv.cipher import ClientCipher, ServerCipher
from autoprivacy.he.bfv.reply import ReplyForm
from autoprivacy.he.packing.batching import slot_encoding
from autoprivacy.he.packing.layout import ceil_divide
from autoprivacy.he.packing.plan import Workload
from autoprivacy.he.parameters.noise import LayerNoise, deployed_noise
from autoprivacy.he.parameters.parameter_set import Flooding, ParameterSet, ReplyBits, Target
from autoprivacy.randomness.generator import SecureRandom


@dataclass(frozen=True)
class TripleLayout:
    """How triples stand in ciphertexts; what selection counts and both parties know.

    Attributes:
        count: triples.
        degree: n, the slots of a ciphertext.
        factors: the primes == 1 mod 2n whose product the plaintext modulus is, ascending.
    """

    count: int
    degree: int
    factors: tuple[int, ...]

    @classmethod
    def of(cls, count: int, parameters: ParameterSet) -> TripleLayout:
        """The layout under a parameter set."""
        return cls(count, parameters.polynomial_degree, tuple(moduli_of(parameters)))

    @property
    def ciphertexts(self) -> int:
        """Ciphertexts under one factor."""
        return ceil_divide(self.count, self.degree)

    @property
    def workload(self) -> Workload:
        """Ciphertexts and operations under all factors: a product for each, and a, rho, m and the result encoded."""
        count = self.ciphertexts * len(self.factors)
        return Workload(
            self.degree,
            count,
            count,
            products=count,
            sums=0,
            rotations=0,
            encodings=4 * count,
            coefficients_per_output=self.degree * len(self.factors),
            reply_coefficients=count * self.degree,
            evaluations=len(self.factors),
        )

    @property
    def noise(self) -> LayerNoise:
        """What the product does to fresh noise: rho's polynomial has n coefficients uniform modulo the largest factor.

        They vary with the square of the factor over 12, a coefficient of the product is a sum of n terms.
        """
        return LayerNoise(
            max(self.factors) * (self.degree / 12) ** 0.5, coefficients=self.workload.coefficients_per_output
        )

    def slots(self, values: np.ndarray) -> np.ndarray:
        """Values uint64 [count] in slots, uint64 [ciphertexts, n]; zero after them.

        Raises:
            ValueError: there are more or fewer.
        """
        if values.shape != (self.count,):
            raise ValueError(f"triples: got values of shape {values.shape}; expected ({self.count},)")
        filled = np.zeros(self.ciphertexts * self.degree, np.uint64)
        filled[: self.count] = values
        return filled.reshape(self.ciphertexts, self.degree)

    def form(self, bits: ReplyBits) -> ReplyForm:
        """What the reply under one factor looks like."""
        return ReplyForm(self.degree, self.ciphertexts, bits)


class TripleClient:
    """The client's part.

    Args:
        count: triples.
        parameters: their set.
        cipher: the client's keys for it.
        bits: what the reply is sent in, under every factor.
    """

    def __init__(self, count: int, parameters: ParameterSet, cipher: ClientCipher, bits: ReplyBits) -> None:
        self._layout = TripleLayout.of(count, parameters)
        self._form = self._layout.form(bits)
        self._ciphers = cipher.components

    def encrypt(self, factors: np.ndarray) -> bytes:
        """Enc(a) of residues modulo p, uint64 [count].

        Raises:
            ValueError: the count is wrong or a residue is not below p.
        """
        layout = self._layout
        return b"".join(
            cipher.encrypt(slot_encoding(layout.degree, factor).encode(layout.slots(own)))
            for cipher, factor, own in zip(
                self._ciphers, layout.factors, residues(factors, layout.factors), strict=True
            )
        )

    def decrypt(self, reply: bytes) -> np.ndarray:
        """h = a rho - m modulo p, uint64 [count].

        Raises:
            ValueError: the reply's length is wrong.
        """
        layout = self._layout
        pieces = pieces_of("triples", reply, len(layout.factors))
        parts = [
            slot_encoding(layout.degree, factor).decode(cipher.decrypt(piece, self._form)).reshape(-1)
            for cipher, factor, piece in zip(self._ciphers, layout.factors, pieces, strict=True)
        ]
        return combine(parts, layout.factors)[: layout.count]


class TripleServer:
    """The server's part, the same for every client.

    Args:
        count: triples.
        parameters: their set.
        flooding: how the reply hides rho.
        target: theirs, which the flood `paper` is sized by.
        bits: what the reply is sent in, under every factor.
    """

    def __init__(
        self, count: int, parameters: ParameterSet, flooding: Flooding, target: Target, bits: ReplyBits
    ) -> None:
        self.parameters = parameters
        self._layout = TripleLayout.of(count, parameters)
        self._form = self._layout.form(bits)
        self.noise = deployed_noise(self._layout.noise, parameters, flooding, target, bits)

    def multiply(self, cipher: ServerCipher, message: bytes, factors: np.ndarray, masks: np.ndarray) -> bytes:
        """Enc(a rho - m) for Enc(a).

        Args:
            cipher: the client's public key under the set.
            message: what `TripleClient.encrypt` gave.
            factors: rho, uint64 residues modulo p, [count].
            masks: m, likewise; uniform and never used before.

        Raises:
            ValueError: the message's length is wrong or a residue is not below its modulus.
        """
        moduli = self._layout.factors
        pieces, rho, own = (
            pieces_of("triples", message, len(moduli)),
            residues(factors, moduli),
            residues(masks, moduli),
        )
        return b"".join(
            self._multiply(component, piece, factor, mask)
            for component, piece, factor, mask in zip(cipher.components, pieces, rho, own, strict=True)
        )

    def _multiply(self, cipher: ServerCipher, message: bytes, factors: np.ndarray, masks: np.ndarray) -> bytes:
        """`multiply` under one factor of p."""
        layout, p = self._layout, cipher.parameters.plaintext_modulus
        encoding, ring = slot_encoding(layout.degree, p), cipher.ring
        ciphertexts = cipher.load(message, layout.ciphertexts)
        polynomials = encoding.encode(layout.slots(factors)).astype(np.int64)
        polynomials -= p * (polynomials > p // 2)
        transformed = ring.forward(ring.reduce(polynomials))
        products = ring.multiply(ciphertexts, np.repeat(transformed[:, None], 2, axis=1))
        # what follows the triples in their slots is sent too; a stream for every call: calls may run in several threads
        hidden = SecureRandom().below(p, (layout.ciphertexts * layout.degree,))
        hidden[: layout.count] = (np.uint64(p) - masks) % np.uint64(p)
        return cipher.reply(products, encoding.encode(hidden.reshape(-1, layout.degree)), self.noise.flood, self._form)
