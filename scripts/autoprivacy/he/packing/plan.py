"""What a packing offers, and what the packings share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Protocol, Self, TypeVar

import numpy as np

from autoprivacy.errors import UserError
from autoprivacy.he.parameters.noise import LayerNoise
from autoprivacy.he.parameters.noise_bounds import NoiseBound
from autoprivacy.he.ring.ring import Ring
from autoprivacy.quantization.integer_network import LayerShape

# Ciphertexts [T, 2, k, n] and a Galois element to the ciphertexts of the rotated plaintexts.
Rotate = Callable[[np.ndarray, int], np.ndarray]


@dataclass(frozen=True)
class Workload:
    """What an evaluation sends and does; determines its cost. The workloads of evaluations at one n add up.

    Attributes:
        degree: n.
        input_ciphertexts, output_ciphertexts: how many the client sends, and the server replies with.
        products: of a ciphertext with a plaintext polynomial.
        sums: sums of products.
        rotations: of ciphertexts, row swaps among them.
        encodings: transforms between slots and plaintext polynomials.
        coefficients_per_output: how many coefficients must decrypt rightly for an output to be right.
        reply_coefficients: how many coefficients of the replies' plaintexts the client needs.
        evaluations: how many have been added up.
    """

    degree: int
    input_ciphertexts: int
    output_ciphertexts: int
    products: int
    sums: int
    rotations: int
    encodings: int
    coefficients_per_output: int
    reply_coefficients: int
    evaluations: int = 1

    def __add__(self, other: Workload) -> Workload:
        """Both of them, one after the other; ValueError where n differs."""
        if self.degree != other.degree:
            raise ValueError(f"workloads at n = {self.degree} and n = {other.degree} do not add up")
        counts = (getattr(self, part.name) + getattr(other, part.name) for part in fields(self)[1:])
        return Workload(self.degree, *counts)


class Plan(Protocol):
    """How one layer is laid out in polynomials of n coefficients; frozen, derived from the layer's public shape alone.

    This is what selection and the agreement of the parties need. Layers are evaluated by `components`: the plan
    itself, or where the plaintext modulus is composite one for each of its factors.
    """

    @property
    def components(self) -> Sequence[EvaluationPlan]:
        """The plans that evaluate the layer, by factor of the plaintext modulus."""

    @property
    def workload(self) -> Workload:
        """Ciphertexts and operations of all components."""

    @property
    def shape(self) -> LayerShape:
        """The layer."""

    @property
    def degree(self) -> int:
        """n."""

    @property
    def tiling(self) -> dict[str, int]:
        """What a policy file holds of it."""

    @property
    def galois_elements(self) -> tuple[int, ...]:
        """The automorphisms that `gather` uses, ascending: the client makes a Galois key for each."""

    @property
    def groups(self) -> np.ndarray:
        """Outputs that decrypt wrongly together have one number, int64 [O, H_out, W_out]."""

    def noise(self, weight: np.ndarray) -> LayerNoise:
        """What an evaluation does to fresh noise, in the reply where it is most."""

    def noise_bound(self, weight: np.ndarray) -> NoiseBound:
        """What an evaluation does to worst-case bounds of noise, in the reply where it is most."""

    def public_noise(self, norm_bound: float) -> LayerNoise:
        """The most that `noise` can be for weights whose 2-norm, of those that feed one output, is within a bound."""

    def public_noise_bound(self, norm_bound: float) -> NoiseBound:
        """The most that `noise_bound` can be for such weights."""


class EvaluationPlan(ABC):
    """A `Plan` under a plaintext modulus that is not composite.

    The walk of a layer: `encode_input`, encryption, `products` with the polynomials of `encode_weights`, `gather`,
    masks by `encode_output`, decryption, `decode_output`. Ciphertexts are numbered block * bands + band: a block holds
    some channels (or features of them), a band some pixels; all bands meet the same weights.
    """

    shape: LayerShape
    degree: int

    @property
    def components(self) -> Sequence[Self]:
        """The plan itself."""
        return (self,)

    @property
    @abstractmethod
    def workload(self) -> Workload:
        """Ciphertexts and operations."""

    @property
    @abstractmethod
    def tiling(self) -> dict[str, int]:
        """What distinguishes this plan from others of the same layer, n and p."""

    @property
    @abstractmethod
    def bands(self) -> int:
        """Into how many parts the image is cut."""

    @property
    @abstractmethod
    def input_blocks(self) -> int:
        """Ciphertexts per band that the client sends."""

    @property
    @abstractmethod
    def output_blocks(self) -> int:
        """Ciphertexts per band that the server replies with."""

    @property
    def input_ciphertexts(self) -> int:
        """How many ciphertexts the client sends."""
        return self.input_blocks * self.bands

    @property
    def output_ciphertexts(self) -> int:
        """How many ciphertexts the server replies with."""
        return self.output_blocks * self.bands

    @property
    @abstractmethod
    def sum_count(self) -> int:
        """How many sums of products there are per band."""

    @property
    @abstractmethod
    def products(self) -> tuple[np.ndarray, np.ndarray]:
        """Input block and sum of each weight polynomial, int64 [polynomials] each, by sum."""

    @property
    @abstractmethod
    def galois_elements(self) -> tuple[int, ...]:
        """As in `Plan`."""

    @property
    @abstractmethod
    def reply_positions(self) -> np.ndarray | None:
        """Which coefficients the client needs of [output_ciphertexts * n], ascending, int64; None: all."""

    @property
    @abstractmethod
    def output_positions(self) -> np.ndarray:
        """Where each output stands among the places [output_ciphertexts * n], int64 [O * H_out * W_out]."""

    @property
    @abstractmethod
    def groups(self) -> np.ndarray:
        """As in `Plan`."""

    @abstractmethod
    def noise(self, weight: np.ndarray) -> LayerNoise:
        """As in `Plan`."""

    @abstractmethod
    def noise_bound(self, weight: np.ndarray) -> NoiseBound:
        """As in `Plan`."""

    @abstractmethod
    def public_noise(self, norm_bound: float) -> LayerNoise:
        """As in `Plan`."""

    @abstractmethod
    def public_noise_bound(self, norm_bound: float) -> NoiseBound:
        """As in `Plan`."""

    @abstractmethod
    def encode_input(self, values: np.ndarray) -> np.ndarray:
        """Residues modulo p, uint64 [C, H, W], as plaintext polynomials uint64 [input_ciphertexts, n]."""

    @abstractmethod
    def encode_weights(self, weight: np.ndarray) -> np.ndarray:
        """Weights int64 [O, C / groups, kernel height, kernel width] as signed coefficients int64 [polynomials, n]."""

    @abstractmethod
    def gather(self, ring: Ring, sums: np.ndarray, rotate: Rotate) -> np.ndarray:
        """The results from the sums of products: [sum_count, bands, 2, k, n] -> [output_blocks, bands, 2, k, n]."""

    @abstractmethod
    def encode_output(self, places: np.ndarray) -> np.ndarray:
        """Residues in the places of results, uint64 [output_ciphertexts, n], as plaintext polynomials."""

    @abstractmethod
    def decode_output(self, polynomials: np.ndarray) -> np.ndarray:
        """The outputs [O, H_out, W_out] of plaintext polynomials [output_ciphertexts, n]."""


AnyPlan = TypeVar("AnyPlan", bound=Plan)


def cheapest_by_counts(candidates: Iterable[AnyPlan], counts: Callable[[AnyPlan], tuple[int, ...]]) -> list[AnyPlan]:
    """The plans of which none needs as much as another of everything that `counts` counts; of equals the first."""
    plans: dict[tuple[int, ...], AnyPlan] = {}
    for plan in candidates:
        plans.setdefault(counts(plan), plan)
    return [
        plan
        for cost, plan in plans.items()
        if not any(other != cost and all(a <= b for a, b in zip(other, cost, strict=True)) for other in plans)
    ]


def tiling_from_json(shape: LayerShape, tiling: dict[str, int], make: Callable[[dict[str, int]], AnyPlan]) -> AnyPlan:
    """`make` of the tiling's sizes as integers; UserError where they are damaged or of another packing."""
    try:
        return make({name: int(value) for name, value in tiling.items()})
    except (TypeError, ValueError) as error:
        raise UserError(f"layer {shape.name}: tiling {tiling}: {error}") from None
