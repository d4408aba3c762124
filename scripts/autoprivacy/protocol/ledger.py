"""Where a party's time and bytes go: seconds, CPU seconds and traffic by phase, layer, kind of work and message."""

from __future__ import annotations

import resource
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from autoprivacy.protocol.channel import Channel

Phase = Literal["set-up", "offline", "online", "closing"]
# he: encryption to decryption. linear: the server's layers in the clear. shares: drawing, packing and adding shares.
# session: what both must agree on, plans and circuits. waiting: for the peer, which includes receiving.
Kind = Literal["he", "garbling", "ot", "linear", "shares", "session", "waiting"]
EVERY_LAYER = "all"  # the layer of work that belongs to no single one
_FIELDS = ("seconds", "cpu_seconds", "bytes_sent", "bytes_received")
_KIBIBYTE = 1024


class Ledger:
    """Records phases one after another; within a phase, parts that do not overlap.

    CPU seconds are the whole process's, so they mean something where a process has one session.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._parts: dict[tuple[str, str], list[float]] = {}
        self._settled: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
        self.phases: list[dict[str, Any]] = []

    def _now(self) -> tuple[float, float, int, int]:
        channel = self._channel
        return time.perf_counter(), time.process_time(), channel.bytes_sent, channel.bytes_received

    @contextmanager
    def phase(self, name: Phase, bundle: int | None = None) -> Iterator[None]:
        """Everything inside belongs to this phase (of this bundle); recorded only if it ends without an error.

        So does a request that came before and opened it: every byte of a session belongs to one phase.
        """
        self._parts = {}
        sent, received = self._settled
        seconds, cpu_seconds, sent_now, received_now = self._now()
        self._add(EVERY_LAYER, "session", (0.0, 0.0, sent_now - sent.total(), received_now - received.total()))
        yield
        self._settled = Counter(self._channel.sent), Counter(self._channel.received)
        before = (seconds, cpu_seconds, sent.total(), received.total())
        total = [b - a for a, b in zip(before, self._now(), strict=True)]
        parts = [
            {"layer": layer, "kind": kind, **dict(zip(_FIELDS, values, strict=True))}
            for (layer, kind), values in self._parts.items()
            if any(values)
        ]
        messages = {
            "sent": dict(self._settled[0] - sent),
            "received": dict(self._settled[1] - received),
        }
        fields = dict(zip(_FIELDS, total, strict=True))
        self.phases.append({"phase": name, "bundle": bundle, **fields, "messages": messages, "parts": parts})

    @contextmanager
    def part(self, layer: str, kind: Kind) -> Iterator[None]:
        """Work of one kind for one layer; several parts of one kind add up."""
        before = self._now()
        yield
        self._add(layer, kind, tuple(b - a for a, b in zip(before, self._now(), strict=True)))

    def _add(self, layer: str, kind: Kind, amounts: tuple[float, ...]) -> None:
        values = self._parts.setdefault((layer, kind), [0.0] * len(_FIELDS))
        for index, amount in enumerate(amounts):
            values[index] += amount

    def report(self, since: int = 0) -> dict[str, Any]:
        """The phases from number `since` on and this process's peak memory, JSON-able."""
        return {"phases": self.phases[since:], "peak_memory_bytes": peak_memory_bytes()}


def peak_memory_bytes() -> int:
    """The most physical memory that this process has had.

    The kernel's VmHWM, which begins with the program; getrusage's value survives exec and so begins with the parent's
    memory. Without /proc it is getrusage's.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * _KIBIBYTE
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIBIBYTE
