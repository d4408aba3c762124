"""What binds a policy to the private weights that it was made for without telling anybody else of them: a salted hash
of the whole integer network, and a coarse bound of every layer's norm."""

from __future__ import annotations

import hashlib
import json
import math
import secrets
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from autoprivacy.errors import UserError
from autoprivacy.quantization.integer_network import IntegerNetwork

SALT_BYTES = 32
BOUND_STEPS = 2  # norm bounds are powers of 2^(1 / BOUND_STEPS)
ROUNDING = 1e-9  # of floating point, relative


@dataclass(frozen=True)
class NetworkCommitment:
    """SHA-256 of a random salt and an integer network: its graph with shapes, shifts and ranges, weights and biases.

    It stays with the server. The salt keeps equal networks from having equal digests in published policies; who has a
    policy file with its salt can test a guess of the whole network, and nothing less.

    Attributes:
        salt, digest: hexadecimal.
    """

    salt: str
    digest: str

    @classmethod
    def of(cls, network: IntegerNetwork) -> NetworkCommitment:
        """A commitment to the network under a fresh salt."""
        salt = secrets.token_bytes(SALT_BYTES)
        return cls(salt.hex(), _digest(salt, network))

    def matches(self, network: IntegerNetwork) -> bool:
        """Whether it is a commitment to this network."""
        return _digest(bytes.fromhex(self.salt), network) == self.digest

    def as_json(self) -> dict[str, Any]:
        """The commitment as it stands in a policy file."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> NetworkCommitment:
        """The inverse of `as_json`; ValueError where one of the two is not hexadecimal."""
        return cls(bytes.fromhex(value["salt"]).hex(), bytes.fromhex(value["digest"]).hex())


def _digest(salt: bytes, network: IntegerNetwork) -> str:
    header = json.dumps(
        {"architecture": network.architecture.as_json(), "output_scale": network.output_scale}, sort_keys=True
    ).encode()
    hashed = hashlib.sha256(salt + len(header).to_bytes(8, "little") + header)
    for layer in network.architecture.layers:
        arrays = network.layers[layer.name]
        for array in (arrays.weight, arrays.bias):  # their sizes follow from the header
            hashed.update(np.ascontiguousarray(array, "<i8").tobytes())
    return hashed.hexdigest()


def coarse_bound(norm: float) -> float:
    """The smallest power of sqrt 2 that is not below a norm, at least 1."""
    return 2.0 ** (math.ceil(BOUND_STEPS * math.log2(max(norm, 1.0))) / BOUND_STEPS)


def norm_bounds(network: IntegerNetwork) -> dict[str, float]:
    """By layer the coarse bound of the 2-norm of the weights that feed one output."""
    return {name: coarse_bound(layer.weight_norm) for name, layer in network.layers.items()}


def check_norms(network: IntegerNetwork, bounds: dict[str, float], where: str) -> None:
    """UserError, naming the first layer, unless every layer's norm is within its bound."""
    for name, layer in network.layers.items():
        if layer.weight_norm > bounds[name] * (1 + ROUNDING):
            raise UserError(
                f"{where}: layer {name}: weights of norm {layer.weight_norm:.1f}; the policy's norm_bound is "
                f"{bounds[name]:.1f}, which the flood that hides them is sized for; choose this network's parameters"
            )
