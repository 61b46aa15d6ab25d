"""How far one inspector carries on synthetic lines: other metals, a month of drift, the strip's edge, rare defects.

    .venv/bin/python scripts/measure_generality.py OUT [materials drift edge rare real] [--seeds 0 1 2 3 4]
        [--config fit.yaml] [--minutes 5]

Trains an inspector a case and seed, by `fit` with the settings below or those of a YAML file, and scores it frozen on
images of every test of its case. OUT/rows.csv gets a row a test; a row that is there is not measured again, so an
interrupted measurement continues with the same command. --minutes stops after the training under way at that time.
Prints tables of means over seeds with 95 % intervals.

materials: five metals, trained on each and tested on all. drift: steel on day 1 to 30 without maintenance, and by
alloy. edge: one training image in ten at the strip's edge, tests at the edge and in the centre. rare: scratches at
0.8 % of the training images, tests balanced. real: qualified against defective tiles of real sets, each trained on half
of its images and tested on the other half of every set; needs STEELSHIFT_DATA.
"""

import argparse
import csv
import io
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from steelshift.adapt import fit
from steelshift.data.cache import cache_pixels
from steelshift.data.camera import Shift
from steelshift.data.decode import decode
from steelshift.data.metals import METALS
from steelshift.data.stream import resized
from steelshift.data.synthetic import write_lines
from steelshift.data.table import read_images
from steelshift.data.tiles import Marked, cut, read_mask
from steelshift.files import append_text, write_text
from steelshift.inspection.inspector import answers, load
from steelshift.judging import evaluate
from steelshift.losses.moments import kernel_distance, kernels
from steelshift.training.config import Config, from_mapping, read_mapping

SETTINGS = {"method": "source_only", "size": 80, "batch": 24, "steps": 300, "pretrain_steps": 200}
FIXED = {"candidates": 1, "oracle": False, "equal_numbers": False, "save_every": 1000}
COLUMNS = (
    "experiment",
    "method",
    "seed",
    "trained",
    "tested",
    "n",
    "mean_class_accuracy",
    "macro_f1",
    "recall",
    "moved",
)
"""recall: of scratches. moved: squared maximum mean discrepancy of features from those of the source images."""
IMAGES = 700
DAYS = 30
A_DAY = 70
RARE = "scratches"


@dataclass(frozen=True)
class Case:
    """One inspector to train on `source`, and what it is tested on."""

    trained: str
    source: Path
    tests: dict[str, Path]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("experiments", nargs="*", help=", ".join(EXPERIMENTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--config", type=Path, help="YAML of options of fit in place of the settings")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    options = parser.parse_args()
    asked = options.experiments or list(EXPERIMENTS)
    if not set(asked) <= set(EXPERIMENTS):
        parser.error(f"experiments are {', '.join(EXPERIMENTS)}")
    settings = read_mapping(options.config) if options.config else SETTINGS
    began: float | None = None  # drawing lines does not count
    rows = options.out / "rows.csv"
    for experiment in asked:
        for case in EXPERIMENTS[experiment](options.out / "lines"):
            for seed in options.seeds:
                began = began or time.monotonic()
                if time.monotonic() - began < 60 * options.minutes:
                    measure(experiment, case, seed, settings, options.out, rows)
    for experiment in asked:
        print(table(experiment, read(rows)))
    return 0


def measure(experiment: str, case: Case, seed: int, settings: dict[str, Any], out: Path, rows: Path) -> None:
    """Train an inspector and score it on the tests of its case that have no row yet."""
    key = {"experiment": experiment, "method": settings["method"], "seed": str(seed), "trained": case.trained}
    done = {row["tested"] for row in read(rows) if all(row[name] == value for name, value in key.items())}
    left = {name: place for name, place in case.tests.items() if name not in done}
    if not left:
        return
    run = out / "run"
    shutil.rmtree(run, ignore_errors=True)
    given = {"source": (case.source,), "target": (next(iter(case.tests.values())),), "out": run, "seed": seed}
    fit(from_mapping(Config, settings | FIXED, **given), resume=False)
    if not rows.exists():
        write_text(rows, line(COLUMNS))
    inspector = load(run)
    home = features(inspector, case.source)
    for name, place in left.items():
        found = evaluate(run, (place,), None, "all")
        scored = {
            "tested": name,
            "n": found["n"],
            "mean_class_accuracy": round(found["mean_class_accuracy"], 5),
            "macro_f1": round(found["macro_f1"], 5),
            "recall": found["per_class"].get(RARE, {}).get("recall"),
            "moved": round(moved(home, features(inspector, place)), 6),
        }
        append_text(rows, line([(key | scored)[column] for column in COLUMNS]))
    shutil.rmtree(run)


def line(values: Sequence[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()


def features(inspector: Any, place: Path) -> torch.Tensor:
    """Of at most 200 images."""
    table = read_images([place])
    table = table.take(range(0, len(table), max(1, len(table) // 200)))
    scratch = place.parent / f".features-{place.name}"
    cache = cache_pixels(table, scratch)
    found = answers(inspector, resized(cache, np.arange(len(cache)), inspector.specification.size)).features
    shutil.rmtree(scratch)
    return torch.from_numpy(found)


def moved(home: torch.Tensor, away: torch.Tensor) -> float:
    return float(kernel_distance(kernels(torch.cat([home, away])), len(home)))


# The cases of each experiment; lines are drawn once.


def materials(lines: Path) -> Iterator[Case]:
    made = {metal: drawn(lines / metal, Shift(metal=metal), Shift(metal=metal)) for metal in METALS}
    for metal in METALS:
        tests = {metal: made[metal] / "target"} | {name: made[name] / "target" for name in METALS}
        yield Case(metal, made[metal] / "source", tests)


def drift(lines: Path) -> Iterator[Case]:
    place = drawn(lines / "month", Shift(), Shift(), images=A_DAY * DAYS, days=DAYS)
    tests = {f"day {day:02d}": place / "target" / f"day-{day:02d}" for day in range(1, DAYS + 1)}
    for alloy in ("usual", "new"):
        late = subset(place, alloy, lambda row, alloy=alloy: row["alloy"] == alloy and int(row["day"]) > 20)
        tests[f"{alloy} alloy, day 21 to 30"] = late
    few = subset(place, "first", lambda row: int(row["number"]) < IMAGES, line="source")
    yield Case("steel, day 0", few, tests)


def edge(lines: Path) -> Iterator[Case]:
    place = drawn(lines / "edge", Shift(edge=0.1), Shift(edge=0.5), images=2 * IMAGES)
    tests = {name: subset(place, name, lambda row, name=name: row["place"] == name) for name in ("edge", "centre")}
    few = subset(place, "first", lambda row: int(row["number"]) < IMAGES, line="source")
    yield Case("steel, edge in one image of ten", few, tests)


def rare(lines: Path) -> Iterator[Case]:
    place = drawn(lines / "rare", Shift(prevalence={RARE: 0.008}), Shift(), images=2 * IMAGES)
    yield Case(f"steel, {RARE} 0.8 %", place / "source", {"balanced": place / "target"})


TILE = 64
A_CLASS = 350
"""Tiles of a class and half of a set, at most."""


def real(lines: Path) -> Iterator[Case]:
    """Hot-rolled steel, coated sheet, aluminium and ferrite. Copper, zinc and titanium could not be had."""
    if "STEELSHIFT_DATA" not in os.environ:
        print("real: left out, STEELSHIFT_DATA names no folder", file=sys.stderr)
        return
    data = Path(os.environ["STEELSHIFT_DATA"])
    sets = {
        "hot-rolled steel": [*_masked(data / "NEU-CLS", data / "NEU-CLS-masks", ("Inclusion", "Patches", "Scratches"))],
        "coated sheet": [*_boxed(data / "GC10-DET-224")],
        "aluminium": [*_masked(data / "AL-SHEET", data / "AL-SHEET/masks", ("images",))],
        "ferrite": [*_masked(data / "MT", data / "MT-masks", tuple(f"exp{number}" for number in range(1, 7)))],
    }
    halves = {name: _tiled(lines / f"real {name}", marked) for name, marked in sets.items()}
    for name, (train, test) in halves.items():
        yield Case(name, train, {name: test} | {other: test for other, (_, test) in halves.items()})


def _masked(images: Path, masks: Path, folders: Sequence[str]) -> Iterator[tuple[Path, Marked]]:
    """Images with their masks; of those without one, defect-free ones alone."""
    found = {path.stem: path for path in sorted(masks.rglob("*.png"))}
    for folder in folders:
        for path in sorted((images / folder).rglob("*.[jp][pn]g")):
            if path.stem in found:
                yield path, Marked({"defective": read_mask(found[path.stem])})
            elif path.parent.name == "Free":
                yield path, Marked({})


def _boxed(folder: Path) -> Iterator[tuple[Path, Marked]]:
    with (folder / "original_names_and_boxes.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            mask = np.zeros((224, 224), dtype=bool)
            for _, left, top, right, bottom in json.loads(row["boxes_in_224px[class,x0,y0,x1,y1]"] or "[]"):
                mask[int(top) : int(bottom) + 1, int(left) : int(right) + 1] = True
            if mask.any():
                yield folder / row["class"] / row["file"], Marked({"defective": mask})


def _tiled(stem: Path, marked: Sequence[tuple[Path, Marked]]) -> tuple[Path, Path]:
    """Manifests of tiles of either half of the images, equally many of both classes."""
    manifests = (stem.with_name(stem.name + " train.csv"), stem.with_name(stem.name + " test.csv"))
    rng = np.random.default_rng(0)
    order = rng.permutation(len(marked))
    for manifest, half in zip(manifests, (order[::2], order[1::2]), strict=True):
        tiles: dict[str, list[tuple[Any, ...]]] = {"qualified": [], "defective": []}
        for place in half:
            path, marks = marked[place]
            shape = decode(path.read_bytes()).pixels.shape[:2]
            if any(mask.shape != shape for mask in marks.masks.values()):
                continue
            for tile in cut(shape, marks, "qualified", TILE, TILE):
                tiles[tile.label].append((path, f"{tile.x} {tile.y} {TILE} {TILE}", tile.label, path))
        count = min(A_CLASS, *map(len, tiles.values()))
        chosen = [found[i] for found in tiles.values() for i in rng.permutation(len(found))[:count]]
        write_text(manifest, "".join(map(line, [("path", "crop", "label", "group"), *chosen])))
    return manifests


EXPERIMENTS: dict[str, Callable[[Path], Iterator[Case]]] = {
    "materials": materials,
    "drift": drift,
    "edge": edge,
    "rare": rare,
    "real": real,
}


def drawn(place: Path, source: Shift, target: Shift, images: int = IMAGES, days: int = 0) -> Path:
    if not place.exists():
        write_lines(place, source=source, shift=target, images=images, seed=1, days=days)
    return place


def subset(place: Path, name: str, chosen: Callable[[dict[str, str]], bool], line: str = "target") -> Path:
    """A manifest of some images of a line, beside its own."""
    with (place / f"{line}.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if chosen(row | {"number": Path(row["path"]).stem})]
    path = place / f"{line}-{name}.csv"
    write_text(path, "path,label\n" + "".join(f"{row['path']},{row['label']}\n" for row in rows))
    return path


# What is printed.


def read(rows: Path) -> list[dict[str, str]]:
    if not rows.exists():
        return []
    with rows.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def table(experiment: str, rows: list[dict[str, str]]) -> str:
    """Mean over seeds, plus or minus its 95 % interval: trained x tested for materials, else a line a test."""
    cells: dict[tuple[str, str, str], list[dict[str, str]]] = {}
    for row in rows:
        if row["experiment"] == experiment:
            cells.setdefault((row["method"], row["trained"], row["tested"]), []).append(row)
    lines = [f"\n{experiment}, mean class accuracy (recall of {RARE}; feature distance from home)"]
    lines += [
        "",
        "| method | trained on | tested on | seeds | images | accuracy | recall | distance |",
        "|---" * 8 + "|",
    ]
    for (method, trained, tested), found in cells.items():
        shown = [spread([float(row[key]) for row in found if row[key]])
                 for key in ("mean_class_accuracy", "recall", "moved")]  # fmt: skip
        lines.append(
            f"| {method} | {trained} | {tested} | {len(found)} | {found[0]['n']} | " + " | ".join(shown) + " |"
        )
    for method in dict.fromkeys(method for method, *_ in cells):
        lines += summary(experiment, {key[1:]: found for key, found in cells.items() if key[0] == method}, method)
    return "\n".join(lines)


def summary(experiment: str, cells: dict[tuple[str, str], list[dict[str, str]]], method: str) -> list[str]:
    """The figure of each experiment, paired by seed."""

    def by_seed(found: list[dict[str, str]]) -> dict[str, float]:
        return {row["seed"]: float(row["mean_class_accuracy"]) for row in found}

    scores = {key: by_seed(found) for key, found in cells.items()}
    if experiment in ("materials", "real"):
        seeds = set.intersection(*(set(each) for each in scores.values()))
        drops = [np.mean([scores[a, a][s] - scores[a, b][s] for a, b in scores if a != b]) for s in seeds]
        return [f"{method}: mean drop on other materials {spread(drops)}"]
    if experiment == "drift":
        days = {tested: each for (_, tested), each in scores.items()}
        first, last = days.get("day 01", {}), days.get(f"day {DAYS}", {})
        both = first.keys() & last.keys()
        points = [first[seed] - last[seed] for seed in both]
        relative = [(first[seed] - last[seed]) / first[seed] for seed in both]
        return [f"{method}: decay over {DAYS} days {spread(points)} absolute, {spread(relative)} relative"]
    return []


def spread(values: list[float]) -> str:
    if not values:
        return "-"
    if len(values) < 2:
        return f"{values[0]:.3f}"
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{np.mean(values):.3f} ± {half:.3f}"


if __name__ == "__main__":
    sys.exit(main())
