"""How far long work is, on stderr: a bar with time left on a terminal, a line every quarter elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Advance = Callable[[int], None]
"""Takes the number of units done so far."""


def note(sentence: str) -> None:
    """One line for people, on stderr."""
    print(sentence, file=sys.stderr, flush=True)


@contextmanager
def showing(what: str, total: int | None) -> Iterator[Advance]:
    """Show progress of `what` while the context lasts; yields a function that takes the number of units done.

    total: None where nobody knows it before the end.
    """
    if sys.stderr.isatty():
        columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn())
        times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
        with Progress(*columns, *times, console=Console(stderr=True)) as bar:
            task = bar.add_task(what, total=total)
            yield lambda done: bar.update(task, completed=done)
        return
    began = time.monotonic()
    first: list[int] = []
    told = 0

    def advance(done: int) -> None:
        nonlocal told
        if total is None:
            if done >= 2 * max(told, 500):
                told = done
                note(f"{what}: {done}, {time.monotonic() - began:.0f} s")
            return
        if not first:
            first.append(done)  # a resumed phase does not begin at 0
        quarter = 4 * done // max(total, 1)
        if quarter > told:
            told = quarter
            spent = time.monotonic() - began
            left = spent / max(done - first[0] + 1, 1) * (total - done)
            note(f"{what}: {done}/{total}, {spent:.0f} s, {left:.0f} s left")

    yield advance
