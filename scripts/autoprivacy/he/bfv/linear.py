"""A linear layer between client and server: Enc(r) up, Enc(M r - s) down (the paper's section 2)."""

from __future__ import annotations

import numpy as np

from autoprivacy.errors import UserError
from autoprivacy.he.bfv.cipher import ClientCipher, ServerCipher
from autoprivacy.he.bfv.reply import ReplyForm
from autoprivacy.he.packing.plan import EvaluationPlan, Rotate
from autoprivacy.he.parameters.noise import deployed_noise
from autoprivacy.he.parameters.parameter_set import Flooding, ParameterSet, ReplyBits, Target
from autoprivacy.he.ring.ring import Ring
from autoprivacy.he.ring.weight_products import WeightProducts
from autoprivacy.quantization.integer_network import LayerShape, LinearLayer
from autoprivacy.randomness.generator import SecureRandom

# Weight polynomials transformed at a time, so that the signed coefficients never stand in memory all at once.
CHUNK = 64


def no_rotation(ciphertexts: np.ndarray, element: int) -> np.ndarray:
    """The `rotate` of a server without Galois keys."""
    raise UserError(f"rotation by the Galois element {element}: the client sent no Galois keys")


class ClientLinear:
    """The client's part of one layer.

    Args:
        shape: the layer's public part.
        plan: how it is packed.
        cipher: the client's keys for the layer's parameter set; layers with the same set share it.
        bits: what the server's replies are sent in.
    """

    def __init__(self, shape: LayerShape, plan: EvaluationPlan, cipher: ClientCipher, bits: ReplyBits) -> None:
        self.shape, self.plan, self.cipher, self.form = shape, plan, cipher, ReplyForm.of(plan, bits)
        _check_agreement(shape, plan, cipher.parameters)

    def encrypt(self, mask: np.ndarray) -> bytes:
        """Enc(r) of residues modulo p, uint64 [C, H, W]."""
        return self.cipher.encrypt(self.plan.encode_input(mask))

    def decrypt(self, reply: bytes) -> np.ndarray:
        """M r - s modulo p, uint64 [C_out, H_out, W_out], from the server's reply.

        Raises:
            ValueError: the reply's length is wrong.
        """
        return self.plan.decode_output(self.cipher.decrypt(reply, self.form))


class ServerLinear:
    """The server's part of one layer, the weights transformed once and used for every image and client.

    Args:
        layer: the layer with its weights.
        plan: how it is packed.
        parameters: the layer's parameter set.
        flooding: how replies hide the weights.
        target: the layer's target, which the flood `paper` is sized by.
        bits: what replies are sent in.
    """

    def __init__(
        self,
        layer: LinearLayer,
        plan: EvaluationPlan,
        parameters: ParameterSet,
        flooding: Flooding,
        target: Target | None,
        bits: ReplyBits,
    ) -> None:
        _check_agreement(layer.shape, plan, parameters)
        self.layer, self.plan, self.parameters = layer, plan, parameters
        self.form = ReplyForm.of(plan, bits)
        self.noise = deployed_noise(plan.noise(layer.weight), parameters, flooding, target, bits)
        self._ring = Ring(parameters.polynomial_degree, parameters.primes)
        self._products = WeightProducts(self._ring, *plan.products, plan.sum_count)
        polynomials = plan.encode_weights(layer.weight)
        for start in range(0, len(polynomials), CHUNK):
            self._products.put(start, self._ring.forward(self._ring.reduce(polynomials[start : start + CHUNK])))

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


def _check_agreement(shape: LayerShape, plan: EvaluationPlan, parameters: ParameterSet) -> None:
    if plan.shape != shape or plan.degree != parameters.polynomial_degree:
        raise ValueError(
            f"layer {shape.name}: a plan of {plan.shape.name} at n = {plan.degree} with parameters of "
            f"n = {parameters.polynomial_degree}"
        )
