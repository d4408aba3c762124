"""What parameters are selected under, the same for all layers: profile, link, flooding, packing, sizes of primes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from autoprivacy.he.packing import packing_named
from autoprivacy.he.packing.plan import Plan, Workload
from autoprivacy.he.parameters.parameter_set import Flooding, ParameterSet, ReplyBits
from autoprivacy.he.profiling.profile import OperationProfile
from autoprivacy.he.ring.primes import PRIME_SIZES
from autoprivacy.link import Link
from autoprivacy.quantization.integer_network import LayerShape
from autoprivacy.quantization.outputs import Output
from autoprivacy.selection.latency import layer_cost, operation_counts
from autoprivacy.selection.secure_set import Setting

COEFFICIENT = "coefficient"  # the packing where none is named


@dataclass(frozen=True)
class Selection:
    """What parameters are selected under, the same for all layers.

    Attributes:
        profile: what latency is predicted with; n, prime counts and sizes that it lacks are not considered.
        link: the network between the parties.
        flooding: how replies hide the weights.
        packing: the packing's name. In slot packing a target's error rate is a ciphertext's.
        activation: how activations are computed where that is chosen: `garbled`, `lookup`, or `auto`, the cheaper.
        output: what clients learn of an image.
    """

    profile: OperationProfile
    link: Link
    flooding: Flooding
    packing: str = COEFFICIENT
    activation: str = "auto"
    output: Output = "logits"

    @classmethod
    def from_config(cls, settings: Mapping[str, Any], profile: OperationProfile, packing: str) -> Selection:
        """From the config's part `selection` (config/schema.yaml)."""
        flooding = Flooding(settings["flooding"], settings["kappa"])
        link, activation = Link(**settings["link"]), settings.get("activation", "auto")
        return cls(profile, link, flooding, packing, activation, settings.get("output", "logits"))

    def degrees(self, p: int) -> list[int]:
        """The polynomial degrees measured at which p can be used; UserError where there is none."""
        return packing_named(self.packing).degrees(self.profile.degrees, p)

    def settings(self, p: int, degree: int) -> Iterator[Setting]:
        """What sets are sized for at n: primes up to the size of each kernel."""
        factors = packing_named(self.packing).plaintext_factors(p, degree)
        for size in PRIME_SIZES:
            yield Setting(degree, p, self.flooding, size, factors)

    def plans(self, shape: LayerShape, degree: int, p: int) -> tuple[Plan, ...]:
        """The tilings of a layer worth considering."""
        return _plans(self.packing, shape, degree, p)

    def covers(self, workload: Workload, parameters: ParameterSet) -> bool:
        """Whether the profile has all operations of an evaluation at a set."""
        needed = [operation for operation, count in operation_counts(workload).items() if count]
        return self.profile.covers(parameters, needed)

    def latency(self, workload: Workload, parameters: ParameterSet, bits: ReplyBits) -> float:
        """The predicted latency of a layer in seconds, its replies sent in so many bits."""
        return layer_cost(workload, parameters, bits, self.profile, self.link)["latency_seconds"]


@cache
def _plans(packing: str, shape: LayerShape, degree: int, p: int) -> tuple[Plan, ...]:
    return tuple(packing_named(packing).plans(shape, degree, p))
