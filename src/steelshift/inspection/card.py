"""The model card: what an inspector is, for those who have to answer for it. It never depends on a target label."""

from typing import Any

from steelshift.inspection.inspector import Specification
from steelshift.training.config import Config


def task_card(config: Config, specification: Specification, lock: dict[str, Any]) -> str:
    """The card of an inspector of declared tasks."""
    counts = {part: len(rows) for part, rows in lock["source"].items()}
    target = lock.get("target")
    moved = "for the target line" if target else "for the line of those images"
    tasks = "\n".join(
        f"- {head.task} ({head.kind}): {', '.join(head.classes)}; temperature {head.temperature:.3f}, "
        f"below {head.threshold:.3f} a person should look"
        for head in specification.heads
    )
    used = f"- target images without labels: {len(target['train'])} train\n" if target else ""
    return f"""# Inspector

## Intended use

Says several things of images of one surface of a production line, brought to {specification.size} x
{specification.size} grey pixels:

{tasks}

It was trained on labelled images, not each of them labelled for every task, {moved}.
An image of another line, camera or lighting, or a defect of another class, gets one of these answers too.

## How it was made

- method {config.method}, encoder {specification.encoder} ({specification.feature}), channels shared: {config.sharing},
  seed {config.seed}
- {config.pretrain_steps} steps on the source line, {config.steps} steps of the method, batch {config.batch} a line
- source images: {counts["train"]} train, {counts["val"]} validation, {counts["test"]} test
{used}
## Limits

Confidences are calibrated on held-out source images, of the tasks that have labels there. Judge it with
`steelshift evaluate` on labelled images that were not used for training.
"""


def model_card(config: Config, specification: Specification, lock: dict[str, Any]) -> str:
    counts = {
        line: {part: len(rows) for part, rows in parts.items()} for line, parts in lock.items() if line != "classes"
    }
    few = len(lock["target"].get("labelled", {}))
    labelled = f", and {few} labelled ones," if few else ""
    names = "\n".join(f"- {name}" for name in specification.classes)
    return f"""# Inspector

## Intended use

Classifies images of one surface of a production line, brought to {specification.size} x {specification.size} grey
pixels, into:

{names}

It was trained on labelled images of a source line and unlabelled images{labelled} of the target line, for
that target line.
An image of another line, camera or lighting, or a defect of another class, gets one of these names too: the
probability is calibrated on held-out images of the source line and says nothing about such cases.

## How it was made

- method {config.method}, encoder {specification.encoder} ({specification.feature}), seed {config.seed}
- {config.pretrain_steps} steps on the source line, {config.steps} steps of adaptation, batch {config.batch} a line
- source images: {counts["source"]["train"]} train, {counts["source"]["val"]} validation,
  {counts["source"]["test"]} test
- target images: {counts["target"]["train"]} train, {few} of the line with a label;
  {counts["target"]["test"]} kept apart for judging
- checkpoint chosen by: {config.select} (no target label)

## Decision

- temperature {specification.temperature:.3f}, fitted on source validation images
- images with a probability below {specification.threshold:.3f} go to a person, and so do those that are
  stranger than {specification.strange:.4f} (relative Mahalanobis distance of features): together
  {specification.review_rate:.1%} of unlabelled target training images

## Limits

Accuracy on the target line is not known from this folder. Judge it with `steelshift evaluate` on labelled images of
the target line that were not used for training.
"""
