"""The process that makes the rows of one pair and seed, one method after the other.

    python -m steelshift.bench.worker OUT PAIR SEED PARENT

It reads OUT/suite.yaml. Training on the source line and the oracle are computed once for all methods that agree on
their options; unfinished training lies in OUT/unfinished, in folders named by options and images, so that nothing
continues what was begun differently.
"""

import hashlib
import json
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import steelshift
from steelshift.bench.pairs import prepare
from steelshift.bench.running import begun, missing, row_path
from steelshift.bench.suite import Pair, Suite, hash_of, load_suite
from steelshift.candidates import look_at_lines
from steelshift.choosing import single_methods, train_and_choose
from steelshift.data.splits import TEST, TRAIN
from steelshift.errors import DataError, Interrupted, SteelshiftError
from steelshift.estimating import write_views
from steelshift.files import locked, write_json
from steelshift.judging import judge, open_target_labels
from steelshift.lines import Lines, lock, read_lines
from steelshift.memory import keep_memory
from steelshift.training.config import VALIDATORS, Config
from steelshift.training.precision import choose as choose_precision
from steelshift.training.precision import processor, without_denormals

REFUSALS = (
    "no_normalization", "method_needs_normalization", "method_ignores_labels", "few_are_of_the_target", "knob_range",
    "not_finite",
)  # fmt: skip
"""What a method itself answers: a row of the table. Any other failure is one of the surroundings, to be tried again."""
CHOOSING = ("method", "knobs", "select", "candidates", "oracle", "review_rate")
"""Options that training on the source line and the oracle do not depend on."""


def main(arguments: list[str]) -> int:
    out, pair, seed, parent = arguments
    _end_with(int(parent))
    keep_memory()
    work = Path(out) / "unfinished" / pair / seed
    work.mkdir(parents=True, exist_ok=True)
    with locked(work / "lock", wait=True):
        try:
            fault = make_rows(load_suite(Path(out) / "suite.yaml"), Path(out), pair, int(seed), work)
        except SteelshiftError as error:
            print(error, file=sys.stderr)
            return error.exit_code
        if fault is None:
            done = work.with_name(f"{seed}.done")
            shutil.rmtree(done, ignore_errors=True)
            with suppress(FileNotFoundError):
                work.rename(done)  # whole or gone: half of it would look like training that is finished
            shutil.rmtree(done, ignore_errors=True)
    if fault is None:
        return 0
    print(" ".join(str(fault).split()) or type(fault).__name__, file=sys.stderr)  # last: it is told as the reason
    return getattr(fault, "exit_code", 1)


@without_denormals()
def make_rows(suite: Suite, out: Path, pair_name: str, seed: int, work: Path) -> Exception | None:
    """Write the missing rows of one pair and seed. Returns why the first of those that could not be made failed."""
    pair = suite.pairs[pair_name]
    ready = prepare(pair_name, pair, out / "data")
    fault, date = None, begun(out)
    for method in missing(suite, out, pair_name, seed):
        config = suite.config(
            method, seed, source=ready.source, target=ready.target, classes=pair.classes, cache=ready.cache
        )
        row = {"pair": pair_name, "method": method, "seed": seed, "config_sha": suite.hashes[pair_name, seed, method]}
        row |= {"date": date}
        arrays = out / "arrays" / pair_name / str(seed) / f"{method}.npz" if suite.arrays else None
        try:
            row |= _row(config, pair, work, suite, suite.few(method), arrays)
        except Interrupted:
            raise
        except Exception as error:
            if getattr(error, "key", None) not in REFUSALS:
                print(error if isinstance(error, SteelshiftError) else traceback.format_exc(), file=sys.stderr)
                fault = fault or error
                continue
            row["error"] = error.key if error.key == "not_finite" else str(error)
        write_json(row_path(out, pair_name, seed, method), row)
    return fault


def _row(config: Config, pair: Pair, work: Path, suite: Suite, few: int, arrays: Path | None) -> dict[str, Any]:
    """Train, choose, judge. few: labelled target images a class. arrays: file for what an estimate is made of."""
    fast = choose_precision(config.device, config.precision)
    lines = read_lines(config)
    images = _hash_of_images(lines)
    if few:
        lines = _with_labels(few, config, lines)
    shared = work / f"shared-{hash_of(config, pair, CHOOSING)}-{images}"

    def folder(single: Config) -> Path:
        return work / f"{hash_of(single, pair, few=few)}-{images}"

    _forget_peak()
    fresh = config.method != "source_only" and not any(folder(single).exists() for single in single_methods(config))
    labels = _labels(config, lines) if config.method == "oracle" else None
    judges = VALIDATORS if suite.validators else ()
    choice = train_and_choose(config, fast, lines, labels, shared=shared, judges=judges, folder=folder)
    training, candidates, chosen = choice.training, choice.candidates, choice.index
    config = training.config
    inspector = training.inspector(training.method_phase, candidates.steps[chosen])
    if arrays:
        views = look_at_lines(training, inspector, training.inspector(training.baseline_phase, config.steps))
        write_views(arrays, *views, lines.classes.names, list(lines.target.part(TEST).table.ids))

    # Everything is chosen: now labels of the target line may be opened.
    labels = _labels(config, lines)
    found = judge(training, labels, candidates, chosen)
    return {
        "chose": config.method if choice.tried else "",
        "n": found["n"],
        **{key: _rounded(found[key]) for key in ("source_only", "selected", "last", "peeked", "oracle")},
        "selected_step": candidates.steps[chosen],
        "steps": " ".join(map(str, candidates.steps)),
        "by_step": " ".join(f"{value:.4f}" for value in found["by_step"]),
        "validators": {
            name: [float(f"{value:.6g}") for value in values]
            for name, values in (candidates.scores | {"largest_share": candidates.largest_share}).items()
        },
        "baseline_share": candidates.baseline_share,
        "source_only_accuracy": _rounded(found["details"]["source_only"]["accuracy"]),
        "selected_accuracy": _rounded(found["details"]["selected"]["accuracy"]),
        **{
            f"{name}_h_score": _rounded(found["details"][name]["open"]["h_score"])
            for name in ("source_only", "selected")
            if "open" in found["details"][name]
        },
        "data_sha": hashlib.sha256(images.encode() + labels.tobytes()).hexdigest()[:16],
        "weights_sha": _hash_of_weights(inspector),
        "code_sha": _hash_of_code(),
        "torch": torch.__version__,
        "precision": "bf16" if fast.bf16 else "fp32",
        "threads": torch.get_num_threads(),
        "processor": processor(fast.device),
        "train_seconds": round(choice.train_seconds, 1) if fresh else None,
        "peak_mb": _peak_mb(),
    }


def _with_labels(few: int, config: Config, lines: Lines) -> Lines:
    """What a person in the mill would do: label some images a class, of those that train and never of the test."""
    labels = _labels(config, lines)
    rng = np.random.default_rng([config.seed, few])
    drawn = []
    for index in range(len(lines.classes.names)):
        rows = np.flatnonzero((lines.target.side == TRAIN) & (labels == index))
        drawn += list(rng.choice(rows, min(few, len(rows)), replace=False))
    rows = np.sort(drawn)
    return replace(lines, few=lines.target.cache.take(rows), few_labels=labels[rows])


def _labels(config: Config, lines: Lines) -> np.ndarray:
    labels = open_target_labels(config, lines)
    if labels is None:
        raise DataError("no_target_labels", where=", ".join(map(str, config.target)))
    return labels


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _hash_of_images(lines: Lines) -> str:
    """Of which images are where, by content, with source labels: the same on every machine."""
    record = lock(lines)
    source = {part: [(row["id"], row["class"]) for row in rows] for part, rows in record["source"].items()}
    content = json.dumps([record["classes"], source, record["target"]], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _hash_of_weights(inspector: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(inspector.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _hash_of_code() -> str:
    """Of the package's own files."""
    digest = hashlib.sha256()
    folder = Path(steelshift.__file__).parent
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _forget_peak() -> None:
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_mb() -> int | None:
    """Most memory held since `_forget_peak`; None where the system does not say."""
    with suppress(OSError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))
    return None


def _end_with(parent: int) -> None:
    """Stop, leaving a checkpoint, when the process that began this one is gone."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
