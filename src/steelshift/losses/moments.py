"""How far apart two lines are by the moments of their features: kernels (DAN, JAN) and covariances (Deep CORAL).

Long et al., Learning Transferable Features with Deep Adaptation Networks, ICML 2015; Long et al., Deep Transfer
Learning with Joint Adaptation Networks, ICML 2017; Sun and Saenko, Deep CORAL, ECCV Workshops 2016. Estimates of
kernel distances are unbiased (Gretton et al., JMLR 13, 2012) and may fall below 0.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from steelshift.exact import exact

SCALES = (0.125, 0.25, 0.5, 1.0, 2.0)
"""Bandwidths of the kernels against the mean squared distance of features."""
OF_CLASSES = 0.92
"""Standard deviation of the kernel on class probabilities in JAN (its authors' code)."""


@exact
def kernels(features: Tensor, scales: Sequence[float] = SCALES, bandwidth: float | None = None) -> Tensor:
    """Mean of Gaussian kernels exp(-d^2 / (2 scale bandwidth)) of all pairs: (n, F) -> (n, n).

    bandwidth: by default the mean squared distance of all pairs, without a gradient.
    """
    features = features.float()
    squares = features.square().sum(1)
    distances = (squares[:, None] + squares - 2 * features @ features.T).clamp(min=0)
    if bandwidth is None:
        count = len(features)
        width = distances.detach().sum() / max(1, count * (count - 1))
    else:
        width = torch.as_tensor(bandwidth, device=features.device)
    return torch.stack([torch.exp(-distances / (2 * scale * width.clamp(min=1e-12))) for scale in scales]).mean(0)


def kernel_distance(kernel: Tensor, source: int) -> Tensor:
    """Squared maximum mean discrepancy from the kernel (n, n) of all pairs, the first `source` of the source line.

    Pairs of an image with itself are left out. 0 in the mean where both lines are alike.
    """
    of_source, of_target, across = kernel[:source, :source], kernel[source:, source:], kernel[:source, source:]
    return _mean_of_others(of_source) + _mean_of_others(of_target) - 2 * across.mean()


def _mean_of_others(kernel: Tensor) -> Tensor:
    count = len(kernel)
    return (kernel.sum() - kernel.diagonal().sum()) / max(1, count * (count - 1))


@exact
def covariance_distance(source: Tensor, target: Tensor) -> Tensor:
    """|C_s - C_t|^2 / (4 F^2) of features (B, F), C their covariance over the batch."""
    width = source.shape[1]
    return (_covariance(source.float()) - _covariance(target.float())).square().sum() / (4 * width**2)


def _covariance(features: Tensor) -> Tensor:
    centred = features - features.mean(0)
    return centred.T @ centred / max(1, len(features) - 1)
