"""Many tasks against one, over setups and seeds of a suite, on drawn lines whose labels are known.

    .venv/bin/python scripts/measure_tasks.py suites/tasks/losses.yaml OUT [--seeds 3] [--minutes 5]

A suite (YAML) names:
    seeds
    images: of each of two lines; the first is trained on, the second tested
    days: that the second line ages in without maintenance (default none)
    lines: what both look like, as in a file for `synth`; or `boxed`, halves of the real images of NEU-CLS (in the
        folder that STEELSHIFT_DATA names) with extent and quadrant from their boxes
    tasks: a file for `fit --tasks`, beside the suite
    settings: options of `fit` for all setups
    score: mean class accuracy on source validation images that convergence is asked for, among as many checkpoints as
        `candidates` says
    minority: {task: class} whose recall and F1 are reported, and the mean recall of the task's other classes
    tests: name: {column: value or values} of the tested images; by default all of them
    setups: name: {options: of `fit`, groups: together (default), alone, physical, affinity or random, labels: images
        that are given (default all; of fewer than 30 all but two train), target: {column: value or values} of the
        second line's images that are given without labels (default none), analyse: name of an earlier setup to analyse
        against, or true, against: setup that interference is counted against (default the first of as many labels
        whose tasks are alone)}

OUT/rows.csv gets a row a setup, seed, task and test; OUT/analysis.csv one a network that is analysed. What is there is
not measured again, so an interrupted measurement continues with the same command. --seeds measures the first few seeds
of the suite alone; --minutes stops after the setup under way at that time. Every network of a setup gets the same
steps. Prints tables with 95 % intervals over seeds, and interference with its null rate.
"""

import argparse
import csv
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import yaml

from measure_generality import line, read, spread
from steelshift.adapt import fit
from steelshift.analysing import analyse
from steelshift.data.camera import load_lines
from steelshift.data.synthetic import write_lines
from steelshift.files import append_text, write_text
from steelshift.grouping import group
from steelshift.multitask.conflict import interference, margins
from steelshift.multitask.groups import within
from steelshift.multitask.separation import steps_to
from steelshift.tasking import evaluate_tasks
from steelshift.training.config import Config, from_mapping

FIXED = {"oracle": False, "equal_numbers": False, "save_every": 10000, "candidates": 1, "select": "last"}
FEW = 30
"""Labelled images from which ratios leave no part of a line empty."""
BOXED = ("crazing", "inclusion", "patches", "pitted_surface", "rolled-in_scale", "scratches")
ROWS = ("setup", "seed", "labels", "task", "test", "n", "mean_class_accuracy", "macro_f1", "minority", "steps",
        "minority_f1", "others")  # fmt: skip
ANALYSED = ("setup", "seed", "conflict_rate", "difference", "reduced_by", "read_sharing", "channels", "parameters",
            "flops", "linear_probe", "cluster_distance", "task_distance", "within maps", "maps", "tasks",
            *(f"rough {name}" for name in ("mean square", "cross-entropy", "dynamic balanced focal")),
            "task_probe")  # fmt: skip


class Suite:
    """What the file says, with its lines drawn and its tasks written beside the results."""

    def __init__(self, path: Path, out: Path) -> None:
        said = yaml.safe_load(path.read_text(encoding="utf-8"))
        said["setups"] = {name: setup or {} for name, setup in said["setups"].items()}
        said["tasks"] = yaml.safe_load((path.parent / said["tasks"]).read_text(encoding="utf-8"))
        self.out, self.said = out, said
        self.lines = out / "lines"
        out.mkdir(parents=True, exist_ok=True)
        if said.get("lines") == "boxed":
            write_boxed(self.lines)
        elif not self.lines.exists():
            write_text(out / "lines.yaml", yaml.safe_dump(said.get("lines") or {"gain": 1.0}))
            source, target = load_lines(out / "lines.yaml")
            write_lines(self.lines, source=source, shift=target, images=said["images"], seed=1,
                        days=said.get("days", 0))  # fmt: skip
        self.tests = {name: self.rows("target", **chosen) for name, chosen in said.get("tests", {"all": {}}).items()}

    def rows(self, which: str, limit: int | None = None, **chosen: Any) -> Path:
        """A manifest of a line's first images, or of those with one of the values of some columns."""
        wanted = {key: list(map(str, np.atleast_1d(values))) for key, values in chosen.items()}
        with (self.lines / f"{which}.csv").open(encoding="utf-8", newline="") as file:
            found = [row for row in csv.DictReader(file) if all(row[key] in values for key, values in wanted.items())]
        path = self.lines / f"{which}-{limit or 'all'}-{'-'.join(map(' '.join, wanted.values()))}.csv"
        given = found[:limit]
        if limit is not None and limit < FEW:  # as ratios would leave parts empty
            parts = ["train"] * (limit - 2) + ["val", "test"]
            given = [row | {"split": part} for row, part in zip(given, parts, strict=True)]
        write_text(path, "".join([line(list(given[0])), *(line(list(row.values())) for row in given)]))
        return path

    def declared(self, names: list[str]) -> Path:
        path = self.out / "tasks.yaml"
        tasks = {name: self.said["tasks"][name] for name in names}
        write_text(path, yaml.safe_dump(tasks, sort_keys=False, allow_unicode=True))
        return path

    def groups(self, how: str, source: Path, seed: int) -> list[list[str]]:
        """Which tasks share a network; affinity is measured anew for every seed."""
        names = list(self.said["tasks"])
        if how in ("together", "alone"):
            return [names] if how == "together" else [[name] for name in names]
        config = self.config(source, self.out / "unused", seed, {"method": "source_only"})
        told = self.out / f"groups-{how}-{seed}.yaml"
        found = group(self.declared(names), (source,), told, by=how, measure="maps", count=None, config=config)
        return found["groups"]

    def config(self, source: Path, run: Path, seed: int, options: dict[str, Any]) -> Config:
        given = {"method": "multitask"} | FIXED | self.said["settings"] | options
        return from_mapping(Config, {"target": ()} | given, source=(source,), out=run, seed=seed)


def write_boxed(folder: Path) -> None:
    """Manifests of NEU-CLS, in no order, every second image of a class in the source line.

    extent: the share of the image that its boxes cover, cut at 0.2 and 0.5. quadrant: of the largest box's centre.
    """
    data = Path(os.environ["STEELSHIFT_DATA"])
    named = {name.split("_")[0].split("-")[0]: name for name in BOXED}
    lines: tuple[list[list[Any]], list[list[Any]]] = ([], [])
    for kind in sorted(path for path in (data / "NEU-CLS").iterdir() if path.is_dir()):
        for place, path in enumerate(sorted(kind.glob("*.png"))):
            number = path.stem.rpartition("_")[2]
            boxes = data / "NEU-DET-boxes" / f"{named[kind.name.lower()]}_{number}.xml"
            covered, largest = np.zeros((200, 200), bool), (0, 0, 0)
            for box in ElementTree.parse(boxes).iter("bndbox"):
                x0, y0, x1, y1 = (int(box.findtext(key, "")) for key in ("xmin", "ymin", "xmax", "ymax"))
                covered[y0:y1, x0:x1] = True
                largest = max(largest, ((x1 - x0) * (y1 - y0), x0 + x1, y0 + y1))
            extent = ("small", "medium", "large")[int(np.digitize(covered.mean(), (0.2, 0.5)))]
            quadrant = f"{'lower' if largest[2] > 200 else 'upper'} {'right' if largest[1] > 200 else 'left'}"
            lines[place % 2].append([path, kind.name, extent, quadrant])
    folder.mkdir(exist_ok=True)
    for name, rows in zip(("source", "target"), lines, strict=True):
        mixed = [rows[row] for row in np.random.default_rng(0).permutation(len(rows))]
        write_text(folder / f"{name}.csv", "".join(map(line, [("path", "label", "extent", "quadrant"), *mixed])))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("suite", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    options = parser.parse_args()
    suite = Suite(options.suite, options.out)
    began = time.monotonic()
    for seed in suite.said["seeds"][: options.seeds]:
        for name in suite.said["setups"]:
            if time.monotonic() - began < 60 * options.minutes:
                measure(suite, name, seed)
    print(table(suite, read(options.out / "rows.csv")))
    return 0


def measure(suite: Suite, name: str, seed: int) -> None:
    """Train the networks of a setup and score them, unless their rows are there."""
    setup = suite.said["setups"][name]
    rows, analysed = suite.out / "rows.csv", suite.out / "analysis.csv"
    key = {"setup": name, "seed": str(seed)}
    wants = setup.get("analyse")
    if any(all(row[each] == value for each, value in key.items()) for row in read(rows)):
        return
    for path, columns in ((rows, ROWS), (analysed, ANALYSED)):
        before = read(path)
        if not before or list(before[0]) != list(columns):  # an older table lacks what was not measured then
            write_text(path, "".join(map(line, [columns, *([row.get(key) for key in columns] for row in before)])))
    source = suite.rows("source", setup.get("labels"))
    told: list[list[Any]] = []
    for number, names in enumerate(suite.groups(setup.get("groups", "together"), source, seed)):
        run = suite.out / "runs" / f"{name}-{seed}-{number}"
        shutil.rmtree(run, ignore_errors=True)
        options = setup.get("options", {}) | {"tasks": suite.declared(names)}
        if "target" in setup:
            options |= {"target": (suite.rows("target", **setup["target"]),)}
        config = suite.config(source, run, seed, options)
        kept = fit(config, resume=False)["candidates"]
        score = suite.said.get("score", np.inf)
        steps = steps_to(score, kept["step"], kept["source_validation"])
        for test, place in suite.tests.items():
            for task, found in evaluate_tasks(run, (place,), "all")["tasks"].items():
                rare = of_minority(found["per_class"], suite.said.get("minority", {}).get(task))
                means = {k: round(found[k], 5) for k in ("mean_class_accuracy", "macro_f1")}
                about = {"labels": setup.get("labels", ""), "task": task, "test": test, "n": found["n"], "steps": steps}
                row = key | about | means | rare
                told.append([row[column] for column in ROWS])
        if wants and len(names) > 1:
            other = suite.out / "runs" / f"{wants}-{seed}-0" if isinstance(wants, str) else None
            seen = key | look(run, other, seed)
            append_text(analysed, line([seen[column] for column in ANALYSED]))
        if not wants and not any(each.get("analyse") == name for each in suite.said["setups"].values()):
            shutil.rmtree(run)
    append_text(rows, "".join(map(line, told)))  # all of a setup at once: it is there or it is not


def of_minority(per_class: dict[str, dict[str, Any]], name: str | None) -> dict[str, float | None]:
    """Recall and F1 of a class, and the mean recall of all others; nothing for a task without one."""
    if name not in per_class:
        return dict.fromkeys(("minority", "minority_f1", "others"))
    recall, precision = per_class[name]["recall"], per_class[name]["precision"] or 0.0  # None: never said
    f1 = 2 * recall * precision / (recall + precision) if recall + precision else 0.0
    others = [each["recall"] for other, each in per_class.items() if other != name and each["n"]]
    return {"minority": recall, "minority_f1": round(f1, 5), "others": round(float(np.mean(others)), 5)}


def look(run: Path, other: Path | None, seed: int) -> dict[str, Any]:
    found = analyse(run, other, 0.8, seed)
    meeting, against = found["conflict"] or {}, found.get("against", {})
    by_task, maps = found["separability"].values(), found["relatedness"].get("maps")
    return {
        "conflict_rate": meeting.get("rate"),
        "difference": meeting.get("difference"),
        "reduced_by": against.get("difference_reduced_by"),
        "read_sharing": found["sharing"]["read"],
        **{key: found["sharing"]["configured"][key] for key in ("channels", "parameters", "flops")},
        **{key: np.mean([each[key] for each in by_task]) for key in ("linear_probe", "cluster_distance")},
        "task_distance": found["task_distance"],
        "within maps": found["groups"]["physical"]["within"].get("maps"),  # of tasks of one nature
        "maps": maps and within(np.array(maps, float), (range(len(maps)),)),  # of all that share the network
        "tasks": " ".join(found["tasks"]),
        **{f"rough {name}": value for name, value in found["roughness"].items()},
        "task_probe": found["task_probe"],
    }


def table(suite: Suite, rows: list[dict[str, str]]) -> str:
    """Means over tasks and seeds; interference against the first setup whose tasks are alone."""
    setups = list(suite.said["setups"])
    shown = {"mean_class_accuracy": "mean class accuracy", "macro_f1": "macro F1", "minority": "minority recall"}
    if any(row.get("minority_f1") for row in rows):
        shown |= {"minority_f1": "minority F1", "others": "recall of others"}
    head = ("setup", "labels", "test", "seeds", *shown.values(), "steps to score")
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name in setups:
        for test in suite.tests:
            of = [row for row in rows if row["setup"] == name and row["test"] == test]
            seeds = list(dict.fromkeys(row["seed"] for row in of))
            means = [
                spread([float(np.mean(found)) for seed in seeds
                        if (found := [float(row[key]) for row in of if row["seed"] == seed and row.get(key)])])
                for key in shown
            ]  # fmt: skip
            if of:
                reached = {row["seed"]: float(row["steps"] or np.inf) for row in of}  # one network has one figure
                means.append(middle(list(reached.values())) if "score" in suite.said else "-")
                lines.append("| " + " | ".join([name, of[0]["labels"] or "all", test, str(len(seeds)), *means]) + " |")
    for name in setups:
        setup = suite.said["setups"][name]
        alone = setup.get("against") or _alone(suite, name)
        for test in suite.tests if alone and setup.get("groups") != "alone" else ():
            (multi, _), (single, images) = scores(rows, name, test), scores(rows, alone, test)
            seeds = [seed for seed in multi if seed in single]
            if not seeds:
                continue
            ours, theirs = (np.array([each[seed] for seed in seeds]) for each in (multi, single))
            found = interference(ours, theirs, margins(theirs, images))
            by_task = zip(sorted(suite.said["tasks"]), found.gain, found.lower, strict=True)
            limits = len(seeds) > 1  # of one seed nothing is known of its spread
            gains = [f"{t} {gain:+.3f}" + f" (95 % above {lower:+.3f})" * limits for t, gain, lower in by_task]
            rates = f"interference {found.rate:.2f}" + f" (null {found.null_rate:.2f})" * limits
            lines.append(f"\n{name} against {alone}, {test}, {len(seeds)} seeds: {rates}; {'; '.join(gains)}")
    return "\n".join([*lines, *labels_for(suite, rows)])


def middle(values: list[float]) -> str:
    """Median, and the smallest and largest; what was never reached is infinite."""
    shown = ["never" if np.isinf(each) else f"{each:.0f}" for each in (np.median(values), min(values), max(values))]
    return f"{shown[0]} ({shown[1]} to {shown[2]})"


def labels_for(suite: Suite, rows: list[dict[str, str]]) -> list[str]:
    """Labels with which other setups are as good as `alone` with so many, where setups are called `name, labels`.

    Between measured numbers of labels, on the straight line over their logarithm: of the mean curves over the seeds
    that both have, and of each seed's.
    """
    curves: dict[str, dict[str, dict[int, float]]] = {}
    for name, setup in suite.said["setups"].items():
        if name.endswith(f", {setup.get('labels')}"):
            for seed, found in scores(rows, name, next(iter(suite.tests)))[0].items():
                curve = curves.setdefault(name.rpartition(",")[0], {}).setdefault(seed, {})
                curve[setup["labels"]] = float(np.mean(found))
    alone = curves.pop("alone", {})
    lines = []
    for name, others in curves.items():
        counts = sorted({n for each in (alone, others) for curve in each.values() for n in curve})
        seeds = [seed for seed in sorted(alone.keys() & others.keys())  # measured whole
                 if all(set(each[seed]) == set(counts) for each in (alone, others))]  # fmt: skip
        if not seeds:
            continue
        one, many = (np.array([[each[seed][n] for n in counts] for seed in seeds]) for each in (alone, others))
        for place, wanted in enumerate(counts):
            of_means = crossing(counts, many.mean(0), one.mean(0)[place])
            by_seed = middle([crossing(counts, ours, theirs[place]) for ours, theirs in zip(many, one, strict=True)])
            said = "never" if np.isinf(of_means) else f"{of_means:.0f}"
            said = f"at most {said}" if of_means <= counts[0] + 0.5 else said
            lines.append(f"\nalone with {wanted} labels is reached {name} with {said}; by seed {by_seed}")
    return lines


def crossing(counts: list[int], curve: np.ndarray, score: float) -> float:
    """Labels with which a curve over their logarithm first reaches a score; infinite where it never does."""
    found = steps_to(score, [float(np.log(each)) for each in counts], list(curve))
    return np.inf if found is None else float(np.exp(found))


def _alone(suite: Suite, name: str) -> str | None:
    """The first setup of one network a task that has as many labels."""
    setups = suite.said["setups"]
    labels = setups[name].get("labels")
    return next((k for k, v in setups.items() if v.get("groups") == "alone" and v.get("labels") == labels), None)


def scores(rows: list[dict[str, str]], setup: str, test: str) -> tuple[dict[str, list[float]], np.ndarray]:
    """Mean class accuracy by seed, in the order of the tasks' names, and test images of each."""
    of = sorted((row for row in rows if (row["setup"], row["test"]) == (setup, test)), key=lambda row: row["task"])
    found: dict[str, list[float]] = {}
    for row in of:
        found.setdefault(row["seed"], []).append(float(row["mean_class_accuracy"]))
    return found, np.array([int(row["n"]) for row in of if row["seed"] == of[0]["seed"]])


if __name__ == "__main__":
    sys.exit(main())
