"""A network from an ONNX file as a torch module: it can be imported, trained on and saved like any other.

Needs the package onnx (requirements-onnx.txt). Operators are those that have an integer form, and what exporters put
around a reshape (Shape, Gather, Concat and the like). Operators: onnx.ai/onnx/operators, opsets 9 to 21.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoprivacy.errors import UserError

HARD_SIGMOID_ROUNDING = 1e-6  # of its single-precision settings
INSTALL = "install it with: pip install -r requirements-onnx.txt"


def read_onnx(path: str | Path) -> OnnxNetwork:
    """The network of an ONNX file, with its weights.

    Raises:
        UserError: onnx is not installed, the file is missing or damaged, or has an operator that is not supported.
    """
    try:
        import onnx
    except ImportError:
        raise UserError(f"{path}: the package onnx, which reads it, is not installed; {INSTALL}") from None
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except Exception as error:  # protobuf and onnx each raise their own kinds
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: not a readable ONNX model ({reason}); export it again") from None
    return OnnxNetwork(model.graph, str(path))


class OnnxNetwork(nn.Module):
    """Computes an ONNX graph; its layers with weights are torch's.

    Args:
        graph: onnx.GraphProto.
        path: of the file, for messages.
    """

    def __init__(self, graph: Any, path: str) -> None:
        from onnx import numpy_helper

        super().__init__()
        self.path = path
        constants = {part.name: torch.from_numpy(numpy_helper.to_array(part).copy()) for part in graph.initializer}
        inputs = [part.name for part in graph.input if part.name not in constants]
        if len(inputs) != 1 or len(graph.output) != 1:
            raise UserError(f"{path}: {len(inputs)} inputs and {len(graph.output)} outputs; expected one of each")
        self._input, self._output = inputs[0], graph.output[0].name
        self._constants: dict[str, Tensor] = {}
        self._steps: list[tuple[Callable[..., Any] | str, list[str], str]] = []
        nodes = list(graph.node)
        while nodes:
            node = nodes.pop(0)
            settings = {part.name: _setting(part, numpy_helper) for part in node.attribute}
            if node.op_type == "Constant":
                value = next(iter(settings.values()))
                constants[node.output[0]] = value if isinstance(value, Tensor) else torch.as_tensor(value)
                continue
            self._add(node, settings, constants, nodes)
        self._constants = constants

    def _add(self, node: Any, settings: dict[str, Any], constants: dict[str, Tensor], later: list[Any]) -> None:
        weighted = _WEIGHTED.get(node.op_type)
        if weighted and len(node.input) > 1 and node.input[1] in constants:
            tensors = [constants[name] for name in node.input[1:] if name]
            output = node.output[0]
            follower = [other for other in later if output in other.input]
            if node.op_type == "MatMul" and len(follower) == 1 and follower[0].op_type == "Add":
                others = [name for name in follower[0].input if name != output]
                if len(others) == 1 and others[0] in constants and constants[others[0]].dim() == 1:
                    tensors.append(constants[others[0]])
                    output = follower[0].output[0]
                    later.remove(follower[0])
            padding, layer = weighted(settings, *tensors)
            name = _module_name(node.input[1], node.name, self)
            self.add_module(name, layer)
            source = node.input[0]
            if padding:
                self._steps.append((padding, [source], f"{output}.padded"))
                source = f"{output}.padded"
            self._steps.append((name, [source], output))
            return
        operation = _OPERATIONS.get(node.op_type)
        if operation is None:
            listed = ", ".join(sorted({*_WEIGHTED, *_OPERATIONS}))
            raise UserError(
                f"{self.path}: node {node.name or node.output[0]}: {node.op_type} is not supported; supported: {listed}"
            )
        self._steps.append((operation(settings), list(node.input), node.output[0]))

    def forward(self, images: Tensor) -> Tensor:
        """The graph's output for images [N, C, H, W]."""
        values: dict[str, Any] = {**self._constants, "": None, self._input: images}
        for step, names, output in self._steps:
            function = self.get_submodule(step) if isinstance(step, str) else step
            values[output] = function(*(values[name] for name in names))
        return values[self._output]


def _setting(attribute: Any, numpy_helper: Any) -> Any:
    import onnx

    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        return torch.from_numpy(numpy_helper.to_array(value).copy())
    return (
        value.decode()
        if isinstance(value, bytes)
        else list(value)
        if isinstance(value, Sequence) and not isinstance(value, str)
        else value
    )


def _module_name(weight: str, node: str, network: nn.Module) -> str:
    """From the weight's name where that is a module's path, else from the node's; unique."""
    text = weight.removesuffix(".weight") if weight.endswith(".weight") else node or weight
    name = re.sub(r"\W+", "_", text).strip("_") or "layer"
    count = 1
    while hasattr(network, name):
        count, name = count + 1, f"{name}_{count}"
    return name


def _sides(settings: dict[str, Any], size: int = 2) -> tuple[int, int, int, int]:
    """ONNX has top, left, bottom, right; torch left, right, top, bottom."""
    top, left, bottom, right = settings.get("pads", [0, 0, 0, 0])
    return left, right, top, bottom


def _convolution(settings: dict[str, Any], weight: Tensor, bias: Tensor | None = None) -> tuple[Any, nn.Module]:
    groups, strides = settings.get("group", 1), tuple(settings.get("strides", (1, 1)))
    dilations, same = tuple(settings.get("dilations", (1, 1))), settings.get("auto_pad", "NOTSET")
    if weight.dim() != 4:
        raise UserError(f"ONNX Conv: weights of {weight.dim()} dimensions; expected 4")
    layer = nn.Conv2d(
        weight.shape[1] * groups,
        len(weight),
        (weight.shape[2], weight.shape[3]),
        strides,
        dilation=dilations,
        groups=groups,
        bias=bias is not None,
    )
    filled = _filled(layer, weight, bias)
    if same.startswith("SAME"):
        reach = [(size - 1) * step + 1 for size, step in zip(weight.shape[2:], dilations, strict=True)]
        return lambda x: F.pad(x, _same(x.shape[2:], reach, strides, same == "SAME_LOWER")), filled
    sides = _sides(settings)
    if sides[0] == sides[1] and sides[2] == sides[3]:
        layer.padding = (sides[2], sides[0])
        layer._reversed_padding_repeated_twice = [*sides]
        sides = (0, 0, 0, 0)
    return (lambda x: F.pad(x, sides)) if any(sides) else None, filled


def _same(sizes: Sequence[int], reach: Sequence[int], strides: Sequence[int], lower: bool) -> list[int]:
    """Left, right, top, bottom so that there are as many outputs as sizes divided by strides, rounded up."""
    sides: list[int] = []
    for size, span, stride in zip(sizes, reach, strides, strict=True):
        total = max(0, (-(-size // stride) - 1) * stride + span - size)
        less, more = total // 2, total - total // 2
        sides = [more, less, *sides] if lower else [less, more, *sides]
    return sides


class _Norm(nn.BatchNorm2d):
    """Of maps and of flat values alike, as ONNX has it."""

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 - torch's name
        pass


def _gemm(settings: dict[str, Any], weight: Tensor, bias: Tensor | None = None) -> tuple[Any, nn.Module]:
    if settings.get("alpha", 1.0) != 1 or settings.get("beta", 1.0) != 1 or settings.get("transA", 0):
        raise UserError("ONNX Gemm: expected alpha and beta 1 and transA 0")
    return _matrix_product({}, weight if not settings.get("transB", 0) else weight.T, bias)


def _matrix_product(settings: dict[str, Any], weight: Tensor, bias: Tensor | None = None) -> tuple[Any, nn.Module]:
    layer = nn.Linear(weight.shape[0], weight.shape[1], bias is not None)
    return None, _filled(layer, weight.T, bias)


def _batch_norm(settings: dict[str, Any], *tensors: Tensor) -> tuple[Any, nn.Module]:
    weight, bias, mean, variance = tensors
    layer = _Norm(len(weight), eps=settings.get("epsilon", 1e-5))
    assert layer.running_mean is not None and layer.running_var is not None
    layer.running_mean.copy_(mean)
    layer.running_var.copy_(variance)
    return None, _filled(layer, weight, bias)


def _filled(layer: Any, weight: Tensor, bias: Tensor | None) -> nn.Module:
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer


# Operators whose second input are weights: the padding to do before, and torch's layer.
_WEIGHTED: dict[str, Callable[..., tuple[Any, nn.Module]]] = {
    "Conv": _convolution,
    "Gemm": _gemm,
    "MatMul": _matrix_product,
    "BatchNormalization": _batch_norm,
}


def _numbers(value: Any) -> list[int]:
    return [int(number) for number in value.reshape(-1).tolist()]


def _average_pool(settings: dict[str, Any]) -> Callable[[Tensor], Tensor]:
    kernel, strides = settings["kernel_shape"], settings.get("strides", [1, 1])
    sides, ceil = _sides(settings), bool(settings.get("ceil_mode", 0))
    return lambda x: F.avg_pool2d(F.pad(x, sides) if any(sides) else x, kernel, strides, ceil_mode=ceil)


def _max_pool(settings: dict[str, Any]) -> Callable[[Tensor], Tensor]:
    kernel, strides = settings["kernel_shape"], settings.get("strides", [1, 1])
    left, right, top, bottom = _sides(settings)
    if left != right or top != bottom or settings.get("auto_pad", "NOTSET") != "NOTSET":
        raise UserError("ONNX MaxPool: expected the same padding on opposite sides")
    dilations, ceil = settings.get("dilations", [1, 1]), bool(settings.get("ceil_mode", 0))
    return lambda x: F.max_pool2d(x, kernel, strides, (top, left), dilations, ceil)


def _reduce_mean(settings: dict[str, Any]) -> Callable[..., Tensor]:
    keep = bool(settings.get("keepdims", 1))
    return lambda x, axes=None: x.mean(_numbers(axes) if axes is not None else settings["axes"], keepdim=keep)


def _clip(settings: dict[str, Any]) -> Callable[..., Tensor]:
    def clip(x: Tensor, low: Any = None, high: Any = None) -> Tensor:
        bounds = [
            float(bound) if bound is not None else settings.get(name) for bound, name in ((low, "min"), (high, "max"))
        ]
        return torch.clamp(x, *bounds)

    return clip


def _hard_sigmoid(settings: dict[str, Any]) -> Callable[[Tensor], Tensor]:
    """Torch's own, as its exporter writes it: alpha 1/6 and beta 1/2."""
    alpha, beta = settings.get("alpha", 0.2), settings.get("beta", 0.5)
    if abs(alpha - 1 / 6) > HARD_SIGMOID_ROUNDING or abs(beta - 0.5) > HARD_SIGMOID_ROUNDING:
        raise UserError(f"ONNX HardSigmoid: alpha {alpha}, beta {beta}; expected 1/6 and 1/2")
    return F.hardsigmoid


def _pad(settings: dict[str, Any]) -> Callable[..., Tensor]:
    def pad(x: Tensor, pads: Any = None, value: Any = None, axes: Any = None) -> Tensor:
        numbers = _numbers(pads) if pads is not None else settings["pads"]
        half = len(numbers) // 2
        sides = [number for axis in reversed(range(half)) for number in (numbers[axis], numbers[half + axis])]
        return F.pad(x, sides, settings.get("mode", "constant"), float(value) if value is not None else 0.0)

    return pad


def _slice(settings: dict[str, Any]) -> Callable[..., Any]:
    def take(x: Any, starts: Any = None, ends: Any = None, axes: Any = None, steps: Any = None) -> Any:
        first = _numbers(starts) if starts is not None else settings["starts"]
        last = _numbers(ends) if ends is not None else settings["ends"]
        chosen = _numbers(axes) if axes is not None else settings.get("axes", list(range(len(first))))
        every = _numbers(steps) if steps is not None else [1] * len(first)
        parts = [slice(None)] * x.dim()
        for axis, start, end, step in zip(chosen, first, last, every, strict=True):
            if step > 0:
                parts[axis] = slice(start, min(end, x.shape[axis]), step)
            else:  # which torch does not slice; of sizes alone
                rows = range(*slice(start, end, step).indices(x.shape[axis]))
                x = torch.index_select(x, axis, torch.tensor(rows))
        return x[tuple(parts)]

    return take


def _dimensions(change: Callable[[Any, int], Any], settings: dict[str, Any]) -> Callable[..., Any]:
    def changed(x: Any, axes: Any = None) -> Any:
        for axis in sorted(_numbers(axes) if axes is not None else settings["axes"], reverse=change is torch.squeeze):
            x = change(x, axis)
        return x

    return changed


def _reshape(x: Tensor, shape: Tensor) -> Tensor:
    """A size of 0 keeps the input's."""
    return x.reshape([size or x.shape[axis] for axis, size in enumerate(_numbers(shape))])


# Operators without weights: from their attributes to a function of their inputs.
_OPERATIONS: dict[str, Callable[[dict[str, Any]], Callable[..., Any]]] = {
    "Relu": lambda s: torch.relu,
    "Clip": _clip,
    "Sigmoid": lambda s: torch.sigmoid,
    "Tanh": lambda s: torch.tanh,
    "LeakyRelu": lambda s: lambda x: F.leaky_relu(x, s.get("alpha", 0.01)),
    "Elu": lambda s: lambda x: F.elu(x, s.get("alpha", 1.0)),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda s: F.hardswish,
    "Mish": lambda s: F.mish,
    "Gelu": lambda s: lambda x: F.gelu(x, approximate=s.get("approximate", "none")),
    "AveragePool": _average_pool,
    "MaxPool": _max_pool,
    "GlobalMaxPool": lambda s: lambda x: F.adaptive_max_pool2d(x, 1),
    "GlobalAveragePool": lambda s: lambda x: F.adaptive_avg_pool2d(x, 1),
    "ReduceMean": _reduce_mean,
    "Flatten": lambda s: lambda x: torch.flatten(x, s.get("axis", 1)),
    "Reshape": lambda s: _reshape,
    "Squeeze": lambda s: _dimensions(torch.squeeze, s),
    "Unsqueeze": lambda s: _dimensions(torch.unsqueeze, s),
    "Add": lambda s: torch.add,
    "Concat": lambda s: lambda *parts: torch.cat(parts, s["axis"]),
    "Pad": _pad,
    "Slice": _slice,
    "Identity": lambda s: lambda x: x,
    "Dropout": lambda s: lambda x, *_: x,
    "Softmax": lambda s: lambda x: F.softmax(x, s.get("axis", -1)),
    "LogSoftmax": lambda s: lambda x: F.log_softmax(x, s.get("axis", -1)),
    # of sizes alone, for a Reshape
    "Shape": lambda s: lambda x: torch.tensor(list(x.shape)),
    "Gather": lambda s: (
        lambda x, index: torch.index_select(x, s.get("axis", 0), index.reshape(-1)).reshape(index.shape)
    ),
    "ConstantOfShape": lambda s: lambda size: torch.full(_numbers(size), s.get("value", torch.zeros(1)).item()),
    "Transpose": lambda s: lambda x: x.permute(s["perm"]),
    "Mul": lambda s: torch.mul,
    "Cast": lambda s: lambda x: x,
}
