"""Train one method or, for `auto`, several, and choose one checkpoint without a target label."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from steelshift.candidates import Candidates, look_at_candidates
from steelshift.lines import Lines
from steelshift.methods import Method
from steelshift.selection import validators
from steelshift.stages import Training
from steelshift.training.config import AUTO, Config, knobs_of
from steelshift.training.precision import Fast


@dataclass(frozen=True)
class Chosen:
    training: Training
    """Of the method that was chosen; its config names it."""
    method: Method
    candidates: Candidates
    index: int
    """Which of its candidates."""
    train_seconds: float
    """Of the method or methods alone."""
    tried: list[dict[str, Any]]
    """What `auto` compared: method, step and score of the best checkpoint of each, and whether the method was left_out:
    its score is higher than that of the chosen one, but a guard over all methods held. Empty for a single method."""


def train_and_choose(
    config: Config,
    fast: Fast,
    lines: Lines,
    labels: np.ndarray | None = None,
    *,
    shared: Path,
    judges: tuple[str, ...] = (),
    folder: Callable[[Config], Path] = lambda config: config.out,
) -> Chosen:
    """S1 to S6: pre-train, train the method or methods, choose by `config.select`. judges: asked beside that one.

    labels: of the target, for `oracle` alone. shared: folder of what all methods share. folder: of each method's own.
    """
    found, seconds = [], 0.0
    if config.select != "last":
        judges = (*judges, config.select)
    trainings = [
        Training(replace(single, out=folder(single)), fast, lines, shared) for single in single_methods(config)
    ]
    for training in trainings:
        training.check()
    for training in trainings:
        training.pretrain()
        began = time.monotonic()
        method = training.adapt(labels)
        seconds += time.monotonic() - began
        found.append((training, method, look_at_candidates(training, judges)))
    if config.method != AUTO:
        [(training, method, candidates)] = found
        return Chosen(training, method, candidates, candidates.choose(config.select), seconds, [])
    place, index = choose_across(config.select, [candidates for *_, candidates in found])
    best = [candidates.choose(config.select) for *_, candidates in found]
    best[place] = index  # the guards look at all methods, and may hold a better one of its own
    tried = [
        _scored(config.select, training.config.method, candidates, each)
        for (training, _, candidates), each in zip(found, best, strict=True)
    ]
    tried = [each | {"left_out": each["score"] > tried[place]["score"]} for each in tried]
    return Chosen(*found[place], index, seconds, tried)


def single_methods(config: Config) -> list[Config]:
    """A config a method that is trained: its own, or for `auto` source only, the fallback, and those of its knobs."""
    if config.method != AUTO:
        return [config]
    names = dict.fromkeys(["source_only", *config.knobs.methods])
    return [replace(config, method=name, knobs=knobs_of(name)()) for name in names]


def choose_across(rule: str, candidates: list[Candidates]) -> tuple[int, int]:
    """Which method, and which of its candidates: the rule's choice among all of them.

    `last` compares the last candidates by source validation and guards against nothing. For every other rule the guards
    of `validators.choose` hold: source only, which comes first, remains where all others have collapsed.
    """
    if rule == "last":
        on_source = [each.scores["source_validation"][-1] for each in candidates]
        best = int(np.argmax(on_source))
        return best, len(candidates[best].steps) - 1
    places = [(place, index) for place, each in enumerate(candidates) for index in range(len(each.steps))]
    scores = {judge: [each.scores[judge][i] for each in candidates for i in range(len(each.steps))]
              for judge in {rule, "source_validation"}}  # fmt: skip
    shares = [share for each in candidates for share in each.largest_share]
    return places[validators.choose(rule, scores, shares, candidates[0].baseline_share)]


def _scored(rule: str, name: str, candidates: Candidates, index: int) -> dict[str, Any]:
    judge = "source_validation" if rule == "last" else rule
    return {"method": name, "step": candidates.steps[index], "score": candidates.scores[judge][index]}
