"""Compare the methods of a suite with one of them, seed by seed, as tables and a picture.

    .venv/bin/python scripts/compare_methods.py docs/results/readings.csv --against "+ adaptation weight (iadsa)" \
        --picture docs/results/readings.png

Differences are of the same pair and seed, with 95 % intervals of Student's t over seeds, not corrected for
their number. Steps to a score: the first
checkpoint at which the mean over seeds reaches the given share of the oracle.
"""

import argparse
import csv
import sys
from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from steelshift.bench.table import mean_and_interval


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--against", required=True, help="method that the others are compared with")
    parser.add_argument("--share", type=float, default=0.85, help="of the oracle, for steps to a score")
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    with options.results.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if not row["error"]]
    pairs = list(dict.fromkeys(row["pair"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    cells = {(row["pair"], row["method"], row["seed"]): row for row in rows}
    seeds = sorted({row["seed"] for row in rows}, key=int)
    differences: dict[tuple[str, str], list[float]] = defaultdict(list)
    for (pair, method, seed), row in cells.items():
        if (pair, options.against, seed) in cells:
            base = float(cells[pair, options.against, seed]["selected"])
            differences[pair, method].append(float(row["selected"]) - base)
    print("| method | " + " | ".join(f"{pair}: selected | against {options.against} | steps" for pair in pairs) + " |")
    print("|---" * (1 + 3 * len(pairs)) + "|")
    for method in methods:
        shown = [method]
        for pair in pairs:
            found = [cells[pair, method, seed] for seed in seeds if (pair, method, seed) in cells]
            if not found:
                shown += [""] * 3
                continue
            missed = f" ({len(found)} of {len(seeds)} seeds)" if len(found) < len(seeds) else ""
            shown.append(mean_and_interval([float(row["selected"]) for row in found]) + missed)
            shown.append(mean_and_interval(differences[pair, method], sign="+") if method != options.against else "")
            shown.append(steps_to(found, options.share))
        print("| " + " | ".join(shown) + " |")
    for pair in pairs:
        found = [cells[pair, options.against, seed] for seed in seeds if (pair, options.against, seed) in cells]
        ends = [mean_and_interval([float(row[key]) for row in found if row[key]]) for key in ("source_only", "oracle")]
        print(f"\n{pair}: source-only {ends[0]}, oracle {ends[1] or '-'}, of {len(found)} seeds")
    if options.picture:
        draw(pairs, [method for method in methods if method != options.against], differences, options)
    return 0


def steps_to(rows: list[dict[str, str]], share: float) -> str:
    """The first step at which the mean over seeds reaches a share of the oracle; a dash where none does."""
    if not all(row["oracle"] and row["steps"] == rows[0]["steps"] for row in rows):
        return ""
    curves = np.mean([list(map(float, row["by_step"].split())) for row in rows], axis=0)
    reached = np.flatnonzero(curves >= share * np.mean([float(row["oracle"]) for row in rows]))
    return rows[0]["steps"].split()[reached[0]] if len(reached) else "-"


def draw(pairs: list[str], methods: list[str], differences: dict, options: argparse.Namespace) -> None:
    figure, axes = plt.subplots(1, len(pairs), figsize=(5.2 * len(pairs), 0.34 * len(methods) + 1.6), sharey=True)
    for axis, pair in zip(np.atleast_1d(axes), pairs, strict=True):
        for place, method in enumerate(methods):
            values = 100 * np.array(differences[pair, method])
            if not len(values):
                continue
            axis.plot(values, np.full(len(values), place), "o", color="#b8c4d0", markersize=4)
            mean, _, half = mean_and_interval(list(values)).partition(" ± ")
            axis.errorbar(float(mean), place, xerr=float(half or 0), fmt="o", color="#1f4e79", capsize=3)
        axis.axvline(0, color="#888888", linewidth=1)
        axis.set_yticks(range(len(methods)), methods)
        axis.set_title(pair, fontsize=10)
        axis.set_xlabel(f"points against {options.against}", fontsize=9)
        axis.grid(axis="x", color="#eeeeee")
        axis.spines[["top", "right", "left"]].set_visible(False)
    np.atleast_1d(axes)[0].invert_yaxis()
    figure.tight_layout()
    figure.savefig(options.picture, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
