"""Several pieces of work at a time, in order, as many as there are cores."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from threadpoolctl import threadpool_limits

Given, Made = TypeVar("Given"), TypeVar("Made")


def cores() -> int:
    """Processors that this process may use, as its affinity and its control group have it."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return max(1, min(count, int(quota) // int(period)))
    except (OSError, ValueError):  # no such file, or no quota
        return count


@contextmanager
def workers(count: int) -> Iterator[Executor]:
    """So many threads. NumPy's products must not ask for all cores too: its threads wait for each other at full power.

    While it lasts, products of the whole process have one thread each.
    """
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(count) as pool:
        yield pool


def ahead(pool: Executor, function: Callable[[Given], Made], given: Iterable[Given], many: int) -> Iterator[Made]:
    """function(item) of every item, in order, that many begun ahead."""
    begun: deque[Future[Made]] = deque()
    try:
        for item in given:
            begun.append(pool.submit(function, item))
            if len(begun) > many:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        for future in begun:
            future.cancel()
