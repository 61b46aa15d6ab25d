"""FixMatch for adaptation: Sohn et al., FixMatch, NeurIPS 2020; its use across lines as in Berthelot et al., AdaMatch,
ICLR 2022, and the Transfer Learning Library.

L = L_task + weight ramp(p) mean[ 1(max p >= threshold) CE(C(E(strong(x_t))), argmax p) ],  p = softmax C(E(x_t))

The ramp is not FixMatch's, and a batch has as many target images as source ones, not seven times as many.

What the network is sure of on a target image in its own light it is to see on the same image under other light, noise
and a hole too.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from steelshift.data.augment import strong_view
from steelshift.data.stream import CLASS, SourceBatch, TargetBatch
from steelshift.methods.method import Method, Update, hold
from steelshift.nn.normalization import encode_both, use_line
from steelshift.nn.reversal import ramp


class FixMatch(Method):
    @dataclass(frozen=True)
    class Knobs:
        threshold: float = 0.95
        """Probability from which an answer becomes a pseudo-label, 0 to 1."""
        weight: float = 1.0
        """Weight of the pseudo-labels at the end of the ramp, 0 or more."""

        def __post_init__(self) -> None:
            hold(0 <= self.threshold <= 1, "threshold", self.threshold, "0 to 1")
            hold(self.weight >= 0, "weight", self.weight, "0 or more")

    def updates(self, source: SourceBatch, target: TargetBatch, progress: float) -> Iterator[Update]:
        strong = strong_view(target.weak)
        use_line(self.shared_encoder, "target")
        with torch.no_grad():
            sure, called = self.task_classifier(self.shared_encoder(target.weak)).float().softmax(1).max(1)
        taken = (sure >= self.knobs.threshold).float()
        z_s, z_t = encode_both(self.shared_encoder, source.images, strong, self.normalization)
        task = F.cross_entropy(self.task_classifier(z_s).float(), source.labels[CLASS], ignore_index=-1)
        pseudo = (taken * F.cross_entropy(self.task_classifier(z_t).float(), called, reduction="none")).mean()
        yield Update(
            task + self.knobs.weight * ramp(progress) * pseudo,
            moves=("shared_encoder", "task_classifier"),
            log={"L_task": task.detach(), "L_pseudo": pseudo.detach(), "taken": taken.mean()},
        )
