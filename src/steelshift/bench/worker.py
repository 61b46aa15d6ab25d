"""The process that makes the rows of one pair and seed, one method after the other.

    python -m steelshift.bench.worker SUITE OUT PAIR SEED THREADS

Training on the source line and the oracle are computed once for all methods that agree on their options.
"""

import hashlib
import json
import os
import resource
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from steelshift.bench.pairs import prepare
from steelshift.bench.running import clear, missing, row_path, work_folder
from steelshift.bench.suite import Pair, Suite, hash_of, load_suite
from steelshift.candidates import look_at_candidates
from steelshift.data.splits import TEST
from steelshift.data.stream import resized
from steelshift.errors import DataError, SteelshiftError, UsageError
from steelshift.files import write_json
from steelshift.inspection.inspector import in_batches
from steelshift.judging import judge, open_target_labels
from steelshift.lines import Lines, lock, read_lines
from steelshift.selection.validators import choose
from steelshift.stages import Training
from steelshift.training.config import Config
from steelshift.training.precision import choose as choose_precision
from steelshift.training.precision import keep_memory, without_denormals


def main(arguments: list[str]) -> int:
    suite_path, out, pair, seed, threads = arguments
    _end_with_parent()
    keep_memory()
    torch.set_num_threads(int(threads))
    suite = load_suite(Path(suite_path))
    try:
        make_rows(suite, Path(out), pair, int(seed))
    except SteelshiftError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


@without_denormals()
def make_rows(suite: Suite, out: Path, pair_name: str, seed: int) -> None:
    """Write the missing rows of one pair and seed. What a method refuses is a row with its sentence."""
    pair = suite.pairs[pair_name]
    ready = prepare(pair_name, pair, out / "data" / pair_name)
    work = work_folder(out, pair_name, seed)
    for method in missing(suite, out, pair_name, seed):
        began = time.monotonic()
        config = suite.config(
            method,
            seed,
            source=ready.source,
            target=ready.target,
            classes=ready.classes,
            out=work / method,
            cache=out / "data" / pair_name / "cache",
        )
        row = {"pair": pair_name, "method": method, "seed": seed, "config_sha": hash_of(config, pair)}
        try:
            row |= _row(config, pair, work)
        except SteelshiftError as error:
            if not (isinstance(error, UsageError | DataError) or error.key == "not_finite"):
                raise  # says nothing of the method: a signal, a full disk
            row["error"] = str(error)
        row["row_seconds"] = round(time.monotonic() - began, 1)
        write_json(row_path(out, pair_name, seed, method), row)
        shutil.rmtree(config.out, ignore_errors=True)
    clear(out, pair_name, seed)


def _row(config: Config, pair: Pair, work: Path) -> dict[str, Any]:
    fast = choose_precision(config.device, config.precision)
    lines = read_lines(config)
    labels = open_target_labels(config, lines)
    if labels is None:
        raise DataError("no_target_labels", where=", ".join(map(str, config.target)))
    shared = hash_of(config, pair, ("method", "knobs", "select", "candidates", "oracle", "review_rate", "save_every"))
    training = Training(config, fast, lines, work / f"shared-{shared}")
    training.pretrain()
    began = time.monotonic()
    training.adapt(labels if config.method == "oracle" else None)
    trained = time.monotonic() - began
    candidates = look_at_candidates(training)
    chosen = choose(config.select, candidates.source_validation, candidates.information_maximization)
    inspector = training.inspector(training.method_phase, candidates.steps[chosen])
    test = lines.target.part(TEST)
    baseline = training.inspector(training.baseline_phase, config.steps)
    before = in_batches(baseline.logits, resized(test, np.arange(len(test)), config.size))
    found = judge(training, labels, candidates.steps, candidates.test_logits, chosen, before)
    return {
        "n": found["n"],
        **{key: _rounded(found[key]) for key in ("source_only", "selected", "last", "peeked", "oracle")},
        "selected_step": candidates.steps[chosen],
        "steps": " ".join(map(str, candidates.steps)),
        "by_step": " ".join(f"{value:.4f}" for value in found["by_step"]),
        "source_only_accuracy": _rounded(found["details"]["source_only"]["accuracy"]),
        "selected_accuracy": _rounded(found["details"]["selected"]["accuracy"]),
        "data_sha": _data_sha(lines),
        "weights_sha": _weights_sha(inspector),
        "threads": torch.get_num_threads(),
        "train_seconds": round(trained, 1),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _data_sha(lines: Lines) -> str:
    """Of which images are where, by content: the same on every machine."""
    record = lock(lines)
    source = {part: [(row["id"], row["class"]) for row in rows] for part, rows in record["source"].items()}
    content = json.dumps([record["classes"], source, record["target"]], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _weights_sha(inspector: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(inspector.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _end_with_parent() -> None:
    """Stop, leaving a checkpoint, when the process that began this one is gone."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
