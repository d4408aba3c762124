"""Networks as people write them: sizes, views, functional forms, reused modules, lambdas; each equal to its module."""

import pytest
import torch
from support.float_networks import convolution, randomised, smooth_dataset
from support.published_resnet import resnet32
from support.reference import reference_forward
from torch import nn
from torch.nn import functional as F

from autoprivacy.quantization.evaluation import Evaluator
from autoprivacy.quantization.importer import import_module
from autoprivacy.quantization.quantize import QuantizationSettings, quantize

SIZE = (12, 8)


class Base(nn.Module):
    """A convolution, its norm, and whatever the forward pass is."""

    def __init__(self, forward, features=8):
        super().__init__()
        self.conv = convolution(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.after = nn.BatchNorm2d(8)
        self.scale = nn.Parameter(torch.randn(8, 8, 1, 1))
        self.fc = nn.Linear(features, 5)
        self.relu = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.5)
        self.compute = forward

    def body(self, x):
        return self.relu(self.bn(self.conv(x)))

    def forward(self, x):
        return self.compute(self, x)


def pooled(m, x):
    return F.adaptive_avg_pool2d(m.body(x), 1).flatten(1)


def branches(m, x):
    """On sizes and settings, as torchvision's and timm's forwards do."""
    if x.dim() != 4 or x.size(1) != 3 or len(x) < 1 or m.training:
        raise ValueError("no batch of images")
    y = m.body(x)
    for _ in range(y.shape[-1] // 8):
        y = F.relu(m.second(y))
    return m.fc(y.mean([2, 3]))


def sum_of_parts(m, x):
    y = m.body(x)
    return m.fc(sum([y, m.second(y), y.clone()]).mean((2, 3)))


def is_tensor(m, x):
    """torch.fx's values are no tensors; torch.export's are."""
    y = F.relu(m.second(m.body(x)))
    if not isinstance(y, torch.Tensor):
        raise TypeError("expected a tensor")
    y = y[:, :, ::2, ::2]
    y = F.pad(y, (0, 0, 0, 0, 1, 1))
    y = torch.cat([y, F.avg_pool2d(F.dropout(y, 0.3, m.training), 1)], 1)
    y += F.hardtanh(y, 0.0, 2.0)
    return m.fc(y[:, :, :, :].view(y.shape[0], -1))


def reused(m, x):
    y = m.relu(m.second(m.relu(m.second(m.body(x)))))
    return m.fc(m.drop(y.mean((2, 3))))


def zeros_behind(m, x):
    y = F.avg_pool2d(m.body(x), 1, 2)
    return m.fc(torch.cat((y, y.mul(0)), 1).mean((2, 3)))


def zeros_of_a_size(m, x):
    y = m.body(x)
    return m.fc(torch.cat([y, torch.zeros(y.size(0), 8, y.size(2), y.size(3))], dim=1).mean((2, 3)))


IDIOMS = {
    "view by size": (lambda m, x: m.fc(m.body(x).view(x.size(0), -1)), 8 * 96),
    "view by features": (lambda m, x: m.fc(m.body(x).view(-1, 8 * 96)), 8 * 96),
    "reshape by shape": (lambda m, x: m.fc(m.body(x).reshape(x.shape[0], -1)), 8 * 96),
    "view by arithmetic": (lambda m, x: m.fc(m.body(x).view(x.size()[0], 8 * x.shape[2] * x.size(-1))), 8 * 96),
    "flatten from 2 and mean": (lambda m, x: m.fc(m.body(x).flatten(2).mean(2)), 8),
    "view and mean": (lambda m, x: m.fc(m.body(x).view(x.size(0), 8, -1).mean(-1)), 8),
    "mean twice": (lambda m, x: m.fc(m.body(x).mean(3).mean(2)), 8),
    "mean kept": (lambda m, x: m.fc(m.body(x).mean((2, 3), keepdim=True).squeeze(-1).squeeze(-1)), 8),
    "pool by size": (lambda m, x: m.fc(F.avg_pool2d(m.body(x), x.size()[2:]).flatten(1)), 8),
    "pool of rows": (lambda m, x: m.fc(F.avg_pool2d(m.body(x), (3, 2)).flatten(1)), 8 * 16),
    "adaptive": (lambda m, x: m.fc(pooled(m, x)), 8),
    "adaptive to parts": (lambda m, x: m.fc(F.adaptive_avg_pool2d(m.body(x), (3, None)).flatten(1)), 8 * 24),
    "functional dropout": (lambda m, x: m.fc(F.dropout(pooled(m, x), 0.1, training=m.training)), 8),
    "log-softmax": (lambda m, x: F.log_softmax(m.fc(pooled(m, x)), dim=1), 8),
    "rows alone": (lambda m, x: m.fc(m.body(x)[:, :, ::2, ::3][:, :, :, ::2].mean((2, 3))), 8),
    "clamp": (lambda m, x: m.fc(m.second(m.body(x)).clamp(min=0, max=1.5).mean((2, 3))), 8),
    "functional weights": (lambda m, x: m.fc(F.relu(F.conv2d(m.body(x), m.scale, stride=2)).mean((2, 3))), 8),
    "functional norm": (
        lambda m, x: m.fc(F.batch_norm(m.conv(x), m.bn.running_mean, m.bn.running_var, m.bn.weight).mean((2, 3))),
        8,
    ),
    "norm before": (lambda m, x: m.fc(m.second(F.relu(m.after(m.body(x)))).mean((2, 3))), 8),
    "padding before": (lambda m, x: m.fc(F.relu(m.second(F.pad(m.body(x), (1, 2, 0, 1)))).mean((2, 3))), 8),
    "branches on sizes": (branches, 8),
    "sum of three": (sum_of_parts, 8),
    "reused": (reused, 8),
    "concatenation": (lambda m, x: m.fc(torch.cat([m.body(x), m.second(m.body(x)), x], 1).mean((2, 3))), 19),
    "zeros behind": (zeros_behind, 16),
    "zeros of a size": (zeros_of_a_size, 16),
    "for torch.export": (is_tensor, 20 * 24),
}


def equal_to_its_module(module, size, channels=3):
    graph = import_module(module, (channels, *size))
    images = torch.randn(3, channels, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    own = module.double().eval()(images)
    return torch.allclose(graph.outputs(images).softmax(1), own.flatten(1).softmax(1), rtol=1e-11, atol=1e-12), graph


@pytest.mark.parametrize("name", IDIOMS)
def test_everyday_idioms(name):
    forward, features = IDIOMS[name]
    equal, _ = equal_to_its_module(randomised(Base(forward, features)), SIZE)
    assert equal


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 4, 3, dilation=2),
        nn.Conv2d(3, 4, (3, 1), padding="same"),
        nn.Conv2d(3, 4, (3, 5), padding=(1, 2), stride=2),
        nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 4, 3, stride=2)),
        nn.Sequential(nn.MaxPool2d(1, 2), nn.Conv2d(3, 4, 1)),
        nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)),
    ],
    ids=["dilated", "same", "oblong", "padded at two sides", "pool of one", "norm first"],
)
def test_convolutions_of_all_kinds(layer):
    equal, _ = equal_to_its_module(randomised(nn.Sequential(layer)), (11, 8))
    assert equal


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_same_padding_of_an_even_kernel():
    equal, _ = equal_to_its_module(randomised(nn.Sequential(nn.Conv2d(3, 3, 2, padding="same"))), (8, 7))
    assert equal


class ConvNorm(nn.Sequential):
    """A Sequential of one's own, with a forward of its own."""

    def __init__(self, inputs, outputs):
        super().__init__(convolution(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs))
        self.active = True

    def forward(self, x):
        x = super().forward(x)
        return F.relu(x) if self.active else x


class OwnConvolution(nn.Conv2d):
    """A subclass of torch's, with a forward of its own."""

    def forward(self, x):
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding)


def test_subclasses_of_torchs_modules():
    module = nn.Sequential(ConvNorm(3, 6), OwnConvolution(6, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    equal, graph = equal_to_its_module(randomised(module), (9, 7))
    assert equal and list(graph.layers) == ["conv1", "conv2"]


def test_parametrised_weights():
    module = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), nn.ReLU())
    equal, _ = equal_to_its_module(module, (6, 6))
    assert equal


def test_the_published_cifar_resnet_as_it_is():
    equal, graph = equal_to_its_module(randomised(resnet32()), (32, 32))
    assert equal
    assert len(graph.layers) == 32
    assert [n.operation for n in graph.nodes].count("subsample") == 2
    assert list(graph.layers)[:2] == ["conv1", "layer1.0.conv1"] and list(graph.layers)[-1] == "linear"


@pytest.mark.parametrize(
    "name", ["mean twice", "pool of rows", "rows alone", "concatenation", "norm before", "padding before"]
)
def test_integers_of_what_is_new_are_those_of_the_reference(name):
    forward, features = IDIOMS[name]
    module = randomised(Base(forward, features)).eval()
    dataset = smooth_dataset(size=SIZE)
    network, _ = quantize(module, dataset, QuantizationSettings(calibration_images=40))
    images = network.architecture.quantize_images(dataset.test.images[:4])
    integers = Evaluator(network, None).forward(images).numpy().reshape(4, -1)
    for image, got in zip(images, integers, strict=True):
        assert (reference_forward(network, image, None) == got).all()
        assert (reference_forward(network, image, 1 << 30) == got).all()
