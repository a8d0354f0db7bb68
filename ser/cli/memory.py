"""What the C library does with freed memory."""

import ctypes
import platform

# Of glibc's malloc.h: parameters of mallopt.
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8
LARGEST_INT = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let this process keep and reuse the memory that it frees; to be called before it starts threads.

    Otherwise glibc returns every large tensor's memory to the system, which zeroes it, page by page, for the next: a
    third of the CPU time of a training step on a CPU. The process then takes up to a third more memory
    (``benchmarks/freed_memory.py``). Results are the same to the bit.

    Returns:
        Whether the C library can do this.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # No separate pages for large blocks, no shrinking of the heap, and one heap: those of other threads, such as
    # autograd's, have no room for a large block.
    return all([mallopt(M_MMAP_MAX, 0), mallopt(M_TRIM_THRESHOLD, LARGEST_INT), mallopt(M_ARENA_MAX, 1)])
