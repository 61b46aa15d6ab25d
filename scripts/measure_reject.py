"""How well the reject option works: images of a class that nobody taught, and errors on what is accepted.

    .venv/bin/python scripts/measure_reject.py run --out reject --pairs "drawn, middle"      # train; resumable
    .venv/bin/python scripts/measure_reject.py table --out reject --pairs "drawn, middle"    # figures

Every class of a pair is left out in turn: an inspector is fitted without it on both lines, then asked about all images
of the line, that class included. Once none is left out. What each inspector answers is kept as arrays, so that scores
can be compared without training again. Pairs are those of PAIRS; the names in DEVELOPMENT may be chosen on, all others
are only reported.
"""

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
from scipy.special import logsumexp, softmax
from sklearn.metrics import roc_auc_score

from steelshift.adapt import fit
from steelshift.bench.pairs import prepare
from steelshift.bench.suite import Pair
from steelshift.candidates import prepared_rows
from steelshift.data.cache import cache_pixels
from steelshift.data.table import find_classes, load_classes, read_images, read_labels
from steelshift.files import write_atomically, write_text
from steelshift.inspection import inspector as artifact
from steelshift.inspection import reference
from steelshift.selection.estimate import average_thresholded_confidence
from steelshift.selection.reject import calibration_error
from steelshift.selection.validators import entropy
from steelshift.training.config import Config

DATA = Path(os.environ.get("STEELSHIFT_DATA", "absent"))
PAIRS = {
    "drawn, noisy camera": Pair(synthetic="examples/noisy-camera.yaml", images=700),
    "drawn, middle": Pair(synthetic="middle", images=700),
    "NEU-CLS, camera mild": Pair(photographed=DATA / "NEU-CLS", shift="mild"),
    "NEU-CLS, camera middle": Pair(photographed=DATA / "NEU-CLS", shift="middle"),
    "X-SDD, camera middle": Pair(photographed=DATA / "X-SDD", shift="middle"),
    "NEU-CLS to X-SDD": Pair(
        source=(DATA / "NEU-CLS",), target=(DATA / "X-SDD",), classes=DATA / "pairs" / "neu-xsdd.yaml"
    ),
}
DEVELOPMENT = ("drawn, noisy camera", "drawn, middle", "NEU-CLS, camera mild")
NONE = "none"
SETTINGS = {"size": 96, "batch": 24, "steps": 300, "pretrain_steps": 300, "candidates": 3, "save_every": 1000}
PARTS = {"train": 0, "val": 1, "test": 2}
RATE = 0.05
"""Wanted share of reviews."""


def run(out: Path, pairs: list[str], method: str, most: int) -> int:
    """Train what is missing, `most` inspectors at the most; returns how many are still missing."""
    missing = []
    for name in pairs:
        ready = prepare(name.replace(" ", "-").replace(",", ""), PAIRS[name], out / "data")
        classes = load_classes(PAIRS[name].classes) if PAIRS[name].classes else find_classes(ready.source)
        for left_out in (NONE, *classes.names):
            if not (out / "arrays" / method / name / f"{left_out}.npz").exists():
                missing.append((name, ready, classes, left_out))
    for name, ready, classes, left_out in missing[:most]:
        print(f"{name}: without {left_out}", file=sys.stderr, flush=True)
        one(out, name, ready, classes, left_out, method)
    return max(0, len(missing) - most)


def one(out: Path, name: str, ready, classes, left_out: str, method: str) -> None:
    folder = out / "run"
    shutil.rmtree(folder, ignore_errors=True)
    kept = [n for n in classes.names if n != left_out]
    holders = {n: [f for f, index in classes.holders.items() if classes.names[index] == n] for n in kept}
    write_text(out / "classes.yaml", json.dumps(holders, ensure_ascii=False))
    config = Config(source=ready.source, target=ready.target, out=folder, classes=out / "classes.yaml", method=method,
                    cache=ready.cache, oracle=False, **SETTINGS)  # fmt: skip
    fit(config)
    inspector = artifact.load(folder)
    lock = json.loads((folder / "data.lock.json").read_text(encoding="utf-8"))
    parts = {row["id"]: PARTS[part] for part in PARTS for row in lock["source"].get(part, [])}
    parts |= {row: PARTS[part] for part in ("train", "test") for row in lock["target"][part]}
    arrays = {"classes": np.array(classes.names), "kept": np.array([classes.names.index(n) for n in kept]),
              "temperature": np.array(inspector.specification.temperature)}  # fmt: skip
    for line, places in (("source", ready.source), ("target", ready.target)):
        cache = cache_pixels(read_images(places, classes, labelled=True), ready.cache)
        found = artifact.answers(inspector, prepared_rows(cache, inspector.specification.size))
        arrays |= {
            f"{line}_features": found.features.astype(np.float16), f"{line}_logits": found.logits,
            f"{line}_label": read_labels(places, classes, cache.table),
            f"{line}_part": np.array([parts.get(row, -1) for row in cache.table.ids]),
        }  # fmt: skip
    for key in ("classifier.weight", "classifier.bias"):
        arrays[key] = inspector.state_dict()[key].numpy()
    path = out / "arrays" / method / name / f"{left_out}.npz"
    write_atomically(path, lambda file: np.savez_compressed(file, **arrays))
    shutil.rmtree(folder)


def judged(path: Path) -> dict[str, dict[str, float]]:
    """Figures of one inspector: areas under the ROC curve by score, calibration errors and what review buys."""
    with np.load(path, allow_pickle=False) as stored:
        found = dict(stored)
    index = np.full(len(found["classes"]) + 1, -1)
    index[found["kept"]] = np.arange(len(found["kept"]))
    own = {line: index[found[f"{line}_label"]] for line in ("source", "target")}
    features = {line: found[f"{line}_features"].astype(np.float32) for line in own}
    heat = float(found["temperature"])
    p = {line: softmax(found[f"{line}_logits"].astype(np.float64) / heat, axis=1) for line in own}
    taught = (found["source_part"] == PARTS["train"]) & (own["source"] >= 0)
    unlabelled = found["target_part"] == PARTS["train"]
    made = reference.build(
        features["source"][taught], own["source"][taught], [""] * int(taught.sum()), features["target"][unlabelled],
        p["target"][unlabelled],
    )  # fmt: skip
    known = (found["target_part"] == PARTS["test"]) & (own["target"] >= 0)
    unknown = (own["target"] < 0) & (found["target_label"] >= 0)
    strange = made.compare(features["target"])[0]
    scores = {"relative Mahalanobis": strange, **others(found, features, own, taught, unlabelled, heat)}
    result = {"auroc": {}}
    if unknown.any():
        both = np.concatenate([np.flatnonzero(known), np.flatnonzero(unknown)])
        result["auroc"] = {name: roc_auc_score(unknown[both], score[both]) for name, score in scores.items()}
    held_out = (found["source_part"] == PARTS["test"]) & (own["source"] >= 0)
    right = {line: p[line].argmax(1) == own[line] for line in p}
    sure = {line: p[line].max(1) for line in p}
    limits = made.thresholds(RATE)
    rejected = (sure["target"] < limits.p) | (strange > limits.strange)
    accepted, wrong = known & ~rejected, ~right["target"]
    estimated = average_thresholded_confidence(
        -entropy(p["source"][held_out]), right["source"][held_out], -entropy(p["target"][unlabelled])
    )
    adjusted = temperature_for(found["target_logits"][unlabelled].astype(np.float64), estimated)
    q = softmax(found["target_logits"].astype(np.float64) / adjusted, axis=1).max(1)
    result["figures"] = {
        "calibration error, source": calibration_error(sure["source"][held_out], right["source"][held_out]),
        "calibration error, target": calibration_error(sure["target"][known], right["target"][known]),
        "the same, temperature by ATC": calibration_error(q[known], right["target"][known]),
        "reviewed": float(rejected[known].mean()),
        "error": float(wrong[known].mean()),
        "error of the accepted": float(wrong[accepted].mean()),
        "unknown reviewed": float(rejected[unknown].mean()) if unknown.any() else float("nan"),
    }
    return result


def others(found, features, own, taught, unlabelled, heat) -> dict[str, np.ndarray]:
    """Other well-known scores, higher is stranger."""
    logits = found["target_logits"].astype(np.float64)
    given, known = reference.directions(features["target"]), reference.directions(features["source"][taught])
    energy = -logsumexp(logits, axis=1)
    fifth = -np.sort(-(given @ known.T), axis=1)[:, 4]
    weight, bias = found["classifier.weight"].astype(np.float64), found["classifier.bias"].astype(np.float64)
    middle = -np.linalg.pinv(weight) @ bias
    source = features["source"][taught] - middle
    rest = np.linalg.eigh(source.T @ source)[1][:, :-64]  # all but 64 principal directions
    scale = found["source_logits"][taught].max(1).mean() / np.linalg.norm(source @ rest, axis=1).mean()
    return {
        "ViM": scale * np.linalg.norm((features["target"] - middle) @ rest, axis=1) + energy,
        "5 nearest neighbours": 1 - fifth,
        "energy": energy,
        "probability": -softmax(logits / heat, axis=1).max(1),
    }


def temperature_for(logits: np.ndarray, accuracy: float) -> float:
    """The temperature at which mean confidence is an estimate of accuracy."""
    grid = np.geomspace(0.05, 20, 400)
    means = np.array([softmax(logits / heat, axis=1).max(1).mean() for heat in grid])
    return float(grid[np.abs(means - accuracy).argmin()])


def table(out: Path, pairs: list[str], method: str) -> int:
    for name in pairs:
        found = {path.stem: judged(path) for path in sorted((out / "arrays" / method / name).glob("*.npz"))}
        areas = [each["auroc"] for each in found.values() if each["auroc"]]
        print(f"\n**{name}**, {len(areas)} classes left out in turn")
        if areas:
            print("\n| score | mean AUROC | worst class |\n|---|---|---|")
            for score in areas[0]:
                values = [each[score] for each in areas]
                print(f"| {score} | {np.mean(values):.3f} | {min(values):.3f} |")
        columns = next(iter(found.values()))["figures"] if found else {}
        if columns:
            print("\n| left out | " + " | ".join(columns) + " |\n|---" + "|---" * len(columns) + "|")
            for left_out, each in found.items():
                print(f"| {left_out} | " + " | ".join(f"{value:.3f}" for value in each["figures"].values()) + " |")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--out", type=Path, default=Path("reject"))
    parser.add_argument("--pairs", nargs="+", default=list(DEVELOPMENT))
    parser.add_argument("--method", default="bridge")
    parser.add_argument("--most", type=int, default=1 << 30, help="inspectors trained before it ends, with code 3")
    options = parser.parse_args()
    if options.what == "table":
        return table(options.out, options.pairs, options.method)
    return 3 if run(options.out, options.pairs, options.method, options.most) else 0


if __name__ == "__main__":
    sys.exit(main())
