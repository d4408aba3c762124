"""Where a party's time and bytes go: seconds, CPU seconds and traffic by phase, layer and kind of work."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from autoprivacy.protocol.channel import Channel

Phase = Literal["set-up", "offline", "online"]
Kind = Literal["he", "garbling", "ot", "linear", "waiting"]
_FIELDS = ("seconds", "cpu_seconds", "bytes_sent", "bytes_received")


class Ledger:
    """Records phases one after another; within a phase, parts that do not overlap."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._parts: dict[tuple[str, str], list[float]] = {}
        self.phases: list[dict[str, Any]] = []

    def _now(self) -> tuple[float, float, int, int]:
        channel = self._channel
        return time.perf_counter(), time.process_time(), channel.bytes_sent, channel.bytes_received

    @contextmanager
    def phase(self, name: Phase, bundle: int | None = None) -> Iterator[None]:
        """Everything inside belongs to this phase (of this bundle); recorded only if it ends without an error."""
        self._parts = {}
        before = self._now()
        yield
        total = [b - a for a, b in zip(before, self._now(), strict=True)]
        parts = [
            {"layer": layer, "kind": kind, **dict(zip(_FIELDS, values, strict=True))}
            for (layer, kind), values in self._parts.items()
        ]
        self.phases.append({"phase": name, "bundle": bundle, **dict(zip(_FIELDS, total, strict=True)), "parts": parts})

    @contextmanager
    def part(self, layer: str, kind: Kind) -> Iterator[None]:
        """Work of one kind for one layer; several parts of one kind add up."""
        before = self._now()
        yield
        values = self._parts.setdefault((layer, kind), [0.0] * len(_FIELDS))
        for index, (a, b) in enumerate(zip(before, self._now(), strict=True)):
            values[index] += b - a
