"""CDAN and CDAN+E: Long et al., Conditional Adversarial Domain Adaptation, NeurIPS 2018.

L = L_task - 1/2 [E_s w log D(R(z_s x g_s)) + E_t w log(1 - D(R(z_t x g_t)))],  g = softmax C(z), no gradient

z x g is the outer product of feature and class answer, or, by the knob `map`, a random projection of it: for
encoders so wide that the product does not fit. R reverses the gradient with strength `weight` times the ramp. CDAN+E:
w = 1 + exp(-H(g)), brought to a mean of 1 on each line; w = 1 otherwise. D has one hidden layer, the authors' has two.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from steelshift.data.stream import CLASS, SourceBatch, TargetBatch
from steelshift.exact import exact
from steelshift.losses.domain import accuracy, conditioned, line_of, weighted_adaptation_loss
from steelshift.losses.unlabelled import class_confusion, entropy
from steelshift.methods.method import Method, Start, Update, hold
from steelshift.nn.heads import discriminator
from steelshift.nn.normalization import encode_both
from steelshift.nn.reversal import ramp, reverse

TEMPERATURE = 2.5
"""What logits are divided by for class confusion (MCC's)."""
RANDOM_PRODUCTS = 1024
"""Width of the randomized map."""


class CDAN(Method):
    @dataclass(frozen=True)
    class Knobs:
        entropy: bool = True
        """Whether sure answers weigh more (CDAN+E)."""
        map: Literal["multilinear", "randomized"] = "multilinear"
        """How feature and class answer are joined: outer product, or 1024 random products of both."""
        hidden: int = 1024
        """Width of the discriminator's hidden layer."""
        dropout: float = 0.5
        """Dropout after the discriminator's hidden layer, 0 to 1."""
        normalized: bool = True
        """Whether the discriminator sees only the direction of features; the paper's sees their size too."""
        weight: float = 1.0
        """Strength of the reversed gradient at the end of the ramp, 0 or more."""
        confusion_weight: float = 0.0
        """Weight of minimum class confusion on the target line, 0 or more; 0 is the paper."""

        def __post_init__(self) -> None:
            hold(0 <= self.dropout < 1, "dropout", self.dropout, "0 or more, below 1")
            hold(self.weight >= 0, "weight", self.weight, "0 or more")
            hold(self.confusion_weight >= 0, "confusion_weight", self.confusion_weight, "0 or more")

    def __init__(self, start: Start, knobs: Knobs) -> None:
        super().__init__(start, knobs)
        width, classes = start.encoder.width, start.classifier.out_features
        joined = width * classes
        if knobs.map == "randomized":
            joined = RANDOM_PRODUCTS
            self.register_buffer("of_features", torch.randn(width, joined))
            self.register_buffer("of_classes", torch.randn(classes, joined))
        self.adaptation_discriminator = discriminator(
            joined, knobs.hidden, 1, dropout=knobs.dropout, normalized=knobs.normalized
        )

    def updates(self, source: SourceBatch, target: TargetBatch, progress: float) -> Iterator[Update]:
        loss, log = self._losses(source, target, progress)
        yield Update(loss, moves=("shared_encoder", "task_classifier", "adaptation_discriminator"), log=log)

    def _losses(self, source: SourceBatch, target: TargetBatch, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        z_s, z_t = encode_both(self.shared_encoder, source.images, target.images, self.normalization)
        z = torch.cat([z_s, z_t])
        logits = self.task_classifier(z).float()
        task = F.cross_entropy(logits[: len(z_s)], source.labels[CLASS], ignore_index=-1)
        domain = self.adaptation_discriminator(self._join(reverse(z, self.knobs.weight * ramp(progress)), logits))
        truth = line_of(z_s, z_t)
        weights = 1 + torch.exp(-entropy(logits.detach())) if self.knobs.entropy else torch.ones_like(logits[:, 0])
        adapt = weighted_adaptation_loss(domain, truth, weights)
        loss, log = task + adapt, {"L_task": task.detach(), "L_adapt": adapt.detach()}
        if self.knobs.confusion_weight:
            confusion = class_confusion(logits[len(z_s) :], TEMPERATURE)
            loss, log = loss + self.knobs.confusion_weight * confusion, log | {"L_confusion": confusion.detach()}
        return loss, log | {"accuracy_D_a": accuracy(domain.detach(), truth)}

    def _join(self, features: Tensor, logits: Tensor) -> Tensor:
        if self.knobs.map == "multilinear":
            return conditioned(features, logits)
        return _products(features, logits.detach().softmax(1), self.of_features, self.of_classes)


@exact
def _products(features: Tensor, classes: Tensor, of_features: Tensor, of_classes: Tensor) -> Tensor:
    return (features.float() @ of_features) * (classes.float() @ of_classes) / RANDOM_PRODUCTS**0.5
