"""The two games of adversarial domain separation and adaptation, as cross-entropies.

Sources: patent CN115049627 claims 7 and 8; Tsai and Chien, Adversarial Domain Separation and Adaptation, MLSP 2017;
Ganin et al., Domain-Adversarial Training of Neural Networks, JMLR 2016; Long et al., CDAN, NeurIPS 2018.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

SHARED, SOURCE, TARGET = 0, 1, 2
"""Feature labels of the separation discriminator, three-way."""
SeparationLabels = Literal["three_way", "two_way"]
SeparationReduction = Literal["per_sample", "per_term"]


def adaptation_loss(source_logits: Tensor, target_logits: Tensor, smoothing: float = 0.0) -> Tensor:
    """-1/2 [mean log D(source) + mean log(1 - D(target))]; ln 2 at chance.

    logits: (B_s, 1) and (B_t, 1), the log-odds that features are of the source line.
    smoothing: label of the right line is 1 - smoothing (ADSA's code: .1).
    """
    source = F.binary_cross_entropy_with_logits(
        source_logits.float(), torch.full_like(source_logits.float(), 1 - smoothing)
    )
    target = F.binary_cross_entropy_with_logits(
        target_logits.float(), torch.full_like(target_logits.float(), smoothing)
    )
    return (source + target) / 2


def weighted_adaptation_loss(logits: Tensor, truth: Tensor, weights: Tensor, smoothing: float = 0.0) -> Tensor:
    """`adaptation_loss` with a weight an image, whose sum on each line does not matter.

    logits (n, 1), truth (n,): 1 for images of the source line; weights (n,), above 0.
    """
    smoothed = truth.float() * (1 - 2 * smoothing) + smoothing
    each = F.binary_cross_entropy_with_logits(logits[:, 0].float(), smoothed, reduction="none")
    lines = [(weights * each)[truth == line].sum() / weights[truth == line].sum() for line in (1, 0)]
    return (lines[0] + lines[1]) / 2


def separation_loss(
    logits: Tensor,
    batch: int,
    labels: SeparationLabels = "three_way",
    reduction: SeparationReduction = "per_sample",
    smoothing: float = 0.0,
) -> Tensor:
    """Cross-entropy of telling shared, source-private and target-private features apart.

    logits: (4 * batch, 3), or (4 * batch, 2) where labels are two_way, shared against private, in the order: shared
    of source, shared of target, private of source, private of target.
    per_sample is the mean over all, at chance between ln 3 = 1.0986 (uniform output) and 1.0397 (output = prior);
    per_term the mean of the terms, each an expectation. smoothing: share of the label spread over the other classes
    (ADSA's code: .2, that is .8, .1, .1).
    """
    private = [SOURCE, TARGET] if labels == "three_way" else [SOURCE, SOURCE]
    truth = torch.tensor([SHARED] * 2 * batch + [private[0]] * batch + [private[1]] * batch, device=logits.device)
    classes = logits.shape[1]
    # torch spreads its smoothing over all classes, the right one too.
    each = F.cross_entropy(logits.float(), truth, reduction="none", label_smoothing=smoothing * classes / (classes - 1))
    if reduction == "per_sample":
        return each.mean()
    return torch.stack([each[truth == kind].mean() for kind in truth.unique()]).mean()


def conditioned(features: Tensor, class_logits: Tensor) -> Tensor:
    """CDAN's multilinear map: features (B, F) and class logits (B, K) -> (B, F * K), no gradient to the logits."""
    probabilities = class_logits.detach().float().softmax(1)
    return (probabilities.unsqueeze(2) * features.unsqueeze(1)).flatten(1)


def line_of(source: Tensor, target: Tensor) -> Tensor:
    """int64: 1 for every row of `source`, then 0 for every row of `target`."""
    return torch.cat([torch.ones(len(source)), torch.zeros(len(target))]).long().to(source.device)


def accuracy(logits: Tensor, truth: Tensor) -> Tensor:
    """Share of right answers; logits (B, 1) are log-odds of truth = 1, otherwise (B, classes)."""
    answer = (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(1)
    return (answer == truth).float().mean()
