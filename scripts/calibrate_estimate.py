"""How honest estimates are, over runs of a suite with `arrays: true`.

    .venv/bin/python scripts/calibrate_estimate.py OUT [OUT ...] [--pairs NAME ...] [--cells cells.csv]

Reads OUT/arrays and OUT/results.csv. A cell is one pair, method and seed; its truth is selected_accuracy, plain
accuracy on the target test images. Thresholds of selection/estimate.py are set by this on development pairs; --pairs
keeps to those that are named. --cells writes every sign of every cell, from which other thresholds can be tried.
"""

import argparse
import csv
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from steelshift.bench.sheets import read_results, table_of
from steelshift.estimating import read_views
from steelshift.selection.estimate import judge_blind

NEAR, FAR = 0.05, 0.10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--pairs", nargs="+", help="only these")
    parser.add_argument("--cells", type=Path, help="CSV file of every cell")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    options = parser.parse_args()
    with ProcessPoolExecutor(options.jobs) as pool:
        found = [run for folder in options.folders for run in runs_of(folder, options.pairs)]
        cells = list(pool.map(cell_of, *zip(*found, strict=True))) if found else []
    if not cells:
        print("no arrays with results: run the suite with `arrays: true`", file=sys.stderr)
        return 2
    columns = list(dict.fromkeys(key for cell in cells for key in cell))
    if options.cells:
        with options.cells.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(cells)
    pairs = list(dict.fromkeys(cell["pair"] for cell in cells))
    print("| of | " + " | ".join(summary(cells)) + " |")
    print("|---" * (1 + len(summary(cells))) + "|")
    for name in [*pairs, "all"] if len(pairs) > 1 else pairs:
        found = summary([cell for cell in cells if name in (cell["pair"], "all")])
        print(f"| {name} | " + " | ".join(found.values()) + " |")
    print("\n| sign | cells | mean error | MAE | at most the truth | median slack |\n|---|---|---|---|---|---|")
    for key in columns:
        if key not in SIGNS and not key.startswith(("exact_", "theorem_")):
            continue
        off = np.array([cell[key] - cell["truth"] for cell in cells if key in cell])
        mean, size, slack = f"{off.mean():+.3f}", f"{np.abs(off).mean():.3f}", f"{-np.median(off):.3f}"
        shown = (len(off), mean, size, percent(off <= 0), slack)
        print(f"| {key} | " + " | ".join(map(str, shown)) + " |")
    return 0


SIGNS = ("estimate", "atc", "cot", "cott", "doc", "agreement", "bound")


def runs_of(folder: Path, pairs: list[str] | None) -> list[tuple[Path, dict[str, Any]]]:
    """Arrays and row of every run of a suite that kept its arrays."""
    rows = [row for row in read_results(table_of(folder)) if not row["error"] and (not pairs or row["pair"] in pairs)]
    found = [(folder / "arrays" / row["pair"] / row["seed"] / f"{row['method']}.npz", row) for row in rows]
    return [(path, row) for path, row in found if path.exists()]


def cell_of(path: Path, row: dict[str, Any]) -> dict[str, Any]:
    """Truth, verdict and signs of a run."""
    inspector, baseline, _, _ = read_views(path)
    judged = judge_blind(inspector, baseline)
    cell = {key: row[key] for key in ("pair", "method", "seed")} | {"truth": row["selected_accuracy"]}
    return cell | {"verdict": judged.verdict, "risk": judged.risk or ""} | judged.signs


def summary(cells: list[dict[str, Any]]) -> dict[str, str]:
    """What the estimate is held to, as text. Errors are those of the estimate, whether or not it was given."""
    asked = [cell for cell in cells if "estimate" in cell]
    off = np.round([cell["estimate"] - cell["truth"] for cell in asked], 4)  # as the table is; five points are five
    slack = np.array([cell["truth"] - cell["bound"] for cell in asked])
    verdict = np.array([cell["verdict"] for cell in asked])
    given = verdict == "estimate"
    return {
        "cells": str(len(cells)),
        "estimate, bound, refused": ", ".join(
            str(sum(cell["verdict"] == name for cell in cells)) for name in ("estimate", "bound", "refused")
        ),
        "bound holds": percent(slack >= 0),
        "bound holds where given": percent(slack[verdict != "refused"] >= 0),
        "median slack": f"{np.median(slack):.3f}" if len(slack) else "",
        "MAE where given": f"{np.abs(off[given]).mean():.3f}" if given.any() else "",
        "mean error where given": f"{off[given].mean():+.3f}" if given.any() else "",
        "withheld of those >10 points off": percent(~given[np.abs(off) > FAR]),
        "refused of those >10 points off": percent(verdict[np.abs(off) > FAR] == "refused"),
        "given of those within 5 points": percent(given[np.abs(off) <= NEAR]),
    }


def percent(which: np.ndarray) -> str:
    """`share (count of all)`."""
    return f"{which.mean():.0%} ({which.sum()} of {len(which)})" if len(which) else ""


if __name__ == "__main__":
    sys.exit(main())
