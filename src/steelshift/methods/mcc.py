"""MCC: Jin et al., Minimum Class Confusion for Versatile Domain Adaptation, ECCV 2020.

L = L_task + weight L_confusion(C(z_t)),  answers softened by `temperature`

No alignment of lines: the classes alone are to stop overlapping on the target line.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from steelshift.data.stream import CLASS, SourceBatch, TargetBatch
from steelshift.losses.unlabelled import class_confusion
from steelshift.methods.method import Method, Update, hold
from steelshift.nn.normalization import encode_both


class MCC(Method):
    @dataclass(frozen=True)
    class Knobs:
        temperature: float = 2.5
        """What logits are divided by, above 0."""
        weight: float = 1.0
        """Weight of the confusion, 0 or more."""

        def __post_init__(self) -> None:
            hold(self.temperature > 0, "temperature", self.temperature, "above 0")
            hold(self.weight >= 0, "weight", self.weight, "0 or more")

    def updates(self, source: SourceBatch, target: TargetBatch, progress: float) -> Iterator[Update]:
        z_s, z_t = encode_both(self.shared_encoder, source.images, target.images, self.normalization)
        logits = self.task_classifier(torch.cat([z_s, z_t])).float()
        task = F.cross_entropy(logits[: len(z_s)], source.labels[CLASS], ignore_index=-1)
        confusion = class_confusion(logits[len(z_s) :], self.knobs.temperature)
        yield Update(
            task + self.knobs.weight * confusion,
            moves=("shared_encoder", "task_classifier"),
            log={"L_task": task.detach(), "L_confusion": confusion.detach()},
        )
