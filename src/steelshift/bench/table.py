"""results.csv and validators.csv as tables for people: means with 95 % intervals of Student's t."""

import csv
import html
import io
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy import stats

from steelshift.errors import UsageError
from steelshift.selection.validators import choose

Format = Literal["md", "csv", "html"]
SCORES = ("source_only", "selected", "last", "peeked", "oracle")
HEADINGS = ("pair", "method", "seeds", "failed", *SCORES, "gain", "worst", "gap closed", "harmed", "seconds")
VALIDATOR_HEADINGS = ("pair", "validator", "runs", "within", "across", "regret", "worst regret")
NOT_JUDGES = ("pair", "method", "seed", "step", "mean_class_accuracy", "largest_share", "baseline_share")
HARM = 0.01
"""By how much the selected inspector must fall below source-only to count as harmed."""


def render_table(folder: Path, kind: Format) -> str:
    """The table of a suite's folder. Raises UsageError where there is no results.csv.

    Means are over the seeds that did not fail. gain: selected minus source-only, seed by seed. worst: selected of the
    worst seed. gap closed: the share of the way from source-only to oracle. harmed: seeds in which the selected
    inspector is worse than source-only.
    """
    return _rendered(HEADINGS, summarize(read_results(folder)), kind)


def render_validators(folder: Path, kind: Format) -> str:
    """How well each judge's scores go with the truth, after the fact. Raises UsageError without a validators.csv.

    within: Spearman's rank correlation of a judge's score with mean class accuracy on target test images, over the
    checkpoints of a run; across: over the methods of a pair and seed, each by the checkpoint that the judge chooses of
    it. regret: the best checkpoint's accuracy minus that of the one chosen, over runs with two checkpoints or more.
    Means with 95 % intervals; runs are not independent where they share a pair, so the intervals are too narrow.
    """
    return _rendered(VALIDATOR_HEADINGS, compare_validators(read_checkpoints(folder)), kind)


def _rendered(headings: tuple[str, ...], rows: list[dict[str, str]], kind: Format) -> str:
    if kind == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, headings, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()
    if kind == "html":
        cells = "".join(f"<th>{html.escape(name)}</th>" for name in headings)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(row[name])}</td>" for name in headings) + "</tr>\n" for row in rows
        )
        return f'<meta charset="utf-8"><table>\n<tr>{cells}</tr>\n{body}</table>\n'
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    lines += ["| " + " | ".join(row[name].replace("|", "\\|") for name in headings) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def read_results(folder: Path) -> list[dict[str, Any]]:
    """Rows of results.csv; scores as numbers, None where there is none."""
    try:
        with (folder / "results.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise UsageError("no_results", path=folder) from error
    numbers = {*SCORES, "source_only_accuracy", "selected_accuracy", "train_seconds", "peak_mb"}
    return [{key: _number(value) if key in numbers else value for key, value in row.items()} for row in rows]


def summarize(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """One row of text a pair and method, in the order in which they come."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["pair"], row["method"]].append(row)
    found = []
    for (pair, method), members in groups.items():
        shown = dict.fromkeys(HEADINGS, "") | {"pair": pair, "method": method}
        refused = [row["error"] for row in members if row["error"]]
        members = [row for row in members if not row["error"]]
        shown |= {"seeds": str(len(members)), "failed": str(len(refused))}
        if not members:
            found.append(shown | {"selected": "n/a: " + refused[0]})
            continue
        for key in SCORES:
            shown[key] = mean_and_interval([row[key] for row in members if row[key] is not None])
        gains = [row["selected"] - row["source_only"] for row in members]
        room = [row["oracle"] - row["source_only"] for row in members if row["oracle"] is not None]
        shown["gain"] = mean_and_interval(gains, sign="+")
        shown["worst"] = f"{min(row['selected'] for row in members):.3f}"
        if room and np.mean(room) > 0:
            shown["gap closed"] = f"{100 * np.mean(gains) / np.mean(room):.0f} %"
        shown["harmed"] = f"{sum(round(gain, 4) < -HARM for gain in gains)} of {len(gains)}"
        seconds = [row["train_seconds"] for row in members if row["train_seconds"] is not None]
        shown["seconds"] = f"{np.mean(seconds):.0f}" if seconds else ""
        found.append(shown)
    return found


def read_checkpoints(folder: Path) -> list[dict[str, Any]]:
    """Rows of validators.csv; numbers as numbers, None where a judge was not asked."""
    try:
        with (folder / "validators.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise UsageError("no_validators", path=folder) from error
    return [
        {key: value if key in ("pair", "method", "seed") else _number(value) for key, value in row.items()}
        for row in rows
    ]


def compare_validators(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """One row of text a pair and judge, `last` among them, and then of all pairs together."""
    runs: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        runs[row["pair"], row["method"], row["seed"]].append(row)
    pairs = list(dict.fromkeys(row["pair"] for row in rows))
    judges = ["last", *(key for key in (rows[0] if rows else {}) if key not in NOT_JUDGES)]
    found = []
    for pair in [*pairs, None] if len(pairs) > 1 else pairs:
        of_pair = {key: run for key, run in runs.items() if pair in (None, key[0])}
        for judge in judges:
            asked = {
                key: run
                for key, run in of_pair.items()
                if judge == "last" or all(row[judge] is not None for row in run)
            }
            if asked:
                shown = {"pair": pair or "all", "validator": judge, "runs": str(len(asked))}
                found.append(shown | _compared(judge, asked))
    return found


def _compared(judge: str, runs: dict[tuple[str, str, str], list[dict[str, Any]]]) -> dict[str, str]:
    within, regrets = [], []
    chosen: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for (pair, _, seed), run in runs.items():
        truth = [row["mean_class_accuracy"] for row in run]
        scores = {"source_validation": [row["source_validation"] for row in run]}
        if judge != "last":
            scores[judge] = [row[judge] for row in run]
            within.append(rank_correlation(scores[judge], truth))
        place = choose(judge, scores, [row["largest_share"] for row in run], run[0]["baseline_share"])
        if len(run) > 1:
            regrets.append(max(truth) - truth[place])
        if judge != "last":
            chosen[pair, seed].append((scores[judge][place], truth[place]))
    across = [rank_correlation(*zip(*values, strict=True)) for values in chosen.values()]
    return {
        "within": mean_and_interval([value for value in within if value is not None], sign="+"),
        "across": mean_and_interval([value for value in across if value is not None], sign="+"),
        "regret": mean_and_interval(regrets),
        "worst regret": f"{max(regrets):.3f}" if regrets else "",
    }


def rank_correlation(scores: Sequence[float], truth: Sequence[float]) -> float | None:
    """Spearman's; None where either says the same of all, or there are fewer than three."""
    if len(scores) < 3 or len(set(scores)) < 2 or len(set(truth)) < 2:
        return None
    return float(stats.spearmanr(scores, truth).statistic)


def mean_and_interval(values: list[float], sign: str = "") -> str:
    """`mean ± half of the 95 % interval`; without the half for one value, empty for none."""
    if not values:
        return ""
    mean = f"{np.mean(values):{sign}.3f}"
    if len(values) < 2:
        return mean
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{mean} ± {half:.3f}"


def _number(text: str) -> float | None:
    return float(text) if text else None
