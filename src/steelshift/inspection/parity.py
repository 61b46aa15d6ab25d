"""Whether two runtimes give the same answers: functions of arrays, without torch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from steelshift.inspection.specification import Head

LARGEST = {"fp32": 1e-4}
"""Largest difference of a probability."""
SAME_CLASS = {"fp32": 1.0, "bf16": 0.995, "int8": 0.99}
"""Least share of images with the same class."""
LOST = {"int8": 0.01}
"""Most accuracy that may be lost, where labels are known."""
TIE = 2e-4
"""Two best classes that are no further apart are a tie: either is right."""


@dataclass(frozen=True)
class Parity:
    """What was found for one exported graph against the inspector that it was made from."""

    images: int
    largest_difference: float
    """Of any probability of any image."""
    same_class: float
    """Share of images."""
    ties: int
    """Images with another class that count as the same: their two best classes are a tie."""
    accuracy_lost: float | None
    """Of the labelled images; None where there are none, negative where the graph is better."""

    def passes(self, precision: str) -> bool:
        return (
            self.largest_difference <= LARGEST.get(precision, 1.0)
            and self.same_class >= SAME_CLASS[precision]
            and (self.accuracy_lost or 0.0) <= LOST.get(precision, 1.0)
        )


def worst(found: Sequence[Parity]) -> Parity:
    """Of one graph that was run in several ways on the same images."""
    lost = [each.accuracy_lost for each in found if each.accuracy_lost is not None]
    return Parity(
        images=found[0].images,
        largest_difference=max(each.largest_difference for each in found),
        same_class=min(each.same_class for each in found),
        ties=max(each.ties for each in found),
        accuracy_lost=max(lost, default=None),
    )


def compare(
    expected: np.ndarray, found: np.ndarray, truth: np.ndarray | None = None, heads: Sequence[Head] = ()
) -> Parity:
    """Probabilities (N, K) of the inspector and of a graph; truth: class index (N,), -1 where unknown.

    heads: of declared tasks; an image has the same class where it has in every task.
    """
    other, clear = np.zeros(len(expected), bool), np.zeros(len(expected), bool)
    start = 0
    for kind, classes in [(head.kind, len(head.classes)) for head in heads] or [("", expected.shape[1])]:
        one, two, start = expected[:, start : start + classes], found[:, start : start + classes], start + classes
        if kind == "multi-label":
            differs, lead = (one >= 0.5) != (two >= 0.5), 2 * np.abs(one - 0.5)
            clear |= (differs & ~(lead <= TIE)).any(1)
            other |= differs.any(1)
        else:
            differs, best = one.argmax(1) != two.argmax(1), np.sort(one, axis=1)
            clear |= differs & ~(best[:, -1] - best[:, -2] <= TIE)
            other |= differs
    tied = other & ~clear
    lost = None
    if truth is not None and (truth >= 0).any():
        known = truth >= 0
        right = [int((scores[known].argmax(1) == truth[known]).sum()) for scores in (expected, found)]
        lost = (right[0] - right[1]) / int(known.sum())
    difference = float(np.abs(expected - found).max())
    return Parity(
        images=len(expected),
        largest_difference=difference if np.isfinite(difference) else float("inf"),
        same_class=int((~other | tied).sum()) / len(expected),
        ties=int(tied.sum()),
        accuracy_lost=lost,
    )
