"""Gradient reversal: the identity forward, the gradient times -strength backward.

Ganin and Lempitsky, Unsupervised Domain Adaptation by Backpropagation, ICML 2015.
"""

import math

import torch
from torch import Tensor


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(context: torch.autograd.function.FunctionCtx, features: Tensor, strength: Tensor) -> Tensor:
        context.save_for_backward(strength)
        return features.view_as(features)

    @staticmethod
    def backward(context: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        (strength,) = context.saved_tensors
        return -strength.to(gradient.dtype) * gradient, None


def reverse(features: Tensor, strength: Tensor | float) -> Tensor:
    """`features` unchanged, with the gradient that comes back multiplied by -strength (0 or more)."""
    return _Reverse.apply(features, torch.as_tensor(strength, dtype=torch.float32, device=features.device))


def ramp(progress: float, steepness: float = 10.0) -> float:
    """2 / (1 + exp(-steepness p)) - 1: 0 at p = 0, .4621 at .1, .8483 at .25, .9866 at .5, .9999 at 1."""
    return 2.0 / (1.0 + math.exp(-steepness * progress)) - 1.0
