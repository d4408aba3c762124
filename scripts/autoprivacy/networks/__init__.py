"""The networks of the paper as torch modules, and the look-up that lets a config name any other."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from autoprivacy.data.dataset import Dataset
from autoprivacy.data.torchvision_operators import declare_missing_operators
from autoprivacy.errors import UserError

FORMS = 'expected "package.module:function", "path/to/file.py:function" or "path/to/file.onnx"'


LAYOUT = "memory_format"  # the attribute of a network that does not take images with channels last


def build(model: str, classes: int) -> nn.Module:
    """Build the network that `model` names, for `classes` outputs.

    Args:
        model: "package.module:function" or "path/to/file.py:function"; the function takes the number of classes and
            returns an nn.Module; or "path/to/file.onnx", which has its weights too.
        classes: number of outputs.

    Raises:
        UserError: it cannot be found, or is no such function.
    """
    if model.endswith(".onnx"):
        from autoprivacy.networks.onnx_network import read_onnx

        return read_onnx(model)
    place, _, name = model.rpartition(":")
    try:
        function = getattr(_imported(place), name)
    except (ImportError, AttributeError, ValueError, OSError, SyntaxError) as error:
        raise UserError(f'network model: "{model}": {" ".join(str(error).split())}; {FORMS}') from None
    try:
        inspect.signature(function).bind(classes)
    except TypeError as error:
        raise UserError(
            f'network model: "{model}": {error}; expected a function of one argument, the number of classes'
        ) from None
    network = function(classes)
    if not isinstance(network, nn.Module):
        raise UserError(f'network model: "{model}" returned {type(network).__name__}, expected a torch.nn.Module')
    return network


def build_for(model: str, classes: int, dataset: Dataset) -> nn.Module:
    """Build a network as `build` does, and check on one image that it fits a data set.

    Raises:
        UserError: also when it has not one output per class of the data set, or does not take its images.
    """
    network = build(model, classes)
    if classes != dataset.classes:
        raise UserError(
            f'network model: "{model}" is built for {classes} classes, but the data set {dataset.name} has '
            f"{dataset.classes}; make the network's classes {dataset.classes} or name another data set"
        )
    shape = "x".join(map(str, dataset.image_shape))
    training = network.training
    try:
        with torch.no_grad():
            output = network.eval()(torch.zeros(1, *dataset.image_shape))
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f'network model: "{model}" does not take the {shape} images of {dataset.name}: {reason}'
        ) from None
    if output.shape != (1, classes):
        raise UserError(
            f'network model: "{model}": logits for one {shape} image have the shape {tuple(output.shape)}; expected '
            f"(1, {classes})"
        )
    _allow_views(network, dataset)
    return network.train(training)


def layout(network: nn.Module) -> torch.memory_format:
    """In which order a network's weights and images are fastest: channels last, but for one that views values flat."""
    return getattr(network, LAYOUT, torch.channels_last)


def _allow_views(network: nn.Module, dataset: Dataset) -> None:
    """Have a network get images in torch's own order where `x.view(...)` fails in another."""
    images = torch.zeros(2, *dataset.image_shape).to(memory_format=torch.channels_last)
    try:
        with torch.no_grad():
            network(images)
    except RuntimeError:  # of a view; anything else has failed before
        setattr(network, LAYOUT, torch.contiguous_format)
        network.register_forward_pre_hook(_contiguous)


def _contiguous(network: nn.Module, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(argument.contiguous() for argument in arguments)


def _imported(place: str) -> ModuleType:
    if not place.startswith(f"{__name__}."):
        declare_missing_operators()  # a network of the user's own may well import torchvision
    if not place.endswith(".py"):
        return importlib.import_module(place)
    path = Path(place).resolve()
    name = f"{__name__}.from_file_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader  # there is a loader for every name that ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles of the module look it up there
    sys.path.append(str(path.parent))  # so that it can import its neighbours
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        sys.path.remove(str(path.parent))
    return module
