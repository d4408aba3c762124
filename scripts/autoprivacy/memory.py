"""How the C library's allocator treats memory that was freed."""

from __future__ import annotations

import ctypes
from functools import cache

# mallopt's parameters (glibc, malloc.h), and what they are set to. Larger blocks still go back to the system at once.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
TRIM_BYTES, MMAP_BYTES = 256 << 20, 32 << 20


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
