"""Where a party's time and bytes go: seconds, CPU seconds and traffic by phase, layer, kind of work and message."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

from autoprivacy.memory import peak_memory_bytes
from autoprivacy.protocol.channel import Channel

Phase = Literal["set-up", "offline", "online", "closing"]
# he: encryption to decryption. linear: the server's layers in the clear. shares: drawing, packing and adding shares.
# session: what both must agree on, plans, requests, and the way from one part to the next. waiting: for the peer, which
# includes receiving.
Kind = Literal["he", "garbling", "lookup", "ot", "linear", "shares", "session", "waiting"]
EVERY_LAYER = "all"  # the layer of work that belongs to no single one
Amounts: TypeAlias = tuple[float, float, int, int]
_FIELDS = ("seconds", "cpu_seconds", "bytes_sent", "bytes_received")


class Ledger:
    """Records phases one after another; within a phase, parts that do not overlap and leave nothing out.

    CPU seconds are the whole process's, so they mean something where a process has one session.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._parts: dict[tuple[str, str], list[float]] = {}
        self._settled: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
        self._mark: Amounts = (0.0, 0.0, 0, 0)
        self.phases: list[dict[str, Any]] = []

    def _now(self) -> Amounts:
        channel = self._channel
        return time.perf_counter(), time.process_time(), channel.bytes_sent, channel.bytes_received

    @contextmanager
    def phase(self, name: Phase, bundle: int | None = None) -> Iterator[None]:
        """Everything inside belongs to this phase (of this bundle); recorded only if it ends without an error.

        So does a request that came before and opened it: every byte of a session belongs to one phase.
        """
        self._parts = {}
        sent, received = self._settled
        before = self._mark = (*self._now()[:2], sent.total(), received.total())
        yield
        self.charge(EVERY_LAYER, "session")
        self._settled = Counter(self._channel.sent), Counter(self._channel.received)
        total = [b - a for a, b in zip(before, self._mark, strict=True)]
        parts = [
            {"layer": layer, "kind": kind, **dict(zip(_FIELDS, values, strict=True))}
            for (layer, kind), values in self._parts.items()
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
        self.charge(EVERY_LAYER, "session")
        yield
        self.charge(layer, kind)

    def charge(self, layer: str, kind: Kind) -> None:
        """Count everything since the last charge, or since the part began, as this."""
        before, self._mark = self._mark, self._now()
        values = self._parts.setdefault((layer, kind), [0.0] * len(_FIELDS))
        for index, (a, b) in enumerate(zip(before, self._mark, strict=True)):
            values[index] += b - a

    def report(self, since: int = 0) -> dict[str, Any]:
        """The phases from number `since` on and this process's peak memory, JSON-able."""
        return {"phases": self.phases[since:], "peak_memory_bytes": peak_memory_bytes()}
