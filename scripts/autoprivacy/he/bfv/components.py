"""A linear layer between client and server modulo p, evaluated under every component of its parameter set.

With a composite plaintext modulus (the paper's section 2, BFV Batching) the parties reduce their shares modulo each
prime factor, evaluate the layer under each with the same keys, and put the results together by the Chinese remainder
theorem. Messages are those of the factors one after the other. Any other set has one component, itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from autoprivacy.he.bfv.cipher import ClientCipher, ServerCipher
from autoprivacy.he.bfv.linear import ClientLinear, ServerLinear, no_rotation
from autoprivacy.he.packing.plan import Plan, Rotate
from autoprivacy.he.parameters.parameter_set import Flooding, ParameterSet, ReplyBits, Target
from autoprivacy.quantization.integer_network import LayerShape, LinearLayer


def residues(values: np.ndarray, factors: Sequence[int]) -> list[np.ndarray]:
    """Values modulo p, uint64, modulo each factor of p; ValueError where one is not below p."""
    p = math.prod(factors)
    if values.size and int(values.max()) >= p:
        raise ValueError(f"residues modulo {p}: got {int(values.max())}")
    return [values % np.uint64(factor) for factor in factors]


def combine(parts: Sequence[np.ndarray], factors: Sequence[int]) -> np.ndarray:
    """Undoes `residues` (Garner's algorithm): uint64 below p, exact where p is below 2^63."""
    total, modulus = parts[0], factors[0]
    for part, factor in zip(parts[1:], factors[1:], strict=True):
        behind = (part + np.uint64(factor) - total % np.uint64(factor)) % np.uint64(factor)
        step = behind * np.uint64(pow(modulus, -1, factor)) % np.uint64(factor)
        total = total + np.uint64(modulus) * step
        modulus *= factor
    return total


class LayerClient:
    """The client's part of one layer.

    Args:
        shape: the layer's public part.
        plan: how it is packed.
        parameters: the layer's parameter set.
        cipher: the client's keys for it; layers with the same set share them.
        bits: what the server's replies are sent in, under every factor.
    """

    def __init__(
        self, shape: LayerShape, plan: Plan, parameters: ParameterSet, cipher: ClientCipher, bits: ReplyBits
    ) -> None:
        self._factors = moduli_of(parameters)
        self._parts = [
            ClientLinear(shape, part, cipher.under(component), bits)
            for part, component in zip(plan.components, parameters.components, strict=True)
        ]

    def encrypt(self, mask: np.ndarray) -> bytes:
        """Enc(r) of residues modulo p, uint64 [C, H, W].

        Raises:
            ValueError: a residue is not below p.
        """
        masks = residues(mask, self._factors)
        return b"".join(part.encrypt(own) for part, own in zip(self._parts, masks, strict=True))

    def decrypt(self, reply: bytes) -> np.ndarray:
        """M r - s modulo p, uint64 [C_out, H_out, W_out], from the server's reply.

        Raises:
            ValueError: the reply's length is wrong.
        """
        pieces = pieces_of("reply", reply, len(self._parts))
        parts = [part.decrypt(piece) for part, piece in zip(self._parts, pieces, strict=True)]
        return combine(parts, self._factors)


class LayerServer:
    """The server's part of one layer, the weights transformed once and used for every image and client.

    Args:
        layer: the layer with its weights.
        plan: how it is packed.
        parameters: the layer's parameter set.
        flooding: how replies hide the weights.
        target: the layer's target, which the flood `paper` is sized by.
        bits: what replies are sent in, under every factor.

    Attributes:
        parts: the server's part under every component of the set.
    """

    def __init__(
        self,
        layer: LinearLayer,
        plan: Plan,
        parameters: ParameterSet,
        flooding: Flooding,
        target: Target | None,
        bits: ReplyBits,
    ) -> None:
        self.parameters = parameters
        self._factors = moduli_of(parameters)
        own = target and _of_each(target, len(self._factors))
        self.parts = [
            ServerLinear(layer, part, component, flooding, own, bits)
            for part, component in zip(plan.components, parameters.components, strict=True)
        ]

    def evaluate(self, cipher: ServerCipher, message: bytes, mask: np.ndarray, rotate: Rotate = no_rotation) -> bytes:
        """Enc(M r - s) for Enc(r).

        Args:
            cipher: the client's public key under the layer's parameter set.
            message: what `LayerClient.encrypt` gave.
            mask: s, uint64 residues modulo p, [C_out, H_out, W_out]; uniform and never used before.
            rotate: rotates ciphertexts with the client's Galois keys (`Rotator.rotate`), where the plan asks for it.

        Raises:
            ValueError: the message's length is wrong or a residue is not below its prime.
            UserError: the plan rotates and there is no key for it.
        """
        pieces = pieces_of("message", message, len(self.parts))
        return b"".join(
            part.evaluate(cipher.under(part.parameters), piece, own, rotate)
            for part, piece, own in zip(self.parts, pieces, residues(mask, self._factors), strict=True)
        )


def moduli_of(parameters: ParameterSet) -> list[int]:
    """The factors of p that a set's evaluations work under; p itself where there are none."""
    return [component.plaintext_modulus for component in parameters.components]


def _of_each(target: Target, count: int) -> Target:
    """The target of each of `count` evaluations that an output hangs on together."""
    if count == 1 or target.decryption_error_rate is None:
        return target
    return replace(target, decryption_error_rate=-math.expm1(math.log1p(-target.decryption_error_rate) / count))


def pieces_of(name: str, data: bytes, count: int) -> list[bytes]:
    """A message's equal parts; their lengths are checked where they are read."""
    size, rest = divmod(len(data), count)
    if rest:
        raise ValueError(
            f"{name} under {count} plaintext factors: expected a multiple of {count} bytes, got {len(data)}"
        )
    return [data[start : start + size] for start in range(0, len(data), size)] if size else [b""] * count
