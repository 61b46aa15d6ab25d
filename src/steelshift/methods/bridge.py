"""Bridge: source images restyled to the target line, adversarial alignment, class confusion, and an average teacher.

L = L_task + L_adapt(R(z)) + c L_confusion(C(z_t)) + s ramp(p) L_self

    L_task       cross-entropy on source images, of which a share is shown as the target line's camera would have taken
                 them: polarity, spectrum and grey values of unlabelled target images (data/restyle.py). A few labelled
                 target images, where there are such, count as source images here too
    L_adapt      DANN's loss; R reverses the gradient with strength `weight` times the ramp
    L_confusion  MCC's loss on the answers for target images
    L_self       mean[ 1(q_k >= t_k) CE(C(E(strong(x_t))), k) ],  k = argmax q, q the answer of the average network
    t_k          = m f_k / max f:  m and f the running means of max q and of q, so that rare and hard classes take part

What a camera changes is given to the source images with their labels; alignment and confusion are left with what is
particular to the steel. The average network, which is also the one deployed, follows no single step. Its target images
are in the light in which they were taken, those of the trained network in any other. Thresholds are those of FreeMatch
(Wang et al., ICLR 2023); DANN and MCC: see their files.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from steelshift.data.augment import strong_view
from steelshift.data.restyle import restyle
from steelshift.data.stream import CLASS, SourceBatch, TargetBatch
from steelshift.losses.domain import accuracy, adaptation_loss, line_of
from steelshift.losses.unlabelled import class_confusion
from steelshift.methods.method import Method, Start, Update, hold
from steelshift.nn.averaging import averaged, follow
from steelshift.nn.encoders import Encoder
from steelshift.nn.heads import discriminator
from steelshift.nn.normalization import encode_both, use_line
from steelshift.nn.reversal import ramp, reverse

REMEMBERED = 0.9
"""Decay of the running means that thresholds follow."""


class Bridge(Method):
    @dataclass(frozen=True)
    class Knobs:
        restyled: float = 0.5
        """Share of source images that are restyled to the target line, 0 to 1."""
        weight: float = 1.0
        """Strength of the reversed gradient at the end of the ramp, 0 or more; 0 leaves alignment out."""
        confusion_weight: float = 1.0
        """Weight c of class confusion, 0 or more."""
        temperature: float = 2.5
        """What logits are divided by for class confusion, above 0."""
        self_weight: float = 0.5
        """Weight s of what the average network teaches at the end of the ramp, 0 or more."""
        averaging_decay: float = 0.98
        """Decay of the average network a step, 0 to 1; 0 is no average."""
        hidden: int = 1024
        """Width of the discriminator's hidden layer."""
        dropout: float = 0.5
        """Dropout after that layer, 0 to 1."""

        def __post_init__(self) -> None:
            hold(0 <= self.restyled <= 1, "restyled", self.restyled, "0 to 1")
            for key in ("weight", "confusion_weight", "self_weight"):
                hold(getattr(self, key) >= 0, key, getattr(self, key), "0 or more")
            hold(self.temperature > 0, "temperature", self.temperature, "above 0")
            for key in ("averaging_decay", "dropout"):
                hold(0 <= getattr(self, key) < 1, key, getattr(self, key), "0 or more, below 1")

    def __init__(self, start: Start, knobs: Knobs) -> None:
        super().__init__(start, knobs)
        self.adaptation_discriminator = discriminator(start.encoder.width, knobs.hidden, 1, dropout=knobs.dropout)
        self.averaged_encoder = averaged(start.encoder)
        self.averaged_classifier = averaged(start.classifier)
        classes = start.classifier.out_features
        self.register_buffer("mean_largest", torch.tensor(1 / classes))
        self.register_buffer("mean_answer", torch.full((classes,), 1 / classes))

    def updates(self, source: SourceBatch, target: TargetBatch, progress: float) -> Iterator[Update]:
        knobs = self.knobs
        shown = self._restyled(source.images, target.weak) if knobs.restyled else source.images
        z_s, z_t = encode_both(self.shared_encoder, shown, target.images, self.normalization)
        z = torch.cat([z_s, z_t])
        logits = self.task_classifier(z).float()
        task = F.cross_entropy(logits[: len(z_s)], source.labels[CLASS], ignore_index=-1)
        domain = self.adaptation_discriminator(reverse(z, knobs.weight * ramp(progress)))
        adapt = adaptation_loss(*domain.split([len(z_s), len(z_t)]))
        confusion = class_confusion(logits[len(z_s) :], knobs.temperature)
        loss = task + adapt + knobs.confusion_weight * confusion
        log = {
            "L_task": task.detach(),
            "L_adapt": adapt.detach(),
            "L_confusion": confusion.detach(),
            "accuracy_D_a": accuracy(domain.detach(), line_of(z_s, z_t)),
        }
        if knobs.self_weight:
            taught, taken = self._self_training(target.weak)
            loss = loss + knobs.self_weight * ramp(progress) * taught
            log |= {"L_self": taught.detach(), "taken": taken}
        yield Update(loss, moves=("shared_encoder", "task_classifier", "adaptation_discriminator"), log=log)
        follow(self.averaged_encoder, self.shared_encoder, knobs.averaging_decay)
        follow(self.averaged_classifier, self.task_classifier, knobs.averaging_decay)

    @torch.no_grad()
    def _restyled(self, source: Tensor, target: Tensor) -> Tensor:
        chosen = torch.rand(len(source), 1, 1, 1).to(source.device) < self.knobs.restyled
        even = self.shared_encoder.even
        return torch.where(chosen, restyle(even(source), even(target)), source)

    def _self_training(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """L_self, and the share of images that it takes."""
        use_line(self.averaged_encoder, "target")
        with torch.no_grad():
            answers = self.averaged_classifier.eval()(self.averaged_encoder.eval()(images)).float().softmax(1)
            sure, called = answers.max(1)
            self.mean_largest.lerp_(sure.mean(), 1 - REMEMBERED)
            self.mean_answer.lerp_(answers.mean(0), 1 - REMEMBERED)
            least = self.mean_largest * self.mean_answer / self.mean_answer.max()
            taken = (sure >= least[called]).float()
        use_line(self.shared_encoder, "target")
        logits = self.task_classifier(self.shared_encoder(strong_view(images)))
        return (taken * F.cross_entropy(logits.float(), called, reduction="none")).mean(), taken.mean()

    def deployed(self) -> tuple[Encoder, nn.Linear]:
        return self.averaged_encoder, self.averaged_classifier
