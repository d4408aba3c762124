"""Simulated decryption errors against real ones: many replies of real ciphertexts with fresh keys at a small q."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from autoprivacy.he.bfv.cipher import ClientCipher, ServerCipher
from autoprivacy.he.bfv.linear import ClientLinear, ServerComponent, no_rotation
from autoprivacy.he.bfv.rotation import GaloisKeyMaker, Rotator
from autoprivacy.he.packing.coefficient import CoefficientPlan
from autoprivacy.he.packing.plan import Plan, Rotate
from autoprivacy.he.packing.public_noise import layer_noise
from autoprivacy.he.packing.slot import SlotPlan
from autoprivacy.he.parameters.noise import (
    ROUNDING_VARIANCE,
    SIGMA_NOISE,
    decryption_error_rate,
    reply_noise,
    tau_of,
    weighted_noise,
)
from autoprivacy.he.parameters.parameter_set import MAXIMUM_REPLY_BITS, Flooding, ParameterSet, ReplyBits
from autoprivacy.he.ring.primes import ntt_prime_from
from autoprivacy.he.ring.ring import ntt_primes
from autoprivacy.quantization.integer_network import LayerShape, LinearLayer, to_signed
from autoprivacy.search.decryption_errors import CoefficientErrors, PackedErrors, Perturbation

DEGREE = 1024  # with one prime of this q the sets are below 128 bits: for tests alone
P = ntt_primes(1 << 17, DEGREE, 1)[0]
FINE = ReplyBits(MAXIMUM_REPLY_BITS, MAXIMUM_REPLY_BITS)  # rounding to these adds nothing to the noise here
LARGEST = 3  # error values up to here are counted one by one
DEVIATIONS = 4.5  # of a difference that chance explains

SMALL = LayerShape("layer", "convolution", (4, 8, 8), 6, (3, 3), padding=1)
# In slots of n = 1024: 16 lanes of 64 pixels, all of them outputs.
POINTWISE = LayerShape("layer", "convolution", (4, 8, 8), 16, (1, 1))
DENSE = LayerShape("layer", "fully_connected", (64, 1, 1), 32, (1, 1))


@dataclass(frozen=True)
class Setting:
    """A layer, how it is packed, how replies are flooded, and what noise q is chosen for."""

    plan: Plan
    flooding: Flooding
    tau: float

    @property
    def in_coefficients(self) -> bool:
        """Whether every output is a coefficient."""
        return isinstance(self.plan, CoefficientPlan)


SETTINGS = {
    "coefficients": Setting(CoefficientPlan(SMALL, DEGREE, 2, 3, 8), Flooding("none"), 0.35),
    "coefficients, wide noise": Setting(CoefficientPlan(SMALL, DEGREE, 1, 6, 8), Flooding("none"), 0.9),
    "coefficients, flooded": Setting(CoefficientPlan(SMALL, DEGREE, 4, 1, 8), Flooding("statistical", 8), 0.35),
    "slots": Setting(SlotPlan(POINTWISE, DEGREE, P, 64, 1, 1), Flooding("none"), 0.15),
    "slots, flooded": Setting(SlotPlan(POINTWISE, DEGREE, P, 64, 1, 1), Flooding("statistical", 5), 0.15),
    "slots, rotated, folded and flooded": Setting(
        SlotPlan(DENSE, DEGREE, P, 1, 64, 32), Flooding("statistical", 5), 0.14
    ),
}


class RealLayer:
    """A layer under the prime that gives a setting's noise, with any number of key pairs."""

    def __init__(self, setting: Setting, seed: int) -> None:
        self.plan, shape = setting.plan, setting.plan.shape
        generator = np.random.default_rng(seed)
        size = (shape.output_channels, shape.input_shape[0] // shape.groups, *shape.kernel)
        # of one size, as parameters are chosen by the noisiest of several replies: so all are alike
        self.layer = LinearLayer(shape, generator.choice([-45, 45], size), np.zeros(size[0], np.int64))
        self.parameters = self._parameters(setting)
        self.server = ServerComponent(self.layer, self.plan, self.parameters, setting.flooding, None, FINE)
        self.tau = tau_of(self.parameters.q, P, self.server.noise.total)
        # Fresh inputs for every reply: q m / p is rounded alike whenever m comes again, which makes no random noise.
        self.inputs = generator
        self.simulated = self._simulated(setting)

    def _parameters(self, setting: Setting) -> ParameterSet:
        special = ntt_primes(1 << 58, DEGREE, 1)[0] if self.plan.galois_elements else None
        trial = ParameterSet(P, DEGREE, ntt_primes(1 << 57, DEGREE, 1), special, insecure_for_test=True)
        weighted = weighted_noise(layer_noise(self.layer, self.plan, setting.flooding), trial)
        noise = reply_noise(DEGREE, weighted, setting.flooding).total
        prime = ntt_prime_from(math.ceil(noise * P / setting.tau), DEGREE, besides=(P, special or P))
        return ParameterSet(P, DEGREE, (prime,), special, insecure_for_test=True)

    def _residues(self, shape: tuple[int, ...]) -> np.ndarray:
        return self.inputs.integers(0, P, shape).astype(np.uint64)

    def _exact(self, share: np.ndarray) -> np.ndarray:
        shape = self.plan.shape
        values = torch.from_numpy(share.astype(np.float64))[None]
        weight = torch.from_numpy(self.layer.weight.astype(np.float64))
        outputs = torch.nn.functional.conv2d(values, weight, stride=shape.stride, padding=shape.padding)
        return outputs[0].numpy().astype(np.int64)

    def errors(self, replies: int) -> np.ndarray:
        """What so many replies under one fresh key are off by, int64 [replies, C, H, W], signed modulo p."""
        client = ClientLinear(self.plan, ClientCipher(self.parameters), FINE)
        cipher = ServerCipher(self.parameters, client.cipher.public_key())
        rotate: Rotate = no_rotation
        if elements := self.plan.galois_elements:
            rotate = Rotator(self.parameters, elements, GaloisKeyMaker(client.cipher).keys(elements)).rotate
        errors = []
        for _ in range(replies):
            share, mask = self._residues(self.plan.shape.input_shape), self._residues(self.plan.shape.output_shape)
            output = client.decrypt(self.server.evaluate(cipher, client.encrypt(share), mask, rotate))
            errors.append(to_signed(output.astype(np.int64) - (self._exact(share) - mask.astype(np.int64)), P))
        return np.stack(errors)

    def _simulated(self, setting: Setting) -> CoefficientErrors | PackedErrors:
        """With the noise of these weights and inputs, which predictions take for random ones.

        The rounding of q m / p adds nothing where no input stands, and weight polynomials of slots are not quite
        uniform modulo p. A flood is sized by the prediction.
        """
        noise, total = self.server.noise, self.server.noise.total
        if not noise.flood:
            filled = np.mean(self.plan.encode_input(self._residues(self.plan.shape.input_shape)) != 0)
            norm = self.plan.noise(self.layer.weight).norm
            if not setting.in_coefficients:
                assert self.plan.output_ciphertexts == 1 and not self.plan.galois_elements
                norm = math.sqrt((self.plan.encode_weights(self.layer.weight).astype(np.float64) ** 2).sum())
            weighted = math.sqrt(SIGMA_NOISE**2 + filled * ROUNDING_VARIANCE) * norm
            assert weighted == pytest.approx(noise.weighted, rel=0.05)
            total = math.hypot(weighted, noise.rerandomisation)
        tau = tau_of(self.parameters.q, P, total)
        return CoefficientErrors(tau) if setting.in_coefficients else PackedErrors(tau, self.plan, P)


def shares(plan: Plan, errors: np.ndarray) -> np.ndarray:
    """What replies [replies, C, H, W] are off by, as shares.

    Of wrong outputs; of wrong ciphertexts (outputs that go wrong together); and where all slots are outputs, so that
    coefficients follow from them, of coefficients with each error value, of ciphertexts with 0, 1, ... wrong ones.
    """
    wrong = errors.reshape(len(errors), -1) != 0
    result = [
        wrong.mean(),
        np.mean([wrong[:, plan.groups.reshape(-1) == group].any(1).mean() for group in np.unique(plan.groups)]),
    ]
    if len(plan.output_positions) == plan.output_ciphertexts * DEGREE:
        slots = np.zeros(wrong.shape, np.uint64)
        slots[:, plan.output_positions] = (errors.reshape(wrong.shape) % P).astype(np.uint64)
        errors = to_signed(plan.encoding.encode(slots.reshape(len(errors), -1, DEGREE)), P)  # type: ignore[attr-defined]
        numbers = (errors != 0).sum(2)
        result += [(numbers == number).mean() for number in range(4)]
    elif isinstance(plan, SlotPlan):
        return np.array(result)
    return np.array([*result, *[(errors == value).mean() for value in range(-LARGEST, LARGEST + 1)]])


def compare(setting: Setting, keys: int, replies: int, precision: float) -> None:
    """Real against simulated shares, key by key, so that what replies under one key have in common counts as chance."""
    real, plan = RealLayer(setting, 5), setting.plan
    assert real.tau == pytest.approx(setting.tau, rel=0.01)
    perturb = Perturbation({"layer": real.simulated}, "evaluate", 3)
    zeros = torch.zeros(replies, *plan.shape.output_shape)
    observed = np.stack([shares(plan, real.errors(replies)) for _ in range(keys)])
    drawn = [perturb("layer", zeros).numpy().astype(np.int64) for _ in range(4 * keys)]
    expected = np.stack([shares(plan, errors) for errors in drawn])
    seldom = 3 / (keys * replies * plan.output_positions.size)  # what is rarer may be seen in one of the two alone
    spread = np.sqrt(observed.var(0, ddof=1) / keys + expected.var(0, ddof=1) / len(expected) + seldom**2)
    difference = observed.mean(0) - expected.mean(0)
    assert np.all(np.abs(difference) < DEVIATIONS * spread), (observed.mean(0), expected.mean(0), difference / spread)
    assert spread[1] < precision * observed[:, 1].mean()  # so the comparison means something
    rate = decryption_error_rate(1 / (2 * real.simulated.tau), plan.noise(real.layer.weight).coefficients)
    assert abs(observed[:, 1].mean() - rate) < DEVIATIONS * spread[1]


@pytest.mark.parametrize("name", SETTINGS)
def test_real_replies_are_off_as_simulated(name: str) -> None:
    compare(SETTINGS[name], keys=30, replies=20, precision=0.12)


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_many_real_replies_are_off_as_simulated(name: str) -> None:
    compare(SETTINGS[name], keys=200, replies=60, precision=0.02)
