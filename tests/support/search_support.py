"""What the tests of the search share: a small hand-built integer network, images, a selection and a reward by rule."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from autoprivacy.data.dataset import Split
from autoprivacy.he.parameters.parameter_set import Flooding, ParameterSet, Target
from autoprivacy.he.parameters.policy import LayerPolicy, Policy
from autoprivacy.networks import build
from autoprivacy.quantization.integer_network import Architecture, IntegerNetwork, LayerShape, LinearLayer, Node
from autoprivacy.search.environment import LayerwiseEnvironment
from autoprivacy.search.problem import Budget, SearchProblem

torch.set_num_threads(1)  # networks this small: more threads only wait for each other

# Primes == 1 mod 2048 and 1 mod 4096: secure sets exist at both degrees.
PRIMES = {1024: (12289,), 2048: (1073692673, 12289)}
CLASSES = 4


def small_network(seed: int = 1) -> IntegerNetwork:
    """Two convolutions (the second grouped, strided, with a residual), sum pooling, fully connected; 8x8 images."""
    generator = np.random.default_rng(seed)
    shapes = (
        LayerShape("first", "convolution", (3, 8, 8), 6, (3, 3), padding=1, input_maximum=128),
        LayerShape("body.second", "convolution", (6, 8, 8), 6, (3, 3), padding=1, groups=2),
        LayerShape("fc", "fully_connected", (24, 1, 1), CLASSES, (1, 1), input_maximum=4 * 255),
    )
    nodes = (
        Node("image", "input", (), (3, 8, 8)),
        Node("first", "linear", ("image",), (6, 8, 8)),
        Node("first.relu", "activation", ("first",), (6, 8, 8), shift=6),
        Node("body.second", "linear", ("first.relu",), (6, 8, 8)),
        Node("scaled", "scale", ("first.relu",), (6, 8, 8), factor=32),
        Node("sum", "add", ("body.second", "scaled"), (6, 8, 8)),
        Node("clipped", "activation", ("sum",), (6, 8, 8), shift=7, minimum=-100, maximum=200),
        Node("pooled", "sum_pool", ("clipped",), (6, 2, 2), kernel=3, stride=4),
        Node("flat", "flatten", ("pooled",), (24, 1, 1)),
        Node("fc", "linear", ("flat",), (CLASSES, 1, 1)),
    )
    layers = {}
    for shape in shapes:
        size = (shape.output_channels, shape.input_shape[0] // shape.groups, *shape.kernel)
        weight = generator.normal(0, 30, size).round().clip(-127, 127).astype(np.int64)
        bias = generator.integers(-2000, 2000, shape.output_channels)
        layers[shape.name] = LinearLayer(shape, weight, bias)
    architecture = Architecture(nodes, shapes, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), 0.02)
    return IntegerNetwork(architecture, layers, 2e-5)


def layers_of(model: str) -> IntegerNetwork:
    """The linear layers of a network of the library, without weights and with nothing between them."""
    shapes: list[LayerShape] = []

    def note(module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        image = (*inputs[0].shape[1:], 1, 1)[:3]
        name = f"layer{len(shapes)}"
        if isinstance(module, nn.Conv2d):
            size = (module.out_channels, module.kernel_size, module.stride[0], int(module.padding[0]), module.groups)
            shapes.append(LayerShape(name, "convolution", image, *size))  # type: ignore[arg-type]
        else:
            shapes.append(LayerShape(name, "fully_connected", image, output.shape[1], (1, 1)))

    network = build(model, 10).eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(note)
    with torch.no_grad():
        network(torch.zeros(1, 3, 32, 32))
    nodes = [Node("image", "input", (), (3, 32, 32))]
    layers = {}
    for shape in shapes:
        nodes.append(Node(shape.name, "linear", (nodes[-1].name,), shape.output_shape))
        size = (shape.output_channels, shape.input_shape[0] // shape.groups, *shape.kernel)
        bias = np.zeros(shape.output_channels, np.int64)
        layers[shape.name] = LinearLayer(shape, np.zeros(size, np.int64), bias)
    return IntegerNetwork(Architecture(tuple(nodes), tuple(shapes), (0.5,) * 3, (0.25,) * 3, 0.02), layers, 1.0)


def images_of(count: int, seed: int = 2) -> Split:
    """Noisy 8x8 images, a bright quadrant each, which is the label: a task that the small network can learn."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, CLASSES, count)
    images = generator.integers(60, 160, (count, 8, 8, 3))
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(int(label), 2)
        image[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 80
    return Split(images.astype(np.uint8), labels.astype(np.int64))


def parameters_of(degree: int) -> ParameterSet:
    """A secure set of that degree, n = 1024 or 2048."""
    return ParameterSet(257, degree, PRIMES[degree])


def darl_policy(network: IntegerNetwork) -> Policy:
    """One set for all layers, 1 s a layer."""
    layers = tuple(
        LayerPolicy(shape.name, Target(2.0**-40), parameters_of(2048), 1024.0, {"tau": 0.07, "latency_seconds": 1.0})
        for shape in network.architecture.layers
    )
    return Policy("small", "darl", "coefficient", Flooding("none"), layers, {"garbled_seconds": 5.0})


def exponent_of(target: Target) -> int:
    """x of a decryption error rate 2^-x."""
    assert target.decryption_error_rate is not None
    return round(-np.log2(target.decryption_error_rate))


def step_of(exponent: int) -> int:
    """Which set selection by rule deploys for 2^-exponent: 0 for 2^-5, 1 for 2^-6 and 2^-7, ..., 5 for 2^-15."""
    return (exponent - 4) // 2


def select_by_rule(layer: LinearLayer, target: Target) -> LayerPolicy:
    """Six sets, 0.5 s to 1.0 s a layer; the step stands in the plaintext modulus."""
    step = step_of(exponent_of(target))
    degree = 2048 if step else 1024
    parameters = ParameterSet(257 + step, degree, PRIMES[degree])
    return LayerPolicy(layer.shape.name, target, parameters, 1024.0, {"tau": 0.2, "latency_seconds": 0.5 + 0.1 * step})


class RuleReward:
    """Minus the mean distance of the deployed sets to those of the best exponents, from -1 to 0; or a constant."""

    def __init__(self, best: tuple[int, ...], constant: float | None = None) -> None:
        self.best, self.constant = best, constant
        self.policies: list[Policy] = []

    def __call__(self, policy: Policy, to_beat: float | None = None) -> float:
        self.policies.append(policy)
        if self.constant is not None:
            return self.constant
        steps = [layer.parameters.plaintext_modulus - 257 for layer in policy.layers]
        distances = [abs(step - step_of(best)) for step, best in zip(steps, self.best, strict=True)]
        return -sum(distances) / (5 * len(distances))


def rule_problem(best: tuple[int, ...] = (5, 5, 5), budget: Budget | None = None) -> SearchProblem:
    """The search on the small network with selection and reward by rule."""
    network = small_network()
    return SearchProblem(network, darl_policy(network), select_by_rule, RuleReward(best), budget)


def rule_environment(best: tuple[int, ...] = (5, 5, 5), budget: Budget | None = None) -> LayerwiseEnvironment:
    """The same as an environment."""
    return LayerwiseEnvironment(rule_problem(best, budget))


def levels_of_exponents(exponents: list[int]) -> list[int]:
    """Levels of error rates 2^-exponent."""
    return [exponent - 5 for exponent in exponents]


def exponents_of(levels: list[int]) -> list[int]:
    """Its inverse."""
    return [level + 5 for level in levels]


def circuit_table(p: int = 257, factor: float = 1e-3) -> dict[str, list[float]]:
    """Seconds of the small network's circuits as if they took time for every bit of a share that is left."""
    return {
        node.name: [factor * math.prod(node.shape) * (p.bit_length() - t) for t in range(node.shift + 1)]
        for node in small_network().architecture.nodes
        if node.operation == "activation"
    }


def noisy_select(layer: LinearLayer, target: Target) -> LayerPolicy:
    """A set per target: a halving of the noise takes 0.1 s more, and twice that in the first layer."""
    tau = target.tau or 0.07
    slope = 0.2 if layer.shape.name == "first" else 0.1
    predicted = {"tau": tau, "latency_seconds": 5 * slope - slope * float(np.log2(tau)) + 10}
    return LayerPolicy(layer.shape.name, target, parameters_of(2048), 1024.0, predicted)


class NoiseReward:
    """Accuracy lost in proportion to noise variance in steps, each layer by its own factor: the losses add up."""

    def __init__(self, factors: tuple[float, ...], steps: tuple[int, ...]) -> None:
        self.factors, self.steps = factors, steps
        self.count = 0

    def __call__(self, policy: Policy, to_beat: float | None = None) -> float:
        self.count += 1
        losses = [
            factor * (layer.predicted["tau"] / 2.0**step) ** 2
            for factor, step, layer in zip(self.factors, self.steps, policy.layers, strict=True)
        ]
        bits = [layer.target.ignored_share_bits for layer in policy.layers]
        losses += [f * 4.0 ** (t - k) / 6 * (t > 0) for f, k, t in zip(self.factors, self.steps, bits, strict=True)]
        return -min(sum(losses), 1.0)
