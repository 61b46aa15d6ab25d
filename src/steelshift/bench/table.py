"""results.csv as a table for people: mean over seeds, with 95 % intervals of Student's t."""

import csv
import html
import io
from collections import defaultdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy import stats

from steelshift.errors import UsageError

Format = Literal["md", "csv", "html"]
SCORES = ("source_only", "selected", "last", "peeked", "oracle")
HEADINGS = ("pair", "method", "seeds", "failed", *SCORES, "gain", "worst", "gap closed", "harmed", "seconds")
HARM = 0.01
"""By how much the selected inspector must fall below source-only to count as harmed."""


def render_table(folder: Path, kind: Format) -> str:
    """The table of a suite's folder. Raises UsageError where there is no results.csv.

    Means are over the seeds that did not fail. gain: selected minus source-only, seed by seed. worst: selected of the
    worst seed. gap closed: the share of the way from source-only to oracle. harmed: seeds in which the selected
    inspector is worse than source-only.
    """
    rows = summarize(read_results(folder))
    if kind == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, HEADINGS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()
    if kind == "html":
        cells = "".join(f"<th>{html.escape(name)}</th>" for name in HEADINGS)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(row[name])}</td>" for name in HEADINGS) + "</tr>\n" for row in rows
        )
        return f'<meta charset="utf-8"><table>\n<tr>{cells}</tr>\n{body}</table>\n'
    lines = ["| " + " | ".join(HEADINGS) + " |", "|" + "---|" * len(HEADINGS)]
    lines += ["| " + " | ".join(row[name].replace("|", "\\|") for name in HEADINGS) + " |" for row in rows]
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
