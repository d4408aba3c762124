"""Layers, activations, poolings and what is left out (dropout, a last softmax), as they are imported."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from autoprivacy.errors import UserError
from autoprivacy.networks.square import Square
from autoprivacy.quantization.float_graph import FloatNode
from autoprivacy.quantization.importing.graph_builder import GraphBuilder, Value, where
from autoprivacy.quantization.importing.values import nothing, one_number, pair_of, plain, subsampled, value_of
from autoprivacy.quantization.integer_network import LayerShape


def _path(node: fx.Node, weight: fx.Node | None) -> str:
    """Of the module whose weights these are."""
    if node.op == "call_module":
        return str(node.target)
    return str(weight.target).removesuffix("weight").rstrip(".") if weight is not None else ""


def _weight_node(node: fx.Node) -> fx.Node | None:
    """The parameter that a function takes as its weight."""
    found = node.kwargs.get("weight", node.args[1] if len(node.args) > 1 else None)
    return found if isinstance(found, fx.Node) else None


def convolution(
    builder: GraphBuilder,
    node: fx.Node,
    x: Any,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
) -> Value:
    if not isinstance(x, Value) or len(x.shape) != 4:
        plain(node, x)
        raise UserError(f"{where(node)}: of a value of shape {x.shape}; expected [N, channels, height, width]")
    if padding_mode != "zeros":
        raise UserError(f"{where(node)}: padding mode {padding_mode}; expected zeros")
    weight = _spread(weight, pair_of(dilation))
    around = [own + before for own, before in zip(_around(padding, weight), x.padding, strict=True)]
    weight, common = _one_padding(weight, around)
    shape = LayerShape(
        builder.layer_name(_path(node, _weight_node(node)), "conv"),
        "convolution",
        builder.nodes[x.node].shape,
        len(weight),
        (weight.shape[2], weight.shape[3]),
        one_number(stride, node, "stride"),
        common,
        groups,
    )
    return value_of(builder, node, builder.add_layer(x, shape, weight, bias, where(node)))


def _spread(weight: Tensor, dilation: tuple[int, int]) -> Tensor:
    """A dilated kernel with its gaps written out as zeros."""
    if dilation == (1, 1):
        return weight
    rows, columns = ((size - 1) * step + 1 for size, step in zip(weight.shape[2:], dilation, strict=True))
    spread = weight.new_zeros(*weight.shape[:2], rows, columns)
    spread[:, :, :: dilation[0], :: dilation[1]] = weight
    return spread


def _around(padding: Any, weight: Tensor) -> tuple[int, int, int, int]:
    """Left, right, top, bottom of a convolution's own padding."""
    height, width = weight.shape[2:]
    if padding == "same":  # torch puts the odd one at the end
        return (width - 1) // 2, width // 2, (height - 1) // 2, height // 2
    rows, columns = (0, 0) if padding == "valid" else pair_of(padding)
    return columns, columns, rows, rows


def _one_padding(weight: Tensor, around: Sequence[int]) -> tuple[Tensor, int]:
    """The kernel grown by zeros so that one padding on all four sides gives the same outputs, and that padding."""
    common = max(around)
    return F.pad(weight, [common - side for side in around]), common


def linear(builder: GraphBuilder, node: fx.Node, x: Any, weight: Tensor, bias: Tensor | None = None) -> Value:
    x, features = plain(node, x), weight.shape[1]
    shape = builder.nodes[x.node].shape
    if shape != (features, 1, 1) or x.shape[1:] != (features,):
        raise UserError(
            f"{where(node)}: a Linear of {features} features on a value of shape {shape}; expected "
            f"({features}, 1, 1): flatten it first"
        )
    name = builder.layer_name(_path(node, _weight_node(node)), "fc")
    layer = LayerShape(name, "fully_connected", shape, len(weight), (1, 1))
    return value_of(builder, node, builder.add_layer(x, layer, weight[:, :, None, None], bias, where(node)))


def batch_norm(
    builder: GraphBuilder,
    node: fx.Node,
    x: Any,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    cudnn_enabled: bool = False,
) -> Value:
    """g y + beta - g mean, g = gamma / sqrt(var + eps): folded into the layer before, else a layer of its own."""
    x = plain(node, x)
    if running_mean is None or running_var is None or training:
        raise UserError(f"{where(node)}: batch normalisation without running statistics; expected trained ones")
    gain = torch.rsqrt(running_var.double() + eps)
    if weight is not None:
        gain = gain * weight.detach().double()
    moved = -gain * running_mean.double()
    if bias is not None:
        moved = moved + bias.detach().double()
    if builder.foldable(x):
        builder.fold(x, gain, moved, where(node))
        return value_of(builder, node, x.node)
    logging.info("%s: nothing to fold it into, so it is a convolution of its own, channel by channel", where(node))
    source = builder.nodes[x.node].shape
    channels = source[0]
    name = builder.layer_name(_path(node, _weight_node(node)), "norm")
    shape = LayerShape(name, "convolution", source, channels, (1, 1), groups=channels)
    return value_of(builder, node, builder.add_layer(x, shape, gain.reshape(-1, 1, 1, 1), moved, where(node)))


def functional_batch_norm(
    builder: GraphBuilder,
    node: fx.Node,
    x: Any,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *more: Any,
    **named: Any,
) -> Value:
    """torch.nn.functional has the arguments in another order."""
    return batch_norm(builder, node, x, weight, bias, running_mean, running_var, *more, **named)


def relu(builder: GraphBuilder, node: fx.Node, x: Any, inplace: bool = False, bound: float | None = None) -> Value:
    x = plain(node, x)
    name = builder.numbered("relu")
    return value_of(
        builder, node, builder.add_node(FloatNode(name, "relu", (x.node,), builder.nodes[x.node].shape, bound=bound))
    )


def relu6(builder: GraphBuilder, node: fx.Node, x: Any, inplace: bool = False) -> Value:
    return relu(builder, node, x, bound=6.0)


def hardtanh(
    builder: GraphBuilder, node: fx.Node, x: Any, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Value:
    return clamp(builder, node, x, min_val, max_val)


def clamp(builder: GraphBuilder, node: fx.Node, x: Any, min: float | None = None, max: float | None = None) -> Value:  # noqa: A002
    if min != 0 or isinstance(max, Value | Tensor) or (max is not None and max <= 0):
        raise UserError(f"{where(node)}: from {min} to {max}; expected a minimum of 0 and a maximum above it or none")
    return relu(builder, node, x, bound=None if max is None else float(max))


def maximum(builder: GraphBuilder, node: fx.Node, x: Any, other: Any = None) -> Value:
    """Of a value and 0."""
    if isinstance(x, Tensor):
        x, other = other, x
    if not (isinstance(other, Tensor) and not other.any()):
        raise UserError(f"{where(node)}: expected the larger of a value and 0, which is a ReLU")
    return relu(builder, node, x)


def square(builder: GraphBuilder, node: fx.Node, x: Any, bits: int = Square().bits, shift: float = 0.0) -> Value:
    """Signed requantisation to the square's bits, which the square alone reads, and the square.

    The shift joins the bias of the linear layer before.
    """
    x = plain(node, x)
    if shift:
        if not builder.foldable(x):
            raise UserError(
                f"{where(node)}: Square can be folded only into a convolution or Linear right before it whose output "
                f"nothing else reads"
            )
        ones = torch.ones(builder.nodes[x.node].shape[0], dtype=torch.float64)
        builder.fold(x, ones, shift * ones, where(node))
    name, shape = builder.numbered("square"), builder.nodes[x.node].shape
    signed = FloatNode(f"{name}.requantized", "requantize", (x.node,), shape, signed=True, magnitude_bits=bits)
    return value_of(builder, node, builder.add_node(FloatNode(name, "square", (builder.add_node(signed),), shape)))


def average_pool(
    builder: GraphBuilder,
    node: fx.Node,
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Value:
    kernel = pair_of(kernel_size)
    strides = kernel if stride in (None, [], ()) else pair_of(stride)
    divisor = divisor_override in (None, kernel[0] * kernel[1])
    if any(pair_of(padding)) or not divisor or (ceil_mode and _uneven(builder, node, x, kernel, strides)):
        raise UserError(
            f"{where(node)}: padding {padding}, ceil_mode {ceil_mode}, divisor_override {divisor_override}; expected "
            f"no padding, windows that fill the map, and no divisor_override"
        )
    return average(builder, node, x, kernel, strides)


def _uneven(builder: GraphBuilder, node: fx.Node, x: Any, kernel: tuple[int, int], strides: tuple[int, int]) -> bool:
    """Whether windows are cut off at the map's edge."""
    sizes = builder.nodes[plain(node, x).node].shape[1:]
    return any((size - k) % s for size, k, s in zip(sizes, kernel, strides, strict=True))


def adaptive_average_pool(builder: GraphBuilder, node: fx.Node, x: Any, output_size: Any) -> Value:
    kernel = _adaptive_kernel(builder, node, x, output_size)
    return average(builder, node, x, kernel, kernel)


def _adaptive_kernel(builder: GraphBuilder, node: fx.Node, x: Any, output_size: Any) -> tuple[int, int]:
    sizes = builder.nodes[plain(node, x).node].shape[1:]
    wanted = list(output_size) if isinstance(output_size, list | tuple) else [output_size]
    pairs = [(size, want or size) for size, want in zip(sizes, (wanted[0], wanted[-1]), strict=True)]
    if any(size % want for size, want in pairs):
        raise UserError(f"{where(node)}: output size {output_size} of a map of {sizes}; expected 1, or a divisor of it")
    return pairs[0][0] // pairs[0][1], pairs[1][0] // pairs[1][1]


def mean(
    builder: GraphBuilder, node: fx.Node, x: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None, **more: Any
) -> Value:
    """Over height and width, or one of them; whether they stay as dimensions of 1 makes no difference here."""
    x = plain(node, x)
    dims = list(dim) if isinstance(dim, list | tuple) else [dim]
    rank = len(x.shape)
    taken = {d % rank for d in dims if isinstance(d, int)}
    channels, height, width = builder.nodes[x.node].shape
    # a map that was viewed as one dimension of its pixels, or one of whose dimensions is gone already
    windows: dict[tuple[int, ...], tuple[int, int]] = {}
    if rank == 4:
        windows = {(2, 3): (height, width), (2,): (height, 1), (3,): (1, width)}
    elif rank == 3:
        windows = {(2,): (height, width)}
    kernel = windows.get(tuple(sorted(taken)))
    if kernel is None or None in dims or "axis" in more:
        raise UserError(f"{where(node)}: over dimensions {dim}; expected (2, 3): height and width")
    return average(builder, node, x, kernel, kernel)


def average(builder: GraphBuilder, node: fx.Node, x: Any, kernel: tuple[int, int], stride: tuple[int, int]) -> Value:
    """A mean over windows; kernels and strides of a window that is not square are pairs."""
    x = plain(node, x)
    channels, height, width = builder.nodes[x.node].shape
    rows, columns = ((size - k) // s + 1 for size, k, s in zip((height, width), kernel, stride, strict=True))
    name, shape = builder.numbered("pool"), (channels, rows, columns)
    if (rows, columns) == (1, 1):
        stride = kernel  # there is one window, so the stride is of no consequence
    return value_of(
        builder,
        node,
        builder.add_node(FloatNode(name, "average_pool", (x.node,), shape, _short(kernel), _short(stride))),
    )


def _short(pair: tuple[int, int]) -> int | tuple[int, int]:
    return pair[0] if pair[0] == pair[1] else pair


def max_pool(
    builder: GraphBuilder,
    node: fx.Node,
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Value:
    """The largest of every window; of windows of one pixel every s-th row and column."""
    kernel = pair_of(kernel_size)
    strides, sides = kernel if stride in (None, [], ()) else pair_of(stride), pair_of(padding)
    if return_indices or pair_of(dilation) != (1, 1):
        raise UserError(f"{where(node)}: dilation {dilation}, return_indices {return_indices}; expected 1 and False")
    if kernel == (1, 1) and not ceil_mode:
        return subsampled(builder, node, x, strides)
    return _largest(builder, node, x, kernel, strides, (-sides[0], -sides[1]))


def adaptive_max_pool(
    builder: GraphBuilder, node: fx.Node, x: Any, output_size: Any, return_indices: bool = False
) -> Value:
    if return_indices:
        raise UserError(f"{where(node)}: return_indices True; expected False")
    kernel = _adaptive_kernel(builder, node, x, output_size)
    return _largest(builder, node, x, kernel, kernel, (0, 0))


def _largest(
    builder: GraphBuilder,
    node: fx.Node,
    x: Any,
    kernel: tuple[int, int],
    strides: tuple[int, int],
    offset: tuple[int, int],
) -> Value:
    """A max pooling, of the sizes that torch gives."""
    x = plain(node, x)
    channels, rows, columns = (int(size) for size in node.meta["example"].shape[1:])
    pool = FloatNode(
        builder.numbered("pool"), "max_pool", (x.node,), (channels, rows, columns), kernel, strides, offset=offset
    )
    return value_of(builder, node, builder.add_node(pool))


def dropout(
    builder: GraphBuilder, node: fx.Node, x: Any, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Value:
    if training and p:
        raise UserError(
            f"{where(node)}: drops values in evaluation too; give it training=self.training, or use nn.Dropout"
        )
    return nothing(builder, node, x)


def softmax(builder: GraphBuilder, node: fx.Node, x: Any, dim: int | None = None, *_: Any, **__: Any) -> Value:
    """Of the classes, at the end: left out, as it changes no order; the private outputs are the logits."""
    x = plain(node, x)
    last = all(user.op == "output" for user in node.users)
    if not last or len(x.shape) != 2 or dim not in (None, 1, -1):
        raise UserError(f"{where(node)}: in the middle of the network; expected over the classes, at its end alone")
    function = F.log_softmax if "log" in where(node).lower() else F.softmax
    logging.info("%s: left out; the private outputs are the logits before it", where(node))
    builder.final = lambda logits: function(logits, 1)
    return value_of(builder, node, x.node)
