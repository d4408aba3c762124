"""Which handler imports which operation.

Modules, functions, tensor methods and ATen's operations of one kind come to the same handler. A new kind of layer is
one handler, its name in `HANDLERS`, and where it is a module its arguments in `MODULES`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn import functional as F

from autoprivacy.networks.square import Square
from autoprivacy.quantization.importing import functions, layers, shapes
from autoprivacy.quantization.importing.graph_builder import Value
from autoprivacy.quantization.importing.values import nothing

Handler = Callable[..., Value]


# By the name of a function, a tensor method or one of ATen's operations; a trailing underscore (in place) is cut off.
HANDLERS: dict[str, Handler] = {
    "conv2d": layers.convolution,
    "linear": layers.linear,
    "batch_norm": layers.batch_norm,
    "relu": layers.relu,
    "relu6": layers.relu6,
    "hardtanh": layers.hardtanh,
    "clamp": layers.clamp,
    "clip": layers.clamp,
    "clamp_min": layers.clamp,
    "maximum": layers.maximum,
    "max": layers.maximum,
    "square": layers.square,
    **dict.fromkeys(("silu", "swish"), functions.silu),
    "hardswish": functions.hardswish,
    "hardsigmoid": functions.hardsigmoid,
    "gelu": functions.gelu,
    "mish": functions.mish,
    "sigmoid": functions.sigmoid,
    "tanh": functions.tanh,
    "leaky_relu": functions.leaky_relu,
    "elu": functions.elu,
    "avg_pool2d": layers.average_pool,
    "adaptive_avg_pool2d": layers.adaptive_average_pool,
    "mean": layers.mean,
    "max_pool2d": layers.max_pool,
    "adaptive_max_pool2d": layers.adaptive_max_pool,
    **dict.fromkeys(("view", "reshape", "flatten", "squeeze", "unsqueeze", "_unsafe_view"), shapes.reshape),
    **dict.fromkeys(("add", "iadd"), shapes.addition),
    **dict.fromkeys(("mul", "imul"), shapes.times),
    **dict.fromkeys(("cat", "concat", "concatenate"), shapes.concatenation),
    "getitem": shapes.item,
    "slice": shapes.slice_one,
    "pad": shapes.pad,
    "constant_pad_nd": shapes.pad,
    **dict.fromkeys(("contiguous", "clone", "detach", "identity", "alias", "lift_fresh_copy", "to"), nothing),
    **dict.fromkeys(
        ("dropout", "dropout2d", "alpha_dropout", "feature_dropout", "feature_alpha_dropout"), layers.dropout
    ),
    **dict.fromkeys(("softmax", "log_softmax"), layers.softmax),
}
# torch.nn.functional's, whose arguments stand in another order than ATen's
OTHER_ORDER: dict[Any, Handler] = {F.batch_norm: layers.functional_batch_norm}


def _norm_arguments(m: Any) -> tuple[Any, ...]:
    return m.weight, m.bias, m.running_mean, m.running_var, False, 0.1, m.eps


# The handler and arguments, after the value, that do what a module does; subclasses in torch itself count too.
MODULES: dict[type, Callable[[Any], tuple[Handler, tuple[Any, ...]]]] = {
    nn.Conv2d: lambda m: (
        layers.convolution,
        (m.weight, m.bias, m.stride, m.padding, m.dilation, m.groups, m.padding_mode),
    ),
    nn.Linear: lambda m: (layers.linear, (m.weight, m.bias)),
    **dict.fromkeys(
        (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm), lambda m: (layers.batch_norm, _norm_arguments(m))
    ),
    nn.ReLU: lambda m: (layers.relu, ()),
    nn.ReLU6: lambda m: (layers.relu6, ()),
    nn.Hardtanh: lambda m: (layers.hardtanh, (m.min_val, m.max_val)),
    Square: lambda m: (layers.square, (m.bits, m.shift)),
    nn.SiLU: lambda m: (functions.silu, ()),
    nn.Hardswish: lambda m: (functions.hardswish, ()),
    nn.Hardsigmoid: lambda m: (functions.hardsigmoid, ()),
    nn.GELU: lambda m: (functions.gelu, (m.approximate,)),
    nn.Mish: lambda m: (functions.mish, ()),
    nn.Sigmoid: lambda m: (functions.sigmoid, ()),
    nn.Tanh: lambda m: (functions.tanh, ()),
    nn.LeakyReLU: lambda m: (functions.leaky_relu, (m.negative_slope,)),
    nn.ELU: lambda m: (functions.elu, (m.alpha,)),
    nn.AvgPool2d: lambda m: (
        layers.average_pool,
        (m.kernel_size, m.stride, m.padding, m.ceil_mode, m.count_include_pad, m.divisor_override),
    ),
    nn.AdaptiveAvgPool2d: lambda m: (layers.adaptive_average_pool, (m.output_size,)),
    nn.MaxPool2d: lambda m: (
        layers.max_pool,
        (m.kernel_size, m.stride, m.padding, m.dilation, m.ceil_mode, m.return_indices),
    ),
    nn.AdaptiveMaxPool2d: lambda m: (layers.adaptive_max_pool, (m.output_size, m.return_indices)),
    nn.ZeroPad2d: lambda m: (shapes.pad, (m.padding,)),
    nn.ConstantPad2d: lambda m: (shapes.pad, (m.padding, "constant", m.value)),
    **dict.fromkeys((nn.Flatten, nn.Unflatten), lambda m: (shapes.reshape, ())),
    **dict.fromkeys(
        (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout, nn.Identity),
        lambda m: (nothing, ()),
    ),
    **dict.fromkeys((nn.Softmax, nn.LogSoftmax), lambda m: (layers.softmax, (m.dim,))),
}

SUPPORTED = (
    "Conv2d, Linear, BatchNorm, ReLU, ReLU6, Hardtanh from 0, Square (autoprivacy.networks.square), SiLU, Hardswish, "
    "GELU, Mish, Sigmoid, Hardsigmoid, Tanh, LeakyReLU, ELU, x times such a function of x, AvgPool2d, MaxPool2d, "
    "AdaptiveAvgPool2d, mean over (2, 3), view, reshape and Flatten of all but the batch, additions of two values, "
    "concatenations of channels, slices x[:, :, ::s, ::s], padding with zeros, Dropout, Identity, and a "
    "softmax at the end"
)
# What to do about operations that many networks have and that are not computed privately.
INSTEAD = {
    **dict.fromkeys(
        ("SELU", "CELU", "PReLU", "Softplus", "GLU"),
        "is not supported; train the network with ReLU, LeakyReLU or SiLU in its place",
    ),
    **dict.fromkeys(
        ("LayerNorm", "GroupNorm", "InstanceNorm2d", "LocalResponseNorm"),
        "is not supported; train the network with BatchNorm2d in its place, which costs nothing",
    ),
}
