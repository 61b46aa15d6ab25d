"""DANN: Ganin et al., Domain-Adversarial Training of Neural Networks, JMLR 17(59), 2016.

L = L_task + L_adapt(R(z)),  L_adapt = -1/2 [E_s log D_a(z_s) + E_t log(1 - D_a(z_t))]

R reverses the gradient with strength `weight` times the ramp 2 / (1 + exp(-10 p)) - 1. Where the target line's classes
are fewer or more than the source's, images are weighed as in class_sets.py. D_a has one hidden layer, as the patent's.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from steelshift.data.stream import CLASS, SourceBatch, TargetBatch
from steelshift.losses.domain import accuracy, line_of
from steelshift.methods.class_sets import ClassSet, TargetClasses
from steelshift.methods.method import Method, Start, Update, hold
from steelshift.nn.heads import discriminator
from steelshift.nn.normalization import encode_both
from steelshift.nn.reversal import ramp, reverse


class DANN(Method):
    @dataclass(frozen=True)
    class Knobs:
        hidden: int = 1024
        """Width of the discriminator's hidden layer."""
        dropout: float = 0.5
        """Dropout after the discriminator's hidden layer, 0 to 1."""
        normalized: bool = True
        """Whether the discriminator sees only the direction of features; the paper's sees their size too."""
        weight: float = 1.0
        """Strength of the reversed gradient at the end of the ramp, 0 or more."""
        target_classes: TargetClasses = "same"
        """Whether the target line has the same classes as the source, fewer, or more."""

        def __post_init__(self) -> None:
            hold(0 <= self.dropout < 1, "dropout", self.dropout, "0 or more, below 1")
            hold(self.weight >= 0, "weight", self.weight, "0 or more")

    def __init__(self, start: Start, knobs: Knobs) -> None:
        super().__init__(start, knobs)
        self.adaptation_discriminator = discriminator(
            start.encoder.width, knobs.hidden, 1, dropout=knobs.dropout, normalized=knobs.normalized
        )
        self.class_set = ClassSet(knobs.target_classes, start.classifier.out_features)

    def updates(self, source: SourceBatch, target: TargetBatch, progress: float) -> Iterator[Update]:
        z_s, z_t = encode_both(self.shared_encoder, source.images, target.images, self.normalization)
        labels, logits_t = source.labels[CLASS], self.task_classifier(z_t).float()
        task = self.class_set.task_loss(self.task_classifier(z_s), labels)
        z = reverse(torch.cat([z_s, z_t]), self.knobs.weight * ramp(progress))
        domain = self.adaptation_discriminator(z)
        adapt = self.class_set.adaptation_loss(*domain.split([len(z_s), len(z_t)]), labels, logits_t)
        self.class_set.remember(logits_t)
        right = accuracy(domain.detach(), line_of(z_s, z_t))
        yield Update(
            task + adapt + self.class_set.separation(logits_t),
            moves=("shared_encoder", "task_classifier", "adaptation_discriminator"),
            log={
                "L_task": task.detach(),
                "L_adapt": adapt.detach(),
                "accuracy_D_a": right,
            },
        )
