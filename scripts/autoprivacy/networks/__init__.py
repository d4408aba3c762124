"""The networks of the paper as torch modules, and the look-up that lets a config name any other."""

from __future__ import annotations

import importlib

from torch import nn

from autoprivacy.errors import UserError


def build(model: str, classes: int) -> nn.Module:
    """Build the network that `model` ("package.module:function") names, for `classes` outputs.

    The function takes the number of classes and returns an nn.Module; UserError when it cannot be found.
    """
    module_name, _, function_name = model.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f'network model: "{model}": {error}; expected "package.module:function"') from None
    network = function(classes)
    if not isinstance(network, nn.Module):
        raise UserError(f'network model: "{model}" returned {type(network).__name__}, expected a torch.nn.Module')
    return network
