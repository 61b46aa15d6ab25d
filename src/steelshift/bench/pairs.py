"""The images of a pair, made ready once for all runs on it."""

import csv
import io
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from steelshift.bench.suite import Pair
from steelshift.data.cache import cache_pixels
from steelshift.data.camera import load_shift, photograph
from steelshift.data.splits import TEST, split
from steelshift.data.synthetic import write_lines
from steelshift.data.table import find_classes, list_places, load_classes, read_images, read_labels
from steelshift.data.tiles import write_tiles
from steelshift.files import write_json, write_text
from steelshift.progress import showing
from steelshift.resample import to_grey

SEED = 0
"""Of what is drawn here: every seed of a suite sees the same lines and splits them differently."""


@dataclass(frozen=True)
class Ready:
    source: tuple[Path, ...]
    target: tuple[Path, ...]
    classes: Path | None


def prepare(name: str, pair: Pair, folder: Path) -> Ready:
    """Make the lines of a pair in `folder`, or find them there; the images of the user stay where they are."""
    done = folder / "ready.json"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        made = _make(name, pair, folder)
        write_json(done, {key: [str(path) for path in getattr(made, key)] for key in ("source", "target")})
    found = json.loads(done.read_text(encoding="utf-8"))
    return Ready(tuple(map(Path, found["source"])), tuple(map(Path, found["target"])), pair.classes)


def _make(name: str, pair: Pair, folder: Path) -> Ready:
    if pair.synthetic:
        with showing(name, 2 * pair.images) as advance:
            write_lines(
                folder / "lines", shift=load_shift(pair.synthetic), images=pair.images, seed=SEED, progress=advance
            )
        ready = Ready((folder / "lines" / "source",), (folder / "lines" / "target",), None)
    elif pair.photographed is not None:
        ready = _photographed(name, pair.photographed, pair.shift, folder)
    elif pair.tile is not None:
        source, target = (_tiles(pair, line, getattr(pair, line), folder) for line in ("source", "target"))
        ready = Ready(source, target, pair.classes)
    else:
        ready = Ready(pair.source, pair.target, pair.classes)
    if pair.flipped:
        ready = Ready((_flipped(ready, pair.flipped, folder),), ready.target, ready.classes)
    return ready


def _photographed(name: str, place: Path, shift: str, folder: Path) -> Ready:
    """Disjoint halves, every class in both: one as it is, one through the simulated camera."""
    classes, camera = find_classes([place]), load_shift(shift)
    cache = cache_pixels(read_images([place]), folder / "decoded")
    labels = read_labels([place], classes, cache.table)
    side = split(cache.table, cache.digests, labels, train_ratio=0.5, val_ratio=0.0, seed=SEED)
    seen = [row for row in range(len(cache)) if side[row] == TEST and labels[row] >= 0]
    with showing(name, len(seen)) as advance:
        for done, row in enumerate(seen, start=1):
            grey = to_grey(torch.from_numpy(np.array(cache[row]))[None])[0].round().to(torch.uint8).numpy()
            picture = photograph(grey, camera, np.random.default_rng([SEED, row]))
            path = folder / "target" / classes.names[labels[row]] / f"{row:06d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path, compress_level=1)
            advance(done)
    kept = [row for row in range(len(cache)) if side[row] != TEST and labels[row] >= 0]
    records = [{"path": str(cache.table.rows[row].path), "label": classes.names[labels[row]]} for row in kept]
    shutil.rmtree(folder / "decoded")
    return Ready((_manifest(folder / "source.csv", records),), (folder / "target",), None)


def _tiles(pair: Pair, line: str, places: tuple[Path, ...], folder: Path) -> tuple[Path, ...]:
    manifests = []
    for number, place in enumerate(places):
        manifest = folder / f"{line}-{number}.csv"
        write_tiles(place, manifest, tile=pair.tile, masks=pair.masks / place.name if pair.masks else None)
        manifests.append(manifest)
    return tuple(manifests)


def _flipped(ready: Ready, share: float, folder: Path) -> Path:
    """The source line with some labels replaced by those of other classes, at random."""
    classes = load_classes(ready.classes) if ready.classes else find_classes(ready.source)
    places = [place for place in list_places(ready.source) if place.label in classes.holders]
    rng = np.random.default_rng(SEED)
    wrong = rng.choice(len(places), round(share * len(places)), replace=False)
    labels = [classes.holders[place.label] for place in places]
    for row in wrong:
        labels[row] = (labels[row] + rng.integers(1, len(classes.names))) % len(classes.names)
    records = [
        {
            "path": str(place.path.resolve()),
            "label": classes.names[label],
            "crop": " ".join(map(str, place.crop or ())),
            "group": place.group or "",
        }
        for place, label in zip(places, labels, strict=True)
    ]
    return _manifest(folder / "source-flipped.csv", records)


def _manifest(path: Path, records: list[dict[str, str]]) -> Path:
    text = io.StringIO()
    writer = csv.DictWriter(text, records[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    write_text(path, text.getvalue())
    return path
