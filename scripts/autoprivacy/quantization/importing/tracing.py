"""From a torch module to a graph of its operations: torch.fx with sizes that are plain numbers, else torch.export.

Every traced value has an example, so `x.size(0)`, `x.shape`, `len(x)` and what a network computes of them are plain
Python numbers, and only operations on the image's values are in the graph.
"""

from __future__ import annotations

import logging
import warnings
from typing import Any

import torch
from torch import Tensor, fx, nn

from autoprivacy.errors import UserError
from autoprivacy.networks.square import Square

BATCH = 2  # images in the example; not one, so that a size of the batch is not taken for one of an image


def trace(module: nn.Module, images: Tensor) -> fx.GraphModule:
    """The operations of a module in evaluation mode; every node's `meta["example"]` has its value for `images`.

    Args:
        module: takes images [N, C, H, W].
        images: the example, with `BATCH` images.

    Raises:
        UserError: neither torch.fx nor torch.export can follow its forward.
    """
    tracer = _Tracer(images)
    try:
        with torch.no_grad():
            graph = tracer.trace(module)
            traced = fx.GraphModule(tracer.root, graph)
    except Exception as error:  # tracing runs the module's own code, which may raise anything
        return _exported(module, images, " ".join(str(error).split()))
    traced.graph.eliminate_dead_code()
    return traced


def _exported(module: nn.Module, images: Tensor, reason: str) -> fx.GraphModule:
    """The graph that torch.export makes, in ATen's operations."""
    logging.info("network %s: torch.fx stops (%s); torch.export is tried", type(module).__name__, reason)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about torch's own code
            program = torch.export.export(module, (images,))
            exported = program.module(check_guards=False)
            assert isinstance(exported, fx.GraphModule)
            _Examples(exported).run(images)
    except Exception as error:
        own = " ".join(str(error).split())
        raise UserError(
            f"network {type(module).__name__}: its operations cannot be followed: torch.fx cannot trace it ({reason}), "
            f"nor can torch.export ({own[:300]}); its forward may branch on sizes and settings, not on values"
        ) from None
    exported.graph.eliminate_dead_code()
    return exported


class _Examples(fx.Interpreter):
    """Runs a graph and keeps every node's value as its example."""

    def run_node(self, n: fx.Node) -> Any:
        """The value of one node."""
        n.meta["example"] = value = super().run_node(n)
        return value


class _Value(fx.Proxy):
    """A traced tensor whose size and type are known."""

    @property
    def example(self) -> Any:
        """What the value is for the example image."""
        return self.node.meta["example"]

    def __getattr__(self, name: str) -> Any:
        if name in _FACTS:
            return getattr(self.example, name)
        return super().__getattr__(name)

    def __len__(self) -> int:
        return len(self.example)

    def size(self, dim: int | None = None) -> Any:
        """As of a tensor."""
        return self.example.size() if dim is None else self.example.size(dim)

    def dim(self) -> int:
        """As of a tensor."""
        return self.example.dim()

    def numel(self) -> int:
        """As of a tensor."""
        return self.example.numel()

    ndimension, nelement = dim, numel


_FACTS = ("shape", "dtype", "device", "ndim", "is_cuda", "requires_grad", "layout", "is_sparse", "is_quantized")


class _Tracer(fx.Tracer):
    """Follows every call but those of torch's own modules and of squares, whose bits would be lost."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self._images = images
        self._computing = False  # an example, for which modules and parameters are what they are

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, Square) or super().is_leaf_module(m, module_qualified_name)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Value(node, self)

    def call_module(self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._computing:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return attr_val if self._computing else super().getattr(attr, attr_val, parameter_proxy_cache)

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *more: Any, **named: Any) -> Any:
        """A value of the graph; what is no tensor of it (a size, a type) is returned as itself."""
        proxy = super().create_proxy(kind, target, args, kwargs, *more, **named)
        if kind == "output":
            return proxy
        proxy.node.meta["example"] = example = self._example(kind, target, _examples(args), _examples(kwargs))
        if isinstance(example, Tensor):
            return proxy
        if isinstance(example, list | tuple) and any(isinstance(part, Tensor) for part in example):
            return type(example)(
                proxy[index]  # type: ignore[index]
                for index in range(len(example))
            )
        return example

    def _example(self, kind: str, target: Any, args: Any, kwargs: Any) -> Any:
        if kind == "placeholder":
            return self._images
        self._computing = True
        try:
            if kind == "get_attr":
                return attribute(self.root, target)
            if kind == "call_module":
                return self.root.get_submodule(target).forward(*args, **kwargs)
            if kind == "call_method":
                return getattr(args[0], target)(*args[1:], **kwargs)
            return target(*args, **kwargs)
        finally:
            self._computing = False


def _examples(arguments: Any) -> Any:
    return fx.node.map_aggregate(arguments, lambda part: part.example if isinstance(part, _Value) else part)


def attribute(root: nn.Module, path: str) -> Any:
    """The parameter, buffer or constant at a path."""
    place, _, name = path.rpartition(".")
    return getattr(root.get_submodule(place), name)
