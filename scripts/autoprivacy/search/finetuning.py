"""Finetuning of an integer network with the decryption errors in its forward pass (the paper's section 3.1).

The forward pass computes the integer network's own integers, also where activations round at random; gradients pass
straight through every rounding (Bengio, Leonard, Courville, Estimating or Propagating Gradients Through Stochastic
Neurons, 2013). Shifts, clips and scales stay as they are, so the result differs from the given network in its integer
weights and biases alone.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoprivacy.data.dataset import Split
from autoprivacy.errors import UserError
from autoprivacy.he.parameters.commitment import coarse_bound
from autoprivacy.quantization.integer_network import IntegerNetwork, LinearLayer, Node, rounding_constant
from autoprivacy.quantization.tensor_operations import TensorOperations
from autoprivacy.search.decryption_errors import Perturbation
from autoprivacy.training.augmentation import augment
from autoprivacy.training.batches import device
from autoprivacy.training.settings import TrainingSettings
from autoprivacy.workflow.resumption import load_state, save_state

SLOPE_LEVELS = 8  # on either side of a level, over which the slope of a table is taken
SHRINKAGE = 0.995  # of weights whose norm has outgrown its bound, until it is within


@dataclass(frozen=True)
class FinetuneSettings:
    """Settings of one finetuning run; config/schema.yaml has the defaults of the first three."""

    epochs: int  # the paper: one during exploration
    batch_size: int
    # Per step of Adam and in units of the layer's root-mean-square weight, so that one value fits every layer; it
    # falls linearly to 0. 0.003 lets a weight drift by 12% in an epoch of 80 steps. From 0.0003 to 0.01 finetuning was
    # stable; larger values recovered more of a large loss and began to cost accuracy where there was none to recover.
    learning_rate: float
    crop_padding: int = 4  # pixels of zero padding around which crops are drawn, flips included; 0: no augmentation
    save_every_seconds: float = 60.0  # how much work a kill can cost

    def __post_init__(self) -> None:
        if self.epochs < 0 or self.batch_size < 1 or not self.learning_rate > 0 or self.crop_padding < 0:
            raise UserError(
                f"finetuning settings {self}: expected epochs and crop_padding of 0 or more, batch_size of 1 or more "
                f"and a positive learning_rate"
            )


class _StraightThrough(torch.autograd.Function):
    """Forward the second argument, backward to the first as if they were equal."""

    @staticmethod
    def forward(context: Any, value: Tensor, result: Tensor) -> Tensor:
        return result

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def straight_through(value: Tensor, result: Tensor) -> Tensor:
    """`result`, with the gradient of `value`."""
    return _StraightThrough.apply(value, result.detach())


class _Activation(torch.autograd.Function):
    """Add the rounding, shift right, clip; no square. The gradient is that of the clipped line acc / 2^shift."""

    @staticmethod
    def forward(context: Any, accumulator: Tensor, node: Node, rounding: Tensor | int) -> Tensor:
        context.slope, context.node = 2.0**-node.shift, node
        # x -> floor(x / 2^f + r / 2^f) is the integers' (x + r) >> f: both steps are exact in binary
        shifted = (accumulator * context.slope).add_(rounding, alpha=context.slope).floor_()
        context.save_for_backward(shifted)
        return shifted.clamp(node.minimum, node.maximum)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (shifted,) = context.saved_tensors
        # in one pass the gradients strictly between two bounds: halves beyond the integers, so that the ends count
        low, high = context.node.minimum - 0.5, context.node.maximum + 0.5
        return torch.ops.aten.hardtanh_backward(gradients[0], shifted, low, high).mul_(context.slope), None, None


class _TableRead(torch.autograd.Function):
    """What a table has for levels. The gradient is its slope around the level, over which its rounding averages out."""

    @staticmethod
    def forward(context: Any, levels: Tensor, node: Node) -> Tensor:
        places = (levels - node.minimum).long()
        table = levels.new_tensor(node.table)
        ends = [(places + step).clamp(0, len(node.table) - 1) for step in (-SLOPE_LEVELS, SLOPE_LEVELS)]
        context.save_for_backward((table[ends[1]] - table[ends[0]]) / (ends[1] - ends[0]))
        return table[places]

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (slopes,) = context.saved_tensors
        return gradients[0] * slopes, None


class _TrainableLayer(nn.Module):
    """A linear layer whose parameters are changes of its integers, in units that make one learning rate fit."""

    start_weight: Tensor
    start_bias: Tensor

    def __init__(self, layer: LinearLayer) -> None:
        super().__init__()
        self.shape, self.largest_weight = layer.shape, layer.weight_maximum
        self.norm_bound = coarse_bound(layer.weight_norm)
        # A layer of zeros (pruned away) still needs a positive unit.
        self.weight_unit = max(float(np.sqrt(np.mean(layer.weight.astype(np.float64) ** 2))), 1.0)
        # The standard deviation of the accumulator for inputs that are uniform over their range.
        self.bias_unit = max(layer.weight_norm, 1.0) * layer.shape.input_maximum / math.sqrt(12)
        weight = torch.from_numpy(layer.weight).float().contiguous(memory_format=torch.channels_last)
        self.register_buffer("start_weight", weight, persistent=False)
        self.register_buffer("start_bias", torch.from_numpy(layer.bias).float(), persistent=False)
        self.weight_change = nn.Parameter(torch.zeros_like(weight))
        self.bias_change = nn.Parameter(torch.zeros(len(layer.bias)))

    def integers(self) -> tuple[Tensor, Tensor]:
        """The integer weights and biases as float tensors, gradients passing to the changes."""
        weight = self.start_weight + self.weight_change * self.weight_unit
        bias = self.start_bias + self.bias_change * self.bias_unit
        rounded = weight.round().clamp(-self.largest_weight, self.largest_weight)
        return straight_through(weight, rounded), straight_through(bias, bias.round())

    def forward(self, values: Tensor) -> Tensor:
        weight, bias = self.integers()
        return F.conv2d(values, weight, bias, self.shape.stride, self.shape.padding, groups=self.shape.groups)

    @torch.no_grad()
    def clamp(self) -> None:
        """Keep the float weights where the rounded ones can follow them."""
        lowest = (-self.largest_weight - self.start_weight) / self.weight_unit
        highest = (self.largest_weight - self.start_weight) / self.weight_unit
        self.weight_change.clamp_(lowest, highest)

    @torch.no_grad()
    def rounded(self) -> LinearLayer:
        """The layer with its present integer weights, within the norm bound that its parameters were chosen for.

        The weights of an output that have outgrown it are scaled down, by less than a percent at a time.
        """
        weight, bias = (tensor.cpu().double().numpy().astype(np.int64) for tensor in self.integers())
        exact = (self.start_weight + self.weight_change * self.weight_unit).cpu().double().numpy()
        scale = 1.0
        while (over := np.sqrt((weight.astype(float) ** 2).sum((1, 2, 3))) > self.norm_bound).any():
            scale *= SHRINKAGE
            weight[over] = np.rint(exact[over] * scale).astype(np.int64)
        return LinearLayer(self.shape, np.ascontiguousarray(weight), bias)


class TrainableNetwork(nn.Module):
    """An IntegerNetwork with trainable weights.

    On the processor its forward pass equals the integer network's as long as no accumulator wraps modulo p and no
    partial sum reaches 2^24, where float32 stops being exact; on a GPU convolutions may round.

    Args:
        network: the integer network to start from.
    """

    def __init__(self, network: IntegerNetwork) -> None:
        super().__init__()
        self.network = network
        names = [layer.name for layer in network.architecture.layers]
        self.index = {name: index for index, name in enumerate(names)}
        self.layers = nn.ModuleList(_TrainableLayer(network.layers[name]) for name in names)

    def forward(
        self,
        images: Tensor,
        perturb: Callable[[str, Tensor], Tensor] | None = None,
        rounding: Callable[[Node, Tensor], Tensor | int] | None = None,
    ) -> Tensor:
        """Images [N, C, H, W], signed 8-bit integers as floats, to logits [N, classes].

        Args:
            images: a batch.
            perturb: see Perturbation.__call__; None adds no errors.
            rounding: see Perturbation.rounding; None rounds to the nearest.
        """
        values: dict[str, Tensor] = {}
        operations = _FloatOperations(self, perturb, rounding)
        with torch.backends.nnpack.flags(enabled=False):  # its convolutions round
            for node in self.network.architecture.nodes:
                inputs = [values[name] for name in node.inputs]
                values[node.name] = operations.step(node, inputs) if inputs else images
        return values[self.network.architecture.nodes[-1].name].flatten(1) * self.network.output_scale

    def clamp(self) -> None:
        """Keep all weights within their range; call it after every optimizer step."""
        for layer in self.layers:
            layer.clamp()  # type: ignore[operator]

    def rounded(self) -> IntegerNetwork:
        """The integer network with the present weights."""
        return self.network.with_weights({name: self.layers[i].rounded() for name, i in self.index.items()})  # type: ignore[operator]


class _FloatOperations(TensorOperations):
    """The operations with trainable layers, errors and straight-through activations."""

    def __init__(
        self,
        model: TrainableNetwork,
        perturb: Callable[[str, Tensor], Tensor] | None,
        rounding: Callable[[Node, Tensor], Tensor | int] | None,
    ) -> None:
        self._model, self._perturb, self._rounding = model, perturb, rounding

    def linear(self, node: Node, x: Tensor) -> Tensor:
        accumulator: Tensor = self._model.layers[self._model.index[node.name]](x)
        if self._perturb is None:
            return accumulator
        return straight_through(accumulator, self._perturb(node.name, accumulator.detach()))

    def activation(self, node: Node, x: Tensor) -> Tensor:
        added = self._rounding(node, x.detach()) if self._rounding else rounding_constant(node.shift)
        clipped: Tensor = _Activation.apply(x, node, added)
        if node.table:
            read: Tensor = _TableRead.apply(clipped, node)
            return read
        return clipped.square() if node.squared else clipped


def _generator(seed: int, epoch: int, step: int = -1) -> torch.Generator:
    # a SeedSequence pads short keys with zeros, so 0 is kept for the epoch's own generator
    key = np.random.SeedSequence([seed, epoch, step + 1]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(key[0] >> 1))


class _Finetuning:
    """One run and its state on disk; every random choice of a step is keyed by (seed, epoch, step)."""

    def __init__(
        self,
        network: IntegerNetwork,
        split: Split,
        perturb: Perturbation | None,
        settings: FinetuneSettings,
        seed: int,
        state_file: Path | None,
    ) -> None:
        self.split, self.perturb, self.settings, self.seed, self.state_file = split, perturb, settings, seed, state_file
        self.device = device()
        self.model = TrainableNetwork(network).to(self.device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), settings.learning_rate, foreach=True)
        self.steps_per_epoch = math.ceil(len(split.labels) / settings.batch_size)
        self.total = self.steps_per_epoch * settings.epochs
        self.step = 0
        if (state := load_state(state_file, self.device)) is not None:
            self._resume(state)

    def _resume(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        logging.info("finetuning goes on at step %d of %d", self.step, self.total)

    def save(self) -> None:
        """Write the resumable state where one was asked for."""
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.step}
        save_state(self.state_file, state)

    def _batch(self, order: Tensor, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        size = self.settings.batch_size
        chosen = order[step * size : (step + 1) * size].numpy()
        integers = self.model.network.architecture.quantize_images(self.split.images[chosen])
        images = torch.from_numpy(integers).float().to(self.device)
        if self.settings.crop_padding:
            # the colour zero stands for is the mean colour, in integers as in the float network's training
            how = TrainingSettings(self.settings.epochs, crop_padding=self.settings.crop_padding)
            images = augment(images, how, _generator(self.seed, epoch, step))
        return images.contiguous(memory_format=torch.channels_last), torch.from_numpy(self.split.labels[chosen])

    def _train_step(self, images: Tensor, labels: Tensor) -> float:
        perturb = self.perturb.at(self.step) if self.perturb else None
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * (1 - self.step / self.total)
        logits = self.model(images, perturb, perturb and perturb.rounding)
        loss = F.cross_entropy(logits, labels.to(self.device))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.model.clamp()
        self.step += 1
        return float(loss.detach())

    def run(self) -> IntegerNetwork:
        """Train to the end and return the rounded network."""
        saved = started = time.monotonic()
        first = self.step
        while self.step < self.total:
            epoch, step = divmod(self.step, self.steps_per_epoch)
            order = torch.randperm(len(self.split.labels), generator=_generator(self.seed, epoch))
            loss = self._train_step(*self._batch(order, epoch, step))
            if not math.isfinite(loss):
                raise UserError(
                    f"finetuning: the loss is {loss} at step {self.step} of {self.total}; choose a learning_rate "
                    f"below {self.settings.learning_rate}"
                )
            if time.monotonic() - saved > self.settings.save_every_seconds:
                saved = time.monotonic()
                left = (saved - started) / (self.step - first) * (self.total - self.step)
                logging.info("finetuning: step %d of %d, loss %.3f, %.0f s left", self.step, self.total, loss, left)
                self.save()
        self.save()
        return self.model.rounded()


def finetune(
    network: IntegerNetwork,
    split: Split,
    perturb: Perturbation | None,
    settings: FinetuneSettings,
    seed: int,
    state_file: Path | None = None,
) -> IntegerNetwork:
    """Finetune `network` on `split` with the errors of `perturb` (None: without) and round it to integers again.

    Step k reads the errors' block k, so a run killed and resumed from `state_file` ends with the same weights. With
    zero epochs the given network is returned. Raises UserError for an empty split, a state file of another run and a
    loss that is not finite.
    """
    if not len(split.labels):
        raise UserError("finetuning: the split holds no image; choose categories or image numbers that leave some")
    if settings.epochs == 0:
        return network
    return _Finetuning(network, split, perturb, settings, seed, state_file).run()
