"""SHOT: Liang et al., Do We Really Need to Access Source Data? Source Hypothesis Transfer, ICML 2020.

L = [mean H(p) - H(mean p)] + beta CE(C(z_t), pseudo-label)

No source image is used after S1: for when they may not leave the mill. The classifier stays as it was trained, the
encoder moves. Pseudo-labels: before each epoch, one pass over the target line gives the centroid of each class, first
of features weighted by p, then of the features nearest to those; an image gets the class of the nearest centroid
(cosine), of those that some image is taken for. The authors label each image in that pass, we label the features of the
moment; their S1 smooths labels and normalizes the classifier's weights, ours is that of all methods.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from steelshift.data.stream import TargetBatch
from steelshift.exact import exact
from steelshift.losses.unlabelled import information_maximization
from steelshift.methods.method import Method, Start, Update, hold
from steelshift.nn.normalization import use_line


class SHOT(Method):
    sees_source = False
    uses_labels = False
    encoder_rate = 0.02  # with 0.1 features leave within sixty steps what the classifier was taught
    looks_at_target = True

    @dataclass(frozen=True)
    class Knobs:
        beta: float = 0.3
        """Weight of the pseudo-labels, 0 or more."""
        weight: float = 1.0
        """Weight of information maximization, 0 or more."""

        def __post_init__(self) -> None:
            hold(self.beta >= 0, "beta", self.beta, "0 or more")
            hold(self.weight >= 0, "weight", self.weight, "0 or more")

    def __init__(self, start: Start, knobs: Knobs) -> None:
        super().__init__(start, knobs)
        self.task_classifier.requires_grad_(False)
        classes, width = start.classifier.weight.shape
        self.register_buffer("centroids", torch.zeros(classes, width + 1))

    def updates(self, source: None, target: TargetBatch, progress: float) -> Iterator[Update]:
        use_line(self.shared_encoder, "target")
        z = self.shared_encoder(target.images)
        logits = self.task_classifier(z).float()
        sure = information_maximization(logits)
        loss, log = self.knobs.weight * sure, {"L_information": sure.detach()}
        if self.centroids.any():
            pseudo = F.cross_entropy(logits, _nearest(_unit(z.detach()), self.centroids))
            loss, log = loss + self.knobs.beta * pseudo, log | {"L_pseudo": pseudo.detach()}
        yield Update(loss, moves=("shared_encoder",), log=log)

    @torch.no_grad()
    def look_at_target(self, target: Iterable[TargetBatch]) -> None:
        use_line(self.shared_encoder, "target")
        features = torch.cat([self.shared_encoder(batch.images) for batch in target])
        points = _unit(features)
        answers = self.task_classifier(features).float().softmax(1)
        first = _sums(answers, points)
        first[answers.argmax(1).bincount(minlength=len(first)) == 0] = 0  # a class that no image is taken for
        self.centroids.copy_(_sums(F.one_hot(_nearest(points, first), len(first)).float(), points))


@exact
def _sums(weights: Tensor, points: Tensor) -> Tensor:
    """(n, K) and (n, F) -> (K, F): as good as means, for only directions are compared."""
    return weights.T @ points


@exact
def _nearest(points: Tensor, centroids: Tensor) -> Tensor:
    """Class of the nearest centroid: (n, F) and (K, F) -> (n,). A class without an image, all zero, is none's."""
    likeness = points @ F.normalize(centroids, dim=1).T
    return likeness.masked_fill(~centroids.any(1), -torch.inf).argmax(1)


def _unit(features: Tensor) -> Tensor:
    """(B, F) -> (B, F + 1): with a 1 for the offset, of unit length."""
    return F.normalize(F.pad(features.float(), (0, 1), value=1.0), dim=1)
