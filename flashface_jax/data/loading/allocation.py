"""Memory of pictures: kept by the process that makes them, in place of being asked for anew."""

import ctypes
import functools

# Of glibc's malloc.h, and the largest threshold that it takes.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
LARGEST_THRESHOLD = 32 << 20
MOST_KEPT = 256 << 20


@functools.cache
def keep_freed_memory() -> None:
    """Let glibc keep what is freed, once for this process; other C libraries go on as they do.

    By default it hands every picture's memory back to the system, which clears it page by page
    for the next picture: an eighth of the time of making a sample.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(MMAP_THRESHOLD, LARGEST_THRESHOLD)
        mallopt(TRIM_THRESHOLD, MOST_KEPT)
