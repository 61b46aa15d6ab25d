"""S1: both lines read, cached, cut to equal numbers and split."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from steelshift.data.cache import PixelCache, cache_pixels
from steelshift.data.splits import TEST, TRAIN, VAL, first, groups_of, split
from steelshift.data.stream import CLASS
from steelshift.data.table import (
    Classes,
    find_classes,
    left_out,
    load_classes,
    read_images,
    read_labels,
    read_labels_by_id,
)
from steelshift.data.tasks import (
    Task,
    cells,
    check_data,
    counts_of,
    known,
    load_tasks,
    plain_task,
    read_task_labels,
    strata,
)
from steelshift.errors import DataError
from steelshift.files import read_yaml
from steelshift.messages import say
from steelshift.progress import note, showing
from steelshift.training.config import Config


@dataclass(frozen=True)
class Line:
    """One line of a run: its pixels, and which rows train, validate and test."""

    cache: PixelCache
    side: np.ndarray

    def part(self, which: int) -> PixelCache:
        return self.cache.take(np.flatnonzero(self.side == which))


@dataclass(frozen=True)
class Lines:
    classes: Classes | None
    """Of the one task of a plain run; None where tasks are declared."""
    source: Line
    source_labels: dict[str, np.ndarray]
    """By task, labels of every source row, -1 where there is none; of a multi-label task (rows, K)."""
    target: Line | None
    """None where there is no target line, as there need be none with declared tasks."""
    tasks: tuple[Task, ...]
    """One in a plain run."""
    few: PixelCache | None = None
    """The target images that --target-labels names; none of them is in the target's test split."""
    few_labels: np.ndarray | None = None

    @property
    def few_per_class(self) -> float:
        """How many labelled target images there are for each class, on the mean; only where `few` is given."""
        return len(self.few) / len(self.classes.names)

    def unlabelled(self) -> PixelCache:
        """Target training images without those that --target-labels names, if any are left."""
        train = self.target.part(TRAIN)
        if self.few is None:
            return train
        rest = np.flatnonzero(~np.isin(train.digests, self.few.digests))
        return train.take(rest) if len(rest) else train

    def labels(self, which: int, task: str = CLASS) -> np.ndarray:
        return self.source_labels[task][self.source.side == which]

    def counts(self) -> dict[str, np.ndarray]:
        """By task, source training images of every class, as `counts_of` gives them."""
        return {task.name: counts_of(task, self.labels(TRAIN, task.name)) for task in self.tasks}


def read_lines(config: Config) -> Lines:
    """S1: both lines read, cached, cut to equal numbers and split. No target label is read but those given to train."""
    if config.tasks is not None:
        return _read_task_lines(config)
    classes = load_classes(config.classes) if config.classes else find_classes(config.source)
    source = _cached("source", config, classes)
    labels = read_labels(config.source, classes, source.table)
    known = np.flatnonzero(labels >= 0)
    source, labels = source.take(known), labels[known]
    if len(np.unique(labels)) < 2:
        raise DataError("no_classes", where=", ".join(map(str, config.source)))
    for index, name in enumerate(classes.names):
        if not (labels == index).any():
            note(say("empty_class", name=name))
    target = _cached("target", config, None)  # whole, whatever its folders are called: their names are labels
    few, few_labels, known = None, None, np.zeros(len(target), dtype=bool)
    if config.target_labels:
        labelled, few_labels = _few(config.target_labels, classes, target)
        few = target.take(labelled)
        groups = np.array(groups_of(target.table, target.digests))
        known = np.isin(groups, groups[labelled])
    if config.equal_numbers:
        count = min(len(source), len(target))
        kept = first(source.table, labels, count, seed=config.seed)
        source, labels = source.take(kept), labels[kept]
        kept = first(target.table, np.zeros(len(target)), count, seed=config.seed)
        target, known = target.take(kept), known[kept]
    ratios = {"train_ratio": config.train_ratio, "seed": config.seed}
    source_side = split(source.table, source.digests, labels, val_ratio=config.val_ratio, **ratios)
    target_side = split(target.table, target.digests, np.zeros(len(target), int), val_ratio=0.0, **ratios)
    if (target_side == TEST).any() and known[target_side == TEST].all():
        raise DataError("few_are_all", path=config.target_labels)
    target_side[known & (target_side == TEST)] = TRAIN  # nor are images of the same strip a test any more
    tasks = (plain_task(classes.names),)
    lines = Lines(
        classes, Line(source, source_side), {CLASS: labels}, Line(target, target_side), tasks, few, few_labels
    )
    _hold_enough(lines)
    return lines


def _read_task_lines(config: Config) -> Lines:
    """S1 with declared tasks: every image that has a label for any of them, and a target line if there is one."""
    tasks = load_tasks(config.tasks)
    check_data(tasks, config.source)
    source = _cached("source", config, None)
    labels, unlisted = read_task_labels(config.source, tasks, source.table)
    for name, values in unlisted.items():
        if values:
            shown = ", ".join(sorted(values)[:5])
            note(say("task_unlisted", task=name, count=sum(values.values()), names=shown))
    for task in tasks:
        if len(cells(labels[task.name])) < 2:
            raise DataError("task_no_labels", task=task.name, where=", ".join(map(str, config.source)))
    kept = np.flatnonzero(np.any([known(values) for values in labels.values()], axis=0))
    target = _cached("target", config, None) if config.target else None
    if target is not None and config.equal_numbers:
        count = min(len(kept), len(target))
        by = strata({name: values[kept] for name, values in labels.items()})
        kept = kept[first(source.table.take(kept), by, count, seed=config.seed)]
        target = target.take(first(target.table, np.zeros(len(target)), count, seed=config.seed))
    source, labels = source.take(kept), {name: values[kept] for name, values in labels.items()}
    ratios = {"train_ratio": config.train_ratio, "seed": config.seed}
    side = split(source.table, source.digests, strata(labels), val_ratio=config.val_ratio, **ratios)
    of_target = None
    if target is not None:
        no_strata = np.zeros(len(target), int)
        of_target = Line(target, split(target.table, target.digests, no_strata, val_ratio=0.0, **ratios))
    lines = Lines(None, Line(source, side), labels, of_target, tasks)
    _hold_enough(lines)
    for task in tasks:
        for part, name in ((VAL, say("part_validation")), (TEST, say("part_test"))):
            if not (lines.labels(part, task.name) >= 0).any():
                note(say("task_part_empty", task=task.name, part=name))
        images = counts_of(task, labels[task.name])
        for name, count in zip(task.classes, images[:, 1] if images.ndim > 1 else images, strict=True):
            if not count:
                note(say("empty_class", name=f"{task.name}: {name}"))
    return lines


def _hold_enough(lines: Lines) -> None:
    """Refuse lines with an empty part. Raises DataError."""
    for name, line, parts in (("source", lines.source, (TRAIN, VAL, TEST)), ("target", lines.target, (TRAIN, TEST))):
        if line is not None and any(not (line.side == part).any() for part in parts):
            raise DataError("too_few_images", line=name, count=len(line.cache))


def _few(path: Path, classes: Classes, target: PixelCache) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the target line that a file labels, and their classes. Raises DataError where there is none."""
    told = read_labels_by_id(path, classes)
    known = {name: label for name, label in told.items() if label >= 0}
    rows = np.array([row for row, name in enumerate(target.table.ids) if name in known], dtype=np.int64)
    if not len(rows):
        raise DataError("few_no_match", path=path)
    left_out = len(told) - len({target.table.ids[row] for row in rows})
    if left_out:
        note(say("few_left_out", count=left_out, path=path))
    return rows, np.array([known[target.table.ids[row]] for row in rows])


def _cached(which: str, config: Config, classes: Classes | None) -> PixelCache:
    """classes: of a source line, whose other folders are left out."""
    places = config.source if which == "source" else config.target
    table = read_images(places, classes, labelled=which == "source")
    if classes is not None:
        for folder, count in sorted(left_out(places, classes).items()):
            note(say("left_out", folder=folder, count=count, line=which))
    with showing(say("decoding", line=which), len(table)) as advance:
        cache = cache_pixels(table, config.cache or config.out / "cache", bit_depth=config.bit_depth, progress=advance)
    if cache.table.unreadable:
        path, why = cache.table.unreadable[0]
        note(say("some_unreadable", count=len(cache.table.unreadable), line=which, path=path, why=why))
    return cache


def lock(lines: Lines) -> dict[str, Any]:
    """Which image is where. Source images with path and class, or labels; target images by content alone."""
    if lines.classes is None:
        return _lock_tasks(lines)
    source, target = lines.source, lines.target
    names = lines.classes.names

    def rows(which: int) -> list[dict[str, str]]:
        return [
            {"id": row.id, "path": str(row.path), "class": names[label]}
            for row, label, side in zip(source.cache.table.rows, lines.source_labels[CLASS], source.side, strict=True)
            if side == which
        ]

    labelled = {}
    if lines.few is not None:
        named = zip(lines.few.table.ids, lines.few_labels, strict=True)
        labelled = {"labelled": {name: names[label] for name, label in named}}
    return {
        "classes": {folder: names[index] for folder, index in lines.classes.holders.items()},
        "source": {"train": rows(TRAIN), "val": rows(VAL), "test": rows(TEST)},
        "target": {
            "train": list(target.part(TRAIN).table.ids),
            "test": list(target.part(TEST).table.ids),
            **labelled,
        },
    }


def _lock_tasks(lines: Lines) -> dict[str, Any]:
    """The same with declared tasks, and what was declared."""

    def said(task: Task, label: np.ndarray) -> Any:
        if task.kind == "multi-label":
            return None if (label < 0).all() else [task.classes[index] for index in np.flatnonzero(label == 1)]
        return None if label < 0 else task.classes[label]

    def rows(which: int) -> list[dict[str, Any]]:
        return [
            {
                "id": lines.source.cache.table.rows[row].id,
                "path": str(lines.source.cache.table.rows[row].path),
                "labels": {task.name: said(task, lines.source_labels[task.name][row]) for task in lines.tasks},
            }
            for row in np.flatnonzero(lines.source.side == which)
        ]

    target = {}
    if lines.target is not None:
        parts = (("train", TRAIN), ("test", TEST))
        target = {"target": {name: list(lines.target.part(part).table.ids) for name, part in parts}}
    return {
        "tasks": json.loads(json.dumps([vars(task) for task in lines.tasks])),
        "source": {"train": rows(TRAIN), "val": rows(VAL), "test": rows(TEST)},
        **target,
    }


def locked_tasks(run: Path) -> tuple[Task, ...]:
    """The tasks that a run was declared, as its data.lock.json has them. Raises DataError."""
    try:
        declared = json.loads((run / "data.lock.json").read_text(encoding="utf-8"))["tasks"]
        return tuple(
            Task(
                **keys
                | {"classes": tuple(keys["classes"]), "data": tuple(keys["data"])}
                | {"holders": {value: tuple(classes) for value, classes in keys["holders"].items()}}
            )
            for keys in declared
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError("no_declarations", run=run) from error


def locked_tests(run: Path) -> set[str]:
    """Contents of the test images of a run, of its source where it has no target line. Raises DataError."""
    try:
        record = json.loads((run / "data.lock.json").read_text(encoding="utf-8"))
        return set(record["target"]["test"] if "target" in record else [row["id"] for row in record["source"]["test"]])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError("no_lock", run=run) from error


def locked_target(run: Path, part: str) -> set[str]:
    """Contents of the target images of a part, train or test, as data.lock.json of a run has them. Raises DataError."""
    try:
        return set(json.loads((run / "data.lock.json").read_text(encoding="utf-8"))["target"][part])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError("no_lock", run=run) from error


def locked_places(run: Path, line: str) -> tuple[Path, ...]:
    """Where a run took the images of a line from, source or target, as its config.yaml has it. Raises DataError."""
    try:
        return tuple(map(Path, read_yaml(run / "config.yaml")[line]))
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise DataError("run_unreadable", run=run) from error


def locked_holders(run: Path) -> dict[str, str] | None:
    """Class name by folder name, as a run took them; None where its data.lock.json is not there."""
    try:
        return json.loads((run / "data.lock.json").read_text(encoding="utf-8"))["classes"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
