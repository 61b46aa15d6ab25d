"""What every form of an inspector says of itself. No torch here: exported inspectors run without it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from steelshift.data.shapes import alike

SCHEMA = 1


@dataclass(frozen=True)
class Specification:
    """What inspector.json holds."""

    encoder: str
    feature: str
    size: int
    """Side of the network's input in pixels."""
    classes: tuple[str, ...]
    temperature: float = 1.0
    threshold: float = 0.0
    """Images whose calibrated probability is below go to a person."""
    bit_depth: int | None = None
    schema: int = SCHEMA


class Judge(Protocol):
    """An inspector in any runtime."""

    specification: Specification

    def score(self, groups: Sequence[np.ndarray]) -> np.ndarray:
        """uint8 (B, H, W, C) of any shapes, C = 1 or 3 -> calibrated probabilities float32 (sum of B, K), in order."""


def score_each(judge: Judge, images: Sequence[np.ndarray]) -> np.ndarray:
    """Probabilities float32 (N, K) of one or more images uint8 (H, W, C), in their order; equal shapes run together."""
    groups, order = [], []
    for places, _ in alike(np.array([image.shape for image in images])):
        groups.append(np.stack([images[place] for place in places]))
        order.extend(places)
    scores = judge.score(groups)
    found = np.empty_like(scores)
    found[order] = scores
    return found
