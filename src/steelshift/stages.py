"""S1 to S5: the phases of training of one run, on the one loop."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from steelshift.data.cache import PixelCache
from steelshift.data.splits import TRAIN
from steelshift.data.stream import CLASS, JoinedStream, SourceStream, TargetStream
from steelshift.data.tasks import known
from steelshift.errors import UsageError
from steelshift.inspection.inspector import Inspector
from steelshift.inspection.specification import Head, Specification
from steelshift.lines import Lines
from steelshift.methods import METHODS, Method
from steelshift.methods.method import Start
from steelshift.nn.encoders import build_encoder
from steelshift.nn.heads import Heads, task_classifier
from steelshift.nn.normalization import arrange, begin_target
from steelshift.nn.sharing import sharing_of
from steelshift.progress import showing
from steelshift.training.config import Config
from steelshift.training.loop import Phase, train
from steelshift.training.precision import Fast

FEW = 1 << 32
"""Added to the seed for the few labelled target images, so that they are not cut out as the source images are."""


class Training:
    """The phases of one run. Each trains on from its newest checkpoint, so calling again costs nothing."""

    def __init__(self, config: Config, fast: Fast, lines: Lines, shared: Path | None = None) -> None:
        """shared: folder of what does not depend on the method: source training and oracle. By default the run's."""
        self.config = config
        self.shared = shared or config.out
        self.fast = fast
        self.lines = lines
        self.baseline_phase = self._phase("source_only", 1, config.steps, folder=self.shared)
        self.method_phase = self._method_phase()

    def pretrain(self) -> None:
        """S1: cross-entropy on the source line; then the baseline, as many steps more of it as the method gets.

        Without a target line there is nothing to compare with a baseline, and none is trained.
        """
        source_only = METHODS["source_only"]
        self.pretrained = source_only(self._fresh(), source_only.Knobs())
        self._train(self._phase("pretrain", 0, self.config.pretrain_steps, folder=self.shared), self.pretrained)
        if self.lines.target is not None or self.method_phase is self.baseline_phase:
            self.baseline = source_only(self._start(), source_only.Knobs())
            self._train(self.baseline_phase, self.baseline)

    def check(self) -> None:
        """Build the method once: what it refuses is refused before anything is trained. Raises UsageError."""
        METHODS[self.config.method](self._fresh(), self.config.knobs)

    def adapt(self, target_labels: np.ndarray | None = None) -> Method:
        """S2 to S5: the method, from the source-pretrained network. Only `oracle`, asked for by name, takes labels."""
        if self.method_phase is self.baseline_phase:
            return self.baseline
        phase = self.method_phase
        if target_labels is not None:
            phase = dataclasses.replace(phase, source=self._labelled_target(target_labels))
        start = self._start()
        torch.manual_seed(_seed(self.config.seed, phase.number))
        method = METHODS[self.config.method](start, self.config.knobs)
        self._train(phase, method)
        return method

    def oracle(self, labels: np.ndarray | dict[str, np.ndarray]) -> Inspector:
        """The ceiling: same encoder, augmentation and number of steps on the labelled target training split."""
        config = self.config
        phase = self._phase("oracle", 3, config.pretrain_steps + config.steps, folder=self.shared / "judging")
        phase = dataclasses.replace(phase, source=self._labelled_target(labels))
        self._train(phase, METHODS["oracle"](self._fresh(), METHODS["oracle"].Knobs()))
        return self.inspector(phase, phase.steps)

    def inspector(self, phase: Phase, step: int) -> Inspector:
        """A candidate of a phase, not calibrated."""
        config = self.config
        specification = Specification(
            encoder=config.encoder,
            feature=config.feature,
            size=config.size,
            classes=self.lines.classes.names if self.lines.classes else (),
            bit_depth=config.bit_depth,
            **self._declared(),
        )
        return Inspector(specification).load_weights(load_file(phase.candidate(step)))

    def _fresh(self) -> Start:
        """Random weights, or those of the file that the config names."""
        config = self.config
        torch.manual_seed(_seed(config.seed, 0))
        tasks = self.lines.tasks
        sharing = None if config.tasks is None else sharing_of(config.sharing, config.ratios, len(tasks))
        encoder = build_encoder(
            config.encoder, config.size, feature=config.feature, weights=config.weights, sharing=sharing
        )
        arrange(encoder, config.normalization, config.encoder)
        if sharing is None:
            classifier = task_classifier(encoder.width, len(self.lines.classes.names))
        else:
            classifier = Heads([(task.kind, len(task.classes)) for task in tasks], encoder.trunk.ends)
        counts = {name: torch.from_numpy(values) for name, values in self.lines.counts().items()}
        return Start(encoder, classifier, config.normalization, self.baseline_phase.source.epoch, tasks, counts)

    def _declared(self) -> dict[str, Any]:
        """What a specification says of declared tasks."""
        if self.config.tasks is None:
            return {}
        heads = tuple(Head(task.name, task.kind, task.classes) for task in self.lines.tasks)
        return {"heads": heads, "sharing": self.config.sharing, "ratios": self.config.ratios}

    def _start(self) -> Start:
        """The source-pretrained network."""
        start = self._fresh()
        start.encoder.load_state_dict(self.pretrained.shared_encoder.state_dict())
        start.classifier.load_state_dict(self.pretrained.task_classifier.state_dict())
        begin_target(start.encoder)
        return start

    def _method_phase(self) -> Phase:
        config, lines = self.config, self.lines
        if lines.few is None:
            if config.method == "source_only":
                return self.baseline_phase
            return self._phase(config.method, 2, config.steps, candidates=config.candidates)
        if not METHODS[config.method].uses_labels:
            raise UsageError("method_ignores_labels", method=config.method)
        if config.normalization == "domain-specific":
            raise UsageError("few_are_of_the_target")
        phase = self._phase(f"{config.method} with labels", 2, config.steps, candidates=config.candidates)
        few = self._source(lines.few, {CLASS: lines.few_labels})
        if config.few_share == 1:
            return dataclasses.replace(phase, source=dataclasses.replace(few, seed=config.seed + FEW))
        # As many images a step as without them.
        share = config.share_of_few(lines.few_per_class)
        count = min(max(1, round(share * config.batch)), config.batch - 1)
        few = dataclasses.replace(few, batch=count, seed=config.seed + FEW)
        source = dataclasses.replace(phase.source, batch=config.batch - count)
        return dataclasses.replace(phase, source=JoinedStream(source, few))

    def _phase(self, name: str, number: int, steps: int, *, candidates: int = 1, folder: Path | None = None) -> Phase:
        return Phase(
            name=name,
            number=number,
            source=self._source(
                self.lines.source.part(TRAIN),
                {task.name: self.lines.labels(TRAIN, task.name) for task in self.lines.tasks},
            ),
            target=self.lines.target and TargetStream(cache=self.lines.target.part(TRAIN), **self._drawing()),
            steps=steps,
            folder=folder or self.config.out,
            candidates=candidates,
        )

    def _labelled_target(self, labels: np.ndarray | dict[str, np.ndarray]) -> SourceStream:
        """labels: of all target rows, those of a plain run or by task."""
        labels = {CLASS: labels} if isinstance(labels, np.ndarray) else labels
        labelled = np.any([known(values) for values in labels.values()], axis=0)
        rows = np.flatnonzero((self.lines.target.side == TRAIN) & labelled)
        return self._source(self.lines.target.cache.take(rows), {name: values[rows] for name, values in labels.items()})

    def _source(self, cache: PixelCache, labels: dict[str, np.ndarray]) -> SourceStream:
        return SourceStream(cache=cache, labels=labels, sampler=self.config.sampler, **self._drawing())

    def _drawing(self) -> dict[str, Any]:
        config = self.config
        return {
            "batch": config.batch,
            "size": config.size,
            "augmentation": config.augmentation,
            "seed": config.seed,
            "bf16": self.fast.bf16,
            "device": self.fast.device,
        }

    def _train(self, phase: Phase, method: Method) -> None:
        with showing(phase.name, phase.steps) as advance:
            train(phase, method, self.config, self.fast, advance)


def _seed(seed: int, phase: int) -> int:
    return int(np.random.SeedSequence([seed, phase, 1 << 20]).generate_state(1)[0])
