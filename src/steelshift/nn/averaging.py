"""The exponential average of a network over the steps of its training: a quieter network than the last one.

Polyak and Juditsky, SIAM J. Control and Optimization 30(4), 1992; as a teacher: Tarvainen and Valpola, NeurIPS 2017.
"""

import copy

import torch
from torch import nn


def averaged(module: nn.Module) -> nn.Module:
    """A copy that no optimizer moves."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def follow(average: nn.Module, module: nn.Module, decay: float) -> None:
    """Bring the average one step nearer to the module: decay times itself plus the rest of the module."""
    for mean, value in zip(average.state_dict().values(), module.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)
