"""AdaBN: Li et al., Revisiting Batch Normalization for Practical Domain Adaptation, 2016 (Pattern Recognition, 2018).

L = L_task;  the inspector normalizes with the mean and variance of the target line

Weights are trained as source only. Batch normalization has statistics of its own for each line, and the target's are
measured on target batches as training goes on, without a gradient.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from steelshift.data.stream import CLASS, SourceBatch, TargetBatch
from steelshift.methods.method import Method, Start, Update, need_normalization
from steelshift.nn.encoders import Encoder
from steelshift.nn.normalization import LineBatchNorm, arrange, use_line


class AdaBN(Method):
    uses_labels = False  # labelled target images would enter the statistics of the source line

    @dataclass(frozen=True)
    class Knobs:
        """AdaBN has no knobs."""

    def __init__(self, start: Start, knobs: Knobs) -> None:
        super().__init__(start, knobs)
        need_normalization(start.encoder, "adabn")
        if not any(isinstance(module, LineBatchNorm) for module in start.encoder.modules()):
            arrange(start.encoder, "domain-specific", "adabn")
        for module in start.encoder.modules():
            if isinstance(module, LineBatchNorm):
                module.target.requires_grad_(False)

    def updates(self, source: SourceBatch, target: TargetBatch, progress: float) -> Iterator[Update]:
        _share_scales(self.shared_encoder)
        use_line(self.shared_encoder, "target")
        with torch.no_grad():
            self.shared_encoder(target.images)
        use_line(self.shared_encoder, "source")
        task = F.cross_entropy(
            self.task_classifier(self.shared_encoder(source.images)).float(), source.labels[CLASS], ignore_index=-1
        )
        yield Update(task, moves=("shared_encoder", "task_classifier"), log={"L_task": task.detach()})

    def deployed(self) -> tuple[Encoder, nn.Linear]:
        encoder = copy.deepcopy(self.shared_encoder)
        _share_scales(encoder)
        return encoder, self.task_classifier


@torch.no_grad()
def _share_scales(encoder: nn.Module) -> None:
    """Give the target's layers the scale and offset that the source's have learned by now."""
    for module in encoder.modules():
        if isinstance(module, LineBatchNorm):
            module.target.weight.copy_(module.source.weight)
            module.target.bias.copy_(module.source.bias)
