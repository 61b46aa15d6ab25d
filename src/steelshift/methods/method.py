"""What a method is to the loop: modules by name, and a generator of updates.

A method is one file: paper, equations, a frozen dataclass of its knobs, its modules, and `updates`. It touches no
optimizer, device, file or logger.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from steelshift.data.stream import SourceBatch, TargetBatch
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


class Method(nn.Module):
    """Subclasses set `Knobs`, build their children from a Start, and yield Updates.

    Whatever a method remembers from step to step is a parameter or a buffer, so that a checkpoint holds it.
    """

    Knobs: ClassVar[type]
    sees_target: ClassVar[bool] = True
    """Whether `updates` wants target batches; it gets None otherwise."""
    looks_at_target: ClassVar[bool] = False
    """Whether `look_at_target` wants to see the whole target line before each epoch of it."""
    uses_labels: ClassVar[bool] = True
    """Whether labels of source batches train it, so that a few labelled target images among them would too."""
    encoder_rate: ClassVar[float] = 1.0
    """Factor on the learning rate of the encoder, where no label holds it to its task."""
    line: ClassVar[Line] = "target"
    """Whose line-wise normalization layers the inspector keeps."""

    def __init__(self, start: Start, knobs: Any) -> None:
        """knobs: a `Knobs` of the same method."""
        super().__init__()
        self.knobs = knobs
        self.normalization = start.normalization
        self.shared_encoder = start.encoder
        self.task_classifier = start.classifier

    def updates(self, source: SourceBatch, target: TargetBatch | None, progress: float) -> Iterator[Update]:
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
