"""How the values of a linear layer are laid out in polynomials: the packings by name.

Another packing is a class with the operations of `packing.plan.Plan` and an entry here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from autoprivacy.errors import UserError
from autoprivacy.he.packing import coefficient, slot
from autoprivacy.he.packing.batching import batching_factors
from autoprivacy.he.packing.composite_modulus import composed
from autoprivacy.he.packing.plan import Plan
from autoprivacy.he.parameters.parameter_set import ParameterSet
from autoprivacy.quantization.integer_network import MAXIMUM_MODULUS_BITS, LayerShape

SLOT = "slot"  # the packing that Beaver triples use, whatever layers do


@dataclass(frozen=True)
class Packing:
    """One way to lay layers out.

    Attributes:
        name: as policies and the config name it.
        plans: the tilings of a layer worth considering, from (shape, n, p).
        from_tiling: the plan of a policy file's tiling, from (shape, n, p, tiling).
        in_slots: values stand in slots, so p has to be a prime == 1 mod 2n or a product of such primes, and evaluations
            may rotate, which takes a key-switching prime.
    """

    name: str
    plans: Callable[[LayerShape, int, int], Sequence[Plan]]
    from_tiling: Callable[[LayerShape, int, int, dict[str, int]], Plan]
    in_slots: bool

    def degrees(self, degrees: Collection[int], p: int) -> list[int]:
        """Those polynomial degrees at which p can be used; UserError where there is none."""
        usable = [degree for degree in degrees if not self.in_slots or batching_factors(p, degree)]
        if not usable:
            raise UserError(
                f"plaintext modulus {p} does not batch at any n of {list(degrees)}: {self.name} packing needs a prime "
                "== 1 mod 2n or a product of distinct such primes; take one, or coefficient packing"
            )
        return usable

    def plaintext_factors(self, p: int, degree: int) -> tuple[int, ...]:
        """The factors of a composite p that layers are evaluated by at n, ascending; none where p is taken as it is."""
        factors = batching_factors(p, degree) if self.in_slots else ()
        return factors if len(factors) > 1 else ()

    def check_factors(self, layer: str, parameters: ParameterSet) -> None:
        """UserError unless a layer's set, as a policy file gives it, has the factors of p where p must have some."""
        p, got = parameters.plaintext_modulus, parameters.plaintext_factors
        if got and not self.in_slots:
            raise UserError(
                f"layer {layer}: plaintext factors {got} in {self.name} packing: only slots need prime moduli, here "
                f"layers are evaluated modulo p = {p} at once; leave the factors out"
            )
        wanted = self.plaintext_factors(p, parameters.polynomial_degree)
        if got != wanted:
            raise UserError(
                f"layer {layer}: plaintext factors {got or 'none'} of p = {p}; expected {wanted or 'none'}: in "
                f"{self.name} packing a composite p below 2^{MAXIMUM_MODULUS_BITS} is evaluated factor by factor"
            )


def _slot_plans(shape: LayerShape, degree: int, p: int) -> list[Plan]:
    factors = batching_factors(p, degree) or (p,)
    return [composed(plan, factors) for plan in slot.admissible_plans(shape, degree, factors[-1])]


def _slot_plan(shape: LayerShape, degree: int, p: int, tiling: dict[str, int]) -> Plan:
    factors = batching_factors(p, degree) or (p,)
    return composed(slot.SlotPlan.from_tiling(shape, degree, factors[-1], tiling), factors)


PACKINGS = {
    packing.name: packing
    for packing in (
        Packing(
            "coefficient",
            lambda shape, degree, _: coefficient.admissible_plans(shape, degree),
            lambda shape, degree, _, tiling: coefficient.CoefficientPlan.from_tiling(shape, degree, tiling),
            in_slots=False,
        ),
        Packing(SLOT, _slot_plans, _slot_plan, in_slots=True),
    )
}


def packing_named(name: str) -> Packing:
    """The packing of that name; UserError for an unknown one."""
    if name not in PACKINGS:
        raise UserError(f"packing {name!r}: expected one of {', '.join(PACKINGS)}")
    return PACKINGS[name]
