"""One step of evaluating an integer network: what each operation of the graph does, for values of any kind.

Whoever evaluates a network (in torch, on shares, on intervals) says what its operations do and walks the nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, NoReturn, TypeVar, get_args

import numpy as np

from autoprivacy.quantization.architecture import Node, Operation

Value = TypeVar("Value")
OPERATIONS = get_args(Operation)


class Operations(Generic[Value]):
    """What the operations of a graph do to values of one kind: a method for each of them, by its name.

    Local operations differ with the layout of values only; `linear` and `activation` are refused unless a subclass
    gives them.
    """

    def step(self, node: Node, inputs: Sequence[Value]) -> Value:
        """The node's value from those of its inputs; ValueError where the node has no such operation."""
        if node.operation not in OPERATIONS:
            raise ValueError(f"node {node.name}: unknown operation {node.operation}")
        value: Value = getattr(self, node.operation)(node, *inputs)
        return value

    def input(self, node: Node) -> Value:
        """The image."""
        self._refuse(node)

    def linear(self, node: Node, x: Value) -> Value:
        """The accumulators of a linear layer."""
        self._refuse(node)

    def activation(self, node: Node, x: Value) -> Value:
        """Rounded, shifted, clipped, and squared or looked up in the node's table."""
        self._refuse(node)

    def sum_pool(self, node: Node, x: Value) -> Value:
        """Sums over windows."""
        self._refuse(node)

    def flatten(self, node: Node, x: Value) -> Value:
        """All values as channels."""
        self._refuse(node)

    def add(self, node: Node, x: Value, y: Value) -> Value:
        """The sum."""
        self._refuse(node)

    def scale(self, node: Node, x: Value) -> Value:
        """Multiplied by the node's factors."""
        self._refuse(node)

    def subsample(self, node: Node, x: Value) -> Value:
        """Every stride-th row and column."""
        self._refuse(node)

    def window(self, node: Node, x: Value) -> Value:
        """Rows and columns from an offset on, those at the edges in place of others beyond."""
        self._refuse(node)

    def pad_channels(self, node: Node, x: Value) -> Value:
        """Zero channels before and after."""
        self._refuse(node)

    def _refuse(self, node: Node) -> NoReturn:
        raise ValueError(f"node {node.name}: {node.operation} is not local, and {type(self).__name__} does not give it")


class ArrayOperations(Operations[np.ndarray]):
    """The local operations on integers, int64 arrays [C, H, W]."""

    def sum_pool(self, node: Node, x: np.ndarray) -> np.ndarray:
        """As in `Operations`."""
        windows = np.lib.stride_tricks.sliding_window_view(x, node.window, axis=(1, 2))
        pooled: np.ndarray = windows[:, :: node.strides[0], :: node.strides[1]].sum((-2, -1))
        return pooled.reshape(node.shape)

    def flatten(self, node: Node, x: np.ndarray) -> np.ndarray:
        """As in `Operations`."""
        return x.reshape(node.shape)

    def add(self, node: Node, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """As in `Operations`."""
        return x + y

    def scale(self, node: Node, x: np.ndarray) -> np.ndarray:
        """As in `Operations`."""
        return x * node.factors

    def subsample(self, node: Node, x: np.ndarray) -> np.ndarray:
        """As in `Operations`."""
        return np.ascontiguousarray(x[:, :: node.strides[0], :: node.strides[1]])

    def window(self, node: Node, x: np.ndarray) -> np.ndarray:
        """As in `Operations`."""
        rows, columns = node.places(x.shape[1:])
        return x[:, rows[:, None], columns]

    def pad_channels(self, node: Node, x: np.ndarray) -> np.ndarray:
        """As in `Operations`."""
        return np.pad(x, ((node.before, node.after), (0, 0), (0, 0)))
