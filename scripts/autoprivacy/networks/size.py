"""How large a network is: what one image costs in it, for an estimate of how long steps take."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from autoprivacy.networks import build


@dataclass(frozen=True)
class NetworkSize:
    """Of one image: 10^9 multiply-accumulates, 10^6 outputs of linear layers, and the number of those layers."""

    operations: float
    values: float
    layers: int


def network_size(model: str, classes: int, image_shape: tuple[int, int, int]) -> NetworkSize:
    """Count what a forward pass does.

    Args:
        model, classes: as in `networks.build`.
        image_shape: channels, height, width.

    Raises:
        UserError: there is no such network.
        RuntimeError: it does not take such images.
    """
    counted: list[tuple[int, int]] = []

    def count(module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        values = output.numel()
        counted.append((values * module.weight[0].numel(), values))  # type: ignore[index]

    network = build(model, classes).eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    with torch.no_grad():
        network(torch.zeros(1, *image_shape))
    return NetworkSize(sum(a for a, _ in counted) / 1e9, sum(b for _, b in counted) / 1e6, len(counted))
