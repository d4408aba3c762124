"""An attack on circuit privacy: what the noise of replies tells the client about the weights.

The client knows its share r, its secret key and the noise e of its own ciphertexts. A reply's noise is the sum of e w
over the weights w, and whatever hides it. Every output is one equation with known coefficients, so least squares over
many replies solve for the weights. Replies are attacked as they are on the wire, switched to the default bits: rounding
takes a sixteenth of the noise. Where it takes more the attack wants more replies; it hides nothing either.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from support.real_noise import decrypt_with_noise

from autoprivacy.he.bfv.cipher import ClientCipher, ServerCipher
from autoprivacy.he.bfv.linear import ClientLinear, ServerComponent
from autoprivacy.he.bfv.reply import ReplyPacker
from autoprivacy.he.bfv.reply_bits import default_reply_bits
from autoprivacy.he.packing.coefficient import CoefficientPlan
from autoprivacy.he.parameters.noise import fresh_noise
from autoprivacy.he.parameters.parameter_set import Flooding, ReplyBits, Target
from autoprivacy.quantization.integer_network import LayerShape, LinearLayer
from autoprivacy.selection.secure_set import AverageCase, Setting, secure_set

P, DEGREE = 1 << 17, {"none": 2048, "statistical": 4096}
SHAPE = LayerShape("layer", "convolution", (1, 32, 32), 2, (3, 3), padding=1)
WEIGHT = np.random.default_rng(11).integers(-127, 128, (2, 1, 3, 3))
TARGET = Target(decryption_error_rate=2.0**-40)
# A statistic that is a standard Gaussian where the noise says nothing of the weights: 1 in 10^6 beyond this.
CHANCE = 5.0


class Attacker(ClientLinear):
    """A client that draws equations on the weights from replies.

    Attributes:
        normal, moments: the normal equations A^T A w = A^T v of all replies so far.
        squares: the sum of squares of the replies' noise v.
        count: how many equations there were.
    """

    def __init__(self, plan: CoefficientPlan, cipher: ClientCipher, bits: ReplyBits) -> None:
        super().__init__(plan, cipher, bits)
        one_hot = np.eye(WEIGHT.size, dtype=np.int64).reshape(-1, *WEIGHT.shape)
        # every weight is one coefficient of one reply's polynomial, so its product with e is e, shifted
        self._places = [np.argwhere(plan.encode_weights(weight))[0].tolist() for weight in one_hot]
        self.normal, self.moments = np.zeros((WEIGHT.size, WEIGHT.size)), np.zeros(WEIGHT.size)
        self.squares, self.count = 0.0, 0

    def own_noise(self, ciphertexts: np.ndarray, share: np.ndarray) -> np.ndarray:
        """c0 + c1 s - q r / p of its own ciphertext [1, 2, k, n], the rounding of q r / p included, float64 [1, n]."""
        ring, p, q = self.cipher.ring, P, self.cipher.parameters.q
        phase = ring.inverse(ring.multiply(ciphertexts[:, 1], self.cipher._secret, plus=ciphertexts[:, 0]))
        plain = self.plan.encode_input(share)
        small = ring.subtract(phase, self.cipher._encoding.encode(plain))[:, 0].astype(np.int64)
        prime = ring.primes[0]
        remainders = [q * m % p for m in plain[0].tolist()]
        rounding = [((p - r) if 2 * r >= p else -r) / p for r in remainders]
        return np.where(small > prime // 2, small - prime, small) + np.array(rounding)

    def learn(self, noise: np.ndarray, reply: bytes) -> None:
        """The equations of one reply to a ciphertext with that noise."""
        positions = self.form.positions
        assert positions is not None
        _, errors = decrypt_with_noise(self.cipher, reply, self.form)
        ciphertext, place = np.divmod(positions, self.plan.degree)
        turned = np.concatenate([-noise[0], noise[0]])  # X^n = -1
        columns = [(ciphertext == own) * turned[place + self.plan.degree - shift] for own, shift in self._places]
        design = np.stack(columns, axis=1)
        observed = errors.reshape(-1)[positions]
        self.normal += design.T @ design
        self.moments += design.T @ observed
        self.squares += observed @ observed
        self.count += len(positions)

    def weights(self) -> np.ndarray:
        """The least-squares solution."""
        return np.linalg.solve(self.normal, self.moments).reshape(WEIGHT.shape)

    def evidence(self) -> float:
        """How far the noise agrees with the true weights: a standard Gaussian where it knows nothing of them.

        It asks for the weights themselves, which no attacker has: where it finds nothing there is nothing to be found.
        """
        true = WEIGHT.reshape(-1).astype(float)
        return float(true @ self.moments) / math.sqrt(self.squares / self.count * (true @ self.normal @ true))


@dataclass
class Parties:
    """Both sides of the layer under the smallest secure set."""

    attacker: Attacker
    server: ServerComponent
    cipher: ServerCipher

    @classmethod
    def under(cls, flooding: Flooding) -> Parties:
        plan = CoefficientPlan(SHAPE, DEGREE[flooding.kind], 1, 1, 32)
        noise = plan.noise(WEIGHT)
        parameters = secure_set(noise, AverageCase(TARGET), Setting(plan.degree, P, flooding, 27))
        assert parameters is not None
        bits = default_reply_bits(plan.workload, parameters, TARGET)
        attacker = Attacker(plan, ClientCipher(parameters), bits)
        layer = LinearLayer(SHAPE, WEIGHT, np.zeros(2, np.int64))
        server = ServerComponent(layer, plan, parameters, flooding, TARGET, bits)
        return cls(attacker, server, ServerCipher(parameters, attacker.cipher.public_key()))

    def attack(self, replies: int, reply: Callable[[np.ndarray, np.ndarray], bytes]) -> Attacker:
        """The attacker after so many images; `reply` is the server's, from ciphertexts and a mask."""
        generator = np.random.default_rng()
        for _ in range(replies):
            share = generator.integers(0, P, SHAPE.input_shape, dtype=np.uint64)
            mask = generator.integers(0, P, SHAPE.output_shape, dtype=np.uint64)
            ciphertexts = self.cipher.load(self.attacker.encrypt(share), 1)
            self.attacker.learn(self.attacker.own_noise(ciphertexts, share), reply(ciphertexts, mask))
        return self.attacker

    def proper_reply(self, ciphertexts: np.ndarray, mask: np.ndarray) -> bytes:
        """As the protocol makes it."""
        return self.server.finish(self.cipher, self.server.multiply(ciphertexts), mask)

    def bare_reply(self, ciphertexts: np.ndarray, mask: np.ndarray) -> bytes:
        """Masked and switched, but not re-randomised."""
        ring = self.cipher.ring
        values = ring.inverse(self.server.multiply(ciphertexts))
        values[:, 0] = ring.add(values[:, 0], self.cipher._encoding.encode(self.server._masks(mask)))
        return ReplyPacker(ring).pack([values], self.server.form)


def test_the_attacker_knows_its_own_noise() -> None:
    parties = Parties.under(Flooding("none"))
    share = np.random.default_rng(0).integers(0, P, SHAPE.input_shape, dtype=np.uint64)
    noise = parties.attacker.own_noise(parties.cipher.load(parties.attacker.encrypt(share), 1), share)
    assert np.max(np.abs(noise)) <= 21.5 and noise.std() == pytest.approx(fresh_noise(), rel=0.1)


# So many that estimates are off by 0.08 (standard deviation): half a unit, where rounding goes wrong, is six of them.
@pytest.mark.parametrize(("way", "replies"), [("bare_reply", 900), ("proper_reply", 1300)])
def test_unflooded_replies_reveal_the_weights(way: str, replies: int) -> None:
    """All of them, exactly, with re-randomisation as without it."""
    parties = Parties.under(Flooding("none"))
    attacker = parties.attack(replies, getattr(parties, way))
    np.testing.assert_array_equal(np.rint(attacker.weights()), WEIGHT)
    assert attacker.evidence() > 20 * CHANCE


def test_flooded_replies_reveal_nothing() -> None:
    """The same attack on as many replies: no better than chance, and a solution as wide as the flood."""
    parties = Parties.under(Flooding("statistical"))
    attacker = parties.attack(400, parties.proper_reply)
    assert abs(attacker.evidence()) < CHANCE
    solution = attacker.weights()
    assert abs(np.corrcoef(solution.reshape(-1), WEIGHT.reshape(-1))[0, 1]) < 0.9
    assert np.abs(solution).min() > 127  # no estimate is so much as in the range of weights
    width = parties.server.noise.total / (fresh_noise() * math.sqrt(attacker.count / 2))  # each output's own equations
    assert width / 3 < np.std(solution) < 3 * width and width > 2.0**30


def test_a_weak_flood_is_not_enough() -> None:
    """What the measure of chance is worth: it sees the weights below a flood four times as wide as their noise."""
    parties = Parties.under(Flooding("statistical", 2))
    assert parties.attack(20, parties.proper_reply).evidence() > CHANCE
