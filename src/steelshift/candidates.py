"""The checkpoints of a method to choose from, and what is known of each without a target label."""

from dataclasses import dataclass

import numpy as np
import torch

from steelshift.data.cache import PixelCache
from steelshift.data.splits import TEST, TRAIN, VAL
from steelshift.data.stream import resized, spread
from steelshift.inspection.inspector import Inspector, answers, in_batches
from steelshift.messages import say
from steelshift.progress import showing
from steelshift.selection import validators
from steelshift.selection.estimate import View
from steelshift.selection.validators import MIXING, NEEDS_MIXTURES, NEEDS_SOURCE_TRAINING, Seen
from steelshift.stages import Training

MOST_VALIDATED = 1000
"""Training images of each line on which candidates are compared."""
ALWAYS = ("source_validation", "information_maximization")
"""Judges that cost nothing beside the others, and are shown in every report."""


@dataclass(frozen=True)
class Candidates:
    steps: list[int]
    scores: dict[str, list[float]]
    """By judge, a value a checkpoint; none has seen a target label."""
    largest_share: list[float]
    """Part of the target training images that get the checkpoint's most frequent answer."""
    baseline_share: float
    """The same of the baseline."""
    validation_logits: list[np.ndarray]
    test_logits: list[np.ndarray]
    """On the target test split; nothing chooses by them."""

    def choose(self, rule: str) -> int:
        """Index of the candidate that a rule chooses."""
        return validators.choose(rule, self.scores, self.largest_share, self.baseline_share)


def look_at_candidates(training: Training, judges: tuple[str, ...] = ()) -> Candidates:
    """Pass images of both lines through every checkpoint, and let those judges score it that are asked for."""
    lines, config, device = training.lines, training.config, training.fast.device
    judges = tuple(dict.fromkeys([*ALWAYS, *judges]))
    rng = np.random.default_rng([config.seed, 1 << 21])
    truth = lines.labels(VAL)
    prepared = prepared_rows(lines.source.part(VAL), config.size)
    prepared_target = prepared_rows(lines.unlabelled(), config.size, MOST_VALIDATED)
    prepared_test = prepared_rows(lines.target.part(TEST), config.size)
    source_training = None
    if NEEDS_SOURCE_TRAINING & set(judges):
        source_training = prepared_rows(lines.source.part(TRAIN), config.size, MOST_VALIDATED)
    turn = rng.permutation(len(prepared_target))
    partner = np.empty_like(turn)
    partner[turn] = np.roll(turn, 1)  # never the image itself, but where it is the only one
    mixtures = None
    if NEEDS_MIXTURES & set(judges):
        mixtures = MIXING * prepared_target + (1 - MIXING) * prepared_target[torch.from_numpy(partner)]
    baseline = training.inspector(training.baseline_phase, config.steps).to(device)
    found = Candidates(
        steps=training.method_phase.kept_at,
        scores={judge: [] for judge in judges},
        largest_share=[],
        baseline_share=validators.most_frequent_share(
            in_batches(baseline.logits, prepared_target, device=device).argmax(1)
        ),
        validation_logits=[],
        test_logits=[],
    )
    with showing(say("judging_candidates"), len(found.steps)) as advance:
        for done, step in enumerate(found.steps, start=1):
            inspector = training.inspector(training.method_phase, step).to(device)
            seen = Seen(
                validation=answers(inspector, prepared),
                truth=truth,
                target=answers(inspector, prepared_target),
                source_training=None
                if source_training is None
                else in_batches(inspector.encoder, source_training, device=device),
                mixed=None if mixtures is None else in_batches(inspector.logits, mixtures, device=device),
                partner=partner,
            )
            for judge in judges:
                found.scores[judge].append(validators.score(judge, seen))
            found.largest_share.append(validators.most_frequent_share(seen.target.predicted))
            found.validation_logits.append(seen.validation.logits)
            found.test_logits.append(in_batches(inspector.logits, prepared_test, device=device))
            advance(done)
    return found


def look_at_lines(training: Training, inspector: Inspector, baseline: Inspector) -> tuple[View, View]:
    """What both answer to images of both lines, for an estimate; no target label is at hand.

    Held-out source images are those of validation and test: none of them trained either.
    """
    lines, size = training.lines, training.config.size
    prepared = {
        "training": prepared_rows(lines.source.part(TRAIN), size, MOST_VALIDATED),
        "source": torch.cat(
            [prepared_rows(lines.source.part(VAL), size), prepared_rows(lines.source.part(TEST), size)]
        ),
        "target_training": prepared_rows(lines.unlabelled(), size, MOST_VALIDATED),
        "target": prepared_rows(lines.target.part(TEST), size),
    }
    truth = np.concatenate([lines.labels(VAL), lines.labels(TEST)])
    inspector_sees, baseline_sees = (
        View(truth=truth, **{part: answers(network, images) for part, images in prepared.items()})
        for network in (inspector, baseline)
    )
    return inspector_sees, baseline_sees


def prepared_rows(cache: PixelCache, size: int, most: int | None = None) -> torch.Tensor:
    """Images of a cache, whole, at one size: all of them, or those of `spread`."""
    return resized(cache, spread(len(cache), len(cache) if most is None else most), size)
