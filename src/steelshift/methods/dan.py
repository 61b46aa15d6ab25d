"""DAN: Long et al., Learning Transferable Features with Deep Adaptation Networks, ICML 2015.

L = L_task + weight ramp(p) [MMD_k(z_s, z_t) + MMD_k(C(z_s), C(z_t))]

MMD_k is the squared maximum mean discrepancy under a mean of Gaussian kernels, unbiased. The paper adapts its last
fully connected layers; here these are the feature and the class logits.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from steelshift.data.stream import CLASS, SourceBatch, TargetBatch
from steelshift.losses.moments import kernel_distance, kernels
from steelshift.methods.method import Method, Update, hold
from steelshift.nn.normalization import encode_both
from steelshift.nn.reversal import ramp


class DAN(Method):
    @dataclass(frozen=True)
    class Knobs:
        weight: float = 1.0
        """Weight of the distance at the end of the ramp, 0 or more. Where kernels are summed, not meaned, 0.2 is as
        strong as 1 is here: there are five."""

        def __post_init__(self) -> None:
            hold(self.weight >= 0, "weight", self.weight, "0 or more")

    def updates(self, source: SourceBatch, target: TargetBatch, progress: float) -> Iterator[Update]:
        z_s, z_t = encode_both(self.shared_encoder, source.images, target.images, self.normalization)
        z = torch.cat([z_s, z_t])
        logits = self.task_classifier(z)
        task = F.cross_entropy(logits[: len(z_s)].float(), source.labels[CLASS], ignore_index=-1)
        distance = sum(kernel_distance(kernels(layer), len(z_s)) for layer in (z, logits))
        yield Update(
            task + self.knobs.weight * ramp(progress) * distance,
            moves=("shared_encoder", "task_classifier"),
            log={"L_task": task.detach(), "MMD": distance.detach()},
        )
