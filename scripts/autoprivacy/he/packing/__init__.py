"""How the values of a linear layer are laid out in polynomials: the packings by name.

Another packing is a class with the operations of `packing.plan.Plan` and an entry here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from autoprivacy.errors import UserError
from autoprivacy.he.packing import coefficient, slot
from autoprivacy.he.packing.plan import Plan
from autoprivacy.quantization.integer_network import LayerShape


@dataclass(frozen=True)
class Packing:
    """One way to lay layers out.

    Attributes:
        name: as policies and the config name it.
        plans: the tilings of a layer worth considering, from (shape, n, p).
        from_tiling: the plan of a policy file's tiling, from (shape, n, p, tiling).
        in_slots: values stand in slots, so p has to be a prime == 1 mod 2n and evaluations may rotate, which takes a
            key-switching prime.
    """

    name: str
    plans: Callable[[LayerShape, int, int], Sequence[Plan]]
    from_tiling: Callable[[LayerShape, int, int, dict[str, int]], Plan]
    in_slots: bool

    def degrees(self, degrees: Collection[int], p: int) -> list[int]:
        """Those polynomial degrees at which p can be used; UserError where there is none."""
        usable = [degree for degree in degrees if not self.in_slots or p % (2 * degree) == 1]
        if not usable:
            raise UserError(
                f"plaintext modulus {p} does not batch at any n of {list(degrees)}: {self.name} packing needs a prime "
                "== 1 mod 2n; take such a prime, or coefficient packing"
            )
        return usable


PACKINGS = {
    packing.name: packing
    for packing in (
        Packing(
            "coefficient",
            lambda shape, degree, _: coefficient.admissible_plans(shape, degree),
            lambda shape, degree, _, tiling: coefficient.CoefficientPlan.from_tiling(shape, degree, tiling),
            in_slots=False,
        ),
        Packing("slot", slot.admissible_plans, slot.SlotPlan.from_tiling, in_slots=True),
    )
}


def packing_named(name: str) -> Packing:
    """The packing of that name; UserError for an unknown one."""
    if name not in PACKINGS:
        raise UserError(f"packing {name!r}: expected one of {', '.join(PACKINGS)}")
    return PACKINGS[name]
