"""From a torch module to a plain float graph: tracing, shapes, batch normalisation folded into the weights.

Each operation's own part is in `importing.handlers`.
"""

from __future__ import annotations

import copy
import inspect
from typing import Any

import torch
from torch import Tensor, fx, nn

from autoprivacy.errors import UserError
from autoprivacy.quantization.float_graph import FloatGraph, FloatNode
from autoprivacy.quantization.importing.graph_builder import GraphBuilder, Value, check_finite, operation_name, where
from autoprivacy.quantization.importing.handlers import HANDLERS, INSTEAD, MODULES, OTHER_ORDER, SUPPORTED, Handler
from autoprivacy.quantization.importing.tracing import BATCH, attribute, trace
from autoprivacy.quantization.importing.values import plain
from autoprivacy.quantization.integer_network import Shape

# Largest difference from the module, relative to its largest output, that float64 summation order can explain.
IMPORT_TOLERANCE = 1e-9


def import_module(module: nn.Module, input_shape: Shape) -> FloatGraph:
    """Import a network in its evaluation mode; `module` itself stays as it is.

    A softmax over the classes at its end is left out, so that the graph's outputs are the logits.

    Args:
        module: takes images [N, C, H, W] and returns one tensor.
        input_shape: channels, height, width of an image.

    Raises:
        UserError: an operation is not supported, a weight is not finite, or the graph does not compute what the module
            computes.
    """
    own = copy.deepcopy(module).cpu().double().eval()
    name = f"network {type(module).__name__}"
    for path, tensor in own.state_dict().items():
        place, _, kind = path.rpartition(".")
        check_finite(f"{name}: layer {place or kind}", kind, tensor)
    images = torch.randn(BATCH, *input_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            expected = own(images.clone())
    except Exception as error:  # the module's own code may raise anything
        reason = " ".join(str(error).split())
        raise UserError(f"{name}: fails on {BATCH} images of shape {input_shape}: {reason}") from None
    if not isinstance(expected, Tensor):
        raise UserError(f"{name}: returns a {type(expected).__name__}; expected one tensor")
    if not expected.isfinite().all():
        raise UserError(f"{name}: its outputs are not finite; train it again")
    builder = _built(trace(own, images.clone()), input_shape)
    nodes = _needed(builder.nodes, builder.output)
    graph = FloatGraph(nodes, {node.name: builder.layers[node.name] for node in nodes if node.operation == "linear"})
    # in-place operations on values that are read again deceive a tracer, so the result is compared
    got = graph.outputs(images)
    got = builder.final(got) if builder.final else got
    tolerance = IMPORT_TOLERANCE * (1 + float(expected.abs().max()))
    if got.numel() != expected.numel() or not torch.allclose(got, expected.flatten(1), rtol=0, atol=tolerance):
        raise UserError(
            f"{name}: the imported graph computes something else than the module; look for in-place operations on "
            f"values that are used again"
        )
    return graph


def _needed(nodes: dict[str, FloatNode], output: str) -> tuple[FloatNode, ...]:
    """The nodes that the output depends on and the image: not those that a table took in."""
    wanted, needed = {output}, list[FloatNode]()
    for node in reversed(nodes.values()):
        if node.name in wanted or node.operation == "input":
            needed.append(node)
            wanted.update(node.inputs)
    return tuple(reversed(needed))


def _built(traced: fx.GraphModule, input_shape: Shape) -> GraphBuilder:
    """Import every node of a traced graph."""
    modules = dict(traced.named_modules())
    linear = sum(
        isinstance(modules.get(str(node.target)), nn.Linear) or operation_name(node) == "linear"
        for node in traced.graph.nodes
    )
    builder = GraphBuilder(input_shape, linear)
    for node in traced.graph.nodes:
        if node.op == "placeholder":
            if builder.nodes:
                raise UserError(f"network input {node.name}: a second input; expected one batch of images")
            name = builder.add_node(FloatNode("image", "input", (), input_shape))
            builder.values[node] = Value(name, node, tuple(node.meta["example"].shape))
        elif node.op == "get_attr":
            builder.values[node] = attribute(traced, str(node.target))
        elif node.op == "output":
            for output in node.all_input_nodes:
                builder.output = plain(output, builder.values[output]).node
        else:
            builder.values[node] = _imported(builder, node, modules)
    return builder


def _imported(builder: GraphBuilder, node: fx.Node, modules: dict[str, nn.Module]) -> Value:
    def found(argument: Any) -> Any:
        return builder.values[argument] if isinstance(argument, fx.Node) else argument

    def resolved(argument: Any) -> Any:
        """With what nodes stand for in their place."""
        return fx.node.map_aggregate(argument, found)

    args, kwargs = resolved(node.args), dict(resolved(node.kwargs))
    for first in ("input", "self", "tensors"):
        if first in kwargs and not args:
            args = (kwargs.pop(first),)
    if node.op == "call_module":
        handler, more = _of_module(node, modules[str(node.target)])
        args, kwargs = (args[0], *more), {}
    else:
        handler = _of_function(node)
    try:
        inspect.signature(handler).bind(builder, node, *args, **kwargs)
    except TypeError as error:
        raise UserError(
            f"{where(node)}: called in a way that is not supported ({error}): {node.format_node()}"
        ) from None
    return handler(builder, node, *args, **kwargs)


def _of_module(node: fx.Node, module: nn.Module) -> tuple[Handler, tuple[Any, ...]]:
    for kind in type(module).__mro__:
        if kind in MODULES:
            return MODULES[kind](module)
    name = type(module).__name__
    instead = INSTEAD.get(name, "is not supported")
    raise UserError(f"{where(node)}: {name} {instead}; supported: {SUPPORTED}")


def _of_function(node: fx.Node) -> Handler:
    if node.target in OTHER_ORDER:
        return OTHER_ORDER[node.target]
    handler = HANDLERS.get(operation_name(node).rstrip("_"))
    if handler is not None:
        return handler
    kinds = {kind.lower(): words for kind, words in INSTEAD.items()}
    instead = kinds.get(operation_name(node).rstrip("_").replace("_", ""), "not supported").removeprefix("is ")
    raise UserError(f"{where(node)}: {instead}; supported: {SUPPORTED}, as modules or functions")
