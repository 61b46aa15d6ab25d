"""What dynamic weights remember: means of losses, and learned uncertainties. All of it in buffers and parameters."""

from typing import Literal

import torch
from torch import Tensor, nn

from steelshift.losses.weights import dwa_weights

Mean = Literal["epoch_mean", "ema", "batch"]


class RunningMean(nn.Module):
    """The mean of a loss, +infinity until it is known.

    epoch_mean: over the epoch before this one (HDML's code takes the 64 batches before). ema: exponential, .9.
    batch: the value of this step.
    """

    def __init__(self, kind: Mean, epoch: int) -> None:
        super().__init__()
        self.kind = kind
        self.epoch = epoch
        self.register_buffer("value", torch.tensor(torch.inf))
        self.register_buffer("before", torch.tensor(torch.inf))
        self.register_buffer("total", torch.tensor(0.0))
        self.register_buffer("count", torch.tensor(0))

    def control(self, loss: Tensor) -> Tensor:
        """What a weight of this step depends on, given the loss of this step."""
        return loss.detach() if self.kind == "batch" else self.value.clone()

    @torch.no_grad()
    def update(self, loss: Tensor) -> None:
        """Take in the loss of a step; what is not finite is passed over."""
        if not loss.isfinite():
            return
        loss = loss.detach().float()
        if self.kind == "ema":
            self.value.copy_(torch.where(self.value.isinf(), loss, 0.9 * self.value + 0.1 * loss))
            return
        self.total += loss
        self.count += 1
        if self.count >= self.epoch:
            self.before.copy_(self.value)
            self.value.copy_(self.total / self.count)
            self.total.zero_()
            self.count.zero_()


class PairWeights(nn.Module):
    """Weights of two losses that need a memory: `dwa` from epoch means, `uncertainty` learned.

    Uncertainty (Kendall et al., CVPR 2018): sum_i L_i / (2 exp(s_i)) + s_i / 2, s from -.5.
    """

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.log_variance = nn.Parameter(torch.full((2,), -0.5))
        self.means = nn.ModuleList(RunningMean("epoch_mean", epoch) for _ in range(2))

    def dwa(self) -> Tensor:
        """(2,), detached; sums to 2."""
        return dwa_weights(
            torch.stack([mean.value for mean in self.means]), torch.stack([mean.before for mean in self.means])
        )

    def uncertainty(self) -> Tensor:
        """(2,), detached: 1 / (2 exp(s))."""
        return (0.5 * torch.exp(-self.log_variance)).detach()

    def uncertainty_loss(self, first: Tensor, second: Tensor) -> Tensor:
        """What moves s, and only s."""
        losses = torch.stack([first.detach(), second.detach()])
        return (0.5 * torch.exp(-self.log_variance) * losses + 0.5 * self.log_variance).sum()

    def update(self, first: Tensor, second: Tensor) -> None:
        for mean, loss in zip(self.means, (first, second), strict=True):
            mean.update(loss)
