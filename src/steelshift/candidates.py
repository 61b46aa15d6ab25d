"""The checkpoints of a method to choose from, and what is known of each without a target label."""

from dataclasses import dataclass

import numpy as np

from steelshift.data.splits import TEST, TRAIN, VAL
from steelshift.data.stream import resized
from steelshift.inspection.inspector import in_batches
from steelshift.messages import say
from steelshift.progress import showing
from steelshift.selection.metrics import mean_class_accuracy
from steelshift.selection.validators import information_maximization
from steelshift.stages import Training

MOST_VALIDATED = 1000
"""Target training images on which candidates are compared."""


@dataclass(frozen=True)
class Candidates:
    steps: list[int]
    source_validation: list[float]
    """Mean class accuracy on held-out source images."""
    information_maximization: list[float]
    """On unlabelled target training images."""
    validation_logits: list[np.ndarray]
    test_logits: list[np.ndarray]
    """On the target test split; nothing chooses by them."""


def look_at_candidates(training: Training) -> Candidates:
    lines, config = training.lines, training.config
    validation, unlabelled, test = lines.source.part(VAL), lines.target.part(TRAIN), lines.target.part(TEST)
    prepared = resized(validation, np.arange(len(validation)), config.size)
    prepared_target = resized(unlabelled, np.arange(min(len(unlabelled), MOST_VALIDATED)), config.size)
    prepared_test = resized(test, np.arange(len(test)), config.size)
    found = Candidates(training.method_phase.kept_at, [], [], [], [])
    with showing(say("judging_candidates"), len(found.steps)) as advance:
        for done, step in enumerate(found.steps, start=1):
            inspector = training.inspector(training.method_phase, step)
            logits = in_batches(inspector.logits, prepared)
            found.validation_logits.append(logits)
            found.source_validation.append(mean_class_accuracy(lines.labels(VAL), logits.argmax(1)))
            on_target = in_batches(inspector.probabilities, prepared_target).astype(np.float64)
            found.information_maximization.append(information_maximization(on_target))
            found.test_logits.append(in_batches(inspector.logits, prepared_test))
            advance(done)
    return found
