"""How the fast evaluator keeps integers in floats, so that an activation's shift and rounding cost nothing.

Scaling a layer's weights by 2^-f and adding the rounding constant to its bias leaves of an activation only to round
down and to clip; in binary floating point both are exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from autoprivacy.quantization.integer_network import Architecture, Node, rounding_constant


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


def shapable(node: Node) -> bool:
    """Whether an evaluator can give the node's values any form at no cost."""
    return node.operation in ("linear", "add") or (node.operation == "scale" and not is_exponent(node))


def single_use(architecture: Architecture) -> set[str]:
    """The shapable nodes that one node alone reads: it may have their form to its liking, and overwrite them."""
    reading = architecture.readers
    return {node.name for node in architecture.nodes if shapable(node) and len(reading[node.name]) == 1}


def is_exponent(node: Node) -> bool:
    """Whether a scale node's factor is one power of two, so that it only changes the form's exponent."""
    return isinstance(node.factor, int) and node.factor > 0 and node.factor & (node.factor - 1) == 0


def activation_form(node: Node, ignored_bits: int = 0) -> Form:
    """What an activation that ignores so many share bits rounds down and clips."""
    return Form(node.shift, rounding_constant(node.shift, ignored_bits))


def forms(architecture: Architecture, ignored_bits: Mapping[str, int] | None = None) -> dict[str, Form]:
    """The form of every node's values; `ignored_bits` of those activations whose circuits are simulated."""
    wanted = _wanted(architecture, ignored_bits or {})
    chosen: dict[str, Form] = {}
    for node in architecture.nodes:
        if node.operation in ("input", "activation"):
            form = INTEGER
        elif node.operation == "add":
            offset = sum(chosen[name].offset for name in node.inputs)
            form = Form(wanted.get(node.name, INTEGER).exponent, offset)
        elif shapable(node):
            form = wanted.get(node.name, INTEGER)
        elif node.operation == "scale":
            form = Form(chosen[node.inputs[0]].exponent + int(node.factors.max()).bit_length() - 1)
        else:
            form = chosen[node.inputs[0]]
        chosen[node.name] = form
    return chosen


def _wanted(architecture: Architecture, ignored_bits: Mapping[str, int]) -> dict[str, Form]:
    """The forms that activations wish of the nodes which they alone read, through additions too."""
    single = single_use(architecture)
    wanted: dict[str, Form] = {}
    for node in reversed(architecture.nodes):
        if node.operation == "activation":
            form = activation_form(node, ignored_bits.get(node.name, 0))
        elif node.operation == "add" and node.name in wanted:
            form = wanted[node.name]
        else:
            continue
        for name in dict.fromkeys(node.inputs):
            if name in single:
                wanted[name] = form
                form = Form(form.exponent)  # one of an addition's inputs brings the offset
    return wanted
