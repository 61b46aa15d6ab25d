"""TENT: Wang et al., Tent: Fully Test-Time Adaptation by Entropy Minimization, ICLR 2021.

L = mean H(softmax C(E(x_t)))

Only scale and offset of batch normalization move; statistics become the target line's. No source image is used.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from torch.nn.modules.batchnorm import _BatchNorm

from steelshift.data.stream import TargetBatch
from steelshift.losses.unlabelled import entropy
from steelshift.methods.method import Method, Start, Update, need_normalization
from steelshift.nn.normalization import use_line


class TENT(Method):
    sees_source = False
    uses_labels = False

    @dataclass(frozen=True)
    class Knobs:
        """TENT has no knobs."""

    def __init__(self, start: Start, knobs: Knobs) -> None:
        super().__init__(start, knobs)
        need_normalization(start.encoder, "tent")
        self.task_classifier.requires_grad_(False)
        self.shared_encoder.requires_grad_(False)
        for module in self.shared_encoder.modules():
            if isinstance(module, _BatchNorm):
                module.requires_grad_(True)

    def updates(self, source: None, target: TargetBatch, progress: float) -> Iterator[Update]:
        use_line(self.shared_encoder, "target")
        loss = entropy(self.task_classifier(self.shared_encoder(target.images))).mean()
        yield Update(loss, moves=("shared_encoder",), log={"L_entropy": loss.detach()})
