"""Deep CORAL: Sun and Saenko, Deep CORAL: Correlation Alignment for Deep Domain Adaptation, ECCV Workshops 2016.

L = L_task + weight ramp(p) |C_s - C_t|_F^2 / (4 F^2),  C the covariance of F features over the batch

The paper adapts class logits, with a constant weight; here these are the features, and the weight has a ramp.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from torch.nn import functional as F

from steelshift.data.stream import CLASS, SourceBatch, TargetBatch
from steelshift.losses.moments import covariance_distance
from steelshift.methods.method import Method, Update, hold
from steelshift.nn.normalization import encode_both
from steelshift.nn.reversal import ramp


class CORAL(Method):
    @dataclass(frozen=True)
    class Knobs:
        weight: float = 100.0
        """Weight of the distance at the end of the ramp, 0 or more. The paper's rule: so large that both losses end
        alike."""

        def __post_init__(self) -> None:
            hold(self.weight >= 0, "weight", self.weight, "0 or more")

    def updates(self, source: SourceBatch, target: TargetBatch, progress: float) -> Iterator[Update]:
        z_s, z_t = encode_both(self.shared_encoder, source.images, target.images, self.normalization)
        task = F.cross_entropy(self.task_classifier(z_s).float(), source.labels[CLASS], ignore_index=-1)
        distance = covariance_distance(z_s, z_t)
        yield Update(
            task + self.knobs.weight * ramp(progress) * distance,
            moves=("shared_encoder", "task_classifier"),
            log={"L_task": task.detach(), "CORAL": distance.detach()},
        )
