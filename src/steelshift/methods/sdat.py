"""SDAT: Rangwani et al., A Closer Look at Smoothness in Domain Adversarial Training, ICML 2022.

L = max over |e| <= rho of L_task(w + e), approximately at e = rho g / |g|, g = dL_task/dw, plus CDAN's adversarial loss

Class confusion, where it has a weight, counts with the task. A task loss that is flat around the encoder and classifier
w. As in the authors' code the whole loss is taken at w + e, and the step that it asks for is made from w.
Theirs is CDAN without E, beside confusion or alone, and with a radius of .02 on most data: --knobs.entropy, .rho.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from steelshift.data.stream import CLASS, SourceBatch, TargetBatch
from steelshift.losses.unlabelled import class_confusion
from steelshift.methods.cdan import CDAN, TEMPERATURE
from steelshift.methods.method import Update, hold
from steelshift.nn.normalization import encode_both


class SDAT(CDAN):
    @dataclass(frozen=True)
    class Knobs(CDAN.Knobs):
        rho: float = 0.05
        """Radius in which the task loss is to be flat, above 0."""

        def __post_init__(self) -> None:
            super().__post_init__()
            hold(self.rho > 0, "rho", self.rho, "above 0")

    def updates(self, source: SourceBatch, target: TargetBatch, progress: float) -> Iterator[Update]:
        z_s, z_t = encode_both(self.shared_encoder, source.images, target.images, self.normalization)
        task = F.cross_entropy(self.task_classifier(z_s).float(), source.labels[CLASS], ignore_index=-1)
        if self.knobs.confusion_weight:
            task = task + self.knobs.confusion_weight * class_confusion(self.task_classifier(z_t), TEMPERATURE)
        yield Update(task, moves=())
        moved = self._climb()
        yield from super().updates(source, target, progress)
        with torch.no_grad():
            for parameter, step in moved:
                parameter -= step

    @torch.no_grad()
    def _climb(self) -> list[tuple[torch.nn.Parameter, torch.Tensor]]:
        """Move encoder and classifier up the task loss; returns by how much."""
        both = [*self.shared_encoder.parameters(), *self.task_classifier.parameters()]
        both = [parameter for parameter in both if parameter.grad is not None]
        norm = torch.stack([parameter.grad.norm() for parameter in both]).norm()
        moved = [(parameter, parameter.grad * (self.knobs.rho / (norm + 1e-12))) for parameter in both]
        for parameter, step in moved:
            parameter += step
        return moved
