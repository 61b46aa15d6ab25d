"""How related tasks are, by what a network does for each of them.

A relatedness is a matrix S (T, T) in [-1, 1] with S_ab between tasks a and b. Pairs that were not measured are NaN.
Three readings of it:

- centred cosine of feature maps on common images: S_ab = mean_n cos(A_a(x_n) - mean A_a, A_b(x_n) - mean A_b), with
  A_t what task t takes from a layer that all tasks share; channels of separate networks have nothing in common;
- for those, linear centred kernel alignment (Kornblith et al., Similarity of Neural Network Representations
  Revisited, ICML 2019);
- cosine of the gradients of task losses at parameters that all tasks share: `losses.weighting.gradient_cosines`, with a
  row of NaN for a task that has no labels in the batch.
"""

import torch
from torch import Tensor

from steelshift.exact import exact

_TINY = 1e-12


@exact
def map_cosine(maps: Tensor) -> Tensor:
    """Mean over the images of the cosine of two tasks' maps, each centred by its mean map: (T, N, ...) -> (T, T).

    An image whose centred map is 0 for a task counts as unrelated, 0.
    """
    flat = maps.flatten(2).double()
    unit = _unit(flat - flat.mean(1, keepdim=True))
    return torch.einsum("anf,bnf->ab", unit, unit) / flat.shape[1]


def taken(maps: Tensor, gradient: Tensor) -> Tensor:
    """What a task takes from shared maps: activation times the gradient of its score, both (N, C, H, W)."""
    return maps * gradient


@exact
def alignment(features: list[Tensor]) -> Tensor:
    """Linear centred kernel alignment of features of the same images: T times (N, F_t) -> (T, T) in [0, 1].

    |X^T Y|^2 / (|X^T X| |Y^T Y|) in Frobenius norms, X and Y centred; 0 where a task's features are constant.
    """
    kernels = []
    for each in features:
        centred = each.double() - each.double().mean(0)
        kernels.append((centred @ centred.T).flatten())  # <XX^T, YY^T> = |X^T Y|^2, without F x F matrices
    unit = _unit(torch.stack(kernels))
    return unit @ unit.T


def mean_known(measured: Tensor) -> Tensor:
    """Mean of several relatedness matrices where they are known: (M, T, T) -> (T, T)."""
    return measured.nanmean(0)


def _unit(rows: Tensor) -> Tensor:
    """Vectors of length 1 along the last dimension; those of length 0 stay 0."""
    length = rows.norm(dim=-1, keepdim=True)
    return rows / length.clamp(min=_TINY) * (length > _TINY)
