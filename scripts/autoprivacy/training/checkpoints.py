"""Checkpoints: a network's weights written with their record, and read back whole or as a start."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autoprivacy.errors import UserError
from autoprivacy.storage import write_arrays
from autoprivacy.training.weights import check_weights, fitted, read_weights


def round_weights(model: nn.Module) -> nn.Module:
    """Round weights, but not biases and norms, to half precision, as a checkpoint holds them; returns the model."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(parameter.half())
    return model


def save_weights(model: nn.Module, path: str | Path, header: dict[str, Any]) -> None:
    """Write a checkpoint: the state as npz, without pickles, and a JSON header with its provenance.

    Weights take half precision (see `round_weights`), the rest single: 8-bit quantization is 8 times as coarse.
    """
    state = model.state_dict().items()
    arrays = {name: (value.half() if value.ndim > 1 else value).numpy() for name, value in state}
    write_arrays(path, arrays, header=header, private=True)


def load_weights(model: nn.Module, path: str | Path) -> dict[str, Any]:
    """Load a checkpoint into `model` and return its header, {} where it has none.

    Args:
        model: the network that the weights belong to.
        path: a file as `training.weights.read_weights` takes it.

    Raises:
        UserError: the file is damaged, holds pickled objects other than tensors, is of another network, or has numbers
            that are not finite.
    """
    weights, header = read_weights(path)
    weights = fitted(weights, model.state_dict())
    check_weights(path, weights, model.state_dict())
    model.load_state_dict(weights)
    return header


def start_from(model: nn.Module, path: str | Path) -> None:
    """Give `model` the weights of a checkpoint wherever name and shape agree; the rest, as a classifier's, stays.

    Args:
        model: the network, initialised.
        path: a checkpoint as `load_weights` takes it, of this network or of one with the same body.

    Raises:
        UserError: the file is damaged, most of the network's weights are not in it, or some are not finite.
    """
    state = model.state_dict()
    weights = fitted(read_weights(path)[0], state)
    fitting = {name: value for name, value in weights.items() if name in state and value.shape == state[name].shape}
    learned = {name for name, value in state.items() if value.is_floating_point()}
    share = sum(state[name].numel() for name in learned & fitting.keys()) / sum(state[name].numel() for name in learned)
    if share < 0.5:
        raise UserError(
            f"training.initial_weights: {path} has {share:.0%} of the network's weights by name and shape; expected at "
            "least half: name a checkpoint of the same network"
        )
    check_weights(path, {**state, **fitting}, state)
    model.load_state_dict({**state, **fitting})
    logging.info("starting from %s, but for %s", path, ", ".join(sorted(state.keys() - fitting.keys())) or "nothing")
