"""What is known of the target line's classes, for adversarial methods: the same as the source's, fewer, or more.

fewer: source images of classes that the target line seems to lack weigh less in L_task and L_adapt, by

    gamma_k = g_k / max g,  g the running mean of the answers softmax C(E(x_t))

    Cao et al., Partial Adversarial Domain Adaptation (PADA), ECCV 2018, where g is renewed by a pass over the target.

more: target images that seem to be of no class weigh less in L_adapt, by 1 - H / ln K, and entropy separation drives
    answers away from half of the largest entropy, above which an image counts as unknown

    Saito et al., Universal Domain Adaptation through Self-Supervision (DANCE), NeurIPS 2020; the weights as in You et
    al., Universal Domain Adaptation, CVPR 2019, without their domain likeness.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from steelshift.losses.domain import adaptation_loss, line_of, weighted_adaptation_loss
from steelshift.losses.unlabelled import entropy, entropy_separation

TargetClasses = Literal["same", "fewer", "more"]
REMEMBERED = 0.98
"""Decay a step of the mean answer."""
MARGIN = 0.5 / math.log(10)
"""Of entropy separation, as a part of the largest entropy: DANCE's .5 at ten classes."""
SEPARATION = 0.05
"""Weight of entropy separation (DANCE's)."""


class ClassSet(nn.Module):
    """Losses that heed what classes images seem to be of; the plain ones where the lines' classes are the same."""

    def __init__(self, kind: TargetClasses, classes: int) -> None:
        super().__init__()
        self.kind = kind
        # Kept only where it is used: checkpoints of other runs do not know it.
        self.register_buffer("mean_answer", torch.full((classes,), 1 / classes), persistent=kind == "fewer")

    def task_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of source images: logits (B, K), labels (B,), -1 for none."""
        if self.kind != "fewer":
            return F.cross_entropy(logits.float(), labels, ignore_index=-1)
        each = F.cross_entropy(logits.float(), labels, ignore_index=-1, reduction="none")
        weights = self.source_weights(labels)
        return (weights * each).sum() / weights[labels >= 0].sum()

    def adaptation_loss(
        self, source: Tensor, target: Tensor, labels: Tensor, target_logits: Tensor, smoothing: float = 0.0
    ) -> Tensor:
        """L_adapt of the discriminator's logits (B, 1) each; labels of source images, class logits of target images."""
        if self.kind == "same":
            return adaptation_loss(source, target, smoothing)
        weights = torch.cat([self.source_weights(labels), self.target_weights(target_logits)])
        both = torch.cat([source, target])
        return weighted_adaptation_loss(both, line_of(source, target), weights, smoothing)

    def separation(self, target_logits: Tensor) -> Tensor:
        """Weighted L_es of target answers (B, K), where there may be more classes; 0 otherwise."""
        if self.kind != "more":
            return target_logits.new_zeros(())
        return SEPARATION * entropy_separation(target_logits, MARGIN)

    @torch.no_grad()
    def remember(self, target_logits: Tensor) -> None:
        """Take in the answers of a step for target images (B, K)."""
        if self.kind == "fewer":
            self.mean_answer.lerp_(target_logits.float().softmax(1).mean(0), 1 - REMEMBERED)

    def source_weights(self, labels: Tensor) -> Tensor:
        """(B,), with a mean of 1; images without a label (-1) weigh as those of the most frequent class."""
        weights = torch.ones(len(labels), device=labels.device)
        if self.kind == "fewer":
            known = labels >= 0
            weights[known] = (self.mean_answer / self.mean_answer.max())[labels[known]]
        return weights / weights.mean().clamp(min=1e-12)

    def target_weights(self, logits: Tensor) -> Tensor:
        """(B,), detached."""
        if self.kind != "more":
            return torch.ones(len(logits), device=logits.device)
        return (1 - entropy(logits.detach()) / math.log(logits.shape[1])).clamp(min=1e-3)
