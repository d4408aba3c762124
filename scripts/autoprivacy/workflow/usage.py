"""What a rule's job took: wall time, processor time and memory, beside its log, for the reference run and estimates."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from autoprivacy.memory import KIBIBYTE, peak_memory_bytes
from autoprivacy.storage import read_json, write_json

SUFFIX = ".usage.json"


class Usage:
    """Counts from its making, which should be the script's first act; imports before it are counted by processor time
    alone."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def write(self, log: Path, rule: str) -> None:
        """Beside the log of the job: rule, seconds of wall and of processors, bytes of the largest process.

        Raises:
            OSError: it cannot be written.
        """
        own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
        processors = own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
        largest_child = children.ru_maxrss * KIBIBYTE if children.ru_utime else 0  # getrusage(2)
        taken = {
            "rule": rule,
            "wall_seconds": time.monotonic() - self._started,
            "processor_seconds": processors,
            "peak_memory_bytes": max(peak_memory_bytes(), largest_child),
        }
        write_json(log.with_suffix(SUFFIX), taken)


def usages(logs: Path) -> Iterator[dict[str, Any]]:
    """What the jobs took whose logs lie in a folder: job, rule, wall_seconds, processor_seconds, peak_memory_bytes; in
    the order of their names. A job that was resumed counts from there."""
    for path in sorted(logs.glob(f"*{SUFFIX}")):
        yield {"job": path.name.removesuffix(SUFFIX), **read_json(path)}
