"""The circuit of an activation on additive shares modulo p: add, round, shift, clip.

The server garbles and the client evaluates. The client knows its share before the image is, so its oblivious transfers
are offline; the server's share arrives online as labels. Both may drop the low bits of their shares before they enter
the circuit: no label, transfer or gate is spent on those, and the carry that is lost with them makes the rounding a
random one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from autoprivacy.errors import UserError
from autoprivacy.gc.circuit import FALSE, TRUE, Circuit, CircuitBuilder, Wire
from autoprivacy.gc.modular_addition import ModularAddition
from autoprivacy.quantization.integer_network import (
    MAXIMUM_MODULUS_BITS,
    Node,
    rounding_constant,
    sign_threshold,
    to_signed,
)
from autoprivacy.quantization.residues import Residues
from autoprivacy.quantization.windows import Window


@dataclass(frozen=True)
class Activation:
    """y = clip(to_signed(x + rounding mod p) >> shift, minimum, maximum) for x = c + s mod p, c the client's share.

    Modulo 2^k the sum may be read in a window (`lowest`) in place of to_signed, and shares modulo a larger power of two
    lose their high bits.

    With t ignored bits it is the same of numbers t bits shorter, M = 2^(k-t) for p = 2^k and M = (p-1) / 2^t for other
    p: X = C + S mod M and y = clip(to_signed(X) >> (shift - t), minimum, maximum). S is z' >> t modulo M for
    z' = s + constant mod p. C is c >> t for p = 2^k, else d >> t modulo M for d = c - 1 mod p.

    Why that is right, with z = x + constant mod p and lo() the low t bits: for p = 2^k, 2^t X = z - lo(c) - lo(z')
    modulo p, so X = floor((z - lo(c)) / 2^t) modulo M. For other p, z is d + z' + 1 where d < z, and d + z' - (p - 1)
    elsewhere; as p - 1 = M 2^t, X = floor((z - lo(d) - [d < z]) / 2^t) modulo M. lo(c) and lo(d) are uniform as c is,
    so the mean of 2^t X is z - (2^t - 1), and for other p at most 1 below that.

    The constant is (2^f - 2^t) / 2 + 2^t - 1, f the shift: the mean of 2^t X is then x + (2^f - 2^t) / 2, and the shift
    by f - t takes (2^f - 2^t) / 2 off on average. For t = f, y is x / 2^f rounded up with the probability of its
    fraction, and exact where that is zero. Without ignored bits the constant is 2^(f-1).

    Attributes:
        modulus: p, 4 to 2^32.
        shift: f, 0 to k - 2 for p of k bits.
        minimum, maximum: 0 and 2^b - 1, a ReLU, or -2^b and 2^b - 1, a linear bottleneck.
        ignored_bits: t, 0 to f; for p that is not a power of two 2^t divides p - 1, and p - 1 is no power of two.
        lowest: the smallest number that sums are read as, a multiple of 2^f with at least two such steps from 0 on, for
            p = 2^k; None: of signed residues.

    Raises:
        UserError: one of these does not hold.
    """

    modulus: int
    shift: int
    minimum: int
    maximum: int
    ignored_bits: int = 0
    lowest: int | None = None

    def __post_init__(self) -> None:
        bits, p, t = modulus_bits(self.modulus), self.modulus, self.ignored_bits
        if p < 4 or bits > MAXIMUM_MODULUS_BITS:
            raise UserError(f"activation: plaintext modulus {p}; expected 4 to 2^{MAXIMUM_MODULUS_BITS}")
        if not 0 <= self.shift <= bits - 2:
            raise UserError(f"activation: shift {self.shift}; expected 0 to {bits - 2} for plaintext modulus {p}")
        if self.maximum < 1 or self.maximum & (self.maximum + 1) or self.minimum not in (0, -self.maximum - 1):
            raise UserError(
                f"activation: clip to [{self.minimum}, {self.maximum}]; supported: [0, 2^b - 1], a clipped ReLU, "
                f"and [-2^b, 2^b - 1]"
            )
        if not 0 <= t <= self.shift:
            raise UserError(f"activation: {t} ignored share bits; expected 0 to its shift, {self.shift}")
        if t > ignorable_bits(p):
            raise UserError(
                f"activation: {t} ignored share bits modulo {p}; expected a modulus 2^k, or one == 1 mod 2^{t} other "
                f"than 2^k + 1: choose such a modulus, or ignore fewer bits"
            )
        if self.lowest is not None:
            step, odd = 1 << self.shift, not self._is_power
            if odd or self.lowest % step or not 2 * step - p <= self.lowest < 0:
                raise UserError(
                    f"activation: numbers from {self.lowest} on modulo {p}; expected p = 2^k and a multiple of {step} "
                    f"from {2 * step - p} to {-step}"
                )

    @classmethod
    def of(cls, node: Node, residues: Residues) -> Activation:
        """An activation of a graph.

        Raises:
            UserError: there is none modulo its p.
        """
        window, ignored = residues.windows.get(node.inputs[0]), residues.ignored_bits[node.name]
        modulus = window.size if window else residues.read[node.inputs[0]]
        lowest = window.lowest if window else None
        return cls(modulus, node.shift, node.minimum, node.maximum, ignored, lowest)

    @classmethod
    def garbled(cls, node: Node, residues: Residues) -> Activation:
        """The same where it has a circuit; UserError where it has none."""
        if node.table:
            raise UserError(
                f"a function of {len(node.table)} levels has no circuit; expected activation lookup for the layers "
                "that it reads, and a plaintext modulus that is a power of two"
            )
        return cls.of(node, residues)

    @property
    def threshold(self) -> int:
        """The smallest residue that stands for a negative number."""
        return sign_threshold(self.modulus) if self.lowest is None else self.lowest + self.modulus

    @property
    def _is_power(self) -> bool:
        return self.modulus & (self.modulus - 1) == 0

    @property
    def _short_modulus(self) -> int:
        """M."""
        if not self.ignored_bits:
            return self.modulus
        return (self.modulus if self._is_power else self.modulus - 1) >> self.ignored_bits

    @property
    def constant(self) -> int:
        """What the server adds to its share so that dropping bits rounds."""
        return rounding_constant(self.shift, self.ignored_bits)

    @cached_property
    def addition(self) -> ModularAddition:
        """How the two inputs add up."""
        return ModularAddition(self._short_modulus, self.minimum << (self.shift - self.ignored_bits))

    @property
    def share_bits(self) -> int:
        """Bits of each party's input: k - t."""
        return self.addition.bits

    @property
    def circuit(self) -> Circuit:
        """The circuit, of `share_bits` input bits for each party; its outputs are y's bits."""
        return _circuit(self)

    def garbler_input(self, share: np.ndarray) -> np.ndarray:
        """The server's input for its share. uint64, same shape."""
        return self.addition.server_input(self._server_residue(share))

    def evaluator_input(self, share: np.ndarray) -> np.ndarray:
        """The client's input for its share. uint64, same shape."""
        return self.addition.client_input(self._client_residue(share))

    def reference(self, client_share: np.ndarray, server_share: np.ndarray) -> np.ndarray:
        """What the circuit computes from the two shares, in integer arithmetic; int64."""
        total = self._client_residue(client_share).astype(np.int64) + self._server_residue(server_share).astype(
            np.int64
        )
        if self.lowest is None:
            read = to_signed(total, self._short_modulus)
        else:
            read = Window(self._short_modulus, self.lowest >> self.ignored_bits).read(total)
        shifted = read >> (self.shift - self.ignored_bits)
        return np.clip(shifted, self.minimum, self.maximum)

    def _server_residue(self, share: np.ndarray) -> np.ndarray:
        """S."""
        rounded = (np.asarray(share, np.uint64) + np.uint64(self.constant)) % np.uint64(self.modulus)
        return (rounded >> np.uint64(self.ignored_bits)) % np.uint64(self._short_modulus)

    def _client_residue(self, share: np.ndarray) -> np.ndarray:
        """C."""
        share = np.asarray(share, np.uint64)
        if self.ignored_bits and not self._is_power:
            share = (share + np.uint64(self.modulus - 1)) % np.uint64(self.modulus)
        return (share >> np.uint64(self.ignored_bits)) % np.uint64(self._short_modulus)


def ignorable_bits(modulus: int) -> int:
    """How many low share bits a circuit modulo p can ignore at most, whatever its shift."""
    before = modulus - 1
    if modulus & before == 0:
        return modulus_bits(modulus)
    # 2^k + 1 leaves a power of two of one bit more than the shares have
    return 0 if before & (before - 1) == 0 else (before & -before).bit_length() - 1


def modulus_bits(modulus: int) -> int:
    """k: bits of a residue modulo p."""
    return (modulus - 1).bit_length()


@lru_cache(maxsize=256)
def _circuit(activation: Activation) -> Circuit:
    """The circuit of an activation.

    The sum takes the AND gates of `ModularAddition`. With b bits of magnitude in the output and g between them and the
    sign, a ReLU takes g + b more, a signed output g - 1 + b more where g > 0, else none. In a window of its own the
    sign takes as many as its threshold has bits below the top one, trailing zeros left out.
    """
    builder = CircuitBuilder()
    bits, shift = activation.share_bits, activation.shift - activation.ignored_bits
    server, client = builder.garbler_inputs(bits), builder.evaluator_inputs(bits)
    total, signed = activation.addition.build(builder, client, server), activation.minimum < 0
    if activation.lowest is None:
        lowest, threshold = -1 << bits - 1, 1 << bits - 1  # in two's complement
    else:
        lowest, threshold = (n >> activation.ignored_bits for n in (activation.lowest, activation.threshold))
    sign = _at_least(builder, total, threshold)
    reach = max(threshold - 1, -lowest - 1) if signed else threshold - 1
    end = min(shift + activation.maximum.bit_length(), reach.bit_length())
    # where the threshold is that large, a bit of `total[end:]` is set in every negative number
    outside = sign if not signed and threshold < 1 << end else FALSE
    for bit in reversed(total[end:]):
        outside = builder.or_(outside, builder.xor(bit, sign) if signed else bit)
    clipped = builder.not_(sign)  # all bits of the maximum, or of the minimum
    outputs = [builder.xor(b, builder.and_(outside, builder.xor(b, clipped))) for b in total[shift:end]]
    return builder.build([*outputs, sign] if signed else outputs, signed)


def _at_least(builder: CircuitBuilder, bits: list[Wire], threshold: int) -> Wire:
    """Whether a number is at least the threshold, which has as many bits."""
    reached = TRUE
    for place, bit in enumerate(bits):
        reached = builder.and_(bit, reached) if threshold >> place & 1 else builder.or_(bit, reached)
    return reached
