"""What a method is to the loop: modules by name, and a generator of updates.

A method is one file: paper, equations, a frozen dataclass of its knobs, its modules, and `updates`. It touches no
optimizer, device, file or logger.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from steelshift.data.stream import SourceBatch, TargetBatch
from steelshift.data.tasks import Task, columns_of, plain_task
from steelshift.errors import UsageError
from steelshift.nn.encoders import Encoder
from steelshift.nn.normalization import Line, Normalization


@dataclass(frozen=True)
class Update:
    """One backward pass and one step."""

    loss: Tensor
    """Scalar that the moved modules descend."""
    moves: tuple[str, ...]
    """Names of the method's children whose parameters step; all others stay as they are."""
    log: dict[str, Tensor] = field(default_factory=dict)
    """Detached scalars for the metrics, by the symbols of the paper."""
    of_tasks: tuple[Tensor, ...] = ()
    """Losses beside `loss`, a scalar a task, whose gradients `aggregator` brings together where they meet."""
    aggregator: Callable[[Tensor], Tensor] | None = None
    """Gradients of the tasks (T, n) -> one direction (n,)."""
    shared: tuple[tuple[nn.Parameter, int], ...] = ()
    """Parameters in which they meet, and how many of the first rows of each; elsewhere gradients add up."""

    def backward(self, parameters: list[nn.Parameter]) -> None:
        """Leave gradients in the parameters that are moved."""
        if self.loss.requires_grad:
            self.loss.backward(retain_graph=bool(self.of_tasks))
        if not self.of_tasks:
            return
        rows = {parameter: count for parameter, count in self.shared}
        by_task = [
            torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
            for loss in self.of_tasks
        ]
        gradients = [torch.stack(each) for each in zip(*by_task, strict=True)]
        met = [gradient[:, : rows.get(parameter, 0)] for parameter, gradient in zip(parameters, gradients, strict=True)]
        direction = self.aggregator(torch.cat([part.flatten(1) for part in met], 1))
        parts = direction.split([part[0].numel() for part in met])
        for parameter, gradient, part, own in zip(parameters, gradients, met, parts, strict=True):
            found = gradient.sum(0)
            found[: part.shape[1]] = own.view(part.shape[1:])
            if parameter.grad is None:  # laid out as the parameter is, for fused optimizers read both in memory's order
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad += found


def hold(right: bool, key: str, value: object, words: str) -> None:
    """Refuse the value of a knob that is out of its range. Raises UsageError."""
    if not right:
        raise UsageError("knob_range", key=key, value=value, range=words)


def need_normalization(encoder: nn.Module, method: str) -> None:
    """Refuse an encoder that a method has nothing to do with. Raises UsageError."""
    if not any(isinstance(module, _BatchNorm) and module.affine for module in encoder.modules()):
        raise UsageError("method_needs_normalization", method=method)


@dataclass(frozen=True)
class Start:
    """Where every method starts: the source-pretrained network (S1)."""

    encoder: Encoder
    classifier: nn.Linear
    normalization: Normalization
    epoch: int
    """Steps in which the source line is seen about once."""
    tasks: tuple[Task, ...] = ()
    """Of the heads that the classifier is made of; of a plain run one."""
    counts: dict[str, Tensor] = field(default_factory=dict)
    """By task, source training images of every class (K,); of a multi-label task without and with it (K, 2)."""


class Method(nn.Module):
    """Subclasses set `Knobs`, build their children from a Start, and yield Updates.

    Whatever a method remembers from step to step is a parameter or a buffer, so that a checkpoint holds it.
    """

    Knobs: ClassVar[type]
    sees_target: ClassVar[bool] = True
    """Whether `updates` wants target batches; it gets None otherwise."""
    looks_at_target: ClassVar[bool] = False
    """Whether `look_at_target` wants to see the whole target line before each epoch of it."""
    many_tasks: ClassVar[bool] = False
    """Whether it trains heads of several tasks."""
    sees_source: ClassVar[bool] = True
    """Whether `updates` wants source batches; it gets None otherwise."""
    uses_labels: ClassVar[bool] = True
    """Whether a few labelled target images can train it, among those of source batches."""
    encoder_rate: ClassVar[float] = 1.0
    """Factor on the learning rate of the encoder, where no label holds it to its task: Adam steps as far along a small
    gradient as along a large one. Chosen with the recipe of random weights, and kept with the other."""
    momentum: ClassVar[float] = 0.9
    """How slowly the mean of gradients that an optimizer steps along forgets, 0 to 1 (beta1 of Adam)."""
    own_rates: ClassVar[Mapping[str, float]] = {}
    """Learning rates of children that Adam moves whatever moves the networks, and without weight decay."""
    line: ClassVar[Line] = "target"
    """Whose line-wise normalization layers the inspector keeps."""

    def __init__(self, start: Start, knobs: Any) -> None:
        """knobs: a `Knobs` of the same method."""
        super().__init__()
        self.knobs = knobs
        self.normalization = start.normalization
        self.shared_encoder = start.encoder
        self.task_classifier = start.classifier
        self.tasks = start.tasks or (plain_task(tuple(map(str, range(start.classifier.out_features)))),)
        self.columns = columns_of(self.tasks)

    def updates(
        self, source: SourceBatch | None, target: TargetBatch | None, progress: float
    ) -> Iterator[Update]:
        """Yield the updates of one step; the loop does backward and step before it asks for the next.

        progress: share of the steps done, in [0, 1).
        """
        raise NotImplementedError

    def look_at_target(self, target: Iterable[TargetBatch]) -> None:
        """See every target training image once, as it is; called in evaluation mode. Keep what is found in buffers."""
        raise NotImplementedError

    def deployed(self) -> tuple[Encoder, nn.Linear]:
        """The encoder and classifier that the inspector keeps."""
        return self.shared_encoder, self.task_classifier
