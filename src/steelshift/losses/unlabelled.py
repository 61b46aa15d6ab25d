"""Losses of the class answers on images without labels. All take logits (B, K) and give a scalar."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from steelshift.exact import exact


def entropy(logits: Tensor) -> Tensor:
    """Shannon entropy in nats of each answer: (B, K) -> (B,)."""
    logits = logits.float()
    return -(logits.softmax(1) * logits.log_softmax(1)).sum(1)


def information_maximization(logits: Tensor) -> Tensor:
    """mean H(p) - H(mean p): low where each answer is sure, and the answers are of different classes.

    Krause et al., NeurIPS 2010; Liang et al., SHOT, ICML 2020.
    """
    mean = logits.float().softmax(1).mean(0)
    return entropy(logits).mean() + (mean * mean.clamp(min=1e-12).log()).sum()


@exact
def class_confusion(logits: Tensor, temperature: float) -> Tensor:
    """Mean over classes of the share of a class's weight that answers hold together with others.

    0 where every answer is sure and every class is somebody's: a class that nobody is taken for counts as confused.

    Jin et al., Minimum Class Confusion, ECCV 2020: answers softened by the temperature; sure ones weigh more, by
    1 + exp(-H), brought to a mean of 1 and without a gradient.
    """
    probabilities = (logits.float() / temperature).softmax(1)
    weights = 1 + torch.exp(-entropy(logits / temperature).detach())
    weights = weights / weights.mean()
    together = (probabilities * weights[:, None]).T @ probabilities
    together = together / together.sum(1, keepdim=True).clamp(min=1e-12)
    return (together.sum() - together.diagonal().sum()) / logits.shape[1]


def discrepancy(one: Tensor, other: Tensor) -> Tensor:
    """Mean absolute difference of two classifiers' probabilities (Saito et al., MCD, CVPR 2018)."""
    return (one.float().softmax(1) - other.float().softmax(1)).abs().mean()


def margin_disparity(
    source: Tensor, source_called: Tensor, target: Tensor, target_called: Tensor, gamma: float
) -> Tensor:
    """gamma CE(source, called) - mean log(1 - p_target[called]): an adversary that is to agree with the classifier on
    the source line and to disagree on the target line descends it (Zhang et al., MDD, ICML 2019, equations 28 to 30).

    source, target: the adversary's logits (B, K); called: the classifier's classes (B,). gamma: exp of the margin, 1
    or more.
    """
    agree = F.cross_entropy(source.float(), source_called)
    # log(1 - p) from the other classes' logits: exact where p is near 1
    target = target.float()
    called = F.one_hot(target_called, target.shape[1]).bool()
    others = target.masked_fill(called, -torch.inf).logsumexp(1) - target.logsumexp(1)
    return gamma * agree - others.mean()


def entropy_separation(logits: Tensor, margin: float) -> Tensor:
    """mean of -|H - rho| over the answers with |H - rho| > margin ln K, and 0 for the others; rho = ln K / 2.

    Answers that are rather sure become surer, those that are rather spread spread more: of images of no known class.
    Saito et al., Universal Domain Adaptation through Self-Supervision (DANCE), NeurIPS 2020, equation 4.
    """
    largest = math.log(logits.shape[1])
    apart = (entropy(logits) - largest / 2).abs()
    return -(apart * (apart.detach() > margin * largest)).mean()
