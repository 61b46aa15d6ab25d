"""IADSA: adversarial domain separation and adaptation with adaptively embedded samples and dynamic loss weights.

Patent CN115049627 (Jiangnan University); Su et al., J. Mech. Eng. 59(24):46-55, 2023. The network and the three-way
separation are ADSA's (Tsai and Chien, MLSP 2017), the embedded samples HDML's (Zheng et al., CVPR 2019). Formulas in
the patent are images that no stored copy holds, so every reading that the text allows is a knob.

Symbols: E_c, E_s, E_t shared, source-private and target-private encoder; C, D_a, D_p task classifier, adaptation and
separation discriminator; z_cs = E_c(x_s), z_ct = E_c(x_t), z_ps = E_s(x_s), z_pt = E_t(x_t).

    L_task  = -1/B sum log softmax(C(z_cs))[y]                                                            (claim 6)
    lambda  = exp(-pull / mean L_task),  X^ = X + t (X- - X),  t = [lambda D- + (1 - lambda) D+] / D-     (claim 4)
    L_embedded = 1/T sum CE(C(X^), y-)
    L_class = w L_task + (1 - w) L_embedded,  w = exp(-beta / mean L_embedded)                            (claim 5)
    L_adapt = -1/2 [E log D_a(z_cs) + E log(1 - D_a(z_ct))]                                               (claim 7)
    L_sep   = cross-entropy of D_p telling shared, source-private and target-private apart                (claim 8)
    L_ad    = omega_a L_adapt + omega_p L_sep,  omega_a = L_adapt / (L_adapt + L_sep)                     (claim 5)

Updates (claim 9): L_class moves E_c and C down; L_adapt moves E_c up and D_a down; L_sep moves E_c, E_s, E_t down,
and D_p down (coop) or up (minmax).
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from steelshift.data.stream import CLASS, SourceBatch, TargetBatch
from steelshift.losses.auxiliary import difference_loss, scale_invariant_error
from steelshift.losses.domain import (
    SeparationLabels,
    SeparationReduction,
    accuracy,
    conditioned,
    line_of,
    separation_loss,
)
from steelshift.losses.embedded import Invalid, Negative, Positive, embed, mine, pull_factor
from steelshift.losses.weights import daan_weight, hdml_weight, ratio_weight
from steelshift.methods.class_sets import ClassSet, TargetClasses
from steelshift.methods.method import Method, Start, Update, hold
from steelshift.methods.running import Mean, PairWeights, RunningMean
from steelshift.nn.averaging import averaged, follow
from steelshift.nn.encoders import Encoder
from steelshift.nn.heads import decoder, discriminator, thumbnails
from steelshift.nn.normalization import encode_both, use_line
from steelshift.nn.reversal import ramp, reverse


@dataclass(frozen=True)
class Omega:
    """Dynamic weights of claim 5, detached, and what moves them where they are learned."""

    a: Tensor
    p: Tensor
    learn: Tensor
    log: dict[str, Tensor]


@dataclass(frozen=True)
class Pass:
    """Features of one batch pair: shared of source and target, private of source and target; (B, F) each."""

    cs: Tensor
    ct: Tensor
    ps: Tensor
    pt: Tensor
    labels: Tensor
    """Classes of the source images (B,)."""


class IADSA(Method):
    @dataclass(frozen=True)
    class Knobs:
        schedule: Literal["joint", "claim9_sequential", "adsa"] = "joint"
        """Updates of one step: one backward with gradient reversal, the three of claim 9 in their order, or ADSA's
        many."""
        adsa_steps: tuple[int, int, int, int, int] = (40, 2, 4, 2, 1)
        """Updates a step under schedule adsa: D_a, D_p, E_c on L_adapt, encoders on L_sep, joint."""

        embedding: Literal["hdml", "linear", "none"] = "hdml"
        """Form of the embedded samples, or none."""
        pull: float | Literal["auto"] = "auto"
        """Pull (the patent's lambda, HDML's alpha), above 0; auto starts the factor at one half."""
        mean_task_loss: Mean = "epoch_mean"
        """Which L_task the factor follows."""
        t_min: float = 0.5
        """Least place of an embedded sample between X (0) and X- (1); 0 is the text."""
        positive: Positive = "random"
        """Which sample of the same class is X+."""
        negative: Negative = "random"
        """Which sample of another class is X-."""
        invalid: Invalid = "keep"
        """What becomes of triplets with D+ >= D-."""
        detach_features: bool = False
        """Whether embedded samples train the classifier alone and not the encoder."""

        class_weight: Literal[
            "hdml", "loss_ratio", "inverse_ratio", "exp_neg", "per_sample", "uncertainty", "dwa", "sum"
        ] = "hdml"
        """How L_task and L_embedded are weighted."""
        beta: float = 1.0
        """beta of the weights exp(-beta / L), above 0."""
        mean_embedded_loss: Mean = "epoch_mean"
        """Which L_embedded the class weight follows."""
        w_bounds: tuple[float, float] = (0.5, 0.9)
        """Bounds of the class weight w, within [0, 1]; 0 1 is the text."""

        adaptation: Literal["cross_entropy", "value_function", "inverted", "cdan"] = "cross_entropy"
        """L_adapt: half the sum of both expectations; their sum (the value function of GANs); encoder against
        flipped labels (ADDA); or D_a on features times class probabilities (CDAN)."""
        adaptation_smoothing: float = 0.0
        """Label smoothing of D_a, 0 to .5 (ADSA's code: .1)."""
        separation_game: Literal["coop", "minmax"] = "coop"
        """Whether D_p descends L_sep with the encoders, or ascends it."""
        separation_labels: SeparationLabels = "three_way"
        """Whether D_p tells source-private from target-private too."""
        separation_reduction: SeparationReduction = "per_sample"
        """Mean over all features, or mean of the terms."""
        separation_smoothing: float = 0.0
        """Label smoothing of D_p, 0 to .5 (ADSA's code: .2)."""
        separation_aux: Literal["none", "difference", "difference+recon"] = "none"
        """Losses of DSN that keep private features from being constant."""
        difference_weight: float = 0.075
        """Weight of the difference loss, 0 or more."""
        reconstruction_weight: float = 0.01
        """Weight of the reconstruction loss, 0 or more."""

        adaptation_weight: Literal["loss_ratio", "hdml", "daan", "uncertainty", "dwa", "fixed"] = "loss_ratio"
        """How L_adapt and L_sep are weighted."""
        adaptation_control: Literal["separation", "adaptation"] = "separation"
        """Which loss the weight exp(-beta / L) of adaptation_weight hdml follows."""
        fixed_weights: tuple[float, float] = (1.0, 0.05)
        """Weights of L_adapt and L_sep under adaptation_weight fixed (ADSA's code: 1 and .05)."""
        weight_total: float = 1.0
        """Sum of the dynamic weights of L_adapt and L_sep: 1, or 2 to weigh as much as a plain sum."""
        ramp: bool = False
        """Whether the reversed gradient grows from 0 with 2 / (1 + exp(-10 p)) - 1."""
        omega_on_discriminator: bool = False
        """Whether omega_a scales D_a's own gradient too (the literal table of claim 9)."""

        target_classes: TargetClasses = "same"
        """Whether the target line has the same classes as the source, fewer, or more (see class_sets.py)."""

        averaging: Literal["none", "ema"] = "ema"
        """Whether the inspector keeps the exponential average of E_c and C over the steps."""
        averaging_decay: float = 0.98
        """Decay of that average a step, 0 to 1."""
        hidden: int = 1024
        """Width of the hidden layer of both discriminators."""
        dropout: float = 0.5
        """Dropout after that layer, 0 to 1."""
        normalized: bool = True
        """Whether the discriminators see only the direction of features; the text's see their size too."""

        def __post_init__(self) -> None:
            ranges = {
                "pull": (self.pull == "auto" or float(self.pull) > 0, "above 0, or auto"),
                "beta": (self.beta > 0, "above 0"),
                "t_min": (0 <= self.t_min <= 1, "0 to 1"),
                "w_bounds": (0 <= self.w_bounds[0] <= self.w_bounds[1] <= 1, "0 to 1, the lower first"),
                "dropout": (0 <= self.dropout < 1, "0 or more, below 1"),
                "difference_weight": (self.difference_weight >= 0, "0 or more"),
                "reconstruction_weight": (self.reconstruction_weight >= 0, "0 or more"),
                "averaging_decay": (0 <= self.averaging_decay < 1, "0 or more, below 1"),
                "adsa_steps": (min(self.adsa_steps) >= 0 and self.adsa_steps[4] > 0, "0 or more, the last at least 1"),
                "adaptation_smoothing": (0 <= self.adaptation_smoothing <= 0.5, "0 to .5"),
                "separation_smoothing": (0 <= self.separation_smoothing <= 0.5, "0 to .5"),
            }
            for key, (right, words) in ranges.items():
                hold(right, key, getattr(self, key), words)

    def __init__(self, start: Start, knobs: Knobs) -> None:
        super().__init__(start, knobs)
        width, classes = start.encoder.width, start.classifier.out_features
        self.source_encoder = copy.deepcopy(start.encoder)
        self.target_encoder = copy.deepcopy(start.encoder)
        conditional = classes if knobs.adaptation == "cdan" else 1
        like = {"dropout": knobs.dropout, "normalized": knobs.normalized}
        self.adaptation_discriminator = discriminator(width * conditional, knobs.hidden, 1, **like)
        kinds = 3 if knobs.separation_labels == "three_way" else 2
        self.separation_discriminator = discriminator(width, knobs.hidden, kinds, **like)
        self.class_set = ClassSet(knobs.target_classes, classes)
        self.mean_task = RunningMean(knobs.mean_task_loss, start.epoch)
        self.mean_embedded = RunningMean(knobs.mean_embedded_loss, start.epoch)
        self.first_epoch = RunningMean("epoch_mean", start.epoch)
        self.register_buffer("pull", torch.tensor(math.nan if knobs.pull == "auto" else float(knobs.pull)))
        self.class_pair = PairWeights(start.epoch)
        self.adaptation_pair = PairWeights(start.epoch)
        self.learned_class = ("class_pair",) if knobs.class_weight == "uncertainty" else ()
        self.learned_adaptation = ("adaptation_pair",) if knobs.adaptation_weight == "uncertainty" else ()
        if knobs.separation_aux == "difference+recon":
            self.decoder = decoder(2 * width)
        if knobs.averaging == "ema":
            self.averaged_encoder = averaged(start.encoder)
            self.averaged_classifier = averaged(start.classifier)

    # The schedules: which loss moves what, and when.

    def updates(self, source: SourceBatch, target: TargetBatch, progress: float) -> Iterator[Update]:
        strength = ramp(progress) if self.knobs.ramp else 1.0
        schedule = {"joint": self._joint, "claim9_sequential": self._claim9, "adsa": self._adsa}[self.knobs.schedule]
        yield from schedule(source, target, strength)
        if self.knobs.averaging == "ema":
            follow(self.averaged_encoder, self.shared_encoder, self.knobs.averaging_decay)
            follow(self.averaged_classifier, self.task_classifier, self.knobs.averaging_decay)

    def _joint(self, source: SourceBatch, target: TargetBatch, strength: float) -> Iterator[Update]:
        """One backward pass. With plain SGD from a common point this is the table of claim 9."""
        z = self._encode(source, target)
        class_loss, log = self._class_loss(z.cs, source.labels[CLASS])
        omega = self._omega(z)
        adapt, adapt_log = self._adaptation_loss(z.cs, z.ct, z.labels, strength, omega.a)
        sep, sep_log = self._separation_loss(z)
        moves = ("shared_encoder", "task_classifier", "adaptation_discriminator", "source_encoder", "target_encoder")
        if self.knobs.separation_game == "coop":
            moves += ("separation_discriminator",)
        loss = class_loss + adapt + omega.p * sep + omega.learn + self._heed_target(z)
        loss, extra = self._with_auxiliary(loss, z, source, target)
        moves += extra + self.learned_class + self.learned_adaptation
        yield Update(loss, moves, log | omega.log | adapt_log | sep_log)
        if self.knobs.separation_game == "minmax":
            yield self._ascend(z, omega.p)

    def _claim9(self, source: SourceBatch, target: TargetBatch, strength: float) -> Iterator[Update]:
        """Three forward and backward passes in the order of the claim, features computed anew for each."""
        use_line(self.shared_encoder, "source")
        z_cs = self.shared_encoder(source.images)
        class_loss, log = self._class_loss(z_cs, source.labels[CLASS])
        yield Update(class_loss, ("shared_encoder", "task_classifier", *self.learned_class), log)
        z = self._encode(source, target)
        omega = self._omega(z)
        adapt, adapt_log = self._adaptation_loss(z.cs, z.ct, z.labels, strength, omega.a)
        moves = ("shared_encoder", "adaptation_discriminator", *self.learned_adaptation)
        yield Update(adapt + omega.learn + self._heed_target(z), moves, omega.log | adapt_log)
        yield from self._separate(source, target, omega.p)

    def _adsa(self, source: SourceBatch, target: TargetBatch, strength: float) -> Iterator[Update]:
        """The order of the authors' code: D_a many times, D_p, E_c against D_a, encoders on L_sep, then jointly."""
        on_d_a, on_d_p, on_e_c, on_sep, jointly = self.knobs.adsa_steps
        with torch.no_grad():
            z = self._encode(source, target)
        for _ in range(on_d_a):
            yield Update(self._adaptation_value(z.cs, z.ct, z.labels)[0], ("adaptation_discriminator",))
        sign = 1.0 if self.knobs.separation_game == "coop" else -1.0
        for _ in range(on_d_p):
            yield Update(sign * self._separation_loss(z)[0], ("separation_discriminator",))
        omega = self._omega(z)
        for _ in range(on_e_c):
            z_cs, z_ct = encode_both(self.shared_encoder, source.images, target.images, self.normalization)
            adapt, _ = self._adaptation_loss(z_cs, z_ct, source.labels[CLASS], strength, omega.a)
            yield Update(adapt, ("shared_encoder",))
        for _ in range(on_sep):
            yield from self._separate(source, target, omega.p, discriminator_too=False)
        for turn in range(jointly):
            z = self._encode(source, target)
            class_loss, log = self._class_loss(z.cs, source.labels[CLASS])
            adapt, adapt_log = self._adaptation_loss(z.cs, z.ct, z.labels, strength, omega.a)
            sep, sep_log = self._separation_loss(z)
            moves = ("shared_encoder", "task_classifier", "source_encoder", "target_encoder")
            moves += self.learned_class + self.learned_adaptation
            loss = class_loss + adapt + omega.p * sep + self._heed_target(z)
            loss = loss + omega.learn if turn == 0 else loss  # what it learns from is of the step, and there once
            yield Update(loss, moves, log | omega.log | adapt_log | sep_log)

    def _separate(
        self, source: SourceBatch, target: TargetBatch, omega_p: Tensor, discriminator_too: bool = True
    ) -> Iterator[Update]:
        z = self._encode(source, target)
        sep, sep_log = self._separation_loss(z)
        moves = ("shared_encoder", "source_encoder", "target_encoder")
        if discriminator_too and self.knobs.separation_game == "coop":
            moves += ("separation_discriminator",)
        loss, extra = self._with_auxiliary(omega_p * sep, z, source, target)
        yield Update(loss, moves + extra, sep_log)
        if discriminator_too and self.knobs.separation_game == "minmax":
            yield self._ascend(z, omega_p)

    def _ascend(self, z: Pass, omega_p: Tensor) -> Update:
        """D_p of the minmax game: up L_sep, on features without a gradient."""
        fixed = Pass(z.cs.detach(), z.ct.detach(), z.ps.detach(), z.pt.detach(), z.labels)
        return Update(-omega_p * self._separation_loss(fixed)[0], ("separation_discriminator",))

    # The losses.

    def _encode(self, source: SourceBatch, target: TargetBatch) -> Pass:
        cs, ct = encode_both(self.shared_encoder, source.images, target.images, self.normalization)
        ps, pt = self.source_encoder(source.images), self.target_encoder(target.images)
        return Pass(cs, ct, ps, pt, source.labels[CLASS])

    def _class_loss(self, z_cs: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """L_dynamic-class of claims 4 and 5."""
        knobs = self.knobs
        task = self.class_set.task_loss(self.task_classifier(z_cs), labels)
        mean_task = self.mean_task.control(task)
        self.mean_task.update(task)
        self._settle_pull(task)
        log = {"L_task": task.detach()}
        if knobs.embedding == "none":
            return task, log
        lam = torch.ones_like(task) if self.pull.isnan() else pull_factor(self.pull, mean_task)
        features = z_cs.float().detach() if knobs.detach_features else z_cs.float()
        triplets = mine(features, labels, knobs.positive, knobs.negative)
        points, point_labels, valid = embed(triplets, lam, knobs.embedding, knobs.t_min, knobs.invalid)
        log |= {"lambda": lam.detach(), "triplets": torch.tensor(float(len(triplets)))}
        if len(points) == 0:
            return task, log | {"w": torch.ones_like(task)}
        each = F.cross_entropy(self.task_classifier(points).float(), point_labels, reduction="none")
        embedded = each.mean()
        mean_embedded = self.mean_embedded.control(embedded)
        self.mean_embedded.update(embedded)
        loss, w = self._weigh(task, embedded, each, mean_embedded)
        self.class_pair.update(task.detach(), embedded.detach())
        return loss, log | {"L_embedded": embedded.detach(), "w": w.detach(), "valid_triplets": valid.float().mean()}

    def _settle_pull(self, task: Tensor) -> None:
        """auto: pull = ln 2 times the mean task loss of the first epoch, so that lambda starts at one half."""
        if self.knobs.pull == "auto" and self.pull.isnan():
            self.first_epoch.update(task)
            if self.first_epoch.value.isfinite():
                self.pull.copy_(math.log(2) * self.first_epoch.value)

    def _weigh(self, task: Tensor, embedded: Tensor, each: Tensor, mean_embedded: Tensor) -> tuple[Tensor, Tensor]:
        """L_class and the weight w of L_task in it."""
        kind, bounds = self.knobs.class_weight, self.knobs.w_bounds
        one = torch.ones_like(task)
        if kind == "sum":
            return task + embedded, one
        if kind == "exp_neg":
            return task + torch.exp(-embedded.detach()) * embedded, one
        if kind == "uncertainty":
            weights = self.class_pair.uncertainty()
            learn = self.class_pair.uncertainty_loss(task, embedded)
            return weights[0] * task + weights[1] * embedded + _value_free(learn), weights[0]
        if kind == "dwa":
            weights = self.class_pair.dwa()
            return weights[0] * task + weights[1] * embedded, weights[0]
        if kind == "per_sample":
            w = hdml_weight(each, self.knobs.beta, bounds)
            return (w * task + (1 - w) * each).mean(), w.mean()
        if kind == "hdml":
            # 1 as long as the mean is unknown, whatever the bounds are.
            known = mean_embedded.isfinite()
            w = torch.where(known, hdml_weight(mean_embedded, self.knobs.beta, bounds), one)
        else:
            w = ratio_weight(task, embedded) if kind == "loss_ratio" else ratio_weight(embedded, task)
        return w * task + (1 - w) * embedded, w

    def _adaptation_value(self, z_cs: Tensor, z_ct: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """L_adapt and D_a's share of right answers."""
        target_logits = self.task_classifier(z_ct.detach())
        if self.knobs.adaptation == "cdan":
            z_cs, z_ct = (conditioned(z, self.task_classifier(z)) for z in (z_cs, z_ct))
        source, target = self.adaptation_discriminator(z_cs), self.adaptation_discriminator(z_ct)
        loss = self.class_set.adaptation_loss(source, target, labels, target_logits, self.knobs.adaptation_smoothing)
        if self.knobs.adaptation == "value_function":
            loss = 2 * loss
        return loss, accuracy(torch.cat([source, target]).detach(), line_of(source, target))

    def _adaptation_loss(
        self, z_cs: Tensor, z_ct: Tensor, labels: Tensor, strength: float, omega_a: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """L_adapt with the adversarial sign: descending it moves D_a down and E_c up."""
        literal = self.knobs.omega_on_discriminator
        scale = strength if literal else strength * omega_a
        if self.knobs.adaptation == "inverted":
            value, right = self._adaptation_value(z_cs.detach(), z_ct.detach(), labels)
            frozen = copy.deepcopy(self.adaptation_discriminator).requires_grad_(False)
            called = self.task_classifier(z_ct.detach())
            # Each line under the label of the other, which is the loss of negated logits.
            fooled = self.class_set.adaptation_loss(-frozen(z_cs), -frozen(z_ct), labels, called)
            loss = value + scale * fooled
        else:
            value, right = self._adaptation_value(reverse(z_cs, scale), reverse(z_ct, scale), labels)
            loss = value
        return (omega_a * loss if literal else loss), {"L_adapt": value.detach(), "accuracy_D_a": right}

    def _heed_target(self, z: Pass) -> Tensor:
        """What the answers for target images add where the lines' classes may differ."""
        logits = self.task_classifier(z.ct)
        self.class_set.remember(logits)
        return self.class_set.separation(logits)

    def _separation_loss(self, z: Pass) -> tuple[Tensor, dict[str, Tensor]]:
        knobs, batch = self.knobs, len(z.cs)
        logits = self.separation_discriminator(torch.cat([z.cs, z.ct, z.ps, z.pt]))
        loss = separation_loss(
            logits, batch, knobs.separation_labels, knobs.separation_reduction, knobs.separation_smoothing
        )
        kinds = torch.tensor([0, 0, 1, 2 if knobs.separation_labels == "three_way" else 1], device=logits.device)
        right = accuracy(logits.detach(), kinds.repeat_interleave(batch))
        return loss, {"L_sep": loss.detach(), "accuracy_D_p": right}

    def _omega(self, z: Pass) -> Omega:
        knobs = self.knobs
        with torch.no_grad():
            adapt, right_a = self._adaptation_value(z.cs, z.ct, z.labels)
            sep, sep_log = self._separation_loss(z)
        learn = torch.zeros_like(adapt)
        if knobs.adaptation_weight == "fixed":
            a, p = (torch.full_like(adapt, weight) for weight in knobs.fixed_weights)
        elif knobs.adaptation_weight == "uncertainty":
            a, p = self.adaptation_pair.uncertainty()
            learn = _value_free(self.adaptation_pair.uncertainty_loss(adapt, sep))
        elif knobs.adaptation_weight == "dwa":
            a, p = self.adaptation_pair.dwa()
        else:
            if knobs.adaptation_weight == "loss_ratio":
                share = ratio_weight(adapt, sep)
            elif knobs.adaptation_weight == "hdml":
                share = hdml_weight(sep if knobs.adaptation_control == "separation" else adapt, knobs.beta)
            else:
                share = daan_weight(1 - right_a, 1 - sep_log["accuracy_D_p"])
            a, p = knobs.weight_total * share, knobs.weight_total * (1 - share)
        self.adaptation_pair.update(adapt, sep)
        return Omega(a, p, learn, {"omega_a": a, "omega_p": p})

    def _with_auxiliary(
        self, loss: Tensor, z: Pass, source: SourceBatch, target: TargetBatch
    ) -> tuple[Tensor, tuple[str, ...]]:
        """Add DSN's difference and reconstruction losses, where the knobs ask for them."""
        if self.knobs.separation_aux == "none":
            return loss, ()
        apart = difference_loss(z.ps, z.cs) + difference_loss(z.pt, z.ct)
        loss = loss + self.knobs.difference_weight * apart
        if self.knobs.separation_aux == "difference":
            return loss, ()
        both = torch.cat([torch.cat([z.cs, z.ps], 1), torch.cat([z.ct, z.pt], 1)])
        images = thumbnails(torch.cat([source.images, target.images]))
        return loss + self.knobs.reconstruction_weight * scale_invariant_error(self.decoder(both), images), ("decoder",)

    def deployed(self) -> tuple[Encoder, nn.Linear]:
        if self.knobs.averaging == "ema":
            return self.averaged_encoder, self.averaged_classifier
        return super().deployed()


def _value_free(loss: Tensor) -> Tensor:
    """Zero, with the gradient of `loss`: learned weights move without showing in the loss that is reported."""
    return loss - loss.detach()
