"""JAN: Long et al., Deep Transfer Learning with Joint Adaptation Networks, ICML 2017.

L = L_task + weight ramp(p) JMMD,  JMMD = MMD under the product kernel k(z, z') k'(softmax C(z), softmax C(z'))

The joint distribution of feature and class answer is aligned: k is a mean of Gaussian kernels, k' one of standard
deviation .92 (the authors' code).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from steelshift.data.stream import CLASS, SourceBatch, TargetBatch
from steelshift.losses.moments import OF_CLASSES, kernel_distance, kernels
from steelshift.methods.method import Method, Update, hold
from steelshift.nn.normalization import encode_both
from steelshift.nn.reversal import ramp


class JAN(Method):
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
        logits = self.task_classifier(z).float()
        task = F.cross_entropy(logits[: len(z_s)], source.labels[CLASS], ignore_index=-1)
        joint = kernels(z) * kernels(logits.softmax(1), scales=(1.0,), bandwidth=OF_CLASSES**2)
        distance = kernel_distance(joint, len(z_s))
        yield Update(
            task + self.knobs.weight * ramp(progress) * distance,
            moves=("shared_encoder", "task_classifier"),
            log={"L_task": task.detach(), "JMMD": distance.detach()},
        )
