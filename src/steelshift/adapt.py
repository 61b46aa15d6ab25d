"""The whole way, S1 to S6: the only place that knows it.

S1 read, split and cache both lines, pre-train on the source; S2 build the network; S3 to S5 train the method; S6 choose
a checkpoint without target labels, write the inspector, and, where target labels are given, judge.
"""

import dataclasses
import json
import shutil
import time
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy.special import softmax

from steelshift.candidates import look_at_lines
from steelshift.choosing import train_and_choose
from steelshift.data.splits import TEST, TRAIN, VAL
from steelshift.data.stream import spread
from steelshift.data.tasks import strata
from steelshift.errors import DataError, UsageError
from steelshift.estimating import FILE as ESTIMATE
from steelshift.estimating import estimate_run, write_views
from steelshift.evidence import collect_evidence
from steelshift.files import read_yaml, write_atomically, write_json, write_text
from steelshift.inspection import inspector as artifact
from steelshift.inspection import reference
from steelshift.inspection.card import model_card, task_card
from steelshift.inspection.inspector import Inspector
from steelshift.judging import judge, judge_rejection, open_target_labels
from steelshift.lines import Lines, lock, read_lines
from steelshift.messages import say
from steelshift.report.page import render
from steelshift.selection.answers import Answers
from steelshift.selection.calibration import temperature
from steelshift.selection.estimate import View
from steelshift.stages import Training
from steelshift.tasking import (
    calibrate_tasks,
    collect_task_evidence,
    judge_tasks,
    look_at_tasks,
    rule_of,
    target_task_labels,
    verdict_of_tasks,
)
from steelshift.training.config import Config, resolve, to_mapping
from steelshift.training.precision import Fast, describe, without_denormals
from steelshift.training.precision import choose as choose_precision

GOLDEN = 8
"""Golden examples that an inspector carries."""
RECORDS = ("config.yaml", "env.json", "data.lock.json")
"""What a run writes before its first step."""


@without_denormals()
def fit(config: Config, *, resume: bool = False) -> dict[str, Any]:
    """Run S1 to S6 into `config.out` and return the report. A finished run that is resumed is left as it is.

    Raises UsageError, DataError, RunFailed or Interrupted; whatever happens, the run can be resumed.
    """
    began = time.monotonic()
    config = resolve(config)
    run = config.out
    new = not (run / "config.yaml").exists()
    if _open(run, config, resume):
        _tidy(run)
        return _stored(run / "report.json")

    try:
        return _fit(config, began)
    except (UsageError, DataError):
        if new and not (run / "checkpoints").exists():  # mended, it can be run again: decoded images alone are left
            for name in RECORDS:
                (run / name).unlink(missing_ok=True)
        raise


def _fit(config: Config, began: float) -> dict[str, Any]:
    run = config.out
    fast = choose_precision(config.device, config.precision)
    write_json(run / "env.json", describe(fast))
    lines = read_lines(config)
    _hold_to_lock(run, lock(lines))
    if config.tasks is not None:
        return _fit_tasks(config, fast, lines, began)
    labels = open_target_labels(config, lines) if config.method == "oracle" else None
    if config.method == "oracle" and (labels is None or not (labels[lines.target.side == TRAIN] >= 0).any()):
        raise DataError("no_target_labels", where=", ".join(map(str, config.target)))

    # S1 to S6
    choice = train_and_choose(config, fast, lines, labels, shared=run)
    training, candidates, chosen = choice.training, choice.candidates, choice.index
    config = training.config  # for auto, that of the method which was chosen
    inspector = training.inspector(training.method_phase, candidates.steps[chosen])
    baseline = training.inspector(training.baseline_phase, config.steps)
    views = look_at_lines(training, inspector, baseline)
    _calibrate(inspector, candidates.validation_logits[chosen], lines.labels(VAL))
    _remember(inspector, views[0], lines, config.review_rate)
    card = model_card(config, inspector.specification, lock(lines))
    artifact.save(inspector, run / "inspector", card, _golden(lines))
    write_views(run / ESTIMATE, *views, lines.classes.names, list(lines.target.part(TEST).table.ids))
    report, thumbnails = collect_evidence(config, lines, training.method_phase.name, choice.method, inspector, baseline)
    report["estimate"] = estimate_run(run)  # of what was kept, so that `steelshift estimate` says the same to the digit
    report["selection"] = config.select
    report["reject"] = judge_rejection(inspector, *_tested(views[0], lines))
    report["selected_step"] = candidates.steps[chosen]
    report["candidates"] = {"step": candidates.steps, **candidates.scores}
    if choice.tried:
        report["auto"] = choice.tried

    # Everything is chosen and written: now labels of the target line may be opened.
    labels = open_target_labels(config, lines)
    if labels is not None:
        report["target"] = judge(training, labels, candidates, chosen)
        report["target"]["reject"] = judge_rejection(inspector, views[0].target, labels[lines.target.side == TEST])
    _finish(run, report, thumbnails, began)
    return report


def _fit_tasks(config: Config, fast: Fast, lines: Lines, began: float) -> dict[str, Any]:
    """The same way with declared tasks, with a target line or without one."""
    run = config.out
    training = Training(config, fast, lines)
    training.check()
    training.pretrain()
    training.adapt()
    candidates = look_at_tasks(training)
    chosen = candidates.choose(rule_of(config, lines))
    inspector = training.inspector(training.method_phase, candidates.steps[chosen])
    calibrate_tasks(inspector, candidates.validation_logits[chosen], lines, config.review_rate)
    card = task_card(config, inspector.specification, lock(lines))
    artifact.save(inspector, run / "inspector", card, _golden(lines))
    report, thumbnails = collect_task_evidence(training, inspector, training.method_phase.name)
    report["selection"] = rule_of(config, lines)
    report["selected_step"] = candidates.steps[chosen]
    report["candidates"] = {"step": candidates.steps, **candidates.scores}
    report["verdict"] = verdict_of_tasks(report["source"], len(lines.tasks))

    # Everything is chosen and written: now labels of the target line may be opened.
    labels = target_task_labels(config, lines)
    if labels is not None:
        report["target"] = judge_tasks(training, labels, inspector)
    elif lines.target is not None:
        report["verdict"] += " " + say("tasks_unjudged")
    _finish(run, report, thumbnails, began)
    return report


def _finish(run: Path, report: dict[str, Any], thumbnails: dict[str, np.ndarray], began: float) -> None:
    report["seconds"] = round(time.monotonic() - began, 1)
    write_atomically(run / "thumbnails.npz", lambda file: np.savez_compressed(file, **thumbnails))
    write_text(run / "report.html", render(report, thumbnails))
    write_json(run / "report.json", report)  # its presence says that the run is finished
    _tidy(run)


def render_again(run: Path) -> Path:
    """Write report.html anew from the numbers of a finished run. Raises UsageError where there are none."""
    try:
        report = _stored(run / "report.json")
        with (run / "thumbnails.npz").open("rb") as file, np.load(file, allow_pickle=False) as pictures:
            thumbnails = dict(pictures)
    except (DataError, OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise UsageError("no_report", path=run) from error
    write_text(run / "report.html", render(report, thumbnails))
    return run / "report.html"


def _tested(view: View, lines: Lines) -> tuple[Answers, np.ndarray]:
    """Answers to source test images, which come after those of validation, and their classes."""
    after = len(lines.labels(VAL))
    return Answers(view.source.features[after:], view.source.logits[after:]), view.truth[after:]


def _calibrate(inspector: Inspector, logits: np.ndarray, truth: np.ndarray) -> None:
    inspector.calibrate(temperature=temperature(logits.astype(np.float64), truth, cautious=True))


def _remember(inspector: Inspector, view: View, lines: Lines, review_rate: float) -> None:
    """Source examples to compare with, and thresholds by which unlabelled target images would be reviewed at a rate."""
    table = lines.source.part(TRAIN).table
    kept = spread(len(table), len(view.training.features))  # as `view` has them
    rows = [table.rows[row] for row in kept]
    names = [row.path.name if row.crop is None else "{}#{},{},{},{}".format(row.path.name, *row.crop) for row in rows]
    target = view.target_training
    p = softmax(target.logits.astype(np.float64) / inspector.specification.temperature, axis=1)
    inspector.reference = reference.build(
        view.training.features, lines.labels(TRAIN)[kept], names, target.features, p
    )
    limits = inspector.reference.thresholds(review_rate)
    inspector.calibrate(threshold=limits.p, strange=limits.strange, review_rate=review_rate)


def _golden(lines: Lines) -> list[np.ndarray]:
    """A few source validation images, of different classes first."""
    cache, labels = lines.source.part(VAL), strata({task.name: lines.labels(VAL, task.name) for task in lines.tasks})
    turns = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    order = [int(members[turn]) for turn in range(GOLDEN) for members in turns if turn < len(members)]
    return [np.array(cache[row]) for row in order[:GOLDEN]]


def _hold_to_lock(run: Path, now: dict[str, Any]) -> None:
    """Write which image is where; a run that is resumed must find the same images and classes again."""
    path = run / "data.lock.json"
    if path.exists() and _stored(path) != now:
        raise DataError("other_data", path=run)
    write_json(path, now)


def _stored(path: Path) -> dict[str, Any]:
    """What a run keeps in a YAML or JSON file. Raises DataError where that is damaged."""
    try:
        found = read_yaml(path) if path.suffix == ".yaml" else json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return found
    except (OSError, ValueError, yaml.YAMLError):
        pass
    raise DataError("record_damaged", path=path)


def _tidy(run: Path) -> None:
    """Drop what only an unfinished run needs."""
    for leftover in ("candidates", "judging"):
        shutil.rmtree(run / leftover, ignore_errors=True)


def _with_later(before: dict[str, Any], config: Config) -> dict[str, Any]:
    """A stored config with what it lacks, for it is older, as it would be by default."""
    usual = {item.name: item.default for item in dataclasses.fields(Config) if item.default is not dataclasses.MISSING}
    usual = {key: list(value) if isinstance(value, tuple) else value for key, value in usual.items()}
    knobs = to_mapping(type(config.knobs)())
    same = before.get("method") == config.method
    if config.target_labels is None:
        before = before | {"few_share": config.few_share}  # of no matter here, and once 0.25 by default
    return usual | before | ({"knobs": knobs | (before.get("knobs") or {})} if same else {})


def _open(run: Path, config: Config, resume: bool) -> bool:
    """Make or check the folder of a run; True where it is finished."""
    stored = run / "config.yaml"
    values = {key: value for key, value in to_mapping(config).items() if key != "out"}
    held = {path.name for path in run.iterdir()} if run.is_dir() else set()
    if held - {"cache"} or (run.exists() and not run.is_dir()):
        if not resume:
            raise UsageError("run_exists", path=run)
        if stored.exists():
            before = _with_later(_stored(stored), config)
            for key in values:
                if values[key] != before.get(key):
                    raise UsageError("other_option", key=key, before=before.get(key), now=values[key], path=run)
            return (run / "report.json").exists()
        if not held <= {"config.yaml.tmp", "cache"}:
            raise UsageError("not_a_run", path=run)
    write_text(stored, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
    return False
