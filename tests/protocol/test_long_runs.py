"""Many images through the protocol: every output right at 2^-40, and at errors that are tolerated as far off as
simulated, layer by layer and at the network's output.

A right program fails a test of a distribution here once in ten thousand times.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from support.protocol_sessions import FLOODED, FLOODED_SLOTS, NETWORK, P_POWER, P_PRIME, ROOT, session

from autoprivacy.data.dataset import Dataset, load
from autoprivacy.data.origins import prepare
from autoprivacy.he.bfv.linear import ServerLinear
from autoprivacy.he.parameters.parameter_set import Target
from autoprivacy.he.parameters.policy import EXACT_TARGET, Policy
from autoprivacy.networks import build
from autoprivacy.protocol.client import Client
from autoprivacy.protocol.session import Agreement
from autoprivacy.protocol.shares import apply_layer
from autoprivacy.quantization.integer_network import IntegerNetwork, to_signed
from autoprivacy.quantization.quantize import QuantizationSettings, quantize, required_range
from autoprivacy.search.differences import nearest, simulated_differences
from autoprivacy.search.error_draws import error_rate
from autoprivacy.selection.schemes import darl, layerwise
from autoprivacy.training.checkpoints import load_weights

IMAGES, LARGE_IMAGES = 200, 20
SIGNIFICANCE = 1e-4
DEVIATIONS = stats.norm.isf(SIGNIFICANCE / 2)
# How far the variance of a layer's errors may be from the prediction besides chance: c1's rounding, shared by a whole
# ciphertext, is multiplied by a secret whose weight, 2n/3 on average, has a standard deviation of 1.1% at n = 4096.
VARIANCE_OF_A_KEY = 0.03
BINS, COUNTED = 16, 4000  # bins of equal probability; outputs counted, so few that a key's variance does not show
TAUS = (2.0, 5.0, 12.0, 30.0, 80.0, 3.0, 7.0, 20.0)

pytestmark = pytest.mark.slow


def policies(network: IntegerNetwork, p: int, slots: bool = True) -> dict[str, Policy]:
    """At 2^-40: one set for the network, and a set per layer."""
    targets = dict.fromkeys(network.layers, EXACT_TARGET)
    named = {"coefficient": FLOODED, "slot": FLOODED_SLOTS} if slots else {"coefficient": FLOODED}
    return {
        **{f"darl, {name}": darl(network, "n", p, selection) for name, selection in named.items()},
        **{f"autoprivacy, {name}": layerwise(network, "n", p, targets, own) for name, own in named.items()},
    }


def outputs_of(policy: Policy, network: IntegerNetwork, images: np.ndarray) -> np.ndarray:
    """Of a private inference of every image, one session for all."""
    with session(policy, network) as (client, _):
        return np.stack([client.infer(client.prepare(), image) for image in images])


@pytest.mark.parametrize("name", policies(NETWORK, P_PRIME))
def test_every_output_of_many_images_is_the_integer_networks(name: str) -> None:
    policy = policies(NETWORK, P_PRIME)[name]
    assert not policy.approximate
    images = np.random.default_rng(21).integers(-128, 128, (IMAGES, 3, 8, 8))
    assert np.array_equal(outputs_of(policy, NETWORK, images), nearest(NETWORK, policy, images))


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The committed sample of CIFAR-10."""
    path = tmp_path_factory.mktemp("sample") / "sample.npz"
    prepare("cifar10-sample", path, None, None, ROOT / "data", path.parent)
    return load(path)


@pytest.fixture(scope="module")
def seven_cnet(sample: Dataset) -> tuple[IntegerNetwork, int]:
    """The published 7CNET as an integer network, and a power of two that holds its accumulators."""
    model = build("autoprivacy.networks.seven_cnet:seven_cnet", 10)
    load_weights(model, Path(ROOT / "models" / "7cnet-cifar10.npz"))
    network, rows = quantize(model.eval(), sample, QuantizationSettings(calibration_images=200))
    minimum, maximum = required_range(rows)
    return network, 2 << max(maximum, -minimum).bit_length()


@pytest.mark.parametrize("name", ["darl, coefficient", "autoprivacy, coefficient"])
def test_every_output_of_7cnet_is_the_integer_networks(
    name: str, seven_cnet: tuple[IntegerNetwork, int], sample: Dataset
) -> None:
    network, p = seven_cnet
    policy = policies(network, p, slots=False)[name]
    images = network.architecture.quantize_images(sample.test.images[:LARGE_IMAGES])
    outputs, expected = outputs_of(policy, network, images), nearest(network, policy, images)
    assert np.array_equal(outputs, expected)
    assert np.mean(outputs.argmax(1) == sample.test.labels[:LARGE_IMAGES]) > 0.5  # these are images that it knows


class Masks:
    """What the server adds to the replies of every layer, layer by layer, in the order of the policy."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._by_layer: dict[int, list[np.ndarray]] = {}
        evaluate = ServerLinear.evaluate

        def recording(layer: ServerLinear, cipher, message, mask, *more) -> bytes:  # type: ignore[no-untyped-def]
            self._by_layer.setdefault(id(layer), []).append(mask.astype(np.int64))
            return evaluate(layer, cipher, message, mask, *more)

        monkeypatch.setattr(ServerLinear, "evaluate", recording)

    def of(self, network: IntegerNetwork) -> dict[str, list[np.ndarray]]:
        """By layer, one mask for every bundle."""
        return dict(zip(network.layers, self._by_layer.values(), strict=True))


def layer_errors(
    policy: Policy, network: IntegerNetwork, count: int, monkeypatch: pytest.MonkeyPatch
) -> dict[str, np.ndarray]:
    """What the client's shares of every layer's outputs are off by, for so many bundles, each of a session of its own.

    Its share is M r - s + error: M, r and s are known here.
    """
    errors: dict[str, list[np.ndarray]] = {}
    for _ in range(count):
        with monkeypatch.context() as patch:
            masks = Masks(patch)
            with session(policy, network) as (client, _):
                # it keeps shares that a client forgets
                client._settle = lambda bundle: None  # type: ignore[method-assign]
                bundle = client.prepare()
        for name, (mask,) in masks.of(network).items():
            p = client.agreement.modulus(name)
            exact = masked_product(client, network, name, bundle.shares) - mask
            errors.setdefault(name, []).append(to_signed(bundle.shares[name][p] - exact, p).reshape(-1))
    return {name: np.concatenate(own) for name, own in errors.items()}


def masked_product(client: Client, network: IntegerNetwork, name: str, shares: dict) -> np.ndarray:  # type: ignore[type-arg]
    """M r of a layer, without its bias."""
    node = next(node for node in client.agreement.linear_nodes() if node.name == name)
    p, layer = client.agreement.modulus(name), network.layers[name]
    return apply_layer(replace(layer, bias=np.zeros_like(layer.bias)), shares[node.inputs[0]][p], p)


def tie(agreement: Agreement, name: str) -> float:
    """The mean of a layer's errors where p = 2^k.

    A reply's phase is a multiple of g = p / 2^c1, c1 the bits of its second polynomial. Where g < 1 it lies half way
    between two plaintexts with probability g and is rounded up then.
    """
    step = agreement.modulus(name) / 2.0 ** agreement.reply_bits(name).c1
    return step / 2 if step < 1 else 0.0


def test_errors_of_every_layer_of_7cnet_are_as_predicted(
    seven_cnet: tuple[IntegerNetwork, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mean, variance, rate and distribution of what each layer's outputs are off by; three keys."""
    network, p = seven_cnet
    targets = {name: Target(tau=tau) for name, tau in zip(network.layers, TAUS, strict=True)}
    policy = layerwise(network, "7cnet", p, targets, FLOODED)
    agreement = Agreement(network.architecture, policy)
    for name, errors in layer_errors(policy, network, 3, monkeypatch).items():
        tau, count = policy.layer(name).predicted["tau"], errors.size
        assert tau == pytest.approx(targets[name].tau, rel=0.02)
        variance = tau**2 + 1 / 12  # of a Gaussian that is rounded
        assert abs(errors.mean() - tie(agreement, name)) < DEVIATIONS * np.sqrt(variance / count), name
        chance = DEVIATIONS * np.sqrt(2 / count)
        assert abs(errors.var() / variance - 1) < chance + VARIANCE_OF_A_KEY, name
        wrong, rate = np.count_nonzero(errors) / count, error_rate(tau)
        # a key's variance moves the rate with it
        slack = DEVIATIONS * np.sqrt(rate * (1 - rate) / count) + (1 - rate) * VARIANCE_OF_A_KEY
        assert abs(wrong - rate) < slack, name
        if count >= COUNTED:
            assert_rounded_gaussian(errors, tau)


def assert_rounded_gaussian(errors: np.ndarray, tau: float) -> None:
    """Chi-squared over bins of about equal probability under round(N(0, tau^2))."""
    drawn = np.random.default_rng(3).choice(errors, COUNTED, replace=False)
    edges = np.unique(np.rint(stats.norm.ppf(np.arange(1, BINS) / BINS) * tau)) + 0.5
    expected = np.diff(stats.norm.cdf(np.concatenate([[-np.inf], edges, [np.inf]]) / tau)) * COUNTED
    counts = np.bincount(np.searchsorted(edges, drawn), minlength=len(expected))
    assert expected.min() > 20 and stats.chisquare(counts, expected).pvalue > SIGNIFICANCE


def test_errors_of_the_last_layer_are_those_of_the_logits() -> None:
    """All other layers exact: 200 images, five outputs each, an error for every one."""
    targets = dict.fromkeys(NETWORK.layers, EXACT_TARGET) | {"fc": Target(tau=40.0)}
    policy = layerwise(NETWORK, "n", P_POWER, targets, FLOODED)
    images = np.random.default_rng(22).integers(-128, 128, (IMAGES, 3, 8, 8))
    errors = (outputs_of(policy, NETWORK, images) - nearest(NETWORK, policy, images)).reshape(-1)
    tau, count = policy.layer("fc").predicted["tau"], errors.size
    assert abs(errors.mean() - tie(Agreement(NETWORK.architecture, policy), "fc")) < DEVIATIONS * tau / np.sqrt(count)
    assert abs(errors.var() / tau**2 - 1) < DEVIATIONS * np.sqrt(2 / count) + VARIANCE_OF_A_KEY
    assert stats.kstest(errors + np.random.default_rng(1).uniform(-0.5, 0.5, count), "norm", (0, tau)).pvalue > (
        SIGNIFICANCE
    )


@pytest.mark.parametrize("ignored", [0, 6])
def test_logits_are_off_as_simulated(ignored: int) -> None:
    """Errors above 1 in every layer, with and without ignored share bits, by the test of Kolmogorov and Smirnov.

    One output of every image, in units of its own simulated standard deviation, so that images are alike.
    """
    target = Target(tau=25.0, ignored_share_bits=ignored)
    policy = layerwise(NETWORK, "n", P_POWER, dict.fromkeys(NETWORK.layers, target), FLOODED)
    images = np.random.default_rng(23).integers(-128, 128, (IMAGES, 3, 8, 8))
    real = outputs_of(policy, NETWORK, images) - nearest(NETWORK, policy, images)
    simulated = simulated_differences(NETWORK, policy, images, 1, 100)
    own = np.arange(IMAGES), np.arange(IMAGES) % real.shape[1]
    spread = simulated.std(0)[own]
    drawn = (simulated[:, *own] / spread).reshape(-1)
    assert spread.min() > 10 and stats.ks_2samp(real[own] / spread, drawn).pvalue > SIGNIFICANCE
