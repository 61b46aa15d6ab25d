"""Losses of one task on labelled images, whatever its kind.

A decision is an image of a single-label, yes/no or ordinal task, or one class of an image of a multi-label task, each
with the log probability that the network gives to its true answer. Images without a label make no decision.

Sources: Lin et al., Focal Loss, ICCV 2017; Cui et al., Class-Balanced Loss Based on Effective Number of Samples, CVPR
2019. Dynamic balanced focal loss, of the multi-task document, which has it in prose alone:

    L = (1 / T) sum_t w_t (1 / n_t) sum_i m_i alpha_i (1 - p_i)^gamma (-log p_i)
    w_t = 1 + kappa max(0, (R_t - tau) / (1 - tau))^q

alpha_i, of the class of i, is the same for all or by Cui's effective number. R_t is the task's rate of false
detections in one of three readings; m_i is mu, or falls from 5 to 3 by rank, for the lowest 15 % of p_i of each
class, and 1 for the others. What is lowest is told by the last 256 decisions of the class: in a batch with few of a
class, 15 % of them rounded up would be many more.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Loss = Literal["cross_entropy", "mean_square", "focal", "class_balanced", "dynamic_balanced_focal"]
Rate = Literal["err", "fdr", "fpr"]
HARD = 0.15
"""Share of the decisions of a class that counts as hard."""
REMEMBERED = 256
"""Decisions of a class that tell which of them are hard."""
EMPTY = 2.0
"""In the place of a probability that is not known yet."""


@dataclass(frozen=True)
class Decisions:
    """The decisions of a batch in one task."""

    log_p: Tensor
    """Log probability of the true answer (n,), float32."""
    answer: Tensor
    """The true answer, int64 (n,): the class; of a multi-label task twice the class, plus 1 where it is there."""

    @property
    def p(self) -> Tensor:
        return self.log_p.detach().exp()


def decisions(logits: Tensor, labels: Tensor) -> Decisions:
    """logits (B, K); labels int64 (B,), or (B, K) of 0 and 1 for a multi-label task; -1 where there is none."""
    logits = logits.float()
    if labels.ndim == 1:
        rows = labels >= 0
        answer = labels[rows]
        return Decisions(logits[rows].log_softmax(1).gather(1, answer[:, None])[:, 0], answer)
    there = labels >= 0
    signs = 2 * labels - 1
    answer = 2 * torch.arange(labels.shape[1], device=labels.device) + labels
    return Decisions(F.logsigmoid(signs * logits)[there], answer[there])


def supervised(logits: Tensor, labels: dict[str, Tensor], columns: dict[str, slice]) -> Tensor:
    """Cross-entropy, meaned over the tasks of which the batch holds a label; 0 where there is none.

    logits: (B, classes of all tasks). labels: by task, as for `decisions`. columns: where a task's logits lie.
    """
    losses = []
    for name, where in columns.items():
        truth, part = labels[name], logits[:, where].float()
        if not (truth >= 0).any():
            continue
        if truth.ndim == 1:
            losses.append(F.cross_entropy(part, truth, ignore_index=-1))
        else:
            losses.append(cross_entropy(decisions(part, truth)))
    return sum(losses) / len(losses) if losses else logits.sum() * 0.0


def answers_of(kind: str, classes: int) -> int:
    """How many different answers the decisions of a task may have."""
    return 2 * classes if kind == "multi-label" else classes


def cross_entropy(found: Decisions) -> Tensor:
    """-1/n sum_i log p_i."""
    return -found.log_p.mean()


def focal(found: Decisions, gamma: float = 2.0, alpha: float = 0.25, weights: Tensor | None = None) -> Tensor:
    """1/n sum_i w_i alpha (1 - p_i)^gamma (-log p_i). weights: w (n,), detached; ones by default."""
    doubt = (-torch.expm1(found.log_p)).clamp(min=1e-6)  # 1 - p; of 0 a root has no slope
    each = -alpha * doubt**gamma * found.log_p
    return (each if weights is None else weights * each).mean()


def class_balanced(found: Decisions, counts: Tensor, beta: float = 0.999) -> Tensor:
    """Cross-entropy with weights (1 - beta) / (1 - beta^n) by class, of mean 1 over the batch.

    counts: n, training images of every answer (answers,).
    """
    return -(effective_weights(found, counts, beta) * found.log_p).mean()


def effective_weights(found: Decisions, counts: Tensor, beta: float = 0.999) -> Tensor:
    """(1 - beta) / (1 - beta^n) of every decision's answer (n,), of mean 1 over the batch; counts as above."""
    weights = (1 - beta) / (1 - beta ** counts.clamp(min=1).double())
    weights = weights.float()[found.answer]
    return weights / weights.mean()


def mean_square(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over images of sum_k (p_k - y_k)^2, Brier's score; logits and labels as for `decisions`."""
    logits = logits.float()
    if labels.ndim == 1:
        rows = labels >= 0
        truth = F.one_hot(labels[rows], logits.shape[1])
        return (logits[rows].softmax(1) - truth).square().sum(1).mean()
    there = labels >= 0
    apart = ((logits.sigmoid() - labels) * there).square().sum(1)
    return apart[there.any(1)].mean()


def remember(queue: Tensor, found: Decisions) -> Tensor:
    """The last REMEMBERED probabilities of every answer (answers, REMEMBERED), newest first, with those of a batch."""
    kept = []
    for answer, before in enumerate(queue):
        new = found.p[found.answer == answer][:REMEMBERED]
        kept.append(torch.cat([new, before])[:REMEMBERED])
    return torch.stack(kept)


def hard_weights(found: Decisions, queue: Tensor, mu: float = 4.0, *, ramp: bool = False, p_min: float = 0.0) -> Tensor:
    """m (n,): mu, or by rank 5 to 3, for decisions among the lowest 15 % that their class has in the queue; else 1.

    p_min: decisions of a lower probability count as wrongly labelled and are not made harder.
    """
    queue = queue.sort(dim=1).values
    known = (queue < EMPTY).sum(1)
    many = (HARD * known).floor().long()  # never more than 15 %, and none of a class that was hardly seen
    p = found.p
    rank = (queue[found.answer] < p[:, None]).sum(1)
    most = many[found.answer]
    hard = (rank < most) & (p >= p_min)
    weight = 5 - 2 * rank / (most - 1).clamp(min=1) if ramp else torch.full_like(p, mu)
    return torch.where(hard, weight, torch.ones_like(p))


def false_detections(logits: Tensor, labels: Tensor, rate: Rate, negative: int | None) -> Tensor:
    """Rate of false detections of a batch, in [0, 1]; not a number where it is 0/0.

    err: 1 - accuracy. fdr: FP / (FP + TP). fpr: FP / (FP + TN); both for each class against the others, meaned over
    the classes for which they are defined; negative: the class that stands for nothing found, which is no detection.
    logits and labels as for `decisions`.
    """
    if labels.ndim == 1:
        rows = labels >= 0
        classes = logits.shape[1]
        said = F.one_hot(logits[rows].argmax(1), classes).bool()
        true, there = F.one_hot(labels[rows], classes).bool(), torch.ones_like(said)
        wrong = (logits[rows].argmax(1) != labels[rows]).float()
    else:
        there = labels >= 0
        said, true = (logits > 0) & there, labels == 1
        wrong = (said != true)[there].float()
    if rate == "err":
        return wrong.mean()
    if negative is not None:
        kept = torch.arange(said.shape[1], device=said.device) != negative
        said, true, there = said[:, kept], true[:, kept], there[:, kept]
    false = (said & ~true & there).sum(0)
    beside = (said & true).sum(0) if rate == "fdr" else (~said & ~true & there).sum(0)
    return (false / (false + beside)).nanmean()


def task_weight(rate: Tensor, kappa: float = 2.0, tau: float = 0.1, q: float = 2.0) -> Tensor:
    """1 + kappa max(0, (R - tau) / (1 - tau))^q: 1 up to the threshold, 1 + kappa at R = 1."""
    return 1 + kappa * ((rate - tau) / (1 - tau)).clamp(min=0) ** q
