"""What tasks do to each other: opposing gradients, and tasks that sharing makes worse.

Scores are shares in [0, 1], higher being better; arrays are seeds x tasks, of matched budgets.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from steelshift.losses.weighting import gradient_cosines

LEAST_MARGIN = 0.005
"""A score that is lower by less is not called worse."""


@dataclass(frozen=True)
class Conflict:
    """Of the pairs of tasks over some batches; NaN where no batch had labels of both."""

    cosine: np.ndarray
    """(T, T): mean cosine of the gradients."""
    rate: float
    """Share of the measured pairs with a negative cosine."""
    difference: float
    """Direction difference: mean of (1 - cosine) / 2, from 0 (all tasks pull one way) to 1."""
    angle: float
    """Mean angle, in degrees."""
    pairs: int
    """Pairs measured, over all batches."""


def conflict(gradients: Tensor) -> Conflict:
    """Conflict of task gradients at one set of parameters: (batches, T, P), rows of NaN where a batch lacks a task."""
    cosines = torch.stack([gradient_cosines(each).double().clamp(-1, 1) for each in gradients])
    first, second = torch.triu_indices(*cosines.shape[1:], offset=1)
    pairs = cosines[:, first, second]
    pairs = pairs[~pairs.isnan()]
    return Conflict(
        cosine=cosines.nanmean(0).numpy(),
        rate=float((pairs < 0).double().mean()),
        difference=float(((1 - pairs) / 2).mean()),
        angle=float(pairs.arccos().rad2deg().mean()),
        pairs=len(pairs),
    )


def reduction(rival: Conflict, ours: Conflict) -> float:
    """How much smaller our direction difference is, 1 - ours / rival: of the same parameters and the same batches."""
    return 1 - ours.difference / rival.difference


def margins(single: np.ndarray, images: np.ndarray) -> np.ndarray:
    """What a score must fall by to count as worse: half a point, or one standard error of a share of so many images.

    single: (seeds, T). images: (T,), test images of each task. -> (T,)
    """
    share = single.mean(0)
    return np.maximum(LEAST_MARGIN, np.sqrt(share * (1 - share) / images))


@dataclass(frozen=True)
class Interference:
    rate: float
    """Share of (seed, task) where many tasks score lower than one by more than the margin."""
    null_rate: float
    """The same of single-task runs against those of other seeds: what chance alone makes of equal networks."""
    gain: np.ndarray
    """(T,): mean over the seeds of multi minus single."""
    lower: np.ndarray
    """(T,): one-sided 95 % limit of that mean, paired by seed; NaN with one seed."""
    relative: float
    """Mean over tasks of gain / single."""


def interference(multi: np.ndarray, single: np.ndarray, margin: np.ndarray) -> Interference:
    """Compare networks of many tasks with one network a task: (seeds, T) each; margin: (T,)."""
    seeds = len(single)
    gains = multi - single
    worse = gains < -margin
    others = [single[a] - single[b] < -margin for a in range(seeds) for b in range(seeds) if a != b]
    spread = gains.std(0, ddof=1) / np.sqrt(seeds) if seeds > 1 else np.full(multi.shape[1], np.nan)
    return Interference(
        rate=float(worse.mean()),
        null_rate=float(np.mean(others)) if others else float("nan"),
        gain=gains.mean(0),
        lower=gains.mean(0) - float(stats.t.ppf(0.95, max(seeds - 1, 1))) * spread,
        relative=float((gains.mean(0) / single.mean(0)).mean()),
    )
