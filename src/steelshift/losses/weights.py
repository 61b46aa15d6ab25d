"""Dynamic weights: how much each of two losses counts, from the losses themselves. All weights are detached.

Sources: patent CN115049627 claim 5, whose formulas are images that no stored copy holds: every reading that the text
allows stands here under a name. `hdml`: Zheng et al., CVPR 2019. `daan`: Yu et al., ICDM 2019. `dwa`: Liu et al., CVPR
2019. Uncertainty weights (Kendall et al., CVPR 2018) are learned and live in `methods.running`.
"""

import torch
from torch import Tensor

SMALLEST = 1e-6


def hdml_weight(control: Tensor, beta: float = 1.0, bounds: tuple[float, float] = (0.0, 1.0)) -> Tensor:
    """w = exp(-beta / L), between bounds: 1 for an infinite L, toward 0 as L falls."""
    return torch.exp(-beta / control.detach().clamp(min=SMALLEST)).clamp(*bounds)


def ratio_weight(first: Tensor, second: Tensor) -> Tensor:
    """L1 / (L1 + L2): the larger loss counts more."""
    first, second = first.detach(), second.detach()
    return first / (first + second + SMALLEST)


def daan_weight(first_error: Tensor, second_error: Tensor) -> Tensor:
    """d1 / (d1 + d2) with the proxy A-distances d = 2 (1 - 2 error), not below 0; one half where both are 0."""
    first, second = ((2 * (1 - 2 * error.detach())).clamp(min=0) for error in (first_error, second_error))
    total = first + second
    return torch.where(total > 0, first / total.clamp(min=SMALLEST), torch.full_like(total, 0.5))


def dwa_weights(last: Tensor, before: Tensor, temperature: float = 2.0) -> Tensor:
    """T softmax(r / temperature), r = L(e-1) / L(e-2), from epoch means (T,); ones until both are known."""
    if not (last.isfinite().all() and before.isfinite().all()):
        return torch.ones_like(last)
    return len(last) * torch.softmax(last / before.clamp(min=SMALLEST) / temperature, dim=0)
