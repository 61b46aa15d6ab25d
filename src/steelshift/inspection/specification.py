"""What every form of an inspector says of itself. No torch here: exported inspectors run without it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from steelshift.data.shapes import alike
from steelshift.data.tasks import PLAIN
from steelshift.inspection.reference import Reference

SCHEMA = 1


@dataclass(frozen=True)
class Head:
    """What an inspector says of one task."""

    task: str
    kind: str
    """single-label, multi-label, yes/no or ordinal."""
    classes: tuple[str, ...]
    temperature: float = 1.0
    threshold: float = 0.0
    """Images whose calibrated confidence is below go to a person."""


@dataclass(frozen=True)
class Specification:
    """What inspector.json holds."""

    encoder: str
    feature: str
    size: int
    """Side of the network's input in pixels."""
    classes: tuple[str, ...]
    """Empty where tasks were declared: each head has its own."""
    temperature: float = 1.0
    threshold: float = 0.0
    """Images whose calibrated probability is below go to a person."""
    strange: float | None = None
    """Images stranger than this go to a person; None where there is nothing to compare with. See `reference`."""
    review_rate: float = 0.05
    """Share of images of the target line for which both were set."""
    bit_depth: int | None = None
    schema: int = SCHEMA
    heads: tuple[Head, ...] = ()
    """Of declared tasks; their probabilities lie side by side."""
    sharing: str = ""
    """How their networks share channels: a `Kind` of nn.sharing, and its ratios."""
    ratios: tuple[float, ...] = ()

    @classmethod
    def of(cls, record: dict[str, Any]) -> "Specification":
        """From what JSON holds. Raises TypeError, KeyError, ValueError."""
        heads = tuple(Head(**{**head, "classes": tuple(head["classes"])}) for head in record.get("heads", ()))
        plain = {key: tuple(record[key]) for key in ("classes", "ratios") if key in record}
        return cls(**{**record, **plain, "heads": heads})

    @property
    def every_head(self) -> tuple[Head, ...]:
        """One of a plain inspector."""
        return self.heads or (Head(PLAIN, "single-label", self.classes, self.temperature, self.threshold),)

    @property
    def columns(self) -> dict[str, slice]:
        """Where each task's probabilities lie."""
        found, start = {}, 0
        for head in self.every_head:
            found[head.task] = slice(start, start + len(head.classes))
            start += len(head.classes)
        return found


@dataclass(frozen=True)
class Answer:
    """What a network says to B images."""

    probabilities: np.ndarray
    """float32 (B, K), calibrated."""
    features: np.ndarray
    """float32 (B, F)."""
    maps: np.ndarray | None = None
    """What heat maps are drawn from, where it was asked for."""


class Judge(Protocol):
    """An inspector in any runtime."""

    specification: Specification
    reference: Reference | None
    identity: str
    """sha256 of the weights."""

    def score(self, groups: Sequence[np.ndarray]) -> np.ndarray:
        """uint8 (B, H, W, C) of any shapes, C = 1 or 3 -> calibrated probabilities float32 (sum of B, K), in order."""

    def answer(self, groups: Sequence[np.ndarray], *, maps: bool = False) -> Answer:
        """The same images, with all that a row tells of them."""

    def heat(self, maps: np.ndarray) -> np.ndarray:
        """Maps of an answer -> heat of the best class, float32 (B, h, w) within 0 to 1, whatever its resolution."""


def answer_each(judge: Judge, images: Sequence[np.ndarray], *, maps: bool = False) -> Answer:
    """As `score_each`, with all that a row tells."""
    groups, order = _grouped(images)
    found = judge.answer(groups, maps=maps)
    back = np.argsort(order)
    return Answer(
        found.probabilities[back], found.features[back], None if found.maps is None else found.maps[back]
    )


def score_each(judge: Judge, images: Sequence[np.ndarray]) -> np.ndarray:
    """Probabilities float32 (N, K) of one or more images uint8 (H, W, C), in their order; equal shapes run together."""
    groups, order = _grouped(images)
    return judge.score(groups)[np.argsort(order)]


def _grouped(images: Sequence[np.ndarray]) -> tuple[list[np.ndarray], list[int]]:
    """Images of one shape together, and the place that each had."""
    groups, order = [], []
    for places, _ in alike(np.array([image.shape for image in images])):
        groups.append(np.stack([images[place] for place in places]))
        order.extend(int(place) for place in places)
    return groups, order
