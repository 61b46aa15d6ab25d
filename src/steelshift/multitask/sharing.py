"""How many channels tasks really share, read from what they take from them and not from what was configured."""

import torch
from torch import Tensor

MASS = 0.9
"""A task uses the fewest channels that hold this share of all that it takes."""


def importance(taken: Tensor) -> Tensor:
    """What each channel gives to a task: mean |activation x gradient| over images and places, (N, C, H, W) -> (C,)."""
    return taken.abs().mean((0, 2, 3))


def used(importance: Tensor, mass: float = MASS) -> Tensor:
    """The channels that each task uses: (T, C) of importances, 0 or more -> bool (T, C).

    Those in falling order of importance up to where `mass` of the sum is reached; none for a task that takes nothing.
    """
    falling, order = importance.sort(dim=1, descending=True, stable=True)
    total = falling.sum(1, keepdim=True)
    before = falling.cumsum(1) - falling
    kept = (before < mass * total) & (falling > 0)
    return torch.zeros_like(kept).scatter(1, order, kept)


def shared(importance: Tensor, mass: float = MASS) -> float:
    """Of the channels that a task uses, the share that another task uses too; mean of the tasks: (T, C) -> [0, 1].

    If tasks used all that they may, this were the configured share. Tasks that use none are left out; NaN if all do.
    """
    masks = used(importance, mass)
    common = (masks & (masks.sum(0) >= 2)).sum(1)
    return float((common / masks.sum(1)).nanmean())  # 0 / 0 is NaN


def overlap(importance: Tensor, mass: float = MASS) -> Tensor:
    """Channels that both tasks use over those that either uses: (T, C) -> (T, T), NaN where neither uses any."""
    masks = used(importance, mass).double()
    both = masks @ masks.T
    each = masks.sum(1)
    return both / (each[:, None] + each[None, :] - both)
