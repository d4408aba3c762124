"""From a torch module to a plain float graph: torch.fx tracing, shapes, batch normalisation folded into the weights.

A new kind of layer is one handler in `_MODULES` (and, where it has a functional form, one line in `_FUNCTIONS`).
"""

from __future__ import annotations

import copy
import operator
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from autoprivacy.errors import UserError
from autoprivacy.networks.square import Square
from autoprivacy.quantization.float_graph import FloatGraph, FloatLayer, FloatNode
from autoprivacy.quantization.integer_network import LayerShape, Shape

SUPPORTED = (
    "Conv2d, Linear, BatchNorm right after either, ReLU, ReLU6, Hardtanh from 0, Square (autoprivacy.networks.square), "
    "AvgPool2d, AdaptiveAvgPool2d(1), mean over (2, 3), Flatten, additions of two values, slices x[:, :, ::s, ::s], "
    "padding of channels with zeros, Dropout and Identity"
)
# Largest difference from the module, relative to its largest output, that float64 summation order can explain.
IMPORT_TOLERANCE = 1e-9


def import_module(module: nn.Module, input_shape: Shape) -> FloatGraph:
    """Import a network in its evaluation mode; `module` itself stays as it is.

    Args:
        module: takes images [N, C, H, W] and returns one tensor.
        input_shape: channels, height, width of an image.

    Raises:
        UserError: an operation is not supported, or the graph does not compute what the module computes.
    """
    own = copy.deepcopy(module).cpu().double().eval()
    image = torch.randn(1, *input_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            expected = own(image.clone())
    except Exception as error:  # the module's own code may raise anything
        raise UserError(f"network {type(module).__name__}: fails on an image of shape {input_shape}: {error}") from None
    if not isinstance(expected, Tensor):
        raise UserError(f"network {type(module).__name__}: returns a {type(expected).__name__}; expected one tensor")
    if not expected.isfinite().all():
        raise UserError(f"network {type(module).__name__}: its outputs are not finite; train it again")
    try:
        traced = fx.GraphModule(own, _Tracer().trace(own))
    except Exception as error:  # tracing runs the module's own code, which may raise anything
        raise UserError(
            f"network {type(module).__name__}: torch.fx cannot trace it ({error}); its forward may not branch on values"
        ) from None
    graph = _Importer(traced, input_shape).build()
    # in-place operations on values that are read again deceive a tracer, so the result is compared
    got = graph.outputs(image).flatten()
    tolerance = IMPORT_TOLERANCE * (1 + float(expected.abs().max()))
    if got.shape != expected.flatten().shape or not torch.allclose(got, expected.flatten(), rtol=0, atol=tolerance):
        raise UserError(
            f"network {type(module).__name__}: the imported graph computes something else than the module; look for "
            f"in-place operations on values that are used again"
        )
    return graph


class _Tracer(fx.Tracer):
    """Follows every call but those of torch's own modules and of squares, whose bits would be lost."""

    def is_leaf_module(self, module: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(module, Square) or super().is_leaf_module(module, module_qualified_name)


class _Importer:
    """Walks a traced module and collects nodes and layers."""

    def __init__(self, traced: fx.GraphModule, input_shape: Shape) -> None:
        traced.graph.eliminate_dead_code()
        self.traced = traced
        self.modules = dict(traced.named_modules())
        self.input_shape = input_shape
        self.nodes: dict[str, FloatNode] = {}
        self.layers: dict[str, FloatLayer] = {}
        self.value_of: dict[fx.Node, str] = {}
        self.counts: dict[str, int] = {}
        calls = [self.modules.get(str(n.target)) for n in traced.graph.nodes if n.op == "call_module"]
        self.fully_connected = sum(isinstance(called, nn.Linear) for called in calls)

    def build(self) -> FloatGraph:
        """Import every node of the traced graph."""
        for node in self.traced.graph.nodes:
            if node.op == "placeholder":
                if self.nodes:
                    raise UserError(f"network input {node.name}: a second input; expected one batch of images")
                self.value_of[node] = self.add_node(FloatNode("image", "input", (), self.input_shape))
            elif node.op != "output":
                self.value_of[node] = self._import(node)
        return FloatGraph(tuple(self.nodes.values()), self.layers)

    def _import(self, node: fx.Node) -> str:
        special = _CALLS.get(node.target)
        if special is not None:
            return special(self, node)
        module = self._module(node)
        handler = _MODULES.get(type(module))
        if handler is None:
            raise UserError(f"{where(node)}: {type(module).__name__} is not supported; supported: {SUPPORTED}")
        return handler(self, node, module)

    def _module(self, node: fx.Node) -> nn.Module:
        """The module that a node calls, or the module that does the same as the function it calls."""
        if node.op == "call_module":
            return self.modules[str(node.target)]
        build = _FUNCTIONS.get(node.target)
        if build is None:
            raise UserError(f"{where(node)}: not supported; supported: {SUPPORTED}, as modules or functions")
        return build(*node.args[1:], **{name: value for name, value in node.kwargs.items() if name != "input"})

    def input_of(self, node: fx.Node) -> FloatNode:
        """The imported node that feeds a traced one."""
        argument = node.args[0] if node.args else node.kwargs["input"]
        assert isinstance(argument, fx.Node)
        return self.nodes[self.value_of[argument]]

    def add_node(self, node: FloatNode) -> str:
        """Append a node and return its name; its shape must not be empty."""
        if min(node.shape) < 1:
            raise UserError(f"node {node.name}: output shape {node.shape}; the image {self.input_shape} is too small")
        self.nodes[node.name] = node
        return node.name

    def numbered(self, prefix: str) -> str:
        """`prefix` with the next number that makes it unique."""
        while True:
            self.counts[prefix] = self.counts.get(prefix, 0) + 1
            name = f"{prefix}{self.counts[prefix]}"
            if name not in self.nodes:
                return name

    def layer_name(self, node: fx.Node, prefix: str) -> str:
        """The module's path, or conv1, conv2, fc for modules that are only numbered in a Sequential."""
        path = str(node.target)
        if re.fullmatch(r"[\d.]+", path):
            alone = prefix == "fc" and self.fully_connected == 1 and prefix not in self.nodes
            return prefix if alone else self.numbered(prefix)
        return path if path not in self.nodes else self.numbered(f"{path}_")

    def add_layer(self, node: fx.Node, shape: LayerShape, weight: Tensor, bias: Tensor | None) -> str:
        """Append a linear layer and its node."""
        bias = torch.zeros(len(weight), dtype=torch.float64) if bias is None else bias
        self.layers[shape.name] = FloatLayer(shape, weight.detach().clone(), bias.detach().clone())
        return self.add_node(FloatNode(shape.name, "linear", (self.input_of(node).name,), shape.output_shape))


def where(node: fx.Node) -> str:
    """Where in the network a traced node stands, for messages."""
    if node.op == "call_module":
        return f"layer {node.target}"
    inside = list(node.meta.get("nn_module_stack", {}).values())
    place = f" in {inside[-1][0]}" if inside and inside[-1][0] else ""
    return f"operation {getattr(node.target, '__name__', node.target)}{place}"


def _one(value: Any, node: fx.Node, what: str) -> int:
    """The common value of a number or an equal pair."""
    values = set(value) if isinstance(value, tuple | list) else {value}
    if len(values) != 1 or not isinstance(next(iter(values)), int):
        raise UserError(f"{where(node)}: {what} {value}; expected the same number in both directions")
    return int(values.pop())


def _convolution(importer: _Importer, node: fx.Node, module: nn.Conv2d) -> str:
    if _one(module.dilation, node, "dilation") != 1 or module.padding_mode != "zeros":
        raise UserError(
            f"{where(node)}: dilation {module.dilation}, padding mode {module.padding_mode}; expected 1 and zeros"
        )
    height, width = module.kernel_size
    padding = module.padding
    if padding == "same":
        if not height % 2 or not width % 2:
            raise UserError(f"{where(node)}: padding 'same' with kernel {module.kernel_size}; expected an odd kernel")
        padding = (height // 2, width // 2)
    shape = LayerShape(
        importer.layer_name(node, "conv"),
        "convolution",
        importer.input_of(node).shape,
        module.out_channels,
        (height, width),
        _one(module.stride, node, "stride"),
        0 if padding == "valid" else _one(padding, node, "padding"),
        module.groups,
    )
    return importer.add_layer(node, shape, module.weight, module.bias)


def _fully_connected(importer: _Importer, node: fx.Node, module: nn.Linear) -> str:
    input_shape = importer.input_of(node).shape
    if input_shape != (module.in_features, 1, 1):
        raise UserError(
            f"{where(node)}: a Linear of {module.in_features} features on a value of shape {input_shape}; expected "
            f"({module.in_features}, 1, 1): flatten it first"
        )
    shape = LayerShape(importer.layer_name(node, "fc"), "fully_connected", input_shape, module.out_features, (1, 1))
    return importer.add_layer(node, shape, module.weight[:, :, None, None], module.bias)


def _foldable(importer: _Importer, node: fx.Node, module: nn.Module) -> str:
    """The name of the linear layer that a module's affine part is folded into."""
    name = importer.input_of(node).name
    readers = [len(reader.users) for reader, value in importer.value_of.items() if value == name]
    if name not in importer.layers or any(count != 1 for count in readers):
        raise UserError(
            f"{where(node)}: {type(module).__name__} can be folded only into a convolution or Linear right before it "
            f"whose output nothing else reads"
        )
    return name


def _batch_norm(importer: _Importer, node: fx.Node, module: nn.BatchNorm1d | nn.BatchNorm2d) -> str:
    """Fold into the linear layer before it: w' = g w, b' = g (b - mean) + beta with g = gamma / sqrt(var + eps)."""
    name = _foldable(importer, node, module)
    if module.running_mean is None or module.running_var is None:
        raise UserError(f"{where(node)}: {type(module).__name__} without running statistics; expected trained ones")
    layer = importer.layers[name]
    gain = torch.rsqrt(module.running_var + module.eps)
    if module.affine:
        gain = gain * module.weight.detach()
    bias = gain * (layer.bias - module.running_mean)
    if module.affine:
        bias = bias + module.bias.detach()
    importer.layers[name] = replace(layer, weight=layer.weight * gain[:, None, None, None], bias=bias)
    return name


def _relu(importer: _Importer, node: fx.Node, module: nn.Module, bound: float | None = None) -> str:
    source = importer.input_of(node)
    return importer.add_node(FloatNode(importer.numbered("relu"), "relu", (source.name,), source.shape, bound=bound))


def _clipped_relu(importer: _Importer, node: fx.Node, module: nn.Hardtanh) -> str:
    """ReLU6 is a Hardtanh from 0 to 6."""
    if module.min_val != 0:
        raise UserError(f"{where(node)}: {module}; expected a minimum of 0")
    return _relu(importer, node, module, float(module.max_val))


def _square(importer: _Importer, node: fx.Node, module: Square) -> str:
    """Signed requantisation to the module's bits, which the square alone reads, and the square.

    The shift joins the bias of the linear layer before.
    """
    if module.shift:
        layer = importer.layers[name := _foldable(importer, node, module)]
        importer.layers[name] = replace(layer, bias=layer.bias + module.shift)
    source, name = importer.input_of(node), importer.numbered("square")
    signed = FloatNode(
        f"{name}.requantized", "requantize", (source.name,), source.shape, signed=True, magnitude_bits=module.bits
    )
    return importer.add_node(FloatNode(name, "square", (importer.add_node(signed),), source.shape))


def _average_pool(importer: _Importer, node: fx.Node, module: nn.AvgPool2d) -> str:
    if _one(module.padding, node, "padding") or module.ceil_mode or module.divisor_override:
        raise UserError(f"{where(node)}: {module}; expected no padding, no ceil_mode and no divisor_override")
    return _add_pool(importer, node, _one(module.kernel_size, node, "kernel"), _one(module.stride, node, "stride"))


def _adaptive_average_pool(importer: _Importer, node: fx.Node, module: nn.AdaptiveAvgPool2d) -> str:
    if _one(module.output_size, node, "output size") != 1:
        raise UserError(f"{where(node)}: output size {module.output_size}; expected 1")
    size = _one(importer.input_of(node).shape[1:], node, "input size")
    return _add_pool(importer, node, size, size)


def _mean(importer: _Importer, node: fx.Node) -> str:
    """Over height and width; whether the two stay as dimensions of 1 makes no difference here."""
    dimensions = (node.kwargs | dict(zip(("dim", "keepdim", "dtype"), node.args[1:], strict=False))).get("dim")
    source = importer.input_of(node)
    if not isinstance(dimensions, tuple | list) or {d % 4 for d in dimensions if isinstance(d, int)} != {2, 3}:
        raise UserError(f"{where(node)}: over dimensions {dimensions}; expected (2, 3)")
    size = _one(source.shape[1:], node, "input size")
    return _add_pool(importer, node, size, size)


def _add_pool(importer: _Importer, node: fx.Node, kernel: int, stride: int) -> str:
    source = importer.input_of(node)
    channels, height, width = source.shape
    shape = (channels, (height - kernel) // stride + 1, (width - kernel) // stride + 1)
    name = importer.numbered("pool")
    return importer.add_node(FloatNode(name, "average_pool", (source.name,), shape, kernel, stride))


def _flatten(importer: _Importer, node: fx.Node, module: nn.Flatten) -> str:
    if module.start_dim != 1 or module.end_dim not in (-1, 3):
        raise UserError(f"{where(node)}: dimensions {module.start_dim} to {module.end_dim}; expected 1 to the last")
    source = importer.input_of(node)
    channels, height, width = source.shape
    name = importer.numbered("flatten")
    return importer.add_node(FloatNode(name, "flatten", (source.name,), (channels * height * width, 1, 1)))


def _addition(importer: _Importer, node: fx.Node) -> str:
    names = tuple(importer.value_of[arg] for arg in node.args if isinstance(arg, fx.Node))
    if len(names) != 2 or node.kwargs.get("alpha", 1) != 1:
        raise UserError(f"{where(node)}: expected the sum of two values of the network, got {node.format_node()}")
    shapes = [importer.nodes[name].shape for name in names]
    if shapes[0] != shapes[1]:
        raise UserError(f"{where(node)}: adds shapes {shapes[0]} and {shapes[1]}; expected equal shapes")
    return importer.add_node(FloatNode(importer.numbered("add"), "add", names, shapes[0]))


def _slice(importer: _Importer, node: fx.Node) -> str:
    """x[:, :, ::s, ::s], as shortcuts without weights have it."""
    taken = node.args[1]
    whole, source = slice(None, None, None), importer.input_of(node)
    strides = [part.step for part in taken if isinstance(part, slice)] if isinstance(taken, tuple) else []
    stride = strides[-1] if len(strides) == 4 else None
    every = slice(None, None, stride)
    if not isinstance(stride, int) or stride < 1 or taken != (whole, whole, every, every):
        raise UserError(f"{where(node)}: takes {taken}; expected the slices [:, :, ::s, ::s]")
    channels, height, width = source.shape
    shape = (channels, -(-height // stride), -(-width // stride))
    name = importer.numbered("subsample")
    return importer.add_node(FloatNode(name, "subsample", (source.name,), shape, stride=stride))


def _pad(importer: _Importer, node: fx.Node) -> str:
    """F.pad of channels with zeros, as shortcuts without weights have it."""
    given = node.kwargs | dict(zip(("pad", "mode", "value"), node.args[1:], strict=False))
    pad, mode, value = given["pad"], given.get("mode", "constant"), given.get("value")
    numbers = list(pad) if isinstance(pad, tuple | list) else []
    if mode != "constant" or value or len(numbers) != 6 or any(numbers[:4]) or min(numbers) < 0:
        raise UserError(
            f"{where(node)}: pads {pad} with mode {mode}, value {value}; expected (0, 0, 0, 0, before, after) with "
            f"constant zeros"
        )
    source, (before, after) = importer.input_of(node), numbers[4:]
    channels, height, width = source.shape
    shape = (channels + before + after, height, width)
    name = importer.numbered("pad")
    return importer.add_node(FloatNode(name, "pad_channels", (source.name,), shape, before=before, after=after))


def _nothing(importer: _Importer, node: fx.Node, module: nn.Module) -> str:
    return importer.input_of(node).name


_MODULES: dict[type, Callable[[_Importer, fx.Node, Any], str]] = {
    nn.Conv2d: _convolution,
    nn.Linear: _fully_connected,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.ReLU: _relu,
    nn.ReLU6: _clipped_relu,
    nn.Hardtanh: _clipped_relu,
    Square: _square,
    nn.AvgPool2d: _average_pool,
    nn.AdaptiveAvgPool2d: _adaptive_average_pool,
    nn.Flatten: _flatten,
    nn.Dropout: _nothing,
    nn.Dropout2d: _nothing,
    nn.Identity: _nothing,
}
# Functions and tensor methods, and the module that does the same with the arguments after the first.
_FUNCTIONS: dict[Any, Callable[..., nn.Module]] = {
    F.relu: nn.ReLU,
    torch.relu: nn.ReLU,
    "relu": nn.ReLU,
    "relu_": nn.ReLU,
    F.relu6: nn.ReLU6,
    F.hardtanh: nn.Hardtanh,
    torch.square: Square,
    "square": Square,
    F.avg_pool2d: nn.AvgPool2d,
    F.adaptive_avg_pool2d: nn.AdaptiveAvgPool2d,
    torch.flatten: lambda start_dim=0, end_dim=-1: nn.Flatten(start_dim, end_dim),
    "flatten": lambda start_dim=0, end_dim=-1: nn.Flatten(start_dim, end_dim),
}
# Functions and tensor methods that no module stands for.
_CALLS: dict[Any, Callable[[_Importer, fx.Node], str]] = {
    **dict.fromkeys((operator.add, operator.iadd, torch.add, "add", "add_"), _addition),
    **dict.fromkeys((torch.mean, "mean"), _mean),
    operator.getitem: _slice,
    F.pad: _pad,
}
