"""Fast evaluation of an integer network in torch: accuracy, wraps and accumulator statistics, bit for bit exact.

Floating point holds the integers: a type is chosen per layer so that every partial sum, in whatever order a
convolution kernel adds, is an integer that the type represents exactly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import beta
from torch import Tensor
from torch.nn import functional as F

from autoprivacy.data.dataset import Split
from autoprivacy.errors import UserError
from autoprivacy.quantization.float_forms import INTEGER, Form, activation_form, forms, is_exponent, single_use
from autoprivacy.quantization.integer_network import (
    SIGNED_RANGE,
    Architecture,
    IntegerNetwork,
    Interval,
    LinearLayer,
    Node,
    rounding_constant,
)
from autoprivacy.quantization.operations import Operations
from autoprivacy.quantization.outputs import Output, predicted_class, shown
from autoprivacy.quantization.residues import Residues, low_share_bits, truncated_activation
from autoprivacy.quantization.tensor_operations import TensorOperations
from autoprivacy.quantization.windows import Window
from autoprivacy.training.batches import device

Perturbation = Callable[[str, Tensor], Tensor]

FLOAT32_EXACT = 1 << 24  # float32 holds every integer up to here
# Values are kept in float32 up to half of that, so that the errors which a perturbation adds find room.
FLOAT32_LIMIT = FLOAT32_EXACT // 2
FLOAT64_LIMIT = 1 << 52  # the same half for float64
CONFIDENCE = 0.95  # of the bound on the rate of wraps
BATCH = 50  # images at a time: the largest values of 7CNET then take 13 MB each


@dataclass(frozen=True)
class Statistics:
    """What was seen of one accumulator over all its positions and images."""

    minimum: int
    maximum: int
    standard_deviation: float
    count: int

    @property
    def largest(self) -> int:
        """The largest absolute value."""
        return max(-self.minimum, self.maximum)


def wrap_rate_bound(wraps: int, count: int) -> float:
    """An upper bound, at 95% confidence, on the probability that a value wraps, of which `wraps` of `count` did.

    Clopper and Pearson (Biometrika 26, 1934), one-sided; about 3 / count where none did. It takes the values for
    independent, which those of one image are not.
    """
    return 1.0 if wraps >= count else float(beta.ppf(CONFIDENCE, wraps + 1, count - wraps))


class _Moments:
    """Running extremes and moments of one node's values."""

    def __init__(self) -> None:
        self.minimum, self.maximum = np.inf, -np.inf
        self.count, self.sum, self.squares = 0, 0.0, 0.0

    def add(self, values: Tensor) -> None:
        low, high = torch.aminmax(values)
        self.minimum, self.maximum = min(self.minimum, low.item()), max(self.maximum, high.item())
        self.count += values.numel()
        self.sum += float(values.sum(dtype=torch.float64))
        self.squares += float(values.square().sum(dtype=torch.float64))

    def statistics(self) -> Statistics:
        variance = max(self.squares / self.count - (self.sum / self.count) ** 2, 0.0)
        return Statistics(int(self.minimum), int(self.maximum), variance**0.5, self.count)


def value_ranges(network: IntegerNetwork) -> dict[str, Interval]:
    """For every node the interval that holds its integers (before any reduction modulo p) for every image."""
    ranges: dict[str, Interval] = {}
    operations = _Ranges(network, ranges)
    for node in network.architecture.nodes:
        ranges[node.name] = operations.step(node, [ranges[name] for name in node.inputs])
        size = _size(ranges[node.name])
        if size > FLOAT64_LIMIT:
            raise UserError(f"node {node.name}: values up to {size}; allowed {FLOAT64_LIMIT}: put an activation before")
    return ranges


class _Ranges(Operations[Interval]):
    """Operations on intervals."""

    def __init__(self, network: IntegerNetwork, ranges: dict[str, Interval]) -> None:
        self._layers, self._maxima, self._ranges = network.layers, network.architecture.maxima, ranges

    def input(self, node: Node) -> Interval:
        return SIGNED_RANGE

    def linear(self, node: Node, x: Interval) -> Interval:
        """Bounds of every partial sum: zero padding and an empty sum count too, so the terms' range includes 0."""
        layer, (low, high) = self._layers[node.name], self.pad_channels(node, x)
        weight = layer.weight.reshape(len(layer.weight), -1)
        positive, negative = np.maximum(weight, 0).sum(1), np.minimum(weight, 0).sum(1)
        highest = positive * high + negative * low + np.maximum(layer.bias, 0)
        lowest = positive * low + negative * high + np.minimum(layer.bias, 0)
        return int(lowest.min()), int(highest.max())

    def activation(self, node: Node, x: Interval) -> Interval:
        return node.activated_range

    def sum_pool(self, node: Node, x: Interval) -> Interval:
        size = node.window[0] * node.window[1]
        return x[0] * size, x[1] * size

    def flatten(self, node: Node, x: Interval) -> Interval:
        return x

    def add(self, node: Node, x: Interval, y: Interval) -> Interval:
        if node.name in self._maxima:
            return x[0], max(x[1], self._ranges[self._maxima[node.name][0]][1])
        return x[0] + y[0], x[1] + y[1]

    def scale(self, node: Node, x: Interval) -> Interval:
        products = [bound * int(factor) for factor in node.factors.flat for bound in x]
        return min(products), max(products)

    def subsample(self, node: Node, x: Interval) -> Interval:
        return x

    def window(self, node: Node, x: Interval) -> Interval:
        return x

    def pad_channels(self, node: Node, x: Interval) -> Interval:
        return min(x[0], 0), max(x[1], 0)


def _size(interval: Interval) -> int:
    return max(-interval[0], interval[1])


def read_nodes(architecture: Architecture) -> dict[str, int]:
    """The nodes whose values are read as signed numbers, each with the largest shift of the activations that read it.

    Activations read their inputs, the user reads the output (shift 0); everywhere else residues modulo p will do.
    """
    shifts: dict[str, int] = {}
    for node in architecture.activations:
        shifts[node.inputs[0]] = max(node.shift, shifts.get(node.inputs[0], 0))
    return {architecture.nodes[-1].name: 0, **shifts}


class Evaluator(TensorOperations):
    """Evaluates an integer network on batches of images.

    Args:
        network: the integer network.
        modulus: p, or a policy's moduli for every node; None for integers without a modulus.
        shares: draws the client's shares, for the activations that ignore share bits to round as their circuits do; for
            simulation only (see `low_share_bits`). None lets all activations round to the nearest.

    Attributes:
        wraps: per node that is read as a signed number (the linear layers, or the additions and poolings after them),
            how many values so far had a signed residue, or an integer of the layer's window, other than the true value.
        counts: how many values there were.

    Raises:
        UserError: a value can exceed what float64 holds exactly.
    """

    def __init__(
        self, network: IntegerNetwork, modulus: int | Residues | None, shares: np.random.Generator | None = None
    ) -> None:
        self.network = network
        architecture = network.architecture
        self._residues = Residues.uniform(architecture, modulus) if isinstance(modulus, int) else modulus
        self._shares = shares
        self.device = device()
        self.wraps: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self._nodes = architecture.nodes
        self._read = read_nodes(architecture)
        self._ranges = value_ranges(network)
        self._ignored = self._residues.ignored_bits if self._residues and shares else {}
        self._forms = forms(architecture, self._ignored)
        self._overwritable = single_use(architecture)
        self._last_use = {name: i for i, node in enumerate(self._nodes) for name in node.inputs}
        self._tables = {
            node.name: torch.tensor(node.table, dtype=self._type(node.name), device=self.device)
            for node in architecture.tables
        }
        self._weights = {
            node.name: self._prepared(node, network.layers[node.name]) for node in architecture.linear_nodes
        }

    def _bound(self, name: str) -> int:
        """The largest integer that a node's form holds."""
        return _size(self._ranges[name]) + self._forms[name].offset

    def _type(self, name: str) -> torch.dtype:
        """In what the node's values are kept."""
        return torch.float32 if self._bound(name) < FLOAT32_LIMIT else torch.float64

    def _prepared(self, node: Node, layer: LinearLayer) -> tuple[Tensor, Tensor]:
        """Weights and bias that take the input's form to the output's."""
        # cuDNN may answer float32 convolutions with Winograd or FFT kernels, which round; in float64 it has neither
        small = self._bound(node.name) <= FLOAT32_EXACT and self.device.type == "cpu"
        kind = torch.float32 if small else torch.float64
        form, source = self._forms[node.name], self._forms[node.inputs[0]]
        weight = torch.tensor(layer.weight * (form.unit / source.unit), dtype=kind, device=self.device)
        bias = torch.tensor((layer.bias + form.offset) * form.unit, dtype=kind, device=self.device)
        return weight.to(memory_format=torch.channels_last), bias

    def forward(self, images: np.ndarray | Tensor, perturb: Perturbation | None = None) -> Tensor:
        """Integer outputs, signed modulo p: int64 [N, outputs] on the processor.

        Args:
            images: int64 [N, C, H, W], as Architecture.quantize_images gives them.
            perturb: called with a layer's name and its exact accumulators (a float tensor of integers [N, C, H, W],
                before reduction modulo p) and returns them with errors added, each below 2^23.

        Raises:
            ValueError: the images are not signed 8-bit integers of the network's shape.
        """
        return self._forward(images, perturb, None)

    @torch.no_grad()
    def _forward(
        self, images: np.ndarray | Tensor, perturb: Perturbation | None, moments: dict[str, _Moments] | None
    ) -> Tensor:
        images = images if isinstance(images, Tensor) else torch.tensor(images)
        expected = self._nodes[0].shape
        if tuple(images.shape[1:]) != expected or images.is_floating_point() or not len(images):
            raise ValueError(f"images {images.dtype} {tuple(images.shape)}; expected integers [N, *{expected}], N > 0")
        low, high = torch.aminmax(images)
        if low < SIGNED_RANGE[0] or high > SIGNED_RANGE[1]:
            raise ValueError(f"image values from {int(low)} to {int(high)}; allowed {SIGNED_RANGE}")
        with torch.backends.nnpack.flags(enabled=False):  # NNPACK's convolutions round, oneDNN's do not
            return torch.cat([self._batch(batch, perturb, moments) for batch in images.split(BATCH)])

    def _batch(self, images: Tensor, perturb: Perturbation | None, moments: dict[str, _Moments] | None) -> Tensor:
        values: dict[str, Tensor] = {}
        for index, node in enumerate(self._nodes):
            inputs = [values[name] for name in node.inputs]
            value = self.step(node, inputs) if inputs else images.to(self.device, torch.float32)
            if perturb is not None and node.operation == "linear":
                value = self._kept(node.name, perturb(node.name, self._integers(node.name, value)))
            if moments is not None and node.name in self._read:
                moments.setdefault(node.name, _Moments()).add(self._integers(node.name, value.double()))
            values[node.name] = value
            for name in node.inputs:
                if self._last_use[name] == index:
                    values.pop(name, None)
        output = self._nodes[-1].name
        outputs = self._signed(output, self._integers(output, values[output]), INTEGER)
        return outputs.flatten(1).to(torch.int64).cpu()

    def _integers(self, name: str, value: Tensor) -> Tensor:
        """A node's integers from the form in which they are kept; always another tensor."""
        form = self._forms[name]
        return (value / form.unit).sub_(form.offset)

    def _kept(self, name: str, integers: Tensor) -> Tensor:
        """The inverse of `_integers`."""
        form = self._forms[name]
        return (integers + form.offset).mul_(form.unit)

    def linear(self, node: Node, x: Tensor) -> Tensor:
        """A convolution in the type that is exact."""
        shape = self.network.layers[node.name].shape
        weight, bias = self._weights[node.name]
        x = x.to(weight.dtype, memory_format=torch.channels_last)
        value = F.conv2d(x, weight, bias, shape.stride, shape.padding, groups=shape.groups)
        return value.to(self._type(node.name))

    def sum_pool(self, node: Node, x: Tensor) -> Tensor:
        """In a type that holds the sums."""
        return super().sum_pool(node, x.to(torch.promote_types(self._type(node.name), x.dtype)))

    def scale(self, node: Node, x: Tensor) -> Tensor:
        """In place where nothing else reads x; nothing at all where the factor only changes the form."""
        if is_exponent(node):
            return x
        form, source = self._forms[node.name], self._forms[node.inputs[0]]
        kind = torch.promote_types(self._type(node.name), x.dtype)
        x = x.to(kind, copy=node.inputs[0] not in self._overwritable)
        factors = torch.from_numpy(node.factors * (form.unit / source.unit)).to(x)
        return x.mul_(factors).add_(form.offset * form.unit)

    def add(self, node: Node, x: Tensor, y: Tensor) -> Tensor:
        """The sum in the form of an input that nothing else reads where there is one."""
        unit, inputs = self._forms[node.name].unit, (x, y)
        factors = [unit / self._forms[name].unit for name in node.inputs]
        kind = torch.promote_types(self._type(node.name), torch.promote_types(x.dtype, y.dtype))
        for one, other in ((0, 1), (1, 0)):
            if factors[one] == 1 and node.inputs[one] in self._overwritable:
                return inputs[one].to(kind).add_(inputs[other], alpha=factors[other])
        return (x.to(kind) * factors[0]).add_(y, alpha=factors[1])

    def activation(self, node: Node, x: Tensor) -> Tensor:
        """Round down and clip what has the activation's own form already, or is brought to it; then square, or look
        up.
        """
        source, ignored = node.inputs[0], self._ignored.get(node.name, 0)
        if ignored and self._residues and self._residues.read[source] % 2:
            return self._truncated(node, x, self._residues.window(source), ignored).to(self._type(node.name))
        form, wanted = self._forms[source], activation_form(node, ignored)
        if form != wanted:
            x = (x * (wanted.unit / form.unit)).add_((wanted.offset - form.offset) * wanted.unit)
        elif source not in self._overwritable:
            x = x.clone()
        if ignored:
            # modulo 2^k the low bits of the client's share are all that is lost (`truncated_activation`)
            assert self._shares is not None
            images, channels, height, width = x.shape
            lost = torch.from_numpy(low_share_bits(self._shares, ignored, (images, height, width, channels)))
            x.sub_(lost.permute(0, 3, 1, 2).to(x.device), alpha=wanted.unit)
        clipped = self._signed(source, x, wanted).floor_().clamp_(node.minimum, node.maximum)
        if node.table:
            return self._tables[node.name][clipped.sub_(node.minimum).long()]
        clipped = clipped.to(self._type(node.name))
        return clipped.square_() if node.squared else clipped

    def _truncated(self, node: Node, x: Tensor, window: Window, ignored: int) -> Tensor:
        """An activation that ignores share bits modulo an odd p, under fresh shares of the client."""
        assert self._shares is not None
        source, constant = node.inputs[0], rounding_constant(node.shift, ignored)
        read = self._signed(source, self._integers(source, x) + constant, INTEGER).to(torch.int64) - constant
        share = torch.from_numpy(self._shares.integers(window.size, size=tuple(read.shape))).to(read.device)
        activated: Tensor = truncated_activation(read, share, node, window, ignored)
        return activated

    def _signed(self, name: str, values: Tensor, form: Form) -> Tensor:
        """Values in `form`, its offset included, reduced to the integers of the node's window, or to signed residues
        modulo p; counts those that change."""
        self.counts[name] += values.numel()
        if self._residues is None:
            return values
        window = self._residues.window(name)
        lowest, highest = window.interval
        low, high = torch.aminmax(values.permute(0, 2, 3, 1))  # in the order of memory: a sixth of the time
        if low >= lowest * form.unit and high <= highest * form.unit:
            return values
        # the remainder of floats is exact; float64 because p may be larger than float32 counts
        exact = values.double() / form.unit
        signed = torch.remainder(exact - lowest, window.size) + lowest
        self.wraps[name] += int((signed != exact).sum())
        return signed.mul_(form.unit)

    def predictions(self, split: Split, perturb: Perturbation | None = None, output: Output = "logits") -> np.ndarray:
        """The predicted class of every image of a split, int64 [N], from what a client learns of the outputs.

        Raises:
            ValueError: the split is empty.
        """
        if not len(split.labels):
            raise ValueError("predictions of no images")
        quantize = self.network.architecture.quantize_images
        outputs = [
            self.forward(quantize(split.images[start : start + BATCH]), perturb)
            for start in range(0, len(split.labels), BATCH)
        ]
        logits = torch.cat(outputs).numpy()
        if output == "logits" or self._residues is None:
            return predicted_class(logits, "logits")
        return predicted_class(shown(logits, output, self._residues.read[self._nodes[-1].name]), output)

    def accuracy(self, split: Split, perturb: Perturbation | None = None, limit: int | None = None) -> float:
        """Top-1 accuracy in percent on a split, or on its first `limit` images; ValueError on an empty one."""
        split = split if limit is None else split.take(slice(0, limit))
        return 100.0 * float(np.mean(self.predictions(split, perturb) == split.labels))

    def statistics(self, images: np.ndarray | Tensor) -> dict[str, Statistics]:
        """Per node that is read as a signed number, what its values were on these images, before reduction."""
        moments: dict[str, _Moments] = {}
        self._forward(images, None, moments)
        return {name: moment.statistics() for name, moment in moments.items()}
