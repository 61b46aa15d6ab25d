"""A suite run to its end: one process a pair and seed, one JSON file a row, resumable at any moment."""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from steelshift.bench.pairs import prepare
from steelshift.bench.suite import Suite, hash_of, load_suite
from steelshift.errors import Interrupted, RunFailed, UsageError
from steelshift.files import write_text
from steelshift.progress import showing

COLUMNS = (
    "pair", "method", "seed", "error", "n", "source_only", "selected", "last", "peeked", "oracle", "selected_step",
    "steps", "by_step", "source_only_accuracy", "selected_accuracy", "data_sha", "config_sha", "weights_sha",
    "threads", "train_seconds", "row_seconds", "peak_mb",
)  # fmt: skip
"""Of results.csv. Scores are mean class accuracy on target test images, but the two that say accuracy. by_step: of
every candidate. Columns ending in _seconds or _mb are measured; all others come out the same again."""


def run_suite(path: Path, out: Path, *, resume: bool, jobs: int) -> Path:
    """Run what is missing of a suite into `out`; returns the table, out/results.csv.

    A row whose options changed since it was made is made anew. Raises UsageError, DataError, Interrupted, and
    RunFailed where a process failed, after all others have ended.
    """
    suite = load_suite(path)
    if jobs < 1:
        raise UsageError("option_range", key="jobs", value=jobs, range="1 or more")
    if out.exists() and (not out.is_dir() or any(out.iterdir())) and not resume:
        raise UsageError("run_exists", path=out)
    for name, pair in suite.pairs.items():
        prepare(name, pair, out / "data" / name)
    units = [(pair, seed) for pair in suite.pairs for seed in suite.seeds if missing(suite, out, pair, seed)]
    total = len(suite.pairs) * len(suite.seeds) * len(suite.methods)
    threads = max(1, (os.cpu_count() or 1) // jobs)
    running: dict[subprocess.Popen, tuple[str, int]] = {}
    failed: list[tuple[str, int]] = []
    with _stop_requests() as stop, showing("bench", total) as advance:
        try:
            while (units or running) and not stop:
                while units and len(running) < jobs:
                    unit = units.pop(0)
                    running[_begin(path, out, *unit, threads)] = unit
                time.sleep(0.2)
                for process in [process for process in running if process.poll() is not None]:
                    unit = running.pop(process)
                    failed += [unit] if process.returncode else []
                advance(_collect(suite, out))
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.wait()
    done = _collect(suite, out)
    if stop:
        raise Interrupted(stop[0], done, out)
    if failed:
        names = ", ".join(f"{pair} {seed}" for pair, seed in failed)
        raise RunFailed("bench_failed", units=names, log=_log(out, *failed[0]))
    return out / "results.csv"


def missing(suite: Suite, out: Path, pair: str, seed: int) -> list[str]:
    """Methods of a pair and seed that have no row, or one of other options."""
    found = []
    for method in suite.methods:
        row = read_row(out, pair, seed, method)
        config = suite.config(method, seed, source=(), target=(), out=Path())
        if row is None or row["config_sha"] != hash_of(config, suite.pairs[pair]):
            found.append(method)
    return found


def row_path(out: Path, pair: str, seed: int, method: str) -> Path:
    return out / "rows" / pair / f"{seed}" / f"{method}.json"


def read_row(out: Path, pair: str, seed: int, method: str) -> dict[str, Any] | None:
    try:
        return json.loads(row_path(out, pair, seed, method).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _begin(path: Path, out: Path, pair: str, seed: int, threads: int) -> subprocess.Popen:
    """A process that makes the rows of one pair and seed; it ends by itself when this one is gone."""
    log = _log(out, pair, seed)
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "steelshift.bench.worker", str(path), str(out), pair, str(seed), str(threads)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    with log.open("ab") as file:
        return subprocess.Popen(command, stdout=file, stderr=file, env=environment, start_new_session=True)


def _log(out: Path, pair: str, seed: int) -> Path:
    return out / "logs" / f"{pair} {seed}.log"


def _collect(suite: Suite, out: Path) -> int:
    """Write results.csv anew where there are other rows than in it; returns their number."""
    rows = [
        row
        for pair in suite.pairs
        for seed in suite.seeds
        for method in suite.methods
        if (row := read_row(out, pair, seed, method)) is not None
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    table = out / "results.csv"
    if not table.exists() or table.read_text(encoding="utf-8") != text.getvalue():
        write_text(table, text.getvalue())
    return len(rows)


def clear(out: Path, pair: str, seed: int) -> None:
    """Drop what only unfinished rows need."""
    shutil.rmtree(work_folder(out, pair, seed), ignore_errors=True)


def work_folder(out: Path, pair: str, seed: int) -> Path:
    return out / "work" / pair / f"{seed}"


@contextmanager
def _stop_requests() -> Iterator[list[int]]:
    received: list[int] = []
    before = {
        number: signal.signal(number, lambda number, frame: received.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
