"""Memory that a training frees and needs again in its next step."""

import ctypes
import platform

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's `mallopt`, numbered as in its malloc.h."""


def keep_freed_memory() -> None:
    """Let this process keep what it frees, in blocks of up to 32 MiB, for what it allocates next; nothing happens where glibc is not.

    By itself glibc gives such blocks back and takes them again page by page, each page filled with zeros. Steps of many particles, whose
    intermediates are large, spend up to half their time on that. The process then stays as large as it once was, as torch's on a GPU does.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(MMAP_THRESHOLD, 2**25)  # the most that every glibc on 64 bits takes
        mallopt(TRIM_THRESHOLD, 2**31 - 1)
