"""What the C library does with memory that is given back to it."""

import ctypes
import platform

# Of glibc's malloc.h: parameters of mallopt.
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8
LARGEST_INT = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees, and use it again; before its first further thread.

    Otherwise glibc gives every large tensor's memory back to the system, which fills it with zeros, page by page, for
    the next: a third of the processor's time of a training step on a CPU, in which activations of the same sizes come
    and go. The process has up to a third more memory then (``benchmarks/freed_memory.py``). Results are the same to
    the bit.

    Returns:
        Whether the C library can do this.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # No pages of their own for large blocks, no shrinking of the heap, and one heap, since in the further ones of other
    # threads, such as autograd's, a large block has no room.
    return all([mallopt(M_MMAP_MAX, 0), mallopt(M_TRIM_THRESHOLD, LARGEST_INT), mallopt(M_ARENA_MAX, 1)])
