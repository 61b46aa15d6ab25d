"""Source only: cross-entropy on the labelled line, and nothing else. The baseline of every table, and step S1.

L_task = -1/B sum_i log softmax(C(E_c(x_i)))[y_i], of several tasks the mean over those that the batch has labels of
"""

from collections.abc import Iterator
from dataclasses import dataclass

from steelshift.data.stream import SourceBatch, TargetBatch
from steelshift.losses.tasks import supervised
from steelshift.methods.method import Method, Update
from steelshift.nn.normalization import use_line


class SourceOnly(Method):
    sees_target = False
    many_tasks = True
    line = "source"

    @dataclass(frozen=True)
    class Knobs:
        """Source only has no knobs."""

    def updates(self, source: SourceBatch, target: TargetBatch | None, progress: float) -> Iterator[Update]:
        use_line(self.shared_encoder, "source")
        logits = self.task_classifier(self.shared_encoder(source.images))
        loss = supervised(logits, source.labels, self.columns)
        yield Update(loss, moves=("shared_encoder", "task_classifier"), log={"L_task": loss.detach()})
