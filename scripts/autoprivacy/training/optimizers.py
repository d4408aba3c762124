"""Optimisers of training: SGD for all parameters, or Muon for the convolutions' weights and SGD for the rest.

Jordan et al., Muon: An optimizer for hidden layers in neural networks, 2024. As there, the weights of a convolution are
one matrix, of its outputs by its inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

MOMENTUM_CYCLE = 0.05  # how far SGD's momentum goes below and above its setting, against the learning rate


@dataclass(frozen=True)
class Muon:
    """Settings of Muon; the defaults are those of the schema in config/schema.yaml."""

    learning_rate: float = 0.02  # peak of the one-cycle schedule
    momentum: float = 0.95  # Nesterov
    weight_decay: float = 0.01  # decoupled


class Optimizers:
    """The optimisers of one training run and their one-cycle schedules (Smith, Topin, Super-convergence, 2018).

    Args:
        model: the network, in channels-last memory and where it is trained.
        learning_rate: peak of SGD's schedule.
        momentum: of SGD (Nesterov), 0.05 less where the learning rate peaks and 0.05 more at both ends.
        weight_decay: of SGD, on weights but not on biases and norms.
        muon: how Muon updates the convolutions' weights; None leaves them to SGD.
        warm_up: share of the steps in which the learning rates rise.
        steps: of the whole run.
    """

    def __init__(
        self,
        model: nn.Module,
        learning_rate: float,
        momentum: float,
        weight_decay: float,
        muon: Muon | None,
        warm_up: float,
        steps: int,
    ) -> None:
        self.weights = _for_muon(model) if muon else []
        self.matrices = [nn.Parameter(_matrix(weight.detach())) for weight in self.weights]
        ids = {id(weight) for weight in self.weights}
        others = [parameter for parameter in model.parameters() if id(parameter) not in ids]
        groups = [
            {"params": [p for p in others if p.ndim > 1], "weight_decay": weight_decay},
            {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
        ]
        sgd = torch.optim.SGD(groups, lr=learning_rate, momentum=momentum, nesterov=True)
        self.optimizers: list[torch.optim.Optimizer] = [sgd]
        self.schedules = [
            OneCycleLR(
                sgd,
                learning_rate,
                steps,
                pct_start=warm_up,
                base_momentum=max(momentum - MOMENTUM_CYCLE, 0),
                max_momentum=min(momentum + MOMENTUM_CYCLE, 0.999),
            )
        ]
        if muon and self.matrices:
            update = torch.optim.Muon(
                self.matrices, lr=muon.learning_rate, momentum=muon.momentum, weight_decay=muon.weight_decay
            )
            self.optimizers.append(update)
            self.schedules.append(
                OneCycleLR(update, muon.learning_rate, steps, pct_start=warm_up, cycle_momentum=False)
            )

    def step(self) -> None:
        """Update the network by its gradients, forget these, and advance the schedules."""
        for weight, matrix in zip(self.weights, self.matrices, strict=True):
            assert weight.grad is not None
            matrix.grad = _matrix(weight.grad)
            weight.grad = None
        for optimizer, schedule in zip(self.optimizers, self.schedules, strict=True):
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            schedule.step()

    def state(self) -> dict[str, list[dict[str, Any]]]:
        """What `load_state` goes on from."""
        return {
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "schedules": [schedule.state_dict() for schedule in self.schedules],
        }

    def load_state(self, state: dict[str, list[dict[str, Any]]]) -> None:
        """Go on from the `state` of the same run."""
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        for schedule, saved in zip(self.schedules, state["schedules"], strict=True):
            schedule.load_state_dict(saved)


def _for_muon(model: nn.Module) -> list[Tensor]:
    """The weights of a network's convolutions but for the first, which reads pixels, and depthwise ones.

    A depthwise convolution is no product with one matrix: there is nothing to make orthogonal.
    """
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    return [module.weight for module in convolutions[1:] if module.groups == 1]


def _matrix(weights: Tensor) -> Tensor:
    """[outputs, inputs, height, width] as [outputs, height * width * inputs]: a view, as memory is channels-last."""
    return weights.permute(0, 2, 3, 1).flatten(1)
