"""results.csv as tables for people: by pair with intervals over seeds, over all pairs with tests between methods."""

import html
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy import stats

from steelshift.bench.sheets import SCORES, read_results, table_of
from steelshift.bench.statistics import (
    ALPHA,
    LEAST_CELLS,
    LEAST_METHODS,
    Comparison,
    cliques,
    compare,
    critical_difference,
    friedman,
    signed_ranks,
)
from steelshift.errors import UsageError
from steelshift.files import as_csv, write_bytes
from steelshift.messages import say
from steelshift.report import ranks
from steelshift.selection.metrics import gap_closed

Format = Literal["md", "csv", "html"]
HEADINGS = (
    "pair", "method", "seeds", "failed", *SCORES, "gain", "difference", "worst", "gap closed", "harmed",
    "H-score before", "H-score", "steps", "seconds",
)  # fmt: skip
OVERALL = ("method", "cells", *SCORES, "gain", "difference", "gap closed", "harmed", "rank", "p gain", "p difference")
OPEN = {"H-score before": "source_only_h_score", "H-score": "selected_h_score"}
HARM = 0.01
"""By how much the selected inspector must fall below source-only to count as harmed."""
SHARE = 0.85
"""Of the oracle: the score whose first checkpoint is shown as steps."""
_MADE = ("date", "processor", "threads", "torch", "precision", "code_sha")


def render_table(place: Path, kind: Format, against: str | None = None) -> str:
    """The tables of a suite's folder, or of a results.csv. Raises UsageError where there is none.

    By pair, means are over the seeds that did not fail. gain: selected minus source-only, seed by seed; difference:
    minus the selected of the method `against`, by default the best over all pairs. worst: selected of the worst seed.
    gap closed: the share of the way from source-only to oracle. harmed: seeds in which the selected inspector is worse
    than source-only. H-score: of source-only and of the selected, where test images of unknown classes are there.
    steps: the first checkpoint whose mean over seeds reaches 0.85 of the oracle.

    Over all pairs, everything is of the cells (pairs x seeds) that all methods have; see `statistics`. Format csv is
    both tables in one, without the sentences below them.
    """
    rows = read_results(table_of(place))
    compared = compare(rows, against)
    pairs = by_pair(rows, compared.reference)
    closed = not any(row["H-score"] for row in pairs)
    headings = tuple(name for name in HEADINGS if not (closed and name in OPEN))
    tables = [(headings, pairs), (OVERALL, overall(compared))]
    if kind == "csv":
        headings = tuple(dict.fromkeys(HEADINGS + OVERALL))
        return as_csv(headings, (row for _, shown in tables for row in shown))
    sentences = [*notes(compared, chosen=against is None), made(rows)]
    if kind == "html":
        paragraphs = "".join(f"<p>{html.escape(sentence)}</p>\n" for sentence in sentences)
        return '<meta charset="utf-8">' + "".join(in_html(*table) for table in tables) + paragraphs
    return "\n".join([*(markdown(*table) for table in tables), "\n\n".join(sentences)]) + "\n"


def draw_picture(place: Path, picture: Path) -> None:
    """Draw a critical-difference diagram. Raises UsageError where too little is there to rank, or to draw with."""
    kind = picture.suffix.lower().removeprefix(".")
    if kind not in ranks.FORMATS:
        raise UsageError("picture_format", path=picture)
    compared = compare(read_results(table_of(place)))
    methods, cells = len(compared.methods), len(compared.cells)
    if not compared.ranked:
        least = {"least_methods": LEAST_METHODS, "least_cells": LEAST_CELLS}
        raise UsageError("too_few_to_rank", methods=methods, cells=cells, **least)
    lacking = ranks.letters_lacking("".join(compared.methods))
    if kind == "png" and lacking and ranks.font_for(lacking) is None:
        raise UsageError("no_letters", path=picture, letters=lacking)
    p, width = friedman(compared.values("selected")), critical_difference(methods, cells)
    groups = cliques(compared.ranks, width) if p < ALPHA else [list(range(methods))]  # then nothing may be told apart
    about = f"mean ranks in {cells} of {compared.possible} pairs x seeds; Friedman p {_p(p)}"
    about += "; a bar joins what cannot be told apart"
    about += f"; {len(compared.left_out)} methods not compared" if compared.left_out else ""
    write_bytes(picture, ranks.draw_ranks(compared.methods, compared.ranks, width, groups, about, kind))


def by_pair(rows: list[dict[str, Any]], reference: str | None) -> list[dict[str, str]]:
    """One row of text a pair and method, in the order in which they come."""
    base = {
        (row["pair"], row["seed"]): row["selected"] for row in rows if row["method"] == reference and not row["error"]
    }
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
        shown["gain"] = mean_and_interval(gains, sign="+")
        if method != reference:
            both = [row for row in members if (pair, row["seed"]) in base]
            differences = [row["selected"] - base[pair, row["seed"]] for row in both]
            shown["difference"] = mean_and_interval(differences, sign="+")
        shown["worst"] = f"{min(row['selected'] for row in members):.3f}"
        with_oracle = [row for row in members if row["oracle"] is not None]
        if with_oracle:
            selected, before, most = (
                np.mean([row[key] for row in with_oracle]) for key in ("selected", "source_only", "oracle")
            )
            shown["gap closed"] = _share(gap_closed(selected - before, most - before))
        shown["harmed"] = harmed(gains)
        for heading, key in OPEN.items():
            shown[heading] = mean_and_interval([row[key] for row in members if row.get(key) is not None])
        shown["steps"] = steps_to(members, SHARE)
        seconds = [row["train_seconds"] for row in members if row["train_seconds"] is not None]
        shown["seconds"] = f"{np.mean(seconds):.0f}" if seconds else ""
        found.append(shown)
    return found


def overall(compared: Comparison) -> list[dict[str, str]]:
    """One row of text a method over all pairs, the best mean rank first; then those that could not be compared."""
    found = []
    if compared.cells:
        scores = {key: compared.values(key) for key in SCORES}
        gain, difference = compared.gain, compared.difference
        room = None if scores["oracle"] is None else scores["oracle"] - scores["source_only"]
        means = {key: None if values is None else compared.over_pairs(values) for key, values in scores.items()}
        p_gain, p_difference = signed_ranks(gain), signed_ranks(difference)
        for place in np.argsort(compared.ranks, kind="stable"):
            shown = dict.fromkeys(OVERALL, "")
            shown |= {"method": compared.methods[place], "cells": str(len(compared.cells))}
            shown |= {key: f"{values[place]:.3f}" for key, values in means.items() if values is not None}
            shown["gain"] = f"{compared.over_pairs(gain)[place]:+.3f}"
            if room is not None:
                shown["gap closed"] = _share(gap_closed(*(compared.over_pairs(each)[place] for each in (gain, room))))
            shown["harmed"] = harmed(gain[:, place])
            shown["rank"] = f"{compared.ranks[place]:.2f}"
            shown["p gain"] = _p(p_gain[place])
            if compared.methods[place] != compared.reference:
                shown["difference"] = f"{compared.over_pairs(difference)[place]:+.3f}"
                shown["p difference"] = _p(p_difference[place])
            found.append(shown)
    left_out = compared.left_out if compared.cells else dict.fromkeys(compared.methods, 0) | compared.left_out
    for method, count in left_out.items():
        found.append(dict.fromkeys(OVERALL, "") | {"method": method, "cells": str(count), "selected": "n/a"})
    return found


def notes(compared: Comparison, chosen: bool) -> list[str]:
    """What the table over all pairs is of, in sentences. chosen: the reference was the best, and not given."""
    if not compared.cells:
        return [say("bench_no_cells", possible=compared.possible)]
    tests = {
        f"p_{key}": sum(p is not None for p in signed_ranks(getattr(compared, key))) for key in ("gain", "difference")
    }
    pairs = len({pair for pair, _ in compared.cells})
    counts = {"cells": len(compared.cells), "possible": compared.possible, "pairs": pairs}
    found = [say("bench_compared", methods=len(compared.methods), reference=compared.reference, **counts, **tests)]
    if chosen and len(compared.methods) > 1:
        found.append(say("bench_best", reference=compared.reference))
    if compared.ranked:
        width = critical_difference(len(compared.methods), len(compared.cells))
        found.append(say("bench_ranks", p=_p(friedman(compared.values("selected"))), width=f"{width:.2f}"))
    if compared.left_out:
        names = ", ".join(f"{name} ({count})" for name, count in compared.left_out.items())
        found.append(say("bench_left_out", names=names))
    return found


def made(rows: list[dict[str, Any]]) -> str:
    """Where and when the rows were made, as far as they know."""
    facts = []
    for key in _MADE:
        values = sorted({row.get(key) for row in rows} - {None, ""})
        if key == "date":
            values = values[:1] + values[1:][-1:]  # the first and the last
        if values:
            facts.append(f"{key} " + (" to " if key == "date" else " / ").join(values))
    return say("bench_made", rows=len(rows), facts="; ".join(facts) or "-")


def mean_and_interval(values: list[float], sign: str = "") -> str:
    """`mean ± half of the 95 % interval`; without the half for one value, empty for none."""
    if not values:
        return ""
    mean = f"{np.mean(values):{sign}.3f}"
    if len(values) < 2:
        return mean
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{mean} ± {half:.3f}"


def harmed(gains: Iterable[float]) -> str:
    gains = list(gains)
    return f"{sum(round(gain, 4) < -HARM for gain in gains)} of {len(gains)}"


def steps_to(rows: list[dict[str, Any]], share: float) -> str:
    """The first step at which the mean over seeds reaches a share of the oracle; a dash where none does."""
    if not rows[0]["steps"] or not all(row["oracle"] and row["steps"] == rows[0]["steps"] for row in rows):
        return ""
    curves = np.mean([list(map(float, row["by_step"].split())) for row in rows], axis=0)
    reached = np.flatnonzero(curves >= share * np.mean([row["oracle"] for row in rows]))
    return rows[0]["steps"].split()[reached[0]] if len(reached) else "-"


def markdown(headings: tuple[str, ...], rows: list[dict[str, str]]) -> str:
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    lines += ["| " + " | ".join(row[name].replace("|", "\\|") for name in headings) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def in_html(headings: tuple[str, ...], rows: list[dict[str, str]]) -> str:
    cells = "".join(f"<th>{html.escape(name)}</th>" for name in headings)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(row[name])}</td>" for name in headings) + "</tr>\n" for row in rows
    )
    return f"<table>\n<tr>{cells}</tr>\n{body}</table>\n"


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f} %"


def _p(value: float | None) -> str:
    """A dash where nothing was tested."""
    if value is None:
        return "-"
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"
