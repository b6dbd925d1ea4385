"""The memory of a process that evaluates networks on a processor."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def keep_freed() -> None:
    """Let the process keep the memory of freed tensors for the next ones.

    By default the C library maps a tensor of megabytes anew, and the system clears its pages at
    first use: at every layer of a network, as long as its arithmetic. It concerns the whole
    process, which holds on to the most memory that it has ever used, and is therefore for programs
    and not for libraries to call. It has no effect where the C library is not GNU's.
    """
    if sys.platform == "linux":
        library = ctypes.CDLL(None)
        if hasattr(library, "mallopt"):
            library.mallopt(_MMAP_MAX, 0)
            library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
