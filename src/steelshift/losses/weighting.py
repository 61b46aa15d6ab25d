"""How much each of T tasks counts: weights from losses, from gradients, or from how related the tasks are.

Sources: Kendall et al., CVPR 2018 (uncertainty); Liu et al., CVPR 2019 (DWA, `weights.dwa_weights`); Chen et al.,
GradNorm, ICML 2018; Lin et al., Reasonable Effectiveness of Random Weighting, TMLR 2022; Liu et al., FAMO, NeurIPS
2023; relatedness: the multi-task document. What these remember between steps is the caller's, as tensors, so that a
checkpoint can hold it; the values agree with those of torchjd, which keeps them to itself.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Weighting = Literal["equal", "uncertainty", "dwa", "gradnorm", "rlw", "famo", "relatedness"]
SMALLEST = 1e-8


def uncertainty_loss(losses: Tensor, log_variances: Tensor) -> Tensor:
    """sum_t L_t / (2 exp s_t) + s_t / 2; losses and s (T,), s learned."""
    return (0.5 * torch.exp(-log_variances) * losses + 0.5 * log_variances).sum()


def random_weights(tasks: int, device: torch.device | str = "cpu") -> Tensor:
    """softmax of standard normal numbers, times T."""
    return tasks * torch.softmax(torch.randn(tasks, device=device), 0)


def relatedness_weights(relatedness: Tensor, temperature: float = 0.5) -> Tensor:
    """T softmax(a / temperature), a_t the mean relatedness of task t to the others. relatedness: (T, T), detached."""
    tasks = len(relatedness)
    if tasks == 1:
        return relatedness.new_ones(1)
    others = (relatedness.detach().sum(1) - relatedness.detach().diagonal()) / (tasks - 1)
    return tasks * torch.softmax(others / temperature, 0)


def gradient_cosines(gradients: Tensor) -> Tensor:
    """Cosines (T, T) between the gradients of the tasks (T, parameters); 0 where one is 0."""
    unit = F.normalize(gradients, dim=1, eps=SMALLEST)
    return unit @ unit.T


def gradnorm_loss(logits: Tensor, norms: Tensor, losses: Tensor, first: Tensor, alpha: float = 1.5) -> Tensor:
    """sum_t |w_t n_t - mean(w n) r_t^alpha|, for the weights w = T softmax(logits) alone to descend.

    norms: of the gradient of each task's loss at the last shared parameters (T,). losses, first: now and at the first
    step (T,); r_t = (L_t / L_t0) / mean.
    """
    scaled = len(logits) * torch.softmax(logits, 0) * norms.detach()
    ratio = losses.detach() / first.clamp(min=SMALLEST)
    goal = scaled.mean() * (ratio / ratio.mean().clamp(min=SMALLEST)) ** alpha
    return (scaled - goal.detach()).abs().sum()


def famo_loss(losses: Tensor, logits: Tensor) -> Tensor:
    """sum_t z_t log D_t / sum_t (z_t / D_t), z = softmax(logits), D = L + 1e-8: losses (T,) fall at one rate."""
    z = torch.softmax(logits.detach(), 0)
    d = losses + SMALLEST
    return (z * d.log()).sum() / (z / d).sum().detach()


def famo_weights(losses: Tensor, logits: Tensor) -> Tensor:
    """What `famo_loss` multiplies the gradients of the losses (T,) with, of mean 1: z_t / D_t."""
    pull = torch.softmax(logits.detach(), 0) / (losses.detach() + SMALLEST)
    return pull / pull.mean()


def famo_step(
    logits: Tensor,
    moments: Tensor,
    steps: Tensor,
    before: Tensor,
    after: Tensor,
    *,
    lr: float = 0.025,
    decay: float = 1e-3,
) -> None:
    """Move FAMO's logits (T,) in place by how the losses changed over a step: one step of Adam.

    moments: (2, T), Adam's; steps: (), its number of steps so far; both zeros at first.
    """
    z = torch.softmax(logits, 0)
    change = (before + SMALLEST).log() - (after + SMALLEST).log()
    gradient = z * (change - (z * change).sum()) + decay * logits
    steps += 1
    moments[0].lerp_(gradient, 0.1)
    moments[1].lerp_(gradient.square(), 0.001)
    mean, square = moments[0] / (1 - 0.9**steps), moments[1] / (1 - 0.999**steps)
    logits -= lr * mean / (square.sqrt() + 1e-8)
