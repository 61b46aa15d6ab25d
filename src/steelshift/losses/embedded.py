"""Adaptively embedded samples: new points between a sample and one of another class.

Sources: patent CN115049627 claim 4; Zheng et al., Hardness-Aware Deep Metric Learning (HDML), CVPR 2019, for the form
that keeps the new point at least as far away as the positive is.
Symbols: X anchor, X+ positive (same class), X- negative (another class), all rows of the source's shared features;
D+ = |X - X+|, D- = |X - X-|.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Positive = Literal["random", "farthest", "centroid"]
Negative = Literal["random", "nearest", "semihard", "all_pairs"]
Form = Literal["hdml", "linear"]
Invalid = Literal["keep", "drop"]
SMALLEST = 1e-6


@dataclass(frozen=True)
class Triplets:
    """T triplets; T = 0 where the batch has one class only, or no class twice."""

    anchor: Tensor
    """X, (T, F)."""
    positive: Tensor
    """X+, (T, F)."""
    negative: Tensor
    """X-, (T, F)."""
    negative_label: Tensor
    """int64 (T,)."""

    def __len__(self) -> int:
        return len(self.anchor)


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean, (T, F), (T, F) -> (T, 1), with a gradient where it is zero."""
    return ((a - b).square().sum(1, keepdim=True) + SMALLEST**2).sqrt()


def mine(features: Tensor, labels: Tensor, positive: Positive = "random", negative: Negative = "random") -> Triplets:
    """Choose X+ and X- for every X that has both; features float (B, F), labels int64 (B,), -1 for unknown.

    random draws from torch's generator. farthest: the farthest of the same class. centroid: the mean of the others of
    the class. nearest: the nearest of another class; semihard: the nearest that lies farther than X+, else the
    nearest; all_pairs: every one of another class, so T is larger.
    """
    known = labels >= 0
    same = (labels[:, None] == labels) & known[:, None] & known
    same.fill_diagonal_(False)
    other = (labels[:, None] != labels) & known[:, None] & known
    anchors = (same.any(1) & other.any(1)).nonzero()[:, 0]
    if len(anchors) == 0:
        none = features[:0]
        return Triplets(none, none, none, labels[:0])
    same, other = same[anchors], other[anchors]
    with torch.no_grad():
        apart = torch.cdist(features[anchors].float(), features.float())
    if positive == "centroid":
        shares = same.to(features.dtype)
        positives = (shares / shares.sum(1, keepdim=True)) @ features
    else:
        chance = torch.rand_like(apart) if positive == "random" else apart
        positives = features[chance.masked_fill(~same, -torch.inf).argmax(1)]
    if negative == "all_pairs":
        row, column = other.nonzero(as_tuple=True)
        return Triplets(features[anchors[row]], positives[row], features[column], labels[column])
    if negative == "random":
        column = torch.rand_like(apart).masked_fill(~other, -torch.inf).argmax(1)
    else:
        near = apart.masked_fill(~other, torch.inf)
        column = near.argmin(1)
        if negative == "semihard":
            beyond = near.masked_fill(apart <= distance(features[anchors], positives).detach(), torch.inf)
            column = torch.where(beyond.isfinite().any(1), beyond.argmin(1), column)
    return Triplets(features[anchors], positives, features[column], labels[column])


def pull_factor(pull: Tensor | float, mean_task_loss: Tensor) -> Tensor:
    """lambda = exp(-pull / L): 1 while L is infinite or large, toward 0 as L falls. Detached."""
    loss = mean_task_loss.detach().clamp(min=SMALLEST)
    return torch.exp(-torch.as_tensor(pull, dtype=loss.dtype, device=loss.device) / loss)


def embed(
    triplets: Triplets, lam: Tensor, form: Form = "hdml", t_min: float = 0.0, invalid: Invalid = "keep"
) -> tuple[Tensor, Tensor, Tensor]:
    """New points X^ = X + t (X- - X), their labels, and whether D+ < D- held for each triplet.

    hdml: t = [lam D- + (1 - lam) D+] / D- where D+ < D-, else 1. linear: t = lam where D+ < D-, else 1.
    t_min: the least t; 0 is the text, .5 keeps the new point nearer to X-, whose label it has, than to X.
    invalid: what becomes of triplets with D+ >= D-: `keep` X- itself, or `drop`.

    Returns points float (T', F), labels int64 (T',), valid bool (T,).
    """
    near, far = distance(triplets.anchor, triplets.positive), distance(triplets.anchor, triplets.negative)
    valid = near < far
    # The clamp comes before the division: torch.where does not stop a NaN on the way back.
    inside = (lam * far + (1 - lam) * near) / far.clamp(min=SMALLEST) if form == "hdml" else lam.expand_as(far)
    t = torch.where(valid, inside, torch.ones_like(far)).clamp(min=t_min)
    points = triplets.anchor + t * (triplets.negative - triplets.anchor)
    keep = valid[:, 0] if invalid == "drop" else torch.ones_like(valid[:, 0])
    return points[keep], triplets.negative_label[keep], valid[:, 0]
