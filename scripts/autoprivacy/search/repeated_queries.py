"""What a client learns of the weights when it asks one image again and again: the attack that docs/security.md reports.

A last layer with random 8-bit weights reads activations whose outputs are clipped to 8 bits. A client that follows the
protocol knows its own shares; where the policy ignores their low bits, every activation compares a value that is fixed
for the image with a number that the client knows, so the outputs of repeated queries are a linear regression on the
layer's weights. Queries are made in integer arithmetic, which the protocol equals bit for bit.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from autoprivacy.quantization.integer_network import Node, rounding_constant
from autoprivacy.quantization.outputs import Output, shown
from autoprivacy.quantization.residues import truncated_activation
from autoprivacy.quantization.windows import Window

MODULUS = 1 << 20
SHIFT = 9  # of the activations: values of 17 bits become 8
QUERIES_PER_VALUE = 10  # of an image, for each hidden value
SWEEPS = 15
EXPLAINED = 1e-6  # mean squared residual below which the client knows that it is right


@dataclass(frozen=True)
class Policy:
    """What an activation tolerates, and what the client is shown.

    Attributes:
        ignored_bits: low bits of shares that activations ignore.
        error_rate: of decryption, of the values that activations read; an error is one unit.
        output: logits, scores or label.
    """

    ignored_bits: int = 0
    error_rate: float = 0.0
    output: Output = "logits"


class Server:
    """The last layer, and the activations before it.

    Args:
        hidden: activations that it reads.
        classes: its outputs.
        policy: what is tolerated and shown.
        seed: of weights and errors.
    """

    def __init__(self, hidden: int, classes: int, policy: Policy, seed: int) -> None:
        self._rng = np.random.default_rng([seed, 1])
        self.weights = self._rng.integers(-127, 128, (hidden, classes))
        self.policy = policy
        self._node = Node("relu", "activation", shift=SHIFT, minimum=0, maximum=255)

    def answer(self, values: np.ndarray, shares: np.ndarray) -> np.ndarray:
        """What the client is shown for one image under shares of its own, int64 [queries, classes or 1].

        Args:
            values: what the activations read, int64 [hidden].
            shares: the client's, residues int64 [queries, hidden].
        """
        policy, node = self.policy, self._node
        errors = self._rng.random(shares.shape) < policy.error_rate
        read = (values + errors * self._rng.choice((-1, 1), shares.shape)) % MODULUS
        if policy.ignored_bits:
            hidden = truncated_activation(read, shares, node, Window.signed(MODULUS), policy.ignored_bits)
        else:
            signed = read - MODULUS * (read >= MODULUS // 2)
            hidden = np.clip((signed + rounding_constant(SHIFT)) >> SHIFT, node.minimum, node.maximum)
        return shown(hidden @ self.weights, policy.output, MODULUS)


def regression(lows: np.ndarray, answers: np.ndarray, levels: int) -> np.ndarray | None:
    """The weights' columns from outputs that are sums of columns where a low part is at most an unknown threshold.

    One value after the other gets the threshold and the column that explain most of what the others leave
    (backfitting), then all columns are fitted together, until nothing is left to explain.

    Args:
        lows: the ignored low bits of the client's shares, below `levels`, [queries, hidden].
        answers: the outputs, [queries, classes].
        levels: 2^ignored bits.

    Returns:
        float64 [hidden, classes], 0 where a value never changed its activation; None where something is left, and the
        client knows nothing for sure.
    """
    queries, hidden = lows.shape
    answers = answers - answers.mean(0)
    orders = np.argsort(lows, 0, kind="stable").T
    ends = np.array([np.searchsorted(np.sort(lows[:, j]), np.arange(levels - 1), "right") for j in range(hidden)])
    chosen = np.zeros((queries, hidden))
    columns, left, best = np.zeros((hidden, answers.shape[1])), answers.copy(), np.inf
    for _ in range(SWEEPS):
        for j in range(hidden):
            left += np.outer(chosen[:, j], columns[j])
            sums = np.vstack([np.zeros(left.shape[1]), np.cumsum(left[orders[j]], 0)])[ends[j]]
            share = ends[j] / queries
            variance = queries * share * (1 - share)
            gains = np.divide((sums**2).sum(1), variance, out=np.zeros(levels - 1), where=variance > 0)
            threshold = int(np.argmax(gains))
            chosen[:, j] = (lows[:, j] <= threshold) - share[threshold]
            columns[j] = sums[threshold] / max(variance[threshold], 1.0)
            left -= np.outer(chosen[:, j], columns[j])
        columns = np.linalg.lstsq(chosen, answers, rcond=None)[0]
        left = answers - chosen @ columns
        residual = float(np.mean(left**2))
        if residual < EXPLAINED:
            return columns
        if residual > 0.99 * best:
            return None
        best = residual
    return None


def by_regression(server: Server, images: int, seed: int) -> dict[str, Any]:
    """Attack a server that ignores share bits: images asked QUERIES_PER_VALUE times for each hidden value."""
    hidden = len(server.weights)
    rng, known, wrong, distinct = np.random.default_rng([seed, 2]), np.zeros(hidden, bool), np.zeros(hidden, bool), 0
    queries, levels = QUERIES_PER_VALUE * hidden, 1 << (server.policy.ignored_bits or SHIFT)
    for _ in range(images):
        values = rng.integers(-(1 << SHIFT + 6), 1 << SHIFT + 7, hidden)  # half of them positive, as after a ReLU
        shares = rng.integers(0, MODULUS, (queries, hidden))
        answers = server.answer(values, shares)
        distinct = max(distinct, len(np.unique(answers, axis=0)))
        columns = regression(shares % levels, answers.astype(np.float64), levels)
        if columns is None or answers.shape[1] != server.weights.shape[1]:
            continue
        found = np.abs(columns).max(1) > 0.5
        right = (np.rint(columns) == server.weights).all(1)
        known, wrong = known | (found & right), wrong | (found & ~right)
    return {"queries": images * queries, "recovered": int(known.sum()), "wrong": int(wrong.sum()), "distinct": distinct}


def by_differences(server: Server, images: int, seed: int) -> dict[str, Any]:
    """Attack a server that tolerates decryption errors: differences of outputs that are columns of the weights."""
    hidden = len(server.weights)
    rng, met, others, distinct = np.random.default_rng([seed, 2]), set[int](), 0, 0
    columns = {tuple(sign * column): i for i, column in enumerate(server.weights) for sign in (-1, 1)}
    queries = QUERIES_PER_VALUE * hidden
    for _ in range(images):
        values = rng.integers(-(1 << SHIFT + 6), 1 << SHIFT + 7, hidden)
        answers = server.answer(values, rng.integers(0, MODULUS, (queries, hidden)))
        rows, counts = np.unique(answers, axis=0, return_counts=True)
        distinct = max(distinct, len(rows))
        differences = [tuple(row) for row in rows - rows[counts.argmax()] if row.any()]
        met |= {columns[row] for row in differences if row in columns}
        others += sum(row not in columns for row in differences)
    return {"queries": images * queries, "recovered": len(met), "wrong": others, "distinct": distinct}


def experiment(sizes: tuple[int, ...], classes: int, images: int, seed: int) -> dict[str, Any]:
    """The attack on approximate and on exact policies.

    Args:
        sizes: hidden values of the layers that are attacked; the last is summed up.
        classes: outputs.
        images: asked about, each repeatedly.
        seed: of weights, images, shares and errors.

    Returns:
        `rows`, one a layer and policy; of the last size `queries`, and for logits of an `approximate` and an `exact`
        policy the `weights` and the `weights_recovered`, exactly.
    """
    policies = {
        "ignored share bits": Policy(ignored_bits=SHIFT),
        "ignored share bits, scores": Policy(ignored_bits=SHIFT, output="scores"),
        "ignored share bits, label": Policy(ignored_bits=SHIFT, output="label"),
        "errors of 2^-5": Policy(error_rate=2.0**-5),
        "exact": Policy(),
    }
    rows = []
    for hidden in sizes:
        for name, policy in policies.items():
            start = time.perf_counter()
            attack = by_differences if policy.error_rate else by_regression
            found = attack(Server(hidden, classes, policy, seed), images, seed)
            seconds = time.perf_counter() - start
            rows.append({"hidden_values": hidden, "policy": name, "images": images, **found, "seconds": seconds})
    last = {row["policy"]: row for row in rows if row["hidden_values"] == sizes[-1]}
    summary = {
        key: {"weights": sizes[-1] * classes, "weights_recovered": last[policy]["recovered"] * classes}
        for key, policy in (("approximate", "ignored share bits"), ("exact", "exact"))
    }
    return {"queries": last["ignored share bits"]["queries"], **summary, "rows": rows}
