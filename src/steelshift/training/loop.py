"""The one loop. It knows streams, updates, optimizers and checkpoints, and not which method it runs."""

import copy
import dataclasses
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import cos, pi
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from steelshift.data.stream import JoinedStream, SourceStream, TargetStream
from steelshift.errors import Interrupted, RunFailed
from steelshift.files import append_text, write_text
from steelshift.memory import available_memory
from steelshift.methods import Method
from steelshift.methods.method import Update
from steelshift.nn.encoders import NewBottleneck
from steelshift.nn.normalization import settle
from steelshift.signals import stop_requests
from steelshift.tensors import write_tensors
from steelshift.training.checkpoint import Checkpoints, Progress, parameters_of
from steelshift.training.config import Config
from steelshift.training.precision import Fast

MOST_ROLLBACKS = 3
LOG_EVERY = 10
WARM_UP = 20  # steps of the cosine schedule in which the learning rate rises


@dataclass(frozen=True)
class Phase:
    """One stretch of training with a checkpoint folder of its own."""

    name: str
    number: int
    """Distinguishes the random numbers of phases."""
    source: SourceStream | JoinedStream
    target: TargetStream | None
    """None where a run has no target line."""
    steps: int
    folder: Path
    """Holds checkpoints/<name>, candidates/<name> and metrics.jsonl."""
    candidates: int = 1
    """How many times the deployed network is kept, evenly spaced, the last step among them."""

    @property
    def kept_at(self) -> list[int]:
        """Numbers of steps after which a candidate is kept."""
        return sorted({round(self.steps * (i + 1) / self.candidates) for i in range(self.candidates)} - {0})

    def candidate(self, step: int) -> Path:
        return self.folder / "candidates" / self.name / f"step-{step:08d}.safetensors"


def train(
    phase: Phase, method: Method, config: Config, fast: Fast, advance: Callable[[int], None] = lambda step: None
) -> None:
    """Train `method` through a phase, from its newest checkpoint if there is one; `method` holds the result.

    advance: told the number of steps done. Raises Interrupted after SIGINT or SIGTERM, with a checkpoint left;
    RunFailed when the loss is not finite for the fourth time, when a save fails, or when there is too little memory.
    """
    method.to(fast.device)
    for child in method.children():
        child.to(memory_format=fast.memory_format)
    optimizers = _optimizers(method, config)
    checkpoints = Checkpoints(phase.folder / "checkpoints" / phase.name)
    metrics = phase.folder / "metrics.jsonl"
    unsaved: list[str] = []
    with stop_requests() as stop:  # noted from before the first checkpoint on, which others may wait for
        progress = checkpoints.load(method, optimizers)
        if progress is None:
            if phase.steps:
                _check_memory(method, optimizers, fast)
            progress = Progress()
            checkpoints.save(progress, method, optimizers)
        _forget(metrics, phase.name, progress.step)
        method.train()
        while progress.step < phase.steps:
            values = _step(phase, method, optimizers, config, fast, progress)
            if values is None:
                progress = _roll_back(checkpoints, method, optimizers, progress, phase)
                unsaved.clear()
                continue
            if progress.step % LOG_EVERY == 0:
                record = {"phase": phase.name, "step": progress.step} | _numbers(values)
                unsaved.append(json.dumps(record) + "\n")
            progress = dataclasses.replace(progress, step=progress.step + 1)
            if progress.step in phase.kept_at:
                write_tensors(phase.candidate(progress.step), weights_of(method))
            # The candidate comes before the checkpoint: who resumes from here need not make it again.
            if progress.step % config.save_every == 0 or progress.step == phase.steps or stop:
                append_text(metrics, "".join(unsaved))
                unsaved.clear()
                checkpoints.save(progress, method, optimizers)
            advance(progress.step)
            if stop:
                raise Interrupted(stop[0], progress.step, phase.folder)
    method.zero_grad(set_to_none=True)  # the method is kept, and they are as large as its weights
    method.eval()


def weights_of(method: Method) -> dict[str, Tensor]:
    """The tensors of the inspector that a method would deploy now, by the names that an Inspector has."""
    encoder, classifier = method.deployed()
    encoder = copy.deepcopy(encoder)
    settle(encoder, method.line)
    tensors = {f"encoder.{key}": value for key, value in encoder.state_dict().items()}
    tensors |= {f"classifier.{key}": value for key, value in classifier.state_dict().items()}
    return tensors


def _step(
    phase: Phase,
    method: Method,
    optimizers: dict[str, Optimizer],
    config: Config,
    fast: Fast,
    progress: Progress,
) -> dict[str, Tensor] | None:
    """All updates of one step; what they log, or None as soon as a loss or a gradient is not finite."""
    step = progress.step
    torch.manual_seed(int(np.random.SeedSequence([config.seed, phase.number, step]).generate_state(1)[0]))
    for name, optimizer in optimizers.items():
        rate = learning_rate(config.schedule, step, phase.steps) * progress.lr_scale
        rate *= method.own_rates.get(name, config.lr)
        for group in optimizer.param_groups:
            group["lr"] = rate * (method.encoder_rate if name.endswith("encoder") else 1.0) * group["factor"]
    source = phase.source[step] if method.sees_source else None
    target = phase.target[step] if method.sees_target and phase.target else None
    if method.looks_at_target and step % phase.target.epoch == 0:
        with fast.autocast():
            method.eval().look_at_target(phase.target.whole())
        method.train()
    values: dict[str, Tensor] = {}
    for update in _under_autocast(method.updates(source, target, step / phase.steps), fast):
        for child in method.children():
            child.zero_grad(set_to_none=True)
        update.backward([value for name in update.moves for value in parameters_of(optimizers[name])])
        finite = update.loss.detach().isfinite()
        for name in update.moves:
            norm = nn.utils.clip_grad_norm_(method.get_submodule(name).parameters(), config.clip)
            finite = finite & norm.isfinite()
        if not finite:
            return None
        for name in update.moves:
            optimizers[name].step()
        values |= update.log
    return values


def learning_rate(schedule: str, step: int, steps: int) -> float:
    """Factor on the learning rate at a step."""
    if schedule == "inverse":
        return (1 + 0.001 * step) ** -0.75
    if schedule == "constant":
        return 1.0
    warm = min(1.0, (step + 1) / min(WARM_UP, steps))
    return warm * (0.5 + 0.5 * cos(pi * step / steps))


def _optimizers(method: Method, config: Config) -> dict[str, Optimizer]:
    """One a child, so that each update steps just what it moves."""
    found: dict[str, Optimizer] = {}
    for name, child in method.named_children():
        parameters = _groups(name, child, config)
        if not parameters:
            continue
        if name in method.own_rates:
            found[name] = torch.optim.Adam(parameters, lr=method.own_rates[name])
        elif config.optimizer == "sgd":
            found[name] = torch.optim.SGD(
                parameters, lr=config.lr, momentum=method.momentum, weight_decay=config.weight_decay, fused=True
            )
        else:
            betas = (method.momentum, 0.999)
            found[name] = torch.optim.AdamW(
                parameters, lr=config.lr, betas=betas, weight_decay=config.weight_decay, fused=True
            )
    return found


def _check_memory(method: Method, optimizers: dict[str, Optimizer], fast: Fast) -> None:
    """Raises RunFailed where a training is sure to end without memory: the system would kill it without a word."""
    free = available_memory()
    if fast.device.type != "cpu" or free is None:
        return
    weights = sum(value.nbytes for value in method.state_dict().values())
    moved = 0
    for optimizer in optimizers.values():
        moments = 1 if isinstance(optimizer, torch.optim.SGD) else 2
        moved += sum((1 + moments) * value.nbytes for value in parameters_of(optimizer))
    # Gradients and moments beside the weights, which are there; and the copy that is kept as a candidate.
    needed = moved + sum(value.nbytes for part in method.deployed() for value in part.state_dict().values())
    if needed > free:
        gigabytes = {"weights": weights / 1e9, "needed": needed / 1e9, "free": free / 1e9}
        raise RunFailed("too_little_memory", **{key: f"{value:.2g}" for key, value in gigabytes.items()})


def _groups(name: str, child: nn.Module, config: Config) -> list[dict[str, Any]]:
    """A child's parameters by their factor on the learning rate: a bottleneck after pretrained layers is new."""
    new = [module for module in child.modules() if config.weights and isinstance(module, NewBottleneck)]
    fresh = {id(value) for module in new for value in module.parameters()}
    learned = [value for value in child.parameters() if value.requires_grad]
    slow = config.encoder_lr if name.endswith("encoder") else 1.0
    groups = [
        {"params": [value for value in learned if id(value) not in fresh], "factor": slow},
        {"params": [value for value in learned if id(value) in fresh], "factor": 1.0},
    ]
    return [group for group in groups if group["params"]]


def _under_autocast(updates: Iterator[Update], fast: Fast) -> Iterator[Update]:
    """Run the generator's own code under autocast, and the loop's backward and step outside it."""
    while True:
        with fast.autocast():
            update = next(updates, None)
        if update is None:
            return
        yield update


def _roll_back(
    checkpoints: Checkpoints, method: Method, optimizers: dict[str, Optimizer], progress: Progress, phase: Phase
) -> Progress:
    """Back to the newest checkpoint with half the learning rate; the fourth time is a failure."""
    if progress.rollbacks == MOST_ROLLBACKS:
        checkpoints.load(method, optimizers)
        raise RunFailed("not_finite", phase=phase.name, step=progress.step, where=checkpoints.folder)
    saved = checkpoints.load(method, optimizers)
    assert saved is not None, "training begins with a checkpoint"
    lowered = Progress(saved.step, progress.lr_scale / 2, progress.rollbacks + 1)
    checkpoints.save(lowered, method, optimizers)
    return lowered


def _numbers(values: dict[str, Tensor]) -> dict[str, float]:
    return {key: round(float(value), 6) for key, value in values.items()}


def _forget(metrics: Path, phase: str, step: int) -> None:
    """Drop lines of steps that will be taken again: a kill can fall between their writing and the checkpoint."""
    if not metrics.exists():
        return
    lines = metrics.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue  # a line that a kill cut short
        if record["phase"] != phase or record["step"] < step:
            kept.append(line)
    if kept != lines:
        write_text(metrics, "".join(kept))
