"""What a run of declared tasks has in the place of what is made for the one task: choice, calibration, judging, report.

Each task is scored by itself; checkpoints are chosen by the mean over the tasks. No target label chooses anything.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata

from steelshift.candidates import MOST_VALIDATED, Candidates, prepared_rows
from steelshift.data.cache import PixelCache
from steelshift.data.splits import TEST, TRAIN, VAL, groups_of
from steelshift.data.stream import resized
from steelshift.data.table import read_images
from steelshift.data.tasks import Task, known, read_task_labels
from steelshift.errors import DataError
from steelshift.evidence import curves, facts
from steelshift.inspection import inspector as artifact
from steelshift.inspection.inspector import Inspector, answers, in_batches
from steelshift.judging import decoded, kept_apart, verdict
from steelshift.lines import Lines, locked_tasks, locked_tests
from steelshift.messages import say
from steelshift.nn.sharing import measure_sharing
from steelshift.progress import note, showing
from steelshift.resample import grey_levels
from steelshift.selection import validators
from steelshift.selection.answers import Answers
from steelshift.selection.calibration import temperature
from steelshift.selection.metrics import Shares, mean_shares, task_scores, task_shares, told_apart
from steelshift.selection.validators import Seen
from steelshift.stages import Training
from steelshift.training.config import Config, to_mapping

SHOWN = 8
"""Thumbnails a task, with heat maps."""


def look_at_tasks(training: Training) -> Candidates:
    """Pass images of both lines through every checkpoint; its scores are means over the tasks.

    Multi-label tasks have no distribution over classes for the rules without labels; they count on the source line.
    """
    lines, config, device = training.lines, training.config, training.fast.device
    prepared = prepared_rows(lines.source.part(VAL), config.size)
    of_target = None if lines.target is None else prepared_rows(lines.unlabelled(), config.size, MOST_VALIDATED)
    blind = [task for task in lines.tasks if task.kind != "multi-label"]
    rule = rule_of(config, lines)
    judges = [] if rule in ("last", "source_validation") else [rule]
    found = Candidates(
        steps=training.method_phase.kept_at,
        scores={judge: [] for judge in ("source_validation", *judges)},
        largest_share=[],
        baseline_share=1.0,  # guards against nothing where there is no target line
        validation_logits=[],
        test_logits=[],
    )

    def shares(target: Answers, columns: dict[str, slice]) -> float:
        return float(np.mean([validators.most_frequent_share(_of(target, columns[t.name]).predicted) for t in blind]))

    if judges:
        baseline = training.inspector(training.baseline_phase, config.steps).to(device)
        share = shares(answers(baseline, of_target), baseline.specification.columns)
        found = dataclasses.replace(found, baseline_share=share)
    with showing(say("judging_candidates"), len(found.steps)) as advance:
        for done, step in enumerate(found.steps, start=1):
            inspector = training.inspector(training.method_phase, step).to(device)
            columns = inspector.specification.columns
            validation = answers(inspector, prepared)
            on_source = [
                task_scores(task.kind, lines.labels(VAL, task.name), validation.logits[:, columns[task.name]],
                            task.classes, task.negative)["mean_class_accuracy"]
                for task in lines.tasks
            ]  # fmt: skip
            found.scores["source_validation"].append(_mean(on_source))
            if judges:
                target = answers(inspector, of_target)
                values = []
                for task in blind:
                    rows = known(truth := lines.labels(VAL, task.name))
                    own = _of(validation, columns[task.name])
                    seen = Seen(
                        validation=Answers(own.features[rows], own.logits[rows]),
                        truth=truth[rows],
                        target=_of(target, columns[task.name]),
                    )
                    values.append(validators.score(rule, seen))
                found.scores[rule].append(float(np.mean(values)))
            found.largest_share.append(shares(target, columns) if judges else 0.0)
            found.validation_logits.append(validation.logits)
            advance(done)
    return found


def rule_of(config: Config, lines: Lines) -> str:
    """Which rule chooses: without a target line, or with nothing but multi-label tasks, that of the source line."""
    blind = lines.target is not None and any(task.kind != "multi-label" for task in lines.tasks)
    return config.select if blind or config.select == "last" else "source_validation"


def calibrate_tasks(inspector: Inspector, logits: np.ndarray, lines: Lines, review_rate: float) -> None:
    """Fit a temperature a task on source validation images, and thresholds by which a share of images is reviewed.

    logits: of source validation images. Thresholds are counted on unlabelled target images, where there is a target
    line, and are such that in this share of them some task is below its own.
    """
    specification, columns = inspector.specification, inspector.specification.columns
    heads = []
    for head in specification.heads:
        truth, own = lines.labels(VAL, head.task), logits[:, columns[head.task]].astype(np.float64)
        there = truth >= 0
        own = own[there]
        if head.kind == "multi-label":
            own = np.stack([np.zeros(len(own)), own], 1)  # softmax of (0, z) is the sigmoid of z
        heads.append(dataclasses.replace(head, temperature=temperature(own, truth[there], cautious=True)))
    inspector.specification = dataclasses.replace(specification, heads=tuple(heads))
    if lines.target is not None:
        logits = in_batches(inspector.logits, prepared_rows(lines.unlabelled(), specification.size, MOST_VALIDATED))
    probabilities = inspector.calibrated(torch.from_numpy(logits)).numpy()
    sure = [
        np.maximum(p, 1 - p).min(1) if head.kind == "multi-label" else p.max(1)
        for head in heads
        for p in [probabilities[:, columns[head.task]]]
    ]
    share = np.quantile(np.min([rankdata(each, method="max") for each in sure], axis=0) / len(logits), review_rate)
    heads = [
        dataclasses.replace(head, threshold=float(np.quantile(each, share)))
        for head, each in zip(heads, sure, strict=True)
    ]
    inspector.specification = dataclasses.replace(specification, heads=tuple(heads))


def judge_tasks(training: Training, labels: dict[str, np.ndarray], inspector: Inspector) -> dict[str, Any]:
    """By task, scores on the target test split of source only, of the inspector and of the oracle, and their means.

    labels: of all target rows. Trains the oracle, unless the config says no.
    """
    lines, config, device = training.lines, training.config, training.fast.device
    test, rows = lines.target.part(TEST), lines.target.side == TEST
    networks = {"source_only": training.inspector(training.baseline_phase, config.steps), "selected": inspector}
    if config.oracle and any(known(values)[lines.target.side == TRAIN].any() for values in labels.values()):
        networks["oracle"] = training.oracle(labels)
    prepared = resized(test, np.arange(len(test)), config.size)
    found: dict[str, Any] = {"n": len(test)}
    truth = {key: values[rows] for key, values in labels.items()}
    each = {}
    for name, network in networks.items():
        logits = in_batches(network.to(device).logits, prepared, device=device)
        network.cpu()
        found[name] = scores_by_task(lines.tasks, truth, logits)
        each[name] = shares_by_image(lines.tasks, truth, logits)
    labelled = int(np.any([known(values) for values in truth.values()], axis=0).sum())
    found["labelled"] = labelled
    before, after = (found[name]["mean"] for name in ("source_only", "selected"))
    if after is None:  # then both are: the labels are the same
        return found | {"sentence": say("tasks_untold_target")}
    if training.method_phase is training.baseline_phase:
        return found | {"sentence": say("judged_source", after=after, n=labelled)}
    told = told_apart(each["source_only"], each["selected"], np.array(groups_of(test.table, test.digests)))
    return found | {"sentence": verdict(before, after, told, labelled)}


def verdict_of_tasks(scores: dict[str, Any], count: int) -> str:
    """One sentence on how well so many tasks are done on held-out source images, of what `scores_by_task` gives."""
    judged = sum(each["mean_class_accuracy"] is not None for each in scores["tasks"].values())
    if not judged:
        return say("tasks_untold", count=count)
    return say("tasks_verdict", count=count, mean=scores["mean"], judged=judged)


def scores_by_task(tasks: tuple[Task, ...], truth: dict[str, np.ndarray], logits: np.ndarray) -> dict[str, Any]:
    """Scores of every task that has a label, and the mean of their mean class accuracies."""
    found, start = {}, 0
    for task in tasks:
        own, start = logits[:, start : start + len(task.classes)], start + len(task.classes)
        if known(truth[task.name]).any():
            found[task.name] = task_scores(task.kind, truth[task.name], own, task.classes, task.negative)
    return {"mean": _mean([scores["mean_class_accuracy"] for scores in found.values()]), "tasks": found}


def shares_by_image(tasks: tuple[Task, ...], truth: dict[str, np.ndarray], logits: np.ndarray) -> Shares | None:
    """What images add to the mean of `scores_by_task`; None where that is."""
    found, start = [], 0
    for task in tasks:
        own, start = logits[:, start : start + len(task.classes)], start + len(task.classes)
        found.append(task_shares(task.kind, truth[task.name], own))
    told = [each for each in found if each is not None]
    return mean_shares(told) if told else None


def target_task_labels(config: Config, lines: Lines) -> dict[str, np.ndarray] | None:
    """Labels by task of every target row; None where there is no target line, or no test image has one.

    Through the door of `read_task_labels`, when everything is chosen. Where a task's labels come from on the source
    does not say where they do on the target: its column is read wherever it is.
    """
    if lines.target is None:
        return None
    labels, _ = read_task_labels(config.target, _anywhere(lines.tasks, config.target), lines.target.cache.table)
    there = any(known(values)[lines.target.side == TEST].any() for values in labels.values())
    return labels if there else None


def evaluate_tasks(run: Path, places: tuple[Path, ...], which: str) -> dict[str, Any]:
    """Scores by task of the inspector of a run on labelled images. Raises DataError, ArtifactRefused.

    which: `test` takes the images that the run kept apart, of the target line or, without one, of the source line.
    """
    inspector = artifact.load(run)
    tasks = locked_tasks(run)
    table = read_images(places)
    if which == "test":
        table = kept_apart(table, locked_tests(run), run, places)
    with decoded(table, inspector) as cache:
        truth, _ = read_task_labels(places, _anywhere(tasks, places), cache.table)
        if not any(known(values).any() for values in truth.values()):
            raise DataError("no_target_labels", where=", ".join(map(str, places)))
        prepared = resized(cache, np.arange(len(cache)), inspector.specification.size)
    unlabelled = [name for name, values in truth.items() if not known(values).any()]
    if unlabelled:
        note(say("tasks_unlabelled", names=", ".join(unlabelled)))
    logits = in_batches(inspector.logits, prepared)
    return {"n": len(cache), **scores_by_task(tasks, truth, logits)}


def collect_task_evidence(
    training: Training, inspector: Inspector, phase: str
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The report without what target labels say, and its thumbnails. phase: of the method."""
    config, lines = training.config, training.lines
    test = lines.source.part(TEST)
    prepared = resized(test, np.arange(len(test)), config.size)
    truth = {task.name: lines.labels(TEST, task.name) for task in lines.tasks}
    trunk = inspector.encoder.trunk
    counts = lines.counts()
    report = {
        **facts(config),
        "knobs": to_mapping(config.knobs),
        "tasks": {
            task.name: {
                "kind": task.kind,
                "classes": list(task.classes),
                "mechanism": task.mechanism,
                "material": task.material,
                "training_images": counts[task.name].tolist(),
                "temperature": head.temperature,
                "threshold": head.threshold,
            }
            for task, head in zip(lines.tasks, inspector.specification.heads, strict=True)
        },
        "sharing": {
            "kind": config.sharing,
            "ratios": list(trunk.sharing.ratios),
            **measure_sharing(trunk, torch.zeros(1, inspector.encoder.channels, config.size, config.size)),
        },
        "lines": {
            "source": {"images": len(lines.source.cache), "test": len(test)},
            "target": None if lines.target is None else {"images": len(lines.target.cache)},
        },
        "curves": curves(config, phase),
        "source": scores_by_task(lines.tasks, truth, in_batches(inspector.logits, prepared)),
    }
    return report, _thumbnails(test, prepared, truth, inspector)


def _thumbnails(
    cache: PixelCache, prepared: torch.Tensor, truth: dict[str, np.ndarray], inspector: Inspector
) -> dict[str, np.ndarray]:
    """A few labelled source test images of every task, with the heat map of what it says of them, by task's number."""
    found = {}
    for number, (head, where) in enumerate(inspector.specification.columns.items()):
        rows = np.flatnonzero(known(truth[head]))[:SHOWN]
        images = prepared[rows].clone()
        said = in_batches(inspector.logits, images)[:, where].argmax(1) if len(rows) else np.zeros(0, int)
        heat = inspector.heat_maps(images, torch.from_numpy(said + where.start)) if len(rows) else images[:, 0]
        found[f"task_{number}"] = grey_levels(images)
        found[f"task_{number}_heat"] = (heat.detach() * 255).round().to(torch.uint8).numpy()
        found[f"task_{number}_said"] = said
    return found


def _anywhere(tasks: tuple[Task, ...], places: tuple[Path, ...]) -> tuple[Task, ...]:
    """Tasks whose labels may be in any of these places, but for those that name one of them."""
    return tuple(
        task if any(task.concerns(Path(place)) for place in places) else dataclasses.replace(task, data=())
        for task in tasks
    )


def _of(found: Answers, where: slice) -> Answers:
    return Answers(found.features, found.logits[:, where])


def _mean(values: list[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else None
