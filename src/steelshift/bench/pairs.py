"""The images of a pair, made ready once for all runs on it."""

import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from steelshift.bench.suite import Pair, hash_of_pair
from steelshift.data.cache import cache_pixels
from steelshift.data.camera import load_lines, load_shift, photograph
from steelshift.data.splits import TEST, split
from steelshift.data.synthetic import write_lines
from steelshift.data.table import Place, find_classes, list_places, load_classes, read_images, read_labels
from steelshift.data.tiles import write_tiles
from steelshift.errors import UsageError
from steelshift.files import as_csv, write_json, write_text
from steelshift.progress import showing
from steelshift.resample import to_grey

SEED = 0
"""Of what is drawn here: every seed of a suite sees the same lines and splits them differently."""


@dataclass(frozen=True)
class Ready:
    source: tuple[Path, ...]
    target: tuple[Path, ...]
    cache: Path
    """Folder of decoded images."""


def prepare(name: str, pair: Pair, data: Path) -> Ready:
    """Make the lines of a pair in a folder of `data`, or find them there; the images of the user stay where they are.

    A pair that was changed since is made anew, in another folder.
    """
    folder = data / f"{name}-{hash_of_pair(pair)}"
    if not folder.exists():
        growing = data / f".{folder.name}.{os.getpid()}.partial"
        growing.mkdir(parents=True)
        try:
            places = dict(zip(("source", "target"), _make(name, pair, growing), strict=True))
            record = {
                line: [str(path.relative_to(growing) if path.is_relative_to(growing) else path) for path in paths]
                for line, paths in places.items()
            }
            write_json(growing / "ready.json", record)
            growing.rename(folder)
        finally:
            shutil.rmtree(growing, ignore_errors=True)
    found = json.loads((folder / "ready.json").read_text(encoding="utf-8"))
    source, target = (tuple(folder / path for path in found[line]) for line in ("source", "target"))
    if pair.classes:
        target = (_closed(target, pair.classes, folder / "target-closed.csv"),)
    return Ready(source, target, folder / "cache")


def _make(name: str, pair: Pair, folder: Path) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Source and target of a pair."""
    if pair.synthetic:
        lines = folder / "lines"
        with showing(name, 2 * pair.images) as advance:
            look, shift = load_lines(pair.synthetic)
            write_lines(lines, source=look, shift=shift, images=pair.images, seed=SEED, progress=advance)
        source, target = (lines / "source",), (lines / "target",)
    elif pair.photographed is not None:
        source, target = _photographed(name, pair.photographed, pair.shift, folder)
    elif pair.tile is not None:
        source, target = (_tiles(pair, line, getattr(pair, line), folder) for line in ("source", "target"))
    else:
        source, target = pair.source, pair.target
        if pair.classes is None:
            find_classes(source)
        for places in (source, target):  # what is not there is said before anything is trained
            list_places(places)
    if pair.unknown:
        source = (_without(source, pair.unknown, folder / "source-known.csv"),)
    if pair.absent:
        target = (_without(target, pair.absent, folder / "target-present.csv"),)
    return ((_flipped(source, pair, folder),) if pair.flipped else source), target


def _photographed(name: str, place: Path, shift: str, folder: Path) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Disjoint halves, every class in both: one as it is, one through the simulated camera; groups stay together."""
    classes, camera = find_classes([place]), load_shift(shift)
    cache = cache_pixels(read_images([place]), folder / "decoded")
    labels = read_labels([place], classes, cache.table)
    side = split(cache.table, cache.digests, labels, train_ratio=0.5, val_ratio=0.0, seed=SEED)
    rows = cache.table.rows
    seen = [row for row in range(len(cache)) if side[row] == TEST and labels[row] >= 0]
    pictures = []
    with showing(name, len(seen)) as advance:
        for done, row in enumerate(seen, start=1):
            grey = to_grey(torch.from_numpy(np.array(cache[row]))[None])[0].round().to(torch.uint8).numpy()
            picture = photograph(grey, camera, np.random.default_rng([SEED, row]))
            path = folder / "target" / classes.names[labels[row]] / f"{row:06d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path, compress_level=1)
            pictures.append(Place(path, classes.names[labels[row]], group=rows[row].group, split=rows[row].split))
            advance(done)
    kept = [row for row in range(len(cache)) if side[row] != TEST and labels[row] >= 0]
    places = [
        Place(rows[row].path, classes.names[labels[row]], rows[row].crop, rows[row].group, rows[row].split)
        for row in kept
    ]
    shutil.rmtree(folder / "decoded")
    return (_manifest(folder / "source.csv", places),), (_manifest(folder / "target.csv", pictures),)


def _tiles(pair: Pair, line: str, places: tuple[Path, ...], folder: Path) -> tuple[Path, ...]:
    manifests = []
    for number, place in enumerate(places):
        manifest = folder / f"{line}-{number}.csv"
        write_tiles(place, manifest, tile=pair.tile, masks=pair.masks / place.name if pair.masks else None)
        manifests.append(manifest)
    return tuple(manifests)


def _flipped(source: tuple[Path, ...], pair: Pair, folder: Path) -> Path:
    """The source line with some labels replaced by those of other classes, at random."""
    classes = load_classes(pair.classes) if pair.classes else find_classes(source)
    places = [place for place in list_places(source) if place.label in classes.holders]
    labels = [classes.holders[place.label] for place in places]
    rng = np.random.default_rng(SEED)
    for row in rng.choice(len(places), round(pair.flipped * len(places)), replace=False):
        labels[row] = (labels[row] + rng.integers(1, len(classes.names))) % len(classes.names)
    wrong = [
        Place(place.path, classes.names[label], place.crop, place.group, place.split)
        for place, label in zip(places, labels, strict=True)
    ]
    return _manifest(folder / "source-flipped.csv", wrong)


def _without(places: tuple[Path, ...], names: tuple[str, ...], path: Path) -> Path:
    """The images of a line but for those of some classes. Raises UsageError for a class that it does not have."""
    found = list_places(places)
    for name in names:
        if name not in {place.label for place in found}:
            raise UsageError("pair_class", name=name, known=", ".join(sorted({str(place.label) for place in found})))
    return _manifest(path, [place for place in found if place.label not in names])


def _closed(places: tuple[Path, ...], classes: Path, path: Path) -> Path:
    """The images of a target line that are of the classes which are compared: the usual protocol, which needs labels.

    A line without any label is taken whole. What was made before is found again.
    """
    if path.exists():
        return path
    found, holders = list_places(places), load_classes(classes).holders
    if any(place.label in holders for place in found):
        found = [place for place in found if place.label is None or place.label in holders]
    return _manifest(path, found)


def _manifest(path: Path, places: Iterable[Place]) -> Path:
    rows = (
        {
            "path": os.path.relpath(place.path.resolve(), path.parent.resolve()),
            "crop": " ".join(map(str, place.crop or ())),
            "label": place.label,
            "group": place.group,
            "split": place.split,
        }
        for place in places
    )
    write_text(path, as_csv(("path", "crop", "label", "group", "split"), rows))
    return path
