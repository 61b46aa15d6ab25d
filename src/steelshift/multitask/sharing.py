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
    """Share of the channels used by any task that two tasks or more use; NaN where none is used: (T, C) -> [0, 1]."""
    users = used(importance, mass).sum(0)
    return float((users >= 2).sum() / (users >= 1).sum())


def overlap(importance: Tensor, mass: float = MASS) -> Tensor:
    """Channels that both tasks use over those that either uses: (T, C) -> (T, T), NaN where neither uses any."""
    masks = used(importance, mass).double()
    both = masks @ masks.T
    each = masks.sum(1)
    return both / (each[:, None] + each[None, :] - both)
