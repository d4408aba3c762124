"""Benchmark of the offline linear part of a whole network: both parties' homomorphic work for one image."""

from __future__ import annotations

from functools import cache

import numpy as np
from torch import nn

from autoprivacy.bench.seal_yardstick import seconds
from autoprivacy.bench.timing import Result, cpu_seconds
from autoprivacy.he.bfv.cipher import ClientCipher, ServerCipher
from autoprivacy.he.bfv.linear import ClientLinear, ServerLinear
from autoprivacy.he.bfv.reply_bits import default_reply_bits
from autoprivacy.he.packing.coefficient import CoefficientPlan
from autoprivacy.he.parameters.parameter_set import Flooding
from autoprivacy.he.parameters.policy import EXACT_TARGET, LayerPolicy, Policy
from autoprivacy.he.profiling.profile import OperationProfile, profile
from autoprivacy.link import Link
from autoprivacy.networks.resnet import resnet32
from autoprivacy.networks.seven_cnet import seven_cnet
from autoprivacy.quantization.integer_network import IntegerNetwork
from autoprivacy.quantization.untrained import untrained_network
from autoprivacy.selection.conditions import Selection
from autoprivacy.selection.schemes import darl

CLASSES, IMAGE = {"7cnet": 10, "resnet32": 100}, (3, 32, 32)
PLAINTEXT_MODULUS = 1 << 17
FLOODING = Flooding("statistical", 40)
TARGET_SECONDS = {"7cnet": 0.2, "resnet32": 0.5}
# What the choice of the set and the tilings is made from: measured on the spot.
DEGREES, PRIME_COUNTS, PROFILE_REPEATS, REPEATS = (4096, 8192), (1, 2, 3), 3, 5
LINK = Link(1e9, 1e-3)


def seven_cnet_offline() -> dict[str, Result]:
    """`_offline` of 7CNET."""
    return _offline("7cnet", seven_cnet(CLASSES["7cnet"]))


def resnet32_offline() -> dict[str, Result]:
    """`_offline` of ResNet-32."""
    return _offline("resnet32", resnet32(CLASSES["resnet32"]))


@cache
def _profile() -> OperationProfile:
    return profile(DEGREES, PRIME_COUNTS, PROFILE_REPEATS)


def _offline(name: str, module: nn.Module) -> dict[str, Result]:
    """The linear layers of a network with random 8-bit weights, under the one set that `darl` chooses.

    Encryption, evaluation and decryption for one image, in coefficient packing with a flood of 2^40, CPU seconds; the
    transforms of the weights, once per model, apart. The yardstick is SEAL's time for the same number of operations.
    """
    network = untrained_network(module, IMAGE)
    policy = darl(network, name, PLAINTEXT_MODULUS, Selection(_profile(), LINK, FLOODING))
    key_holder = ClientCipher(policy.layers[0].parameters)
    cipher = ServerCipher(key_holder.parameters, key_holder.public_key())
    plans = {layer.name: _plan(network, layer) for layer in policy.layers}
    bits = {
        layer.name: layer.reply_bits or default_reply_bits(plans[layer.name].workload, layer.parameters, layer.target)
        for layer in policy.layers
    }
    servers: dict[str, ServerLinear] = {}

    def transform() -> None:
        for layer, plan in plans.items():
            servers[layer] = ServerLinear(
                network.layers[layer], plan, key_holder.parameters, FLOODING, EXACT_TARGET, bits[layer]
            )

    transforms = cpu_seconds(transform, 1)
    clients = {layer: ClientLinear(plan, key_holder, bits[layer]) for layer, plan in plans.items()}
    generator = np.random.default_rng(0)
    values = {
        layer: [
            generator.integers(0, PLAINTEXT_MODULUS, shape, dtype=np.uint64)
            for shape in (plan.shape.input_shape, plan.shape.output_shape)
        ]
        for layer, plan in plans.items()
    }

    def infer() -> None:
        for layer, (share, mask) in values.items():
            clients[layer].decrypt(servers[layer].evaluate(cipher, clients[layer].encrypt(share), mask))

    value = cpu_seconds(infer, REPEATS)
    return {
        f"{name}-offline-linear": Result(value, "s", TARGET_SECONDS[name], _seal_seconds(policy)),
        f"{name}-weight-transforms": Result(transforms, "s"),
    }


def _plan(network: IntegerNetwork, layer: LayerPolicy) -> CoefficientPlan:
    shape = network.layers[layer.name].shape
    return CoefficientPlan.from_tiling(shape, layer.parameters.polynomial_degree, layer.tiling)


def _seal_seconds(policy: Policy) -> float | None:
    """SEAL's time for the policy's operations: ciphertexts transformed there and back, replies re-encrypted."""
    total = 0.0
    for layer in policy.layers:
        primes, counts = layer.parameters.primes, layer.predicted
        seal = seconds(layer.parameters.polynomial_degree, tuple(prime.bit_length() for prime in primes))
        if not seal:
            return None
        total += counts["encrypt"] * (seal["encrypt"] + 2 * len(primes) * seal["transform"])
        total += counts["product"] * seal["product"]
        total += counts["reply"] * (seal["encrypt_public"] + 2 * len(primes) * seal["inverse"])
        total += counts["decrypt"] * seal["decrypt"]
    return total
