"""MCD: Saito et al., Maximum Classifier Discrepancy for Unsupervised Domain Adaptation, CVPR 2018.

    A  E, C, C' down:  CE(C(z_s), y) + CE(C'(z_s), y)
    B  C, C' down:     the same - d(C(z_t), C'(z_t))         d: mean |p - p'|
    C  E down:         d(C(z_t), C'(z_t)),  `encoder_steps` times

Two classifiers that agree on the source line are driven apart on the target line, and the encoder brings target images
to where they agree. The inspector keeps the mean of both. In the paper both begin alike; here S1 has trained one of
them, so the first tenth of the steps is A alone, in which the other catches up.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from steelshift.data.stream import CLASS, SourceBatch, TargetBatch
from steelshift.losses.unlabelled import discrepancy
from steelshift.methods.method import Method, Start, Update, hold
from steelshift.nn.encoders import Encoder
from steelshift.nn.heads import task_classifier
from steelshift.nn.normalization import encode_both, use_line

CATCHING_UP = 0.1
"""Share of the steps in which the second classifier is only trained."""


class MCD(Method):
    encoder_rate = 0.1  # four of its five updates a step know no label; the fifth is slow with them

    @dataclass(frozen=True)
    class Knobs:
        encoder_steps: int = 4
        """Updates C a step (the paper: 2 to 4)."""
        weight: float = 1.0
        """Weight of the discrepancy, 0 or more."""

        def __post_init__(self) -> None:
            hold(self.encoder_steps >= 1, "encoder_steps", self.encoder_steps, "1 or more")
            hold(self.weight >= 0, "weight", self.weight, "0 or more")

    def __init__(self, start: Start, knobs: Knobs) -> None:
        super().__init__(start, knobs)
        self.second_classifier = task_classifier(start.encoder.width, start.classifier.out_features)

    def updates(self, source: SourceBatch, target: TargetBatch, progress: float) -> Iterator[Update]:
        classifiers = ("task_classifier", "second_classifier")
        use_line(self.shared_encoder, "source")
        task = self._task(self.shared_encoder(source.images), source)
        yield Update(task, moves=("shared_encoder", *classifiers), log={"L_task": task.detach() / 2})
        if progress < CATCHING_UP:
            return
        with torch.no_grad():
            z_s, z_t = encode_both(self.shared_encoder, source.images, target.images, "separate")
        apart = self._apart(z_t)
        yield Update(
            self._task(z_s, source) - self.knobs.weight * apart, classifiers, log={"discrepancy_before": apart.detach()}
        )
        use_line(self.shared_encoder, "target")
        for _ in range(self.knobs.encoder_steps):
            apart = self._apart(self.shared_encoder(target.images))
            yield Update(self.knobs.weight * apart, moves=("shared_encoder",), log={"discrepancy": apart.detach()})

    def _task(self, z: Tensor, source: SourceBatch) -> Tensor:
        labels = source.labels[CLASS]
        return sum(
            F.cross_entropy(classifier(z).float(), labels, ignore_index=-1)
            for classifier in (self.task_classifier, self.second_classifier)
        )

    def _apart(self, z: Tensor) -> Tensor:
        return discrepancy(self.task_classifier(z), self.second_classifier(z))

    def deployed(self) -> tuple[Encoder, nn.Linear]:
        mean = task_classifier(self.task_classifier.in_features, self.task_classifier.out_features)
        one, other = self.task_classifier.state_dict(), self.second_classifier.state_dict()
        mean.load_state_dict({key: (one[key] + other[key]) / 2 for key in one})
        return self.shared_encoder, mean.to(self.task_classifier.weight.device)
