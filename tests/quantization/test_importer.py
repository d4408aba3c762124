"""From torch modules to float graphs: import, names, batch-norm folding, and what is refused."""

import pytest
import torch
from support.float_networks import NETWORKS, Residual, grouped, randomised, sequential
from torch import nn
from torch.nn import functional as F

from autoprivacy.errors import UserError
from autoprivacy.quantization.importer import import_module


@pytest.mark.parametrize("name", NETWORKS)
def test_imported_graph_computes_what_the_module_computes(name):
    build, size = NETWORKS[name]
    module = randomised(build())
    images = torch.randn(3, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    graph = import_module(module, (3, *size))
    assert module.training and next(module.parameters()).dtype == torch.float32  # left as it was
    values = dict(graph.walk(images))
    got = values[graph.nodes[-1].name][:, :, 0, 0]
    torch.testing.assert_close(got, module.double().eval()(images), rtol=1e-12, atol=1e-12)
    assert {node.name: tuple(values[node.name].shape[1:]) for node in graph.nodes} == {
        node.name: node.shape for node in graph.nodes
    }


def test_batch_norm_is_folded_exactly():
    module = randomised(nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, eps=0.1)), seed=1)
    layer = import_module(module, (2, 5, 5)).layers["conv1"]
    convolution, norm = (part.double().requires_grad_(False) for part in module)
    for channel in range(3):
        gain = float(norm.weight[channel]) / (float(norm.running_var[channel]) + 0.1) ** 0.5
        torch.testing.assert_close(layer.weight[channel], convolution.weight[channel] * gain, rtol=1e-14, atol=0)
        offset = float(convolution.bias[channel]) - float(norm.running_mean[channel])
        assert float(layer.bias[channel]) == pytest.approx(offset * gain + float(norm.bias[channel]), rel=1e-14)


def test_layers_are_named_by_number_or_by_path():
    assert list(import_module(sequential(), (3, 17, 17)).layers) == ["conv1", "conv2", "fc"]
    assert list(import_module(grouped(), (3, 17, 13)).layers) == ["conv1", "conv2", "conv3", "fc1", "fc2"]
    names = list(import_module(Residual(), (3, 13, 13)).layers)
    assert names[:3] == ["stem.0", "blocks.0.conv1", "blocks.0.conv2"]
    assert names[-3:] == ["blocks.2.conv2", "blocks.2.shortcut.0", "fc"]


def test_a_module_used_twice_becomes_two_layers():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x):
            return self.conv(torch.relu(self.conv(x)))

    assert list(import_module(Twice(), (3, 6, 6)).layers) == ["conv", "conv_1"]


class Forward(nn.Module):
    """A convolution, a batch norm, a Linear and any forward pass."""

    def __init__(self, forward):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(6, 4)
        self.max = nn.MaxPool2d(2)
        self.tanh = nn.Hardtanh()
        self.compute = forward

    def forward(self, x):
        return self.compute(self, x)


def overwritten(module, x):
    y = module.conv(x)
    return module.conv(module.relu(y)) + y


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (
            lambda m, x: F.max_pool2d(m.conv(x), 2, dilation=2),
            "max_pool2d: dilation 2, return_indices False; expected 1",
        ),
        (
            lambda m, x: F.max_pool2d(m.conv(x), 2, return_indices=True)[0],
            "operation max_pool2d.*(return_indices True; expected 1 and False|_with_indices: not supported)",
        ),
        (
            lambda m, x: F.softplus(m.conv(x)),
            "operation softplus: not supported; train the network with ReLU, .*; supported: Conv2d",
        ),
        (overwritten, "computes something else than the module; look for in-place"),
        (lambda m, x: m.conv(x) + 1, "operation add: expected the sum of two values of the network"),
        (lambda m, x: torch.add(m.conv(x), x, alpha=2), "operation add: expected the sum of two"),
        (lambda m, x: m.conv(x)[:, :2], r"operation getitem: takes .*2.*; expected the slices \[:, :, ::s, ::s\]"),
        (lambda m, x: m.conv(x[:, :, 1::2, 1::2]), "operation getitem: takes .* expected the slices"),
        (lambda m, x: m.conv(x[0:1]), "operation getitem: takes .* expected the slices"),
        (
            lambda m, x: F.pad(m.conv(x), (1, 1, 1, 1)),
            "operation pad: .*expected a convolution right behind that padding",
        ),
        (
            lambda m, x: m.relu(F.pad(m.conv(x), (1, 1))),
            "layer relu: .*expected a convolution right behind that padding",
        ),
        (lambda m, x: F.pad(m.conv(x), (1, 1, 1, 1), "reflect"), "mode reflect, .*; expected .*constant zeros"),
        (lambda m, x: F.pad(x, (0, 0, 0, 0, 1, 1), value=3.0), "value 3.0; expected .* constant zeros"),
        (lambda m, x: F.pad(x, (0, 0, 0, 0, 0, -1)), r"operation pad: pads \(0, 0, 0, 0, 0, -1\)"),
        (lambda m, x: m.conv(x).mean(1, keepdim=True), r"operation mean: over dimensions 1; expected \(2, 3\)"),
        (lambda m, x: m.tanh(m.conv(x)), r"layer tanh: from -1.0 to 1.0; expected a minimum of 0"),
        (lambda m, x: m.fc(x), r"layer fc: a Linear of 6 features on a value of shape \(3, 8, 6\).*flatten"),
        (lambda m, x: m.conv(x) if x.sum() > 0 else x, "torch.fx cannot trace it"),
        (lambda m, x: (m.conv(x), x), "network Forward: returns a tuple; expected one tensor"),
        (lambda m, x: m.conv(x[:, :2]), "fails on 2 images of shape"),
        (lambda m, x: F.avg_pool2d(x, 2, padding=1), "expected no padding"),
        (lambda m, x: F.avg_pool2d(x, 3, ceil_mode=True)[:, :, :2], "ceil_mode True"),
        (lambda m, x: F.adaptive_avg_pool2d(x, 5), r"output size 5 of a map of \(8, 6\); expected 1, or a divisor"),
        (
            lambda m, x: torch.flatten(x),
            r"operation flatten: from shape \(2, 3, 8, 6\) to \(288,\); expected dimensions 1",
        ),
        (lambda m, x: m.conv(x).permute(0, 2, 3, 1), "operation permute: not supported"),
        (
            lambda m, x: F.dropout(m.conv(x), 0.5),
            "operation dropout: drops values in evaluation .*training=self.training",
        ),
        (lambda m, x: F.selu(m.conv(x)), "operation selu: not supported; train the network with ReLU, LeakyReLU or"),
        (lambda m, x: m.conv(x) * 0.5, "operation mul: a product with 0.5; expected 0 or 1"),
        (lambda m, x: m.conv(x) * x, "operation mul: a product with another value"),
        (lambda m, x: torch.cat([m.conv(x), x], 2), r"operation cat: along dimension 2; expected channels \(1\)"),
        (lambda m, x: F.softmax(m.conv(x).mean((2, 3)), 1) + 0 * x.mean((2, 3)), "in the middle of the network"),
        (lambda m, x: x.view(1, -1), "operation view: from shape"),
    ],
)
def test_what_has_no_integer_form_is_refused_by_name(forward, message):
    with pytest.raises(UserError, match=message):
        import_module(Forward(forward), (3, 8, 6))


@pytest.mark.parametrize(
    ("forward", "operations"),
    [
        (lambda m, x: F.relu6(m.conv(x)), ["relu"]),
        (lambda m, x: F.hardtanh(m.conv(x), 0, 6), ["relu"]),
        (lambda m, x: F.hardtanh(m.conv(x), min_val=0.0, max_val=1.5), ["relu"]),
        (lambda m, x: m.conv(x).mean([-2, -1], keepdim=True).flatten(1), ["average_pool", "flatten"]),
        (lambda m, x: torch.mean(m.conv(x), dim=(3, 2)), ["average_pool"]),
        (lambda m, x: F.adaptive_avg_pool2d(m.conv(x), 1), ["average_pool"]),
        (lambda m, x: m.conv(x)[:, :, ::3, ::3], ["subsample"]),
        (lambda m, x: F.pad(m.conv(x), (0, 0, 0, 0, 0, 2), "constant", 0), ["pad_channels"]),
        (lambda m, x: F.pad(m.conv(x), [0, 0, 0, 0, 3, 1])[:, :, ::2, ::2], ["pad_channels", "subsample"]),
    ],
)
def test_functions_are_imported_like_modules(forward, operations):
    module = randomised(Forward(forward))
    module.conv.weight.data *= 5  # so that upper bounds matter
    images = torch.randn(4, 3, 7, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    graph = import_module(module, (3, 7, 7))
    assert [node.operation for node in graph.nodes] == ["input", "linear", *operations]
    torch.testing.assert_close(graph.outputs(images), module.double()(images).flatten(1))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect"), "padding mode reflect"),
        (nn.Conv2d(3, 3, 3, stride=(1, 2)), "layer 0: stride"),
    ],
)
def test_convolutions_are_checked(layer, message):
    with pytest.raises(UserError, match=message):
        import_module(nn.Sequential(layer), (3, 8, 8))


def test_diverged_weights_are_refused():
    module = nn.Sequential(nn.Conv2d(3, 3, 3))
    module[0].weight.data[0, 0, 0, 0] = float("nan")
    with pytest.raises(UserError, match="layer 0: its weight has 1 of 81 values not finite .NaN among"):
        import_module(module, (3, 8, 8))


def test_batch_norm_without_statistics_is_refused():
    with pytest.raises(UserError, match="layer 1: batch normalisation without running statistics"):
        import_module(nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3, track_running_stats=False)), (3, 8, 8))
