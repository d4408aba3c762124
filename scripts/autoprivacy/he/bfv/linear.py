"""A linear layer between client and server: Enc(r) up, Enc(M r - s) down (the paper's section 2)."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from autoprivacy.errors import UserError
from autoprivacy.he.bfv.chinese_remainder import combine, moduli_of, pieces_of, residues
from autoprivacy.he.bfv.cipher import ClientCipher, ServerCipher
from autoprivacy.he.bfv.reply import ReplyForm
from autoprivacy.he.packing.plan import EvaluationPlan, Plan, Rotate
from autoprivacy.he.packing.public_noise import layer_noise
from autoprivacy.he.parameters.noise import deployed_noise
from autoprivacy.he.parameters.parameter_set import Flooding, ParameterSet, ReplyBits, Target
from autoprivacy.he.ring.ring import Ring
from autoprivacy.he.ring.weight_products import WeightProducts
from autoprivacy.quantization.integer_network import LinearLayer
from autoprivacy.randomness.generator import SecureRandom

# Weight polynomials transformed at a time, so that the signed coefficients never stand in memory all at once.
CHUNK = 64


def no_rotation(ciphertexts: np.ndarray, element: int) -> np.ndarray:
    """The `rotate` of a server without Galois keys."""
    raise UserError(f"rotation by the Galois element {element}: the client sent no Galois keys")


class ClientLinear:
    """The client's part of one layer.

    Args:
        plan: how it is packed.
        cipher: the client's keys for the layer's parameter set; layers with the same set share it.
        bits: what the server's replies are sent in, under every factor of p.
    """

    def __init__(self, plan: Plan, cipher: ClientCipher, bits: ReplyBits) -> None:
        _check_degree(plan, cipher.parameters)
        self.plan, self.cipher = plan, cipher
        self.form = ReplyForm.of(plan.components[0], bits)  # tilings are alike under all factors
        self._parts = list(zip(plan.components, cipher.components, strict=True))
        self._moduli = [own.parameters.plaintext_modulus for own in cipher.components]

    def encrypt(self, mask: np.ndarray) -> bytes:
        """Enc(r) of residues modulo p, uint64 [C, H, W].

        Raises:
            ValueError: a residue is not below p.
        """
        masks = residues(mask, self._moduli)
        return b"".join(
            cipher.encrypt(plan.encode_input(own)) for (plan, cipher), own in zip(self._parts, masks, strict=True)
        )

    def decrypt(self, reply: bytes) -> np.ndarray:
        """M r - s modulo p, uint64 [C_out, H_out, W_out], from the server's reply.

        Raises:
            ValueError: the reply's length is wrong.
        """
        pieces = pieces_of("reply", reply, len(self._parts))
        parts = [
            plan.decode_output(cipher.decrypt(piece, self.form))
            for (plan, cipher), piece in zip(self._parts, pieces, strict=True)
        ]
        return combine(parts, self._moduli)


class ServerLinear:
    """The server's part of one layer, the weights transformed once and used for every image and client.

    Args:
        layer: the layer with its weights.
        plan: how it is packed.
        parameters: the layer's parameter set.
        flooding: how replies hide the weights.
        target: the layer's target, which the flood `paper` is sized by.
        bits: what replies are sent in, under every factor of p.
        norm_bound: what the flood is sized by, the policy's for this layer; None: the coarse bound of the weights.

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
        norm_bound: float | None = None,
    ) -> None:
        self.plan, self.parameters = plan, parameters
        own = target and _of_each(target, len(parameters.components))
        self.parts = [
            ServerComponent(layer, part, component, flooding, own, bits, norm_bound)
            for part, component in zip(plan.components, parameters.components, strict=True)
        ]

    def evaluate(self, cipher: ServerCipher, message: bytes, mask: np.ndarray, rotate: Rotate = no_rotation) -> bytes:
        """Enc(M r - s) for Enc(r).

        Args:
            cipher: the client's public key under the layer's parameter set.
            message: what `ClientLinear.encrypt` gave.
            mask: s, uint64 residues modulo p, [C_out, H_out, W_out]; uniform and never used before.
            rotate: rotates ciphertexts with the client's Galois keys (`Rotator.rotate`), where the plan asks for it.

        Raises:
            ValueError: the message's length is wrong or a residue is not below its prime.
            UserError: the plan rotates and there is no key for it.
        """
        pieces = pieces_of("message", message, len(self.parts))
        masks = residues(mask, moduli_of(self.parameters))
        return b"".join(
            part.evaluate(own, piece, values, rotate)
            for part, own, piece, values in zip(self.parts, cipher.components, pieces, masks, strict=True)
        )


def _of_each(target: Target, count: int) -> Target:
    """The target of each of `count` evaluations that an output depends on together."""
    if count == 1 or target.decryption_error_rate is None:
        return target
    return replace(target, decryption_error_rate=-math.expm1(math.log1p(-target.decryption_error_rate) / count))


class ServerComponent:
    """The server's part of one layer under one component of its set, whose plaintext modulus is not composite.

    Args as for `ServerLinear`.
    """

    def __init__(
        self,
        layer: LinearLayer,
        plan: EvaluationPlan,
        parameters: ParameterSet,
        flooding: Flooding,
        target: Target | None,
        bits: ReplyBits,
        norm_bound: float | None = None,
    ) -> None:
        _check_degree(plan, parameters)
        if plan.shape != layer.shape:
            raise ValueError(f"layer {layer.shape.name}: a plan of {plan.shape.name}, of another shape")
        self.layer, self.plan, self.parameters = layer, plan, parameters
        self.form = ReplyForm.of(plan, bits)
        self.noise = deployed_noise(layer_noise(layer, plan, flooding, norm_bound), parameters, flooding, target, bits)
        self._ring = Ring(parameters.polynomial_degree, parameters.primes)
        self._products = WeightProducts(self._ring, *plan.products, plan.sum_count)
        polynomials = plan.encode_weights(layer.weight)
        for start in range(0, len(polynomials), CHUNK):
            self._products.put(start, self._ring.forward(self._ring.reduce(polynomials[start : start + CHUNK])))

    def evaluate(self, cipher: ServerCipher, message: bytes, mask: np.ndarray, rotate: Rotate = no_rotation) -> bytes:
        """`ServerLinear.evaluate` under this component."""
        return self.finish(cipher, self.multiply(cipher.load(message, self.plan.input_ciphertexts), rotate), mask)

    def multiply(self, ciphertexts: np.ndarray, rotate: Rotate = no_rotation) -> np.ndarray:
        """The evaluation alone: [input ciphertexts, 2, k, n] -> [output ciphertexts, 2, k, n]."""
        plan, polynomial = self.plan, ciphertexts.shape[1:]
        sums = self._products.sums(ciphertexts.reshape(plan.input_blocks, plan.bands, *polynomial))
        return plan.gather(self._ring, sums, rotate).reshape(plan.output_ciphertexts, *polynomial)

    def finish(self, cipher: ServerCipher, sums: np.ndarray, mask: np.ndarray) -> bytes:
        """The reply: s subtracted, what is sent besides outputs masked uniformly, re-randomised, flooded, switched."""
        return cipher.reply(sums, self._masks(mask), self.noise.flood, self.form)

    def _masks(self, mask: np.ndarray) -> np.ndarray:
        """What is added to the results, uint64 [output ciphertexts, n]: -s at outputs, elsewhere uniform if sent."""
        p, shape = self.parameters.plaintext_modulus, (self.plan.output_ciphertexts, self.plan.degree)
        if mask.dtype != np.uint64 or mask.shape != self.layer.shape.output_shape or int(mask.max()) >= p:
            raise ValueError(f"mask: expected uint64 {self.layer.shape.output_shape} below {p}")
        more = self.form.coefficients > mask.size
        # a stream for every call: calls may run in several threads
        masks = SecureRandom().below(p, shape) if more else np.zeros(shape, np.uint64)
        masks.reshape(-1)[self.plan.output_positions] = (np.uint64(p) - mask.reshape(-1)) % np.uint64(p)
        return self.plan.encode_output(masks)


def _check_degree(plan: Plan, parameters: ParameterSet) -> None:
    if plan.degree != parameters.polynomial_degree:
        raise ValueError(
            f"layer {plan.shape.name}: a plan at n = {plan.degree} with parameters of "
            f"n = {parameters.polynomial_degree}"
        )
