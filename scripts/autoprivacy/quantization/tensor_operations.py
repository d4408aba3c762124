"""The local operations of an integer network on batches in torch, integers held in floats [N, C, H, W]."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from autoprivacy.quantization.integer_network import Node
from autoprivacy.quantization.operations import Operations


class TensorOperations(Operations[Tensor]):
    """The local operations; values may require gradients."""

    def sum_pool(self, node: Node, x: Tensor) -> Tensor:
        """As in `Operations`."""
        return F.avg_pool2d(x, node.kernel, node.stride, divisor_override=1)

    def flatten(self, node: Node, x: Tensor) -> Tensor:
        """As in `Operations`."""
        return x.flatten(1)[:, :, None, None]

    def add(self, node: Node, x: Tensor, y: Tensor) -> Tensor:
        """As in `Operations`."""
        return x + y

    def scale(self, node: Node, x: Tensor) -> Tensor:
        """As in `Operations`."""
        return x * (node.factor if isinstance(node.factor, int) else torch.from_numpy(node.factors).to(x))

    def subsample(self, node: Node, x: Tensor) -> Tensor:
        """As in `Operations`."""
        return x[:, :, :: node.strides[0], :: node.strides[1]]

    def window(self, node: Node, x: Tensor) -> Tensor:
        """As in `Operations`."""
        rows, columns = (torch.from_numpy(places).to(x.device) for places in node.places(tuple(x.shape[2:])))
        return x.index_select(2, rows).index_select(3, columns)

    def pad_channels(self, node: Node, x: Tensor) -> Tensor:
        """As in `Operations`."""
        return F.pad(x, (0, 0, 0, 0, node.before, node.after))
