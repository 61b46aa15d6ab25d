"""ADDA: Tzeng et al., Adversarial Discriminative Domain Adaptation, CVPR 2017.

    D down:    -1/2 [E log D(E_s(x_s)) + E log(1 - D(E_t(x_t)))]
    E_t down:  -E log D(E_t(x_t))                                  (inverted labels)

The encoder of the source line and the classifier stay as they were trained (S1); the encoder of the target line begins
as that one and learns to give features that D takes for the source line's. Nothing else holds it to the task.
Therefore it moves far slower than D; the authors' move at one rate, their D has two hidden layers, and its features may
grow.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from steelshift.data.stream import SourceBatch, TargetBatch
from steelshift.losses.domain import accuracy, adaptation_loss, line_of
from steelshift.methods.method import Method, Start, Update, hold
from steelshift.nn.heads import discriminator
from steelshift.nn.normalization import use_line


class ADDA(Method):
    uses_labels = False
    encoder_rate = 0.02
    momentum = 0.5  # the authors' with Adam; with 0.9 and five times the rate, features run away along an untrained D's

    @dataclass(frozen=True)
    class Knobs:
        hidden: int = 1024
        """Width of the discriminator's hidden layer."""
        dropout: float = 0.0
        """Dropout after the discriminator's hidden layer, 0 to 1."""
        normalized: bool = True
        """Whether the discriminator sees only the direction of features; the paper's sees their size too."""

        def __post_init__(self) -> None:
            hold(0 <= self.dropout < 1, "dropout", self.dropout, "0 or more, below 1")

    def __init__(self, start: Start, knobs: Knobs) -> None:
        super().__init__(start, knobs)
        self.source_encoder = copy.deepcopy(start.encoder).requires_grad_(False)
        self.task_classifier.requires_grad_(False)
        self.adaptation_discriminator = discriminator(
            start.encoder.width, knobs.hidden, 1, dropout=knobs.dropout, normalized=knobs.normalized
        )

    def updates(self, source: SourceBatch, target: TargetBatch, progress: float) -> Iterator[Update]:
        use_line(self.source_encoder, "source")
        use_line(self.shared_encoder, "target")
        for module in self.shared_encoder.modules():
            if isinstance(module, nn.Dropout):
                module.eval()  # the source encoder drops nothing, and D would tell the lines by that
        with torch.no_grad():
            z_s = self.source_encoder.eval()(source.images)
        z_t = self.shared_encoder(target.images)
        judged = [self.adaptation_discriminator(z) for z in (z_s, z_t.detach())]
        told_apart = adaptation_loss(*judged)
        right = accuracy(torch.cat(judged).detach(), line_of(z_s, z_t))
        yield Update(
            told_apart,
            moves=("adaptation_discriminator",),
            log={
                "L_adapt": told_apart.detach(),
                "accuracy_D_a": right,
            },
        )
        taken = self.adaptation_discriminator(z_t).float()
        fooled = F.binary_cross_entropy_with_logits(taken, torch.ones_like(taken))
        yield Update(fooled, moves=("shared_encoder",), log={"L_fooled": fooled.detach()})
