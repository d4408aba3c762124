"""How the fast evaluator keeps integers in floats, so that an activation's shift and rounding cost nothing.

Scaling a layer's weights by 2^-f and adding the rounding constant to its bias leaves of an activation only to round
down and to clip; in binary floating point both are exact.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

from autoprivacy.quantization.integer_network import Architecture, Node
from autoprivacy.quantization.reference import rounding_constant


@dataclass(frozen=True)
class Form:
    """An integer x is kept as (x + offset) / 2^exponent."""

    exponent: int = 0
    offset: int = 0

    @property
    def unit(self) -> float:
        """What an integer's 1 is kept as."""
        return 2.0**-self.exponent


INTEGER = Form()


def readers(architecture: Architecture) -> dict[str, list[Node]]:
    """The nodes that read each node."""
    found: dict[str, list[Node]] = defaultdict(list)
    for node in architecture.nodes:
        for name in node.inputs:
            found[name].append(node)
    return found


def single_use(architecture: Architecture) -> set[str]:
    """The linear layers and additions that one node alone reads: it may overwrite them."""
    reading = readers(architecture)
    return {
        node.name for node in architecture.nodes if node.operation in ("linear", "add") and len(reading[node.name]) == 1
    }


def forms(architecture: Architecture) -> dict[str, Form]:
    """The form of every node's values."""
    wanted = _wanted(architecture)
    chosen: dict[str, Form] = {}
    for node in architecture.nodes:
        if node.operation in ("input", "activation"):
            form = INTEGER
        elif node.operation == "linear":
            form = wanted.get(node.name, INTEGER)
        elif node.operation == "add":
            offset = sum(chosen[name].offset for name in node.inputs)
            form = Form(wanted.get(node.name, INTEGER).exponent, offset)
        elif node.operation == "scale" and is_power_of_two(node.factor):
            form = Form(chosen[node.inputs[0]].exponent + int(math.log2(node.factor)))
        else:
            form = chosen[node.inputs[0]]
        chosen[node.name] = form
    return chosen


def is_power_of_two(factor: int) -> bool:
    """Whether multiplying by it only changes a form's exponent."""
    return factor > 0 and factor & (factor - 1) == 0


def _wanted(architecture: Architecture) -> dict[str, Form]:
    """The forms that activations wish of the layers and additions which they alone read, through such additions too."""
    single = single_use(architecture)
    wanted: dict[str, Form] = {}
    for node in reversed(architecture.nodes):
        if node.operation == "activation":
            form = Form(node.shift, rounding_constant(node.shift))
        elif node.operation == "add" and node.name in wanted:
            form = wanted[node.name]
        else:
            continue
        for name in dict.fromkeys(node.inputs):
            if name in single:
                wanted[name] = form
                form = Form(form.exponent)  # one of an addition's inputs brings the offset
    return wanted
