"""A suite run to its end: one process a pair and seed, one JSON file a row, resumable at any moment."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from steelshift.bench.pairs import prepare
from steelshift.bench.sheets import beside, damaged, read_checkpoints, read_results, table_of
from steelshift.bench.suite import Suite, load_suite
from steelshift.errors import DataError, Interrupted, RunFailed, UsageError
from steelshift.files import as_csv, locked, write_json, write_text
from steelshift.messages import say
from steelshift.progress import note, showing
from steelshift.signals import stop_requests
from steelshift.training.config import VALIDATORS

COLUMNS = (
    "pair", "method", "seed", "error", "chose", "n", "source_only", "selected", "last", "peeked", "oracle",
    "selected_step", "steps", "by_step", "source_only_accuracy", "selected_accuracy", "source_only_h_score",
    "selected_h_score", "data_sha", "config_sha",
    "weights_sha", "code_sha", "torch", "precision", "threads", "processor", "date", "train_seconds", "peak_mb",
)  # fmt: skip
"""Of results.csv. Scores are mean class accuracy on target test images, but the two that say accuracy. by_step: of
every candidate. h_score: where images of unknown classes are among the test images. chose: the method that `auto`
chose. date: when the suite was begun in this folder, so that a suite that continues makes the same table. Columns
ending in _seconds or _mb are measured; all others come out the same again."""
VALIDATOR_COLUMNS = (
    "pair", "method", "seed", "step", "mean_class_accuracy", *VALIDATORS, "largest_share", "baseline_share",
)  # fmt: skip
"""Of validators.csv, a row a checkpoint: its score on target test images, every judge's score, and what guards the
choice against a collapse. Judges that were not asked are empty."""
LOOK_EVERY = 2.0


def run_suite(path: Path, out: Path, *, resume: bool, jobs: int, known: Path | None = None) -> Path:
    """Run what is missing of a suite into `out`; returns the table, out/results.csv.

    A row whose options changed since it was made is made anew. known: an earlier table, whose rows of the same options
    are taken over. Raises UsageError, DataError, Interrupted, and RunFailed where a process failed, after all others
    have ended.
    """
    suite = load_suite(path)
    if jobs < 1:
        raise UsageError("option_range", key="jobs", value=jobs, range="1 or more")
    there = out.exists()
    new = _open(out, resume, jobs)
    with locked(out / "bench.json", wait=False) as mine, stop_requests() as stop:
        if not mine:
            raise UsageError("bench_busy", path=out)
        write_text(out / "suite.yaml", yaml.safe_dump(suite.values(), sort_keys=False, allow_unicode=True))
        try:
            _make_ready(suite, out, known, threads_of(jobs), stop)
        except (UsageError, DataError):
            if new:  # mended, the same command can be given again
                for path in out.iterdir():
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                if not there:
                    out.rmdir()
            raise
        units = [(pair, seed) for pair in suite.pairs for seed in suite.seeds if missing(suite, out, pair, seed)]
        failed = _run_units(suite, out, units, jobs, stop)
        done = _collect(suite, out)
    if stop:
        raise Interrupted(stop[0], done, out)
    if failed:
        names = ", ".join(f"{pair} {seed}" for pair, seed in failed)
        unit, code = next(iter(failed.items()))
        fault = DataError if set(failed.values()) == {DataError.exit_code} else RunFailed
        raise fault("bench_failed", units=names, why=_reason(_log(out, *unit), code), log=_log(out, *unit))
    return out / "results.csv"


def _make_ready(suite: Suite, out: Path, known: Path | None, threads: int, stop: list[int]) -> None:
    """Take over known rows, and prepare the pairs that others are missing of."""
    if known:
        _take_over(suite, out, known, threads)
    for half_made in (out / "data").glob(".*.partial"):  # by a process that was killed
        shutil.rmtree(half_made)
    for name, pair in suite.pairs.items():
        if not stop and any(missing(suite, out, name, seed) for seed in suite.seeds):
            prepare(name, pair, out / "data")


def _run_units(
    suite: Suite, out: Path, units: list[tuple[str, int]], jobs: int, stop: list[int]
) -> dict[tuple[str, int], int]:
    """Run units until all are done or a stop is asked for; returns the exit codes of those that failed."""
    running: dict[subprocess.Popen, tuple[str, int]] = {}
    failed: dict[tuple[str, int], int] = {}
    looked = 0.0
    with showing("bench", len(suite.pairs) * len(suite.seeds) * len(suite.methods)) as advance:
        try:
            while (units or running) and not stop:
                while units and len(running) < jobs:
                    unit = units.pop(0)
                    running[_begin(out, *unit, threads_of(jobs))] = unit
                time.sleep(0.1)
                for process in [process for process in running if process.poll() is not None]:
                    unit = running.pop(process)
                    failed |= {unit: process.returncode} if process.returncode else {}
                if time.monotonic() - looked > LOOK_EVERY:
                    looked = time.monotonic()
                    advance(_collect(suite, out))
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.wait()
    return failed


def threads_of(jobs: int) -> int:
    """The processor's cores are shared out among the jobs."""
    return max(1, (os.cpu_count() or 1) // jobs)


def _open(out: Path, resume: bool, jobs: int) -> bool:
    """Make or check the folder of a suite: sums depend on the number of threads, so a folder keeps to one.

    True where it is new.
    """
    marker = out / "bench.json"
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        if not resume:
            raise UsageError("run_exists", path=out)
        try:
            before = json.loads(marker.read_text(encoding="utf-8"))["threads"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError("not_a_bench", path=out) from error
        if before != threads_of(jobs):
            raise UsageError("other_threads", path=out, before=before, now=threads_of(jobs))
        return False
    write_json(marker, {"threads": threads_of(jobs), "date": datetime.now(UTC).date().isoformat()})
    return True


def begun(out: Path) -> str | None:
    """The day on which a suite was begun in a folder; None where an earlier version did."""
    return json.loads((out / "bench.json").read_text(encoding="utf-8")).get("date")


def missing(suite: Suite, out: Path, pair: str, seed: int) -> list[str]:
    """Methods of a pair and seed that have no row, or one of other options."""
    return [method for method in suite.methods if read_row(suite, out, pair, seed, method) is None]


def row_path(out: Path, pair: str, seed: int, method: str) -> Path:
    return out / "rows" / pair / f"{seed}" / f"{method}.json"


def read_row(suite: Suite, out: Path, pair: str, seed: int, method: str) -> dict[str, Any] | None:
    """A row, if there is one made with these options."""
    try:
        row = json.loads(row_path(out, pair, seed, method).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    fitting = isinstance(row, dict) and row.get("config_sha") == suite.hashes[pair, seed, method]
    return row if fitting else None


def _take_over(suite: Suite, out: Path, known: Path, threads: int) -> None:
    """Rows of an earlier table, with its checkpoints where they lie beside it. Raises UsageError, and takes none."""
    known = table_of(known)
    scored: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    last: dict[tuple[str, ...], int] = {}
    for place, part in enumerate(read_checkpoints(known) if beside(known).exists() else [], start=1):
        run = part["pair"], part["method"], part["seed"]
        scored[run].append(part)
        last[run] = place
    rows = read_results(known, needed=("config_sha", "threads"))
    for row in rows:
        run = row["pair"], row["method"], row["seed"]
        if run in scored and [str(round(part["step"])) for part in scored[run]] != row["steps"].split():
            raise damaged(beside(known), last[run])
    other = 0
    for row in rows:
        pair, method, seed = row["pair"], row["method"], int(row["seed"])
        fitting = suite.hashes.get((pair, seed, method)) == row["config_sha"]
        if row["threads"] not in ("", str(threads)):  # a folder keeps to one number of them
            other += fitting
            continue
        if not fitting or read_row(suite, out, pair, seed, method):
            continue
        parts = scored[pair, method, row["seed"]]
        if parts and parts[0]["baseline_share"] is not None:
            asked = [key for key in (*VALIDATORS, "largest_share") if parts[0].get(key) is not None]
            row |= {"validators": {key: [part[key] for part in parts] for key in asked}}
            row |= {"baseline_share": parts[0]["baseline_share"]}
        write_json(row_path(out, pair, seed, method), row | {"seed": seed})
    if other:
        note(say("other_threads_known", path=known, count=other, now=threads))


def _begin(out: Path, pair: str, seed: int, threads: int) -> subprocess.Popen:
    """A process that makes the rows of one pair and seed; it ends by itself when this one is gone."""
    log = _log(out, pair, seed)
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "steelshift.bench.worker", str(out), pair, str(seed), str(os.getpid())]
    environment = os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "STEELSHIFT_LANG": "en",  # sentences become columns, the same everywhere
    }
    with log.open("ab") as file:
        return subprocess.Popen(command, stdout=file, stderr=file, env=environment, start_new_session=True)


def _log(out: Path, pair: str, seed: int) -> Path:
    return out / "logs" / f"{pair} {seed}.log"


def _reason(log: Path, code: int) -> str:
    """Why a process failed: what killed it, or what it said last."""
    if code < 0:
        return say("bench_killed", signal=signal.Signals(-code).name)
    return log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]


def _collect(suite: Suite, out: Path) -> int:
    """Write results.csv anew where there are other rows than in it; returns their number."""
    rows = [
        row
        for pair in suite.pairs
        for seed in suite.seeds
        for method in suite.methods
        if (row := read_row(suite, out, pair, seed, method)) is not None
    ]
    _write_table(out / "results.csv", COLUMNS, rows)
    _write_table(out / "validators.csv", VALIDATOR_COLUMNS, [part for row in rows for part in checkpoints(row)])
    return len(rows)


def checkpoints(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of validators.csv of one run; none of a run that failed, or that is older than the judges."""
    if "validators" not in row or row.get("chose"):  # those of auto are another method's
        return []
    shared = {key: row[key] for key in ("pair", "method", "seed", "baseline_share")}
    truth = list(map(float, row["by_step"].split()))
    return [
        shared
        | {"step": int(step), "mean_class_accuracy": truth[place]}
        | {name: values[place] for name, values in row["validators"].items()}
        for place, step in enumerate(row["steps"].split())
    ]


def _write_table(path: Path, columns: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    text = as_csv(columns, ({key: row[key] for key in columns if key in row} for row in rows))
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)
