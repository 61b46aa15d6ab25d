"""How related tasks are, by what a network does for each of them.

A relatedness is a matrix S (T, T) in [-1, 1] with S_ab between tasks a and b. Pairs that were not measured are NaN.
Three readings of it:

- centred cosine of feature maps on common images: S_ab = mean_n cos(A_a(x_n) - mean A_a, A_b(x_n) - mean A_b), with
  A_t what task t takes from a layer that all tasks share; channels of separate networks have nothing in common;
- for those, linear centred kernel alignment (Kornblith et al., Similarity of Neural Network Representations
  Revisited, ICML 2019), without the bias that makes all features alike where images are few (Song et al., Feature
  Selection via Dependence Maximization, JMLR 2012);
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
    """Linear centred kernel alignment of features of the same images: T times (N, F_t) -> (T, T), -1 to 1, N from 4.

    h(K, L) / sqrt(h(K, K) h(L, L)), K = X X^T and L = Y Y^T, h Song's unbiased criterion of independence: 0 on the mean
    for features that have nothing to do with each other. 0 where a task's features are constant, NaN of fewer images.
    """
    if len(features[0]) < 4:
        return torch.full((len(features), len(features)), torch.nan, dtype=torch.float64)
    kernels = []
    for each in features:
        centred = each.double() - each.double().mean(0)
        kernel = (centred @ centred.T).fill_diagonal_(0)
        count, sums = len(kernel), kernel.sum(0)
        # h is the inner product of kernels so centred that every row has a sum of 0 without its diagonal.
        kernel = kernel - (sums[:, None] + sums) / (count - 2) + sums.sum() / ((count - 1) * (count - 2))
        kernels.append(kernel.fill_diagonal_(0).flatten())
    unit = _unit(torch.stack(kernels))
    return unit @ unit.T


def mean_known(measured: Tensor) -> Tensor:
    """Mean of several relatedness matrices where they are known: (M, T, T) -> (T, T)."""
    return measured.nanmean(0)


def _unit(rows: Tensor) -> Tensor:
    """Vectors of length 1 along the last dimension; those of length 0 stay 0."""
    length = rows.norm(dim=-1, keepdim=True)
    return rows / length.clamp(min=_TINY) * (length > _TINY)
