"""Memory that is freed stays with the process, and the next step takes it from there.

glibc gives large pieces back to the system as soon as they are free, and the system clears each page of the next one, while
other threads wait (`python -m benchmarks memory`).
"""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Names and numbers of malloc.h."""
LARGEST = 1 << 30
"""Bytes of a piece, or of what is free at the end of the heap, from which on it does go back."""
LARGEST_ONCE = 1 << 25
"""The most that older versions of glibc take for a piece."""


def keep_freed() -> None:
    """Let this process keep what it frees, up to its own peak; without glibc nothing changes."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS; Windows
        return
    if any(mallopt(M_MMAP_THRESHOLD, size) for size in (LARGEST, LARGEST_ONCE)):
        mallopt(M_TRIM_THRESHOLD, LARGEST)  # alone it would only stop glibc from raising the other as it goes
