"""Scores of predictions against truth, from arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import softmax
from scipy.stats import binomtest, entropy
from sklearn.metrics import confusion_matrix

from steelshift.labels import UNKNOWN


def scores(truth: np.ndarray, predicted: np.ndarray, names: tuple[str, ...], qualified: int | None) -> dict[str, Any]:
    """What `evaluate` prints; truth and predicted are class indices (n,), truth -1 (no or unknown class) is left out.

    Classes without an image have recall None, classes never predicted precision None; neither enters a mean, nor does
    a class without an image. With a qualified class: escape_rate, defects passed as qualified, and overkill_rate,
    qualified pieces called defective, with 95 % Wilson intervals.
    """
    predicted, truth = predicted[truth >= 0], truth[truth >= 0]
    confusion = (
        confusion_matrix(truth, predicted, labels=range(len(names))) if len(truth) else np.zeros((len(names),) * 2)
    )
    right, of_class, called = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    recall = [float(r / n) if n else None for r, n in zip(right, of_class, strict=True)]
    precision = [float(r / n) if n else None for r, n in zip(right, called, strict=True)]
    f1 = [2 * float(r) / float(n + c) for r, n, c in zip(right, of_class, called, strict=True) if n]
    found: dict[str, Any] = {
        "n": len(truth),
        "accuracy": float(right.sum() / len(truth)) if len(truth) else None,
        "mean_class_accuracy": mean_class_accuracy(truth, predicted) if len(truth) else None,
        "macro_f1": float(np.mean(f1)) if f1 else None,
        "per_class": {
            name: {"n": int(n), "recall": r, "precision": p}
            for name, n, r, p in zip(names, of_class, recall, precision, strict=True)
        },
        "confusion": confusion.astype(int).tolist(),
    }
    if qualified is not None:
        defective = truth != qualified
        found["escape_rate"] = rate(int((predicted[defective] == qualified).sum()), int(defective.sum()))
        found["overkill_rate"] = rate(int((predicted[~defective] != qualified).sum()), int((~defective).sum()))
    return found


def open_set_scores(truth: np.ndarray, logits: np.ndarray) -> dict[str, float | int]:
    """Scores on images of which some are of no known class; truth (n,), UNKNOWN for those, others below 0 left out.

    An image counts as unknown where its answer's entropy is above half of the largest one, ln K / 2 (Saito et al.,
    DANCE, NeurIPS 2020). known: mean recall over the known classes, rejection being wrong; unknown: share rejected of
    the unknown; h_score: their harmonic mean (Fu et al., Learning to Detect Open Classes for Universal Domain
    Adaptation, ECCV 2020); all 0 to 1.
    """
    rejected = entropy(softmax(logits.astype(np.float64), axis=1), axis=1) > np.log(logits.shape[1]) / 2
    answers = np.where(rejected, UNKNOWN, logits.argmax(1))
    known = mean_class_accuracy(truth[truth >= 0], answers[truth >= 0])
    unknown = float(rejected[truth == UNKNOWN].mean())
    h_score = 2 * known * unknown / (known + unknown) if known + unknown else 0.0
    return {"n_unknown": int((truth == UNKNOWN).sum()), "known": known, "unknown": unknown, "h_score": h_score}


def task_scores(
    kind: str, truth: np.ndarray, logits: np.ndarray, names: tuple[str, ...], negative: int | None
) -> dict[str, Any]:
    """What `evaluate` prints of one task; truth (n,), or (n, K) of a multi-label one, -1 where there is none.

    Of a multi-label task accuracy is that of single decisions, the mean over its classes of the mean recall of having
    and not having it, where images of both kinds are there, stands for mean_class_accuracy, and recall and precision
    are of having it. Of an ordinal task also mean_absolute_error, in classes. Raises nothing; what has no image is
    None, and where all images are of one class, so are the means over classes: nothing was told apart.
    """
    if kind != "multi-label":
        found = scores(truth, logits.argmax(1), names, negative)
        if kind == "ordinal":
            known = truth >= 0
            away = np.abs(logits.argmax(1) - truth)[known]
            found["mean_absolute_error"] = float(away.mean()) if known.any() else None
        if len(np.unique(truth[truth >= 0])) < 2:
            found |= {"mean_class_accuracy": None, "macro_f1": None}
        return found
    per_class, means, f1 = {}, [], []
    for name, true, said in zip(names, truth.T, (logits > 0).T, strict=True):
        true, said = true[true >= 0].astype(int), said[true >= 0].astype(int)
        both, there, called = int((true & said).sum()), int(true.sum()), int(said.sum())
        per_class[name] = {
            "n": there,
            "recall": both / there if there else None,
            "precision": both / called if called else None,
        }
        if 0 < there < len(true):  # of a class that all images have, or none, nothing was told apart
            means.append(mean_class_accuracy(true, said))
        if there:
            f1.append(2 * both / (there + called))
    known = truth >= 0
    return {
        "n": int(known.any(1).sum()),
        "accuracy": float(((logits > 0) == truth)[known].mean()) if known.any() else None,
        "mean_class_accuracy": float(np.mean(means)) if means else None,
        "macro_f1": float(np.mean(f1)) if f1 else None,
        "per_class": per_class,
    }


@dataclass(frozen=True)
class Shares:
    """What images add to a mean class accuracy, or to a mean of several."""

    each: np.ndarray
    """(n,), of every image; they sum to the mean."""
    steps: np.ndarray
    """What one image more of a class adds, of every class that occurs."""


def shares(truth: np.ndarray, predicted: np.ndarray) -> Shares:
    """Of one mean class accuracy; truth and predicted (n,), truth below 0 adds nothing."""
    present, count = np.unique(truth[truth >= 0], return_counts=True)
    steps = 1 / (count * len(present))
    each = np.zeros(len(truth))
    for label, step in zip(present, steps, strict=True):
        each[(truth == label) & (predicted == label)] = step
    return Shares(each, steps)


def task_shares(kind: str, truth: np.ndarray, logits: np.ndarray) -> Shares | None:
    """Of the mean_class_accuracy of `task_scores`; None where that is."""
    if kind == "multi-label":
        answers = zip(truth.T, (logits > 0).astype(int).T, strict=True)
    else:
        answers = [(truth, logits.argmax(1))]
    told = [shares(true, said) for true, said in answers if len(np.unique(true[true >= 0])) > 1]
    return mean_shares(told) if told else None


def mean_shares(parts: Sequence[Shares]) -> Shares:
    """Of the mean of several; at least one."""
    return Shares(
        np.mean([part.each for part in parts], axis=0), np.concatenate([part.steps for part in parts]) / len(parts)
    )


def told_apart(before: Shares, after: Shares, groups: np.ndarray, draws: int = 1999) -> bool:
    """Whether a change of a mean class accuracy on the same images is told from chance, two-sided at 5 %.

    A sign-flip test: were before and after alike, the changes of each group of images could as well have been the other
    way round. groups: a number an image (n,); images of one strip change together. In each class one image more
    is taken to have changed, one way or the other, or a class of three of which none did would count as known. Draws
    are seeded.
    """
    change = np.bincount(groups, weights=after.each - before.each)
    sizes = np.round(np.abs(np.concatenate([change, after.steps])), 9)
    flipped, rng = np.zeros(draws), np.random.default_rng(0)
    for size, count in zip(*np.unique(sizes[sizes > 0], return_counts=True), strict=True):
        flipped += size * (count - 2 * rng.binomial(count, 0.5, draws))
    as_far = np.abs(flipped) >= abs(change.sum()) - 1e-6
    return bool((as_far.sum() + 1) / (draws + 1) < 0.05)


LEAST_GAP = 0.01
"""Between source-only and the oracle, for a share of it to say anything."""


def gap_closed(gain: float, gap: float) -> float | None:
    """The share of the gap between source-only and the oracle that a gain closes; None of less than a point."""
    return gain / gap if gap >= LEAST_GAP else None


def rate(count: int, total: int) -> dict[str, float | int | None]:
    """A share with its 95 % Wilson interval."""
    if total == 0:
        return {"rate": None, "low": None, "high": None, "n": 0}
    interval = binomtest(count, total).proportion_ci(method="wilson")
    return {"rate": count / total, "low": float(interval.low), "high": float(interval.high), "n": total}


def mean_class_accuracy(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Mean recall over the classes that occur; truth and predicted (n,), n at least 1."""
    return float(np.mean([(predicted[truth == label] == label).mean() for label in np.unique(truth)]))
