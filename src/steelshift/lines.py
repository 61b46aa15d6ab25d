"""S1: both lines read, cached, cut to equal numbers and split."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from steelshift.data.cache import PixelCache, cache_pixels
from steelshift.data.splits import TEST, TRAIN, VAL, first, groups_of, split
from steelshift.data.table import (
    Classes,
    find_classes,
    left_out,
    load_classes,
    read_images,
    read_labels,
    read_labels_by_id,
)
from steelshift.errors import DataError
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
    classes: Classes
    source: Line
    source_labels: np.ndarray
    """Class index of every source row."""
    target: Line
    few: PixelCache | None = None
    """The target images that --target-labels names; none of them is in the target's test split."""
    few_labels: np.ndarray | None = None

    def unlabelled(self) -> PixelCache:
        """Target training images without those that --target-labels names, if any are left."""
        train = self.target.part(TRAIN)
        if self.few is None:
            return train
        rest = np.flatnonzero(~np.isin(train.digests, self.few.digests))
        return train.take(rest) if len(rest) else train

    def labels(self, which: int) -> np.ndarray:
        return self.source_labels[self.source.side == which]


def read_lines(config: Config) -> Lines:
    """S1: both lines read, cached, cut to equal numbers and split. No target label is read but those given to train."""
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
    target = _cached("target", config, classes if config.classes else None)
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
    lines = Lines(classes, Line(source, source_side), labels, Line(target, target_side), few, few_labels)
    for name, line, parts in (("source", lines.source, (TRAIN, VAL, TEST)), ("target", lines.target, (TRAIN, TEST))):
        if any(not (line.side == part).any() for part in parts):
            raise DataError("too_few_images", line=name, count=len(line.cache))
    return lines


def _few(path: Path, classes: Classes, target: PixelCache) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the target line that a file labels, and their classes. Raises DataError where there is none."""
    known, unknown = read_labels_by_id(path, classes)
    rows = np.array([row for row, name in enumerate(target.table.ids) if name in known], dtype=np.int64)
    if not len(rows):
        raise DataError("few_no_match", path=path)
    left_out = len(known) + unknown - len({target.table.ids[row] for row in rows})
    if left_out:
        note(say("few_left_out", count=left_out, path=path))
    return rows, np.array([known[target.table.ids[row]] for row in rows])


def _cached(which: str, config: Config, classes: Classes | None) -> PixelCache:
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
    """Which image is where. Source images with path and class; target images by content alone."""
    source, target = lines.source, lines.target
    names = lines.classes.names

    def rows(which: int) -> list[dict[str, str]]:
        return [
            {"id": row.id, "path": str(row.path), "class": names[label]}
            for row, label, side in zip(source.cache.table.rows, lines.source_labels, source.side, strict=True)
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


def locked_target(run: Path, part: str) -> set[str]:
    """Contents of the target images of a part, train or test, as data.lock.json of a run has them. Raises DataError."""
    try:
        return set(json.loads((run / "data.lock.json").read_text(encoding="utf-8"))["target"][part])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError("no_lock", run=run) from error


def locked_holders(run: Path) -> dict[str, str] | None:
    """Class name by folder name, as a run took them; None where its data.lock.json is not there."""
    try:
        return json.loads((run / "data.lock.json").read_text(encoding="utf-8"))["classes"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
