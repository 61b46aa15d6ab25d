"""What a run keeps so that its accuracy on the target can be estimated later, and the answer. Opens no target label.

estimate.npz holds arrays alone: features (float16) and logits of the inspector and of the baseline on images of both
lines, classes of the source images, ids of the target test images. Images may have moved or gone.
"""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from steelshift.errors import ArtifactRefused, UsageError
from steelshift.files import write_atomically
from steelshift.inspection.opening import of_tasks
from steelshift.messages import say
from steelshift.selection import estimate
from steelshift.selection.answers import Answers
from steelshift.selection.estimate import Judgement, View

FILE = "estimate.npz"
SCHEMA = 1
PARTS = ("training", "source", "target_training", "target")
LARGEST = 6e4
"""Of a feature, for float16."""


def write_views(path: Path, inspector: View, baseline: View, classes: tuple[str, ...], target_ids: list[str]) -> None:
    """Keep what `read_views` reads. target_ids: of the target test images, in the order of the answers to them."""
    arrays: dict[str, np.ndarray] = {
        "schema": np.array(SCHEMA),
        "classes": np.array(classes),
        "truth": inspector.truth.astype(np.int64),
        "target_ids": np.array(target_ids),
    }
    for name, view in (("inspector", inspector), ("baseline", baseline)):
        for part in PARTS:
            answers: Answers = getattr(view, part)
            arrays[f"{name}_{part}_features"] = np.clip(answers.features, -LARGEST, LARGEST).astype(np.float16)
            arrays[f"{name}_{part}_logits"] = answers.logits.astype(np.float32)
    write_atomically(path, lambda file: np.savez_compressed(file, **arrays))


def read_views(path: Path) -> tuple[View, View, tuple[str, ...], list[str]]:
    """Inspector, baseline, class names, ids of target test images. Raises UsageError, ArtifactRefused."""
    if not path.is_file():
        raise UsageError("no_estimate", path=path)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = dict(stored)
        if arrays["schema"] != SCHEMA:
            raise ValueError(f"schema {arrays['schema']}")
        truth = arrays["truth"]
        views = [
            View(
                truth=truth,
                **{part: Answers(arrays[f"{name}_{part}_features"], arrays[f"{name}_{part}_logits"]) for part in PARTS},
            )
            for name in ("inspector", "baseline")
        ]
        classes, ids = tuple(map(str, arrays["classes"])), list(map(str, arrays["target_ids"]))
        for view in views:
            _check(view, len(classes), len(ids))
    except (
        OSError, EOFError, KeyError, TypeError, ValueError, AttributeError, zipfile.BadZipFile, zlib.error,
    ) as error:  # fmt: skip
        why = (" ".join(str(error).split()) or type(error).__name__)[:160]
        raise ArtifactRefused("estimate_broken", path=path, why=why) from error
    return views[0], views[1], classes, ids


def _check(view: View, classes: int, images: int) -> None:
    """Arrays that belong together."""
    for part in PARTS:
        answers: Answers = getattr(view, part)
        if answers.features.ndim != 2 or answers.logits.shape != (len(answers.features), classes):
            raise ValueError(f"shapes of {part}")
        if not (np.isfinite(answers.features).all() and np.isfinite(answers.logits).all() and len(answers.features)):
            raise ValueError(f"values of {part}")
    if view.truth.shape != (len(view.source.logits),) or len(view.target.logits) != images:
        raise ValueError("counts")
    if view.truth.min() < 0 or view.truth.max() >= classes:
        raise ValueError("classes")


def estimate_run(run: Path) -> dict[str, Any]:
    """What `steelshift estimate RUN --json` prints: verdict, estimate, lower_bound, reason."""
    if not (Path(run) / FILE).is_file() and of_tasks(run):
        raise UsageError("estimate_one_task", path=run)
    inspector, baseline, _, _ = read_views(Path(run) / FILE)
    found = estimate.judge_blind(inspector, baseline)
    return {
        "verdict": found.verdict,
        "estimate": found.estimate,
        "lower_bound": found.lower_bound,
        "reason": reason(found),
    }


def reason(found: Judgement) -> str:
    """One sentence: why this verdict."""
    if found.risk == "few_images":
        return say("estimate_few_images", least=estimate.LEAST_IMAGES)
    signs = found.signs
    if found.risk is None:
        return say("estimate_fine", spread=signs["estimates_differ"], apart=signs["lines_apart"])
    match found.risk:
        case "unknown_classes":
            risk = say("estimate_unknown_classes", share=signs["unknown_classes"])
        case "lines_apart":
            risk = say("estimate_lines_apart", area=signs["lines_apart"])
        case "class_mix":
            risk = say("estimate_class_mix", share=signs["class_mix"])
        case "estimates_differ":
            risk = say("estimate_estimates_differ", spread=signs["estimates_differ"])
    if found.verdict == "bound":
        return say("estimate_bound", risk=risk)
    if found.risk == "unknown_classes":
        return say("estimate_open", risk=risk)
    return say("estimate_refused", risk=risk, bound=signs["bound"])
