"""Judging against target labels: after everything is chosen, and choosing nothing.

Here, and for the oracle, is the one place where labels of the target line are opened; the few that a person gives to
train with come in by `lines`, and leave the test split.
"""

import tempfile
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from steelshift.candidates import Candidates
from steelshift.data.cache import PixelCache, cache_pixels
from steelshift.data.splits import TEST, TRAIN, groups_of
from steelshift.data.stream import resized
from steelshift.data.table import Classes, ImageTable, load_classes, read_images, read_labels, read_labels_by_id
from steelshift.errors import DataError, UsageError
from steelshift.estimating import FILE as ESTIMATE
from steelshift.estimating import read_views
from steelshift.files import as_csv, write_text
from steelshift.inspection import inspector as artifact
from steelshift.inspection.inspector import in_batches
from steelshift.labels import UNKNOWN
from steelshift.lines import Lines, locked_holders, locked_places, locked_target
from steelshift.messages import say
from steelshift.progress import note, showing
from steelshift.selection.answers import Answers
from steelshift.selection.estimate import interval, more_labels
from steelshift.selection.metrics import open_set_scores, scores, shares, told_apart
from steelshift.selection.reject import calibration_error, rate_needed, risk_coverage
from steelshift.stages import Training
from steelshift.training.config import Config

MOST_UNSEEN = 0.1
"""Share of the test images with an answer that no label is of, above which an interval is spoken of as doubtful."""


def open_target_labels(config: Config, lines: Lines) -> np.ndarray | None:
    """Class index of every target row, -1 where there is none; None where no test image has one."""
    labels = read_labels(config.target, lines.classes, lines.target.cache.table)
    return labels if (labels[lines.target.side == TEST] >= 0).any() else None


def judge(training: Training, labels: np.ndarray, candidates: Candidates, chosen: int) -> dict[str, Any]:
    """The `target` block of the report: mean class accuracy on the target test split, and what explains it.

    labels: of all target rows. chosen: which candidate. Trains the oracle, unless the config says no.
    """
    config, lines, classes = training.config, training.lines, training.lines.classes
    truth = labels[lines.target.side == TEST]

    def judged(logits: np.ndarray) -> dict[str, Any]:
        found = scores(truth, logits.argmax(1), classes.names, classes.qualified)
        return found | ({"open": open_set_scores(truth, logits)} if (truth == UNKNOWN).any() else {})

    test = lines.target.part(TEST)
    device = training.fast.device
    prepared = resized(test, np.arange(len(test)), config.size)
    baseline = training.inspector(training.baseline_phase, config.steps).to(device)
    unmoved = in_batches(baseline.logits, prepared, device=device)
    of_candidates = [judged(logits) for logits in candidates.test_logits]
    by_step = [found["mean_class_accuracy"] for found in of_candidates]
    peeked = int(np.argmax(by_step))
    details = {
        "source_only": judged(unmoved),
        "selected": of_candidates[chosen],
    }
    trainable = (labels[lines.target.side == TRAIN] >= 0).any()
    if config.oracle and trainable:
        details["oracle"] = judged(in_batches(training.oracle(labels).to(device).logits, prepared, device=device))
    before, after = details["source_only"]["mean_class_accuracy"], by_step[chosen]
    if training.method_phase is training.baseline_phase:
        sentence = say("judged_source", after=after, n=details["selected"]["n"])
    else:
        moves = (shares(truth, logits.argmax(1)) for logits in (unmoved, candidates.test_logits[chosen]))
        told = told_apart(*moves, np.array(groups_of(test.table, test.digests)))
        sentence = verdict(before, after, told, details["selected"]["n"])
    return {
        "source_only": before,
        "selected": after,
        "last": by_step[-1],
        "peeked": by_step[peeked],
        "oracle": details["oracle"]["mean_class_accuracy"] if "oracle" in details else None,
        "n": details["selected"]["n"],
        "unknown": int((truth < 0).sum()),
        "peeked_step": candidates.steps[peeked],
        "by_step": by_step,
        "sentence": sentence,
        "details": details,
    }


def verdict(before: float, after: float, told: bool, n: int) -> str:
    """One sentence on what adaptation did to mean class accuracy on n target test images.

    told: whether chance explains less than that; no help or harm is claimed that it explains as well.
    """
    words = "judged_untold" if not told else "judged_better" if after > before else "judged_worse"
    return say(words, before=before, after=after, n=n)


def judge_rejection(inspector: artifact.Inspector, answers: Answers, truth: np.ndarray) -> dict[str, Any]:
    """What sending answers to a person buys, on labelled images (n,): truth -1 is a class that the inspector lacks.

    Of the images with a class of its own: calibration error, risk over coverage, and at the inspector's thresholds the
    share that goes to a person, errors among all and among the accepted.
    """
    known, specification = truth >= 0, inspector.specification
    if not known.any():
        return {"n": 0}
    p = softmax(answers.logits[known].astype(np.float64) / specification.temperature, axis=1).max(1)
    wrong = answers.predicted[known] != truth[known]
    strange = inspector.reference.compare(answers.features[known])[0]
    reference = inspector.reference.p, inspector.reference.strange
    accepted = (p >= specification.threshold) & (strange <= specification.strange)
    return {
        "n": int(known.sum()),
        "calibration_error": calibration_error(p, ~wrong),
        "review_rate": specification.review_rate,
        "reviewed": float(1 - accepted.mean()),
        "error": float(wrong.mean()),
        "error_accepted": float(wrong[accepted].mean()) if accepted.any() else None,
        "risk_coverage": risk_coverage(rate_needed(p, strange, reference), wrong),
    }


def evaluate(run: Path, places: tuple[Path, ...], classes_file: Path | None, which: str) -> dict[str, Any]:
    """Scores of the inspector of a run, or of an inspector folder, on labelled images, as `scores` gives them.

    which: `test` takes the images that the run's data.lock.json lists as target test, matched by content; `all` all.
    Raises DataError, UsageError, ArtifactRefused.
    """
    inspector = artifact.load(run)
    names = inspector.specification.classes
    classes = load_classes(classes_file) if classes_file else classes_of(run, names)
    if classes.names != names:
        raise UsageError("other_classes", path=classes_file, found=", ".join(classes.names), known=", ".join(names))
    # What the run kept apart may hold images of unknown classes; elsewhere only folders of its classes are looked at.
    table = read_images(places, None if which == "test" else classes)
    if which == "test":
        table = kept_apart(table, locked_target(run, "test"), run, places)
    with decoded(table, inspector) as cache:
        truth = read_labels(places, classes, cache.table)
        if not (truth >= 0).any():
            raise DataError("no_target_labels", where=", ".join(map(str, places)))
        prepared = resized(cache, np.arange(len(cache)), inspector.specification.size)
    logits = in_batches(inspector.logits, prepared)
    found = scores(truth, logits.argmax(1), names, classes.qualified)
    return found | ({"open": open_set_scores(truth, logits)} if (truth == UNKNOWN).any() else {})


def kept_apart(table: ImageTable, wanted: Set[str], run: Path, places: tuple[Path, ...]) -> ImageTable:
    """Those images whose content a run kept for tests: `wanted`, ids. Raises DataError where none is there."""
    table = table.take(row for row, name in enumerate(table.ids) if name in wanted)
    if not len(table):
        raise DataError("no_test_images", where=", ".join(map(str, places)), run=run)
    if len(set(table.ids)) < len(wanted):
        note(say("some_test_images", found=len(set(table.ids)), wanted=len(wanted), run=run))
    return table


@contextmanager
def decoded(table: ImageTable, inspector: artifact.Inspector) -> Iterator[PixelCache]:
    """Pixels of images as the inspector takes them, in a folder that does not stay."""
    with tempfile.TemporaryDirectory() as folder:
        with showing(say("decoding", line="target"), len(table)) as advance:
            cache = cache_pixels(table, Path(folder), bit_depth=inspector.specification.bit_depth, progress=advance)
        yield cache


def measured(run: Path, labels: Sequence[Path], points: float) -> dict[str, Any]:
    """Accuracy of the inspector of a run on its target test images, from labels of a few, with its 95 % interval.

    The accuracy is that of the line which the test images were drawn from. labels: files for `read_labels_by_id`. more:
    labels beyond these, drawn evenly, that reach plus or minus `points` points; left: test images without one. unknown:
    images labelled with no class of the run; whatever is answered to them is wrong. Raises DataError, UsageError.
    """
    inspector, _, names, ids = read_views(run / ESTIMATE)
    known = _together(labels, classes_of(run, names))
    rows = {name: row for row, name in enumerate(ids)}
    inside = [name for name in known if name in rows]
    if not any(known[name] >= 0 for name in inside):
        raise DataError("labels_no_match", path=", ".join(map(str, labels)), count=len(rows), run=run)
    if len(inside) < len(known):
        note(say("labels_elsewhere", count=len(known) - len(inside), run=run))
    answers = inspector.target.predicted
    places = np.array([rows[name] for name in inside])
    right = answers[places] == np.array([known[name] for name in inside])
    accuracy, low, high, size = interval(right, answers[places], answers)
    unseen = np.setdiff1d(answers, answers[places])
    if (share := np.isin(answers, unseen).mean()) > MOST_UNSEEN:
        note(say("answers_unseen", answers=", ".join(names[answer] for answer in unseen), share=share))
    return {
        "n": len(inside),
        "unknown": sum(known[name] == UNKNOWN for name in inside),
        "accuracy": accuracy,
        "low": low,
        "high": high,
        "points": points,
        "more": more_labels(accuracy, len(inside), size, points / 100),
        "left": len(rows) - len(inside),
    }


def _together(files: Sequence[Path], classes: Classes) -> dict[str, int]:
    """Labels by id of several files. Raises DataError, also where two disagree."""
    found: dict[str, int] = {}
    for file in files:
        for name, index in read_labels_by_id(file, classes).items():
            if found.setdefault(name, index) != index:
                raise DataError("labels_twice", path=file, id=name)
    return found


def list_to_label(run: Path, out: Path, count: int, labels: Sequence[Path] = ()) -> int:
    """Write a CSV of target test images for a person to label: id, path, crop and an empty label; returns how many.

    Drawn evenly from those without a label in `labels`, at most `count`; a longer list begins with a shorter one's
    images. Nothing is written where none is to be labelled. Raises UsageError where `out` is there or there is no run,
    DataError where its images are not.
    """
    if out.exists():
        raise UsageError("to_label_exists", path=out)
    *_, names, ids = read_views(run / ESTIMATE)
    known = _together(labels, classes_of(run, names))
    places = locked_places(run, "target")
    rows = {row.id: row for row in read_images(places).rows}
    wanted = [name for name in np.random.default_rng(0).permutation(sorted(set(ids))) if name not in known][:count]
    if not set(wanted) <= rows.keys():
        raise DataError("run_images_gone", where=", ".join(map(str, places)), run=run)
    if not wanted:
        return 0
    listed = (
        {"id": name, "path": rows[name].path.resolve(), "crop": " ".join(map(str, rows[name].crop or ()))}
        for name in wanted
    )
    write_text(out, as_csv(("id", "path", "crop", "label"), listed))
    return len(wanted)


def classes_of(run: Path, names: tuple[str, ...]) -> Classes:
    """The folder names that the run took for its classes; an inspector folder alone knows only the class names."""
    holders = locked_holders(run)
    if holders is None or not set(holders.values()) <= set(names):
        return Classes(names, {name: index for index, name in enumerate(names)})
    return Classes(names, {folder: names.index(name) for folder, name in holders.items()})
