"""MDD: Zhang et al., Bridging Theory and Algorithm for Domain Adaptation, ICML 2019.

L = L_task + gamma CE(C'(R(z_s)), h(z_s)) - E log(1 - p'(R(z_t))[h(z_t)]),  h = argmax C, p' = softmax C'

The adversary C' is to agree with the classifier on the source line and to disagree on the target line, by a margin of
log gamma; R reverses the gradient with strength `weight` times the ramp, so that the encoder leaves it no way to.
The authors' C and C' are alike, of two layers each; here C is the one layer that all methods have, and C' has two.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from steelshift.data.stream import CLASS, SourceBatch, TargetBatch
from steelshift.losses.unlabelled import margin_disparity
from steelshift.methods.method import Method, Start, Update, hold
from steelshift.nn.heads import discriminator
from steelshift.nn.normalization import encode_both
from steelshift.nn.reversal import ramp, reverse


class MDD(Method):
    @dataclass(frozen=True)
    class Knobs:
        gamma: float = 4.0
        """Exponential of the margin, 1 or more."""
        hidden: int = 1024
        """Width of the adversary's hidden layer."""
        dropout: float = 0.5
        """Dropout after that layer, 0 to 1."""
        normalized: bool = True
        """Whether the adversary sees only the direction of features; the paper's sees their size too."""
        weight: float = 0.1
        """Strength of the reversed gradient at the end of the ramp, 0 or more."""

        def __post_init__(self) -> None:
            hold(self.gamma >= 1, "gamma", self.gamma, "1 or more")
            hold(0 <= self.dropout < 1, "dropout", self.dropout, "0 or more, below 1")
            hold(self.weight >= 0, "weight", self.weight, "0 or more")

    def __init__(self, start: Start, knobs: Knobs) -> None:
        super().__init__(start, knobs)
        self.adversary = discriminator(
            start.encoder.width,
            knobs.hidden,
            start.classifier.out_features,
            dropout=knobs.dropout,
            normalized=knobs.normalized,
        )

    def updates(self, source: SourceBatch, target: TargetBatch, progress: float) -> Iterator[Update]:
        z_s, z_t = encode_both(self.shared_encoder, source.images, target.images, self.normalization)
        z = torch.cat([z_s, z_t])
        logits = self.task_classifier(z).float()
        task = F.cross_entropy(logits[: len(z_s)], source.labels[CLASS], ignore_index=-1)
        called = logits.detach().argmax(1).split([len(z_s), len(z_t)])
        answers = self.adversary(reverse(z, self.knobs.weight * ramp(progress))).split([len(z_s), len(z_t)])
        disparity = margin_disparity(answers[0], called[0], answers[1], called[1], self.knobs.gamma)
        yield Update(
            task + disparity,
            moves=("shared_encoder", "task_classifier", "adversary"),
            log={"L_task": task.detach(), "disparity": disparity.detach()},
        )
