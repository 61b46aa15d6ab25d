"""Many tasks in one network: the multi-task document, and the adaptation to a target line in the same step.

    L = (1 / T) sum_t w_t L_t + adversaries

L_t: `losses.tasks`, cross-entropy by default, the document's being dynamic balanced focal loss. w_t: its own weight
times one of `losses.weighting`, each of mean 1, or instead of w an aggregator of torchjd for the gradients in shared
parameters; private channels and heads always take their own. Tasks without a label in a batch drop out of it.

Task-aware adversarial training: discriminators with two branches, one for the defect (here: source or target line, or
real or generated), one for the task. The document does not say which way the second pulls:
    adversarial  the encoder deceives both: features that know no task
    acgan        the encoder deceives the first and helps the second: tasks lie apart
    split        the first on shared channels, the second on private ones
With a target line the first branch is DANN's (Ganin et al., JMLR 2016): adversarial against domain and task at once.

Minority features: a generator of path features for classes with few images, real against generated judged by a
discriminator of the same two branches (Goodfellow et al., NIPS 2014; Odena et al., ICML 2017); heads learn from them.
"""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from steelshift.data.stream import SourceBatch, TargetBatch
from steelshift.data.tasks import Task
from steelshift.errors import UsageError
from steelshift.losses import tasks as losses
from steelshift.losses import weighting
from steelshift.losses.domain import accuracy, adaptation_loss, line_of
from steelshift.losses.tasks import EMPTY, REMEMBERED, Loss, Rate
from steelshift.losses.weighting import Weighting
from steelshift.losses.weights import dwa_weights
from steelshift.methods.method import Method, Start, Update, hold
from steelshift.methods.running import RunningMean
from steelshift.nn.heads import LENGTH, TaskDiscriminator, feature_generator
from steelshift.nn.normalization import use_line
from steelshift.nn.reversal import ramp, reverse
from steelshift.nn.sharing import SharedTrunk, by_task

Aggregator = Literal["none", "upgrad", "pcgrad", "cagrad", "mgda", "nash_mtl", "imtl_g", "aligned_mtl", "gradvac"]
ClassWeights = Literal["equal", "effective_number"]
Reading = Literal["none", "adversarial", "acgan", "split"]
RATE_DECAY = 0.9
"""Of the running rate of false detections, and of the running relatedness."""
UNKNOWN_RATE = -1.0
"""Of false detections, before any was seen."""
MEANS = ("upgrad", "cagrad", "mgda", "imtl_g", "aligned_mtl")
"""Aggregators that torchjd gives the length of a mean."""
NOISE = 64
"""Numbers that a generated feature is made from, beside its class."""
KEPT = 16
"""Real features of every rare class that are remembered."""


class MultiTask(Method):
    many_tasks = True
    own_rates: ClassVar = {"balance": 0.025}  # as FAMO's; at the networks' rate the weights would stay where they begin

    @dataclass(frozen=True)
    class Knobs:
        loss: Loss = "cross_entropy"
        """cross_entropy, mean_square, focal, class_balanced or dynamic_balanced_focal, which is the document's and did
        worse wherever it was measured."""
        gamma: float = 2.0
        """Exponent of the focal losses, 0 or more."""
        alpha: float = 4.0
        """Factor of the focal losses, above 0: 4 makes them cross-entropy at p = 1/2, and .25, as published, so small
        that an adversary beside them undoes what they teach."""
        beta: float = 0.999
        """Of the class-balanced loss, and of effective numbers, 0 to 1."""
        class_weights: ClassWeights = "equal"
        """Of the focal losses, the document's alpha of a class: equal, or by effective_number as in class_balanced."""
        hard: float = 4.0
        """How much more the lowest 15 % of each class count, 1 or more (the document: 3 to 5)."""
        ramp: bool = False
        """Whether they count 5 to 3 times by rank instead."""
        p_min: float = 0.0
        """Images of a lower probability are taken for wrongly labelled and do not count more, 0 to 1."""
        rate: Rate = "err"
        """What the rate of false detections is: err, fdr or fpr."""
        kappa: float = 2.0
        """How much more a task with only false detections counts, 0 or more."""
        tau: float = 0.1
        """Rate up to which a task counts no more than others, 0 to 1."""
        q: float = 2.0
        """Exponent of what is beyond, above 0."""
        renormalized: bool = True
        """Whether the weights by false detections are brought to a mean of 1 over the tasks."""
        weighting: Weighting = "equal"
        """equal, uncertainty, dwa, gradnorm, rlw, famo or relatedness."""
        aggregator: Aggregator = "none"
        """Of the tasks' gradients in shared parameters. Those that look at directions alone cancel their weights."""
        reading: Reading = "none"
        """Task-aware adversarial training: none, adversarial, acgan or split."""
        mu: float = 1.0
        """Weight of the task branch, 0 or more."""
        weight: float = 1.0
        """Strength of reversed gradients at the end of the ramp, 0 or more."""
        hidden: int = 256
        """Width of the discriminators' hidden layers."""
        minority: float = 0.0
        """Classes with less than this share of the images of their task's largest get generated features, 0 to 1."""

        def __post_init__(self) -> None:
            for key in ("gamma", "kappa", "mu", "weight"):
                hold(getattr(self, key) >= 0, key, getattr(self, key), "0 or more")
            for key in ("alpha", "q"):
                hold(getattr(self, key) > 0, key, getattr(self, key), "above 0")
            for key in ("beta", "tau"):
                hold(0 <= getattr(self, key) < 1, key, getattr(self, key), "0 or more, below 1")
            for key in ("p_min", "minority"):
                hold(0 <= getattr(self, key) <= 1, key, getattr(self, key), "0 to 1")
            hold(self.hard >= 1, "hard", self.hard, "1 or more")
            alone = self.aggregator == "none" or self.weighting == "equal"
            hold(alone, "weighting", self.weighting, "equal, where an aggregator weighs the tasks")
            for key, kind in (("loss", Loss), ("rate", Rate), ("weighting", Weighting), ("aggregator", Aggregator),
                              ("reading", Reading), ("class_weights", ClassWeights)):  # fmt: skip
                hold(getattr(self, key) in get_args(kind), key, getattr(self, key), ", ".join(get_args(kind)))

    def __init__(self, start: Start, knobs: Knobs) -> None:
        super().__init__(start, knobs)
        trunk = self.trunk
        width = sum(trunk.ends) if trunk else start.encoder.width
        private = trunk.ends.private if trunk else 0
        shared = trunk.shared_width if trunk else start.encoder.width
        if (knobs.weighting in ("gradnorm", "relatedness") or knobs.aggregator != "none") and not shared:
            raise UsageError(
                "tasks_share_nothing", what=knobs.weighting if knobs.aggregator == "none" else knobs.aggregator
            )
        if knobs.reading == "split" and not (shared and private):
            raise UsageError("tasks_cannot_split")
        if knobs.reading != "none" and trunk and not private:
            raise UsageError("tasks_look_alike", reading=knobs.reading)
        if knobs.aggregator != "none":
            _aggregator_of(knobs.aggregator, len(self.tasks))  # refused now rather than at the first step
        self.memory = nn.ModuleList(_Memory(task, start) for task in self.tasks)
        self.balance = _Balance(len(self.tasks), knobs.weighting, start.epoch)
        if knobs.aggregator == "gradvac":
            self.register_buffer("wanted_cosine", torch.zeros(len(self.tasks), len(self.tasks)))
        seen = private if knobs.reading == "split" else width
        told = len(self.tasks) if knobs.reading != "none" else 0
        self.discriminator = TaskDiscriminator(seen, knobs.hidden, told)
        if knobs.reading == "split":
            self.shared_discriminator = TaskDiscriminator(shared, knobs.hidden, told)
        self.rare = _rare(self.tasks, start, knobs.minority)
        if self.rare:
            self.generator = feature_generator(NOISE + len(self.rare), knobs.hidden, width)
            inputs = width + len(self.rare)
            self.feature_discriminator = TaskDiscriminator(inputs, knobs.hidden, told, normalized=False)
            self.register_buffer("remembered", torch.full((len(self.rare), KEPT, width), torch.nan))

    @property
    def trunk(self) -> SharedTrunk | None:
        """Of the tasks' networks; None in a plain run, whose one task has a network of its own."""
        trunk = self.shared_encoder.trunk
        return trunk if isinstance(trunk, SharedTrunk) else None

    def updates(self, source: SourceBatch, target: TargetBatch | None, progress: float) -> Iterator[Update]:
        knobs, count = self.knobs, len(source.images)
        features, shared = self._encode(source, target)
        logits = self.task_classifier(features[:count])
        of_task = {
            place: self._loss(place, task, logits[:, self.columns[task.name]], source.labels[task.name], learn=True)
            for place, task in enumerate(self.tasks)
            if (source.labels[task.name] >= 0).any()
        }
        there = list(of_task)
        by_loss = torch.stack([self.memory[place].weight(knobs) for place in there]) if there else logits.new_ones(0)
        by_loss = by_loss / by_loss.mean() if there and knobs.renormalized else by_loss
        each = torch.stack(list(of_task.values())) if there else logits.new_zeros(0)
        loss, weights, log = logits.sum() * 0.0, torch.ones_like(by_loss), {}
        if there:
            loss, weights = self._weigh(each, by_loss, there)
            log["L_task"] = each.detach().mean()
        game, moves = self._game(features, shared, source, target, progress, log)
        for place, value, weight in zip(there, each.detach(), (weights * by_loss).detach(), strict=True):
            log |= {f"L {self.tasks[place].name}": value, f"w {self.tasks[place].name}": weight}
        moves = ("shared_encoder", "task_classifier", *(("balance",) if self.balance.learns else ()), *moves)
        if knobs.aggregator == "none" or len(there) < 2:
            yield Update(loss + game, moves, log)
        else:
            every = [(value, len(value)) for value in self.shared_encoder.parameters()]
            yield Update(
                game,
                moves,
                log,
                of_tasks=tuple(by_loss * each / len(there)),
                aggregator=self._aggregator(there),
                shared=tuple(self.trunk.shared_parameters if self.trunk else every),
            )
        if knobs.weighting == "famo" and there:
            with torch.no_grad():
                logits = self.task_classifier(self._encode(source, None)[0])
                after = torch.stack([
                    self._loss(place, task, logits[:, self.columns[task.name]], source.labels[task.name], learn=False)
                    for place, task in enumerate(self.tasks) if place in of_task
                ])  # fmt: skip
                self.balance.famo(there, (by_loss * each).detach(), by_loss * after)

    def _aggregator(self, there: list[int]) -> Callable[[Tensor], Tensor]:
        """Of the gradients of the tasks that are there; what it remembers lies in a buffer."""
        found = _aggregator_of(self.knobs.aggregator, len(there))
        if self.knobs.aggregator != "gradvac":
            return found
        pairs = (torch.tensor(there)[:, None], torch.tensor(there))

        def vaccinated(gradients: Tensor) -> Tensor:
            # torchjd gives no public way to what GradVac remembers, and a checkpoint has to hold it; pyproject.toml
            # keeps to the versions whose names these are.
            memory = found.gramian_weighting
            memory._phi_t = self.wanted_cosine[pairs].to("cpu", gradients.dtype)
            memory._state_key = (len(there), gradients.dtype)
            direction = found(gradients)
            self.wanted_cosine[pairs] = memory._phi_t.to(self.wanted_cosine)
            return direction

        return vaccinated

    def _encode(self, source: SourceBatch, target: TargetBatch | None) -> tuple[Tensor, Tensor]:
        """Features and the last shared channels of all images, those of the source first."""
        both = self.shared_encoder.both if self.trunk else lambda images: (self.shared_encoder(images),) * 2
        if target is None or self.normalization == "joint":
            use_line(self.shared_encoder, "source" if target is None else "target")
            return both(source.images if target is None else torch.cat([source.images, target.images]))
        found = []
        for line, batch in (("source", source), ("target", target)):
            use_line(self.shared_encoder, line)
            found.append(both(batch.images))
        return tuple(torch.cat(parts) for parts in zip(*found, strict=True))

    def _loss(self, place: int, task: Task, logits: Tensor, labels: Tensor, *, learn: bool) -> Tensor:
        """Loss of a task; learn: whether what it remembers goes on."""
        knobs, memory = self.knobs, self.memory[place]
        if knobs.loss == "mean_square":
            return losses.mean_square(logits, labels)
        found = losses.decisions(logits, labels)
        match knobs.loss:
            case "cross_entropy":
                return losses.cross_entropy(found)
            case "class_balanced":
                return losses.class_balanced(found, memory.counts, knobs.beta)
            case "focal":
                return losses.focal(found, knobs.gamma, knobs.alpha, self._class_weights(found, memory))
        queue = memory.queue
        if learn:
            queue = losses.remember(queue, found)
            memory.queue.copy_(queue)
            memory.see(losses.false_detections(logits.detach(), labels, knobs.rate, task.negative))
        m = losses.hard_weights(found, queue, knobs.hard, ramp=knobs.ramp, p_min=knobs.p_min)
        return losses.focal(found, knobs.gamma, knobs.alpha, m * self._class_weights(found, memory))

    def _class_weights(self, found: losses.Decisions, memory: "_Memory") -> Tensor:
        """What alpha is multiplied with for every decision (n,)."""
        if self.knobs.class_weights == "equal":
            return torch.ones_like(found.p)
        return losses.effective_weights(found, memory.counts, self.knobs.beta)

    def _weigh(self, each: Tensor, by_loss: Tensor, there: list[int]) -> tuple[Tensor, Tensor]:
        """The weighted mean of the losses (P,) of the tasks that are there, and the weights, of mean 1."""
        knobs, balance, scaled = self.knobs, self.balance, by_loss * each
        weights, extra = torch.ones_like(by_loss), 0.0
        match knobs.weighting:
            case "uncertainty":
                s = balance.log_variance[there]
                return weighting.uncertainty_loss(scaled, s), torch.exp(-s.detach()) / torch.exp(-s.detach()).mean()
            case "famo":
                z = balance.logits[there]
                return weighting.famo_loss(scaled, z), weighting.famo_weights(scaled, z)
            case "rlw":
                weights = weighting.random_weights(len(there), each.device)
            case "dwa":
                weights = balance.dwa()[there]
                balance.see(there, each.detach())
            case "gradnorm" | "relatedness":
                gradients = self._shared_gradients(each)
                if knobs.weighting == "relatedness":
                    weights = weighting.relatedness_weights(balance.relate(there, gradients))
                else:
                    first = balance.begin(there, each.detach())
                    logits = balance.learned[there]
                    weights = len(there) * torch.softmax(logits.detach(), 0)
                    extra = weighting.gradnorm_loss(logits, gradients.norm(dim=1), each.detach(), first)
        weights = weights / weights.mean()
        return (weights * scaled).mean() + extra, weights

    def _shared_gradients(self, each: Tensor) -> Tensor:
        """Gradients (P, n) of the losses in the last layer that all tasks share."""
        if self.trunk:
            layer = [layer for layer in self.trunk.shared_layers if layer.after.shared][-1]
            weight, rows = layer.reads_shared.weight, layer.after.shared
        else:
            weight = [value for value in self.shared_encoder.parameters() if value.ndim > 1][-1]
            rows = len(weight)
        found = [torch.autograd.grad(loss, weight, retain_graph=True)[0][:rows].flatten() for loss in each]
        return torch.stack(found).float()

    def _game(
        self,
        features: Tensor,
        shared: Tensor,
        source: SourceBatch,
        target: TargetBatch | None,
        progress: float,
        log: dict[str, Tensor],
    ) -> tuple[Tensor, tuple[str, ...]]:
        """Loss of the discriminators, and of what plays against them; the names of those that move."""
        knobs, tasks, count = self.knobs, len(self.tasks), len(source.images)
        strength = knobs.weight * ramp(progress)
        loss, moves = features.new_zeros(()), []
        paths = by_task(features, self.trunk.ends, tasks) if self.trunk else features[:, None]
        if target is not None or knobs.reading != "none":
            moves.append("discriminator")
            seen = paths[..., -self.trunk.ends.private :] if knobs.reading == "split" else paths
            line, task = self.discriminator(reverse(seen, strength).flatten(0, 1))
            if knobs.reading in ("acgan", "split"):
                task = self.discriminator(seen.flatten(0, 1))[1]
            if knobs.reading != "none":
                truth = torch.arange(tasks, device=task.device).repeat(len(seen))
                loss = loss + knobs.mu * F.cross_entropy(task.float(), truth)
                log["accuracy_D_task"] = accuracy(task.detach(), truth)
            if target is not None:
                loss = loss + _lines(line, count * tasks, log, "D_a")
        if knobs.reading == "split":
            moves.append("shared_discriminator")
            line, task = self.shared_discriminator(reverse(shared, strength))
            member = torch.stack([
                (truth >= 0).flatten(1).any(1) if truth.ndim > 1 else truth >= 0
                for truth in (source.labels[task.name] for task in self.tasks)
            ], 1).float()  # fmt: skip
            of = member.sum(1) > 0
            if of.any():  # where every image has labels of all tasks, shared channels can tell none apart
                member = member[of] / member[of].sum(1, keepdim=True)
                loss = loss + knobs.mu * F.cross_entropy(task[:count][of].float(), member)
            if target is not None:
                loss = loss + _lines(line, count, log, "D_shared")
        if self.rare:
            moves += ["generator", "feature_discriminator"]
            loss = loss + self._minority(paths[:count], source, log)
        return loss, tuple(moves)

    def _minority(self, paths: Tensor, source: SourceBatch, log: dict[str, Tensor]) -> Tensor:
        """Generated features of rare classes against real ones; heads learn from those generated.

        A generated feature is a remembered one and what the generator adds to it. Heads get as many of a class as it
        would have in a batch of equal classes; the generator learns from its discriminator alone, for a head would
        only ask it for what is easy.
        """
        knobs, batch = self.knobs, len(paths)
        loss = paths.new_zeros((), dtype=torch.float32)
        for number, (place, label) in enumerate(self.rare):
            new = paths[source.labels[self.tasks[place].name] == label, place].detach().float()
            self.remembered[number] = torch.cat([new, self.remembered[number]])[:KEPT]
        there = ~self.remembered[..., 0].isnan()
        which, base = [], []
        for number, (place, _) in enumerate(self.rare):
            if there[number].any():
                count = max(1, round(batch / len(self.tasks[place].classes)))
                found = self.remembered[number][there[number]]
                base.append(found[torch.randint(len(found), (count,), device=found.device)])
                which += [number] * count
        if not which:
            return loss
        base, which = torch.cat(base), torch.tensor(which, device=paths.device)
        kinds = torch.eye(len(self.rare), device=paths.device)
        noise = torch.randn(len(base), NOISE, device=paths.device)
        fake = (base + self.generator(torch.cat([noise, kinds[which]], 1)).float()).relu()
        for number, (place, label) in enumerate(self.rare):
            made = fake[which == number].detach()
            if len(made):
                head = self.task_classifier.of_task[place] if self.trunk else self.task_classifier
                truth = torch.full((len(made),), label, device=made.device)
                wrong = F.cross_entropy(head(made).float(), truth, reduction="sum")
                loss = loss + wrong / batch / len(self.tasks)
        of_real, _ = there.nonzero(as_tuple=True)
        real = self.remembered[there]
        scale = LENGTH / real.norm(dim=1).mean().clamp(min=1e-6)

        def judged(features: Tensor, classes: Tensor) -> tuple[Tensor, Tensor | None]:
            return self.feature_discriminator(torch.cat([scale * features, LENGTH * kinds[classes]], 1))

        from_fake, from_real = judged(reverse(fake, 1.0), which), judged(real, of_real)
        loss = loss + adaptation_loss(from_real[0], from_fake[0])
        log["accuracy_D_real"] = accuracy(torch.cat([from_real[0], from_fake[0]]).detach(), line_of(real, fake))
        if knobs.reading != "none":
            tasks = torch.tensor([place for place, _ in self.rare], device=paths.device)
            of_task = from_fake[1] if knobs.reading == "adversarial" else judged(fake, which)[1]
            both = torch.cat([from_real[1], of_task]).float()
            loss = loss + knobs.mu * F.cross_entropy(both, tasks[torch.cat([of_real, which])])
        return loss


class _Memory(nn.Module):
    """What is remembered of one task."""

    def __init__(self, task: Task, start: Start) -> None:
        super().__init__()
        answers = losses.answers_of(task.kind, len(task.classes))
        counts = start.counts.get(task.name, torch.ones(answers)).flatten()
        self.register_buffer("counts", counts.float())
        self.register_buffer("queue", torch.full((answers, REMEMBERED), EMPTY))
        self.register_buffer("rate", torch.tensor(UNKNOWN_RATE))

    def see(self, rate: Tensor) -> None:
        """Take in the rate of false detections of a batch; what is 0/0 changes nothing."""
        known = torch.where(self.rate < 0, rate, RATE_DECAY * self.rate + (1 - RATE_DECAY) * rate)
        self.rate.copy_(torch.where(rate.isnan(), self.rate, known))

    def weight(self, knobs: MultiTask.Knobs) -> Tensor:
        """The task's own weight; 1 for every loss but the dynamic one."""
        return losses.task_weight(self.rate.clamp(min=0), knobs.kappa, knobs.tau, knobs.q)


class _Balance(nn.Module):
    """What the weightings learn and remember."""

    def __init__(self, tasks: int, kind: Weighting, epoch: int) -> None:
        super().__init__()
        self.learns = kind in ("uncertainty", "gradnorm")
        if kind == "uncertainty":
            self.log_variance = nn.Parameter(torch.full((tasks,), -0.5))
        elif kind == "gradnorm":
            self.learned = nn.Parameter(torch.zeros(tasks))
            self.register_buffer("first", torch.full((tasks,), torch.nan))
        elif kind == "dwa":
            self.means = nn.ModuleList(RunningMean("epoch_mean", epoch) for _ in range(tasks))
        elif kind == "famo":
            self.register_buffer("logits", torch.zeros(tasks))
            self.register_buffer("moments", torch.zeros(2, tasks))
            self.register_buffer("steps", torch.zeros(()))
        elif kind == "relatedness":
            self.register_buffer("related", torch.full((tasks, tasks), torch.nan))

    def dwa(self) -> Tensor:
        """(T,)."""
        return dwa_weights(*(torch.stack([getattr(mean, key) for mean in self.means]) for key in ("value", "before")))

    def see(self, there: list[int], each: Tensor) -> None:
        for place, loss in zip(there, each, strict=True):
            self.means[place].update(loss)

    def begin(self, there: list[int], each: Tensor) -> Tensor:
        """Losses of the tasks when they were first seen."""
        self.first[there] = torch.where(self.first[there].isnan(), each.float(), self.first[there])
        return self.first[there]

    def relate(self, there: list[int], gradients: Tensor) -> Tensor:
        """The running relatedness of the tasks that are there, from cosines of their gradients."""
        now, pairs = weighting.gradient_cosines(gradients), (torch.tensor(there)[:, None], torch.tensor(there))
        before = self.related[pairs]
        self.related[pairs] = torch.where(before.isnan(), now, RATE_DECAY * before + (1 - RATE_DECAY) * now)
        return self.related[pairs]

    def famo(self, there: list[int], before: Tensor, after: Tensor) -> None:
        logits, moments = self.logits[there], self.moments[:, there]
        weighting.famo_step(logits, moments, self.steps, before, after)
        self.logits[there], self.moments[:, there] = logits, moments


def _lines(logits: Tensor, source: int, log: dict[str, Tensor], name: str) -> Tensor:
    """Adaptation loss of a discriminator's logits, of which the first `source` are of the source line."""
    of_source, of_target = logits[:source], logits[source:]
    log[f"accuracy_{name}"] = accuracy(logits.detach(), line_of(of_source, of_target))
    loss = adaptation_loss(of_source, of_target)
    log[f"L_{name}"] = loss.detach()
    return loss


def _rare(tasks: tuple[Task, ...], start: Start, share: float) -> list[tuple[int, int]]:
    """Task and class of what has few source images, but some."""
    found = []
    for place, task in enumerate(tasks):
        counts = start.counts.get(task.name)
        if counts is not None and task.kind != "multi-label":
            few = (counts < share * counts.max()) & (counts > 0)
            found += [(place, int(label)) for label in few.nonzero()[:, 0]]
    return found


def _quietly(aggregator: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Without the warnings of its solver, which speak to whoever wrote the problem down."""

    def aggregate(gradients: Tensor) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return aggregator(gradients)

    return aggregate


def _aggregator_of(name: str, tasks: int) -> Callable[[Tensor], Tensor]:
    """A new one a step: what it remembers is the method's to keep, for checkpoints. Raises UsageError.

    Some give a mean of the tasks' gradients, others a sum; here all are as long as sums, as the other weights' steps.
    """
    found = _torchjd(name, tasks)
    return (lambda gradients: tasks * found(gradients)) if name in MEANS else found


def _torchjd(name: str, tasks: int) -> Callable[[Tensor], Tensor]:
    try:
        from torchjd import aggregation

        match name:
            case "upgrad":
                return aggregation.UPGrad()
            case "pcgrad":
                return aggregation.PCGrad()
            case "cagrad":
                return aggregation.CAGrad(c=0.5)
            case "mgda":
                return aggregation.MGDA()
            case "nash_mtl":
                return _quietly(aggregation.NashMTL(tasks, max_norm=1.0, update_weights_every=1, optim_niter=20))
            case "imtl_g":
                return aggregation.IMTLG()
            case "aligned_mtl":
                return aggregation.AlignedMTL()
            case "gradvac":
                return aggregation.GradVac()
    except ImportError as error:
        raise UsageError("aggregator_needs", name=name) from error
    raise ValueError(name)
