"""How the C library's allocator treats memory that was freed, and how much a process has had."""

from __future__ import annotations

import ctypes
import resource
from functools import cache
from pathlib import Path

# mallopt's parameters (glibc, malloc.h), and what they are set to. Larger blocks still go back to the system at once.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
TRIM_BYTES, MMAP_BYTES = 256 << 20, 32 << 20
KIBIBYTE = 1024


@cache
def keep_freed_memory() -> None:
    """Let this process keep freed blocks of up to 32 MiB for the next ones of their size.

    glibc gives blocks above 128 KiB back to the system and takes the next ones from there, at a page fault every
    4 KiB: numpy's temporary arrays of that size cost ten times as much as what is computed with them. Elsewhere than
    on glibc nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, TRIM_BYTES)
        mallopt(M_MMAP_THRESHOLD, MMAP_BYTES)


def peak_memory_bytes() -> int:
    """The most physical memory that this process has had.

    The kernel's VmHWM, which begins with the program; getrusage's value survives exec and so begins with the parent's
    memory. Without /proc it is getrusage's.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * KIBIBYTE
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIBIBYTE
