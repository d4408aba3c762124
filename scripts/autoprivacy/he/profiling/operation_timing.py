"""Times every homomorphic operation once at one parameter set, on layers made for that.

An operation's time is the difference of two calls wherever a call has a part that does not grow with what it works on:
so the costs of a call are counted once a layer, and a ciphertext costs the same in a small layer as in a large one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from autoprivacy.he.bfv.cipher import ClientCipher, ServerCipher
from autoprivacy.he.bfv.flood import wide_flood
from autoprivacy.he.bfv.linear import ClientLinear, ServerComponent
from autoprivacy.he.bfv.reply_bits import default_reply_bits
from autoprivacy.he.bfv.rotation import GaloisKeyMaker, Rotator
from autoprivacy.he.packing.coefficient import CoefficientPlan
from autoprivacy.he.packing.slot import SlotPlan
from autoprivacy.he.parameters.parameter_set import Flooding, ParameterSet
from autoprivacy.he.parameters.policy import EXACT_TARGET
from autoprivacy.he.ring.automorphisms import rotation_element
from autoprivacy.he.ring.primes import ntt_primes
from autoprivacy.he.ring.ring import Ring
from autoprivacy.quantization.integer_network import LayerShape, LinearLayer
from autoprivacy.randomness.generator import SecureRandom
from autoprivacy.timing import thread_seconds

# A plaintext modulus of the usual size, a prime: residues modulo a power of two are drawn a little faster.
PLAINTEXT_MODULUS = 114689
COLUMNS = 32  # width of the image that fills a ciphertext
CIPHERTEXTS = 16  # of the layer that is compared with one of a single ciphertext; encoded at a time
# Products are timed with so many inputs and as many outputs as make this number of bytes of weights, within bounds.
# The bytes exceed the caches, as a network's weights do.
INPUTS = 32
OUTPUTS = (2, 64)
WEIGHT_BYTES = 48 << 20
WIDE_FLOOD = 2.0**70  # any that takes one limb beside the Gaussian


def warm_seconds(operation: Callable[[], object]) -> float:
    """CPU seconds of a call that follows one of its kind: what was timed before has taken its place in the caches."""
    operation()
    return thread_seconds(operation)


class Words:
    """Memory that all sets' products are timed on: words that are residues modulo any prime."""

    def __init__(self) -> None:
        self._arrays: dict[np.dtype, np.ndarray] = {}

    def take(self, dtype: np.dtype, count: int) -> np.ndarray:
        """The first `count` words of that type; the same ones at every call."""
        if dtype not in self._arrays or self._arrays[dtype].size < count:
            self._arrays[dtype] = np.ones(count, dtype)
        return self._arrays[dtype][:count]


class _Layer:
    """Both parties of a layer whose every channel fills a ciphertext, and where an output takes one product.

    Args:
        parameters: the set.
        client: the client's keys.
        server: the server's side of them.
        channels: ciphertexts in and out.
    """

    def __init__(self, parameters: ParameterSet, client: ClientCipher, server: ServerCipher, channels: int) -> None:
        degree = parameters.polynomial_degree
        rows = degree // COLUMNS
        shape = LayerShape("timed", "convolution", (channels, rows, COLUMNS), channels, (1, 1), groups=channels)
        plan = CoefficientPlan(shape, degree, 1, 1, rows)
        layer = LinearLayer(shape, np.ones((channels, 1, 1, 1), np.int64), np.zeros(channels, np.int64))
        bits = default_reply_bits(plan.workload, parameters, EXACT_TARGET)
        self._client = ClientLinear(plan, client, bits)
        self._server = ServerComponent(layer, plan, parameters, Flooding("statistical"), EXACT_TARGET, bits)
        self._cipher, self._channels = server, channels
        self._values = np.ones(shape.input_shape, np.uint64)
        self._message = self._client.encrypt(self._values)
        self._sums = self._server.multiply(server.load(self._message, channels))
        self._reply = self._server.finish(server, self._sums, self._values)

    def times(self) -> dict[str, float]:
        """Seconds of each call that a layer takes besides products."""
        return {
            "encrypt": thread_seconds(lambda: self._client.encrypt(self._values)),
            "load": thread_seconds(lambda: self._cipher.load(self._message, self._channels)),
            "reply": thread_seconds(lambda: self._server.finish(self._cipher, self._sums, self._values)),
            "decrypt": thread_seconds(lambda: self._client.decrypt(self._reply)),
        }


class LayerTimer:
    """What a layer without rotations is made of, at one set.

    Args:
        parameters: the set; p is PLAINTEXT_MODULUS.
        words: shared with other timers.
    """

    def __init__(self, parameters: ParameterSet, words: Words) -> None:
        degree, client = parameters.polynomial_degree, ClientCipher(parameters)
        server = ServerCipher(parameters, client.public_key())
        self._ring = client.ring
        self._many = _Layer(parameters, client, server, CIPHERTEXTS)
        self._one = _Layer(parameters, client, server, 1)
        (modulus,) = ntt_primes(PLAINTEXT_MODULUS << 3, degree, 1)
        shape = LayerShape("timed", "convolution", (CIPHERTEXTS, degree // COLUMNS, COLUMNS), 1, (1, 1))
        self._slots = SlotPlan(shape, degree, modulus, degree, 1, 1)
        self._slot_values = np.ones(shape.input_shape, np.uint64)
        self._slots.encode_input(self._slot_values)
        self._products = _Products(self._ring, words)

    def times(self) -> dict[str, float]:
        """Seconds of each operation of `profiling.OPERATIONS` but rotations, measured once."""
        many = self._many.times()
        self._one.times()  # as in `warm_seconds`
        one = self._one.times()
        each = {name: max(0.0, (many[name] - one[name]) / (CIPHERTEXTS - 1)) for name in many}
        flood = warm_seconds(lambda: wide_flood(self._ring, CIPHERTEXTS, WIDE_FLOOD, SecureRandom()))
        return {
            **each,
            **self._products.times(),
            "calls": max(0.0, sum(one[name] - each[name] for name in one)),
            "wide_flood": flood / CIPHERTEXTS,
            "encoding": warm_seconds(lambda: self._slots.encode_input(self._slot_values)) / CIPHERTEXTS,
        }


class _Products:
    """The parts of a sum of products: those that products do not enter are timed by sums of nothing."""

    def __init__(self, ring: Ring, words: Words) -> None:
        self._ring = ring
        polynomial = ring.degree * len(ring.primes)
        self._outputs = WEIGHT_BYTES // (ring.dtype.itemsize * polynomial * INPUTS)
        self._outputs = min(max(self._outputs, OUTPUTS[0]), OUTPUTS[1])
        weights = INPUTS * self._outputs * polynomial
        memory = words.take(ring.dtype, weights + 2 * INPUTS * polynomial)
        self._inputs = memory[weights:].reshape(INPUTS, 2, len(ring.primes), ring.degree)
        self._weights = memory[:weights].reshape(len(ring.primes), -1, INPUTS * self._outputs, ring.weight_block)

    def _seconds(self, inputs: int, outputs: int, products: int) -> float:
        """Of so many sums, each of products of the first `products` inputs."""
        indices, starts = np.tile(np.arange(products), outputs), np.arange(outputs + 1) * products
        x, weights = self._inputs[:inputs], self._weights[:, :, : indices.size]
        return thread_seconds(lambda: self._ring.multiply_accumulate(x, weights, indices, starts))

    def times(self) -> dict[str, float]:
        """Seconds of arranging an input's ciphertext, of a product, and of a sum."""
        arrange = self._seconds(INPUTS, 0, 0) / INPUTS
        total = max(0.0, self._seconds(1, INPUTS, 0) - arrange) / INPUTS
        products = self._seconds(INPUTS, self._outputs, INPUTS) - INPUTS * arrange - self._outputs * total
        return {"arrange": arrange, "product": max(0.0, products) / (INPUTS * self._outputs), "sum": total}


class RotationTimer:
    """A rotation and the addition that goes with it.

    Args:
        parameters: a set with a key-switching prime.
    """

    def __init__(self, parameters: ParameterSet) -> None:
        self._element = rotation_element(1, parameters.polynomial_degree)
        client = ClientCipher(parameters)
        self._ring = client.ring
        self._rotator = Rotator(parameters, [self._element], GaloisKeyMaker(client).keys([self._element]))
        server = ServerCipher(parameters, client.public_key())
        self._ciphertext = server.load(client.encrypt(np.ones((1, parameters.polynomial_degree), np.uint64)), 1)
        self._rotate()

    def _rotate(self) -> None:
        self._ring.add(self._rotator.rotate(self._ciphertext, self._element), self._ciphertext)

    def seconds(self) -> float:
        """Of one ciphertext, measured once."""
        return warm_seconds(self._rotate)
