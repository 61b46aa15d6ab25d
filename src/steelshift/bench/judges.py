"""validators.csv as a table for people: how well each label-free rule of choice goes with the truth, after the fact."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scipy import stats

from steelshift.bench.sheets import NOT_JUDGES, read_checkpoints
from steelshift.bench.table import Format, in_html, markdown, mean_and_interval
from steelshift.files import as_csv
from steelshift.selection.validators import choose

HEADINGS = ("pair", "validator", "runs", "within", "across", "regret", "worst regret")


def render_validators(folder: Path, kind: Format) -> str:
    """How well each judge's scores go with the truth, after the fact. Raises UsageError without a validators.csv.

    within: Spearman's rank correlation of a judge's score with mean class accuracy on target test images, over the
    checkpoints of a run; across: over the methods of a pair and seed, each by the checkpoint that the judge chooses of
    it. regret: the best checkpoint's accuracy minus that of the one chosen, over runs with two checkpoints or more.
    Means with 95 % intervals; runs are not independent where they share a pair, so the intervals are too narrow.
    """
    rows = compare_validators(read_checkpoints(folder))
    if kind == "csv":
        return as_csv(HEADINGS, rows)
    return '<meta charset="utf-8">' + in_html(HEADINGS, rows) if kind == "html" else markdown(HEADINGS, rows)


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
