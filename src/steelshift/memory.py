"""How this process asks the system for memory. Of glibc alone; elsewhere nothing happens. And how much is left."""

import ctypes
from contextlib import suppress
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4  # malloc.h


def keep_memory() -> None:
    """Keep the memory that a step frees for the next step: training is a tenth faster.

    Otherwise each large tensor is asked of the kernel anew, which fills it with zeros page by page.
    """
    _set(_M_MMAP_MAX, 0)
    _set(_M_TRIM_THRESHOLD, 2**31 - 1)


def return_memory() -> None:
    """Give every large block back as soon as it is free: thousands of images then hold no more than a few.

    Otherwise the heap grows by the gaps that pictures of all sizes leave between what is kept of them.
    """
    _set(_M_MMAP_THRESHOLD, 2**17)


def available_memory() -> int | None:
    """Bytes that are free, or become so when asked for, swap with them; None where the system is no Linux.

    What this process has freed and kept is given back first.
    """
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
    try:
        told = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
        return 1024 * sum(int(told[key].split()[0]) for key in ("MemAvailable", "SwapFree"))
    except (OSError, ValueError, KeyError, IndexError):
        return None


def _set(parameter: int, value: int) -> None:
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(parameter, value)
