"""The section of what target labels say of a run: scores, confusions, recalls. Nothing around it depends on them.

`show_rejection` draws the same of held-out source images, in a section of its own.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from steelshift.report.pictures import Style, bar, finite, line_chart
from steelshift.report.shell import (
    AFTER,
    BEFORE,
    as_duration,
    as_number,
    as_percent,
    as_text,
    class_name,
    confusion_table,
    figure_of,
    side_by_side,
    table_of,
)
from steelshift.report.training import rule_of
from steelshift.selection.metrics import gap_closed

MODELS = (("source_only", "Source only"), ("selected", "Selected"))


def show_judged(report: Mapping[str, Any], classes: list[str]) -> str:
    """The only section that reads `target` and `seconds`; it is always there, so that nothing around it moves."""
    target, seconds = report.get("target") or {}, report.get("seconds")
    parts = []
    if target:
        parts.append(_scores(target, report, classes))
        parts.append(_judgement(target, report))
        details = target.get("details") or {}
        parts.append(_confusions(details, classes))
        parts.append(side_by_side(_details(details), _recalls(details, classes)))
        parts.append(show_rejection(target.get("reject"), "target test"))
    else:
        parts.append(
            "<p>No target labels were given to judge by, so nobody knows how often this inspector is right on the "
            "target line. Label a few hundred target images and judge the run with them before relying on it.</p>"
        )
    if finite(seconds):
        parts.append(f'<p class="soft">The run took {as_duration(float(seconds))}.</p>')
    title = "Judged with target labels" if target else "Not judged"
    return f'<section id="judged">\n<h2>{title}</h2>\n{"".join(parts)}\n</section>'


def _scores(target: Mapping[str, Any], report: Mapping[str, Any], classes: list[str]) -> str:
    peeked = (
        f"step {as_number(target['peeked_step'])}, which"
        if finite(target.get("peeked_step"))
        else "the checkpoint that"
    )
    chosen = f", step {as_number(report['selected_step'])}" if finite(report.get("selected_step")) else ""
    rows_of = (
        ("source_only", "Source only", "trained on the source line, not adapted", BEFORE),
        (
            "selected",
            "Selected",
            f"<strong>what you get</strong>: adapted, chosen without target labels{chosen}",
            AFTER,
        ),
        ("last", "Last", "the same training at its last step", Style(5)),
        ("peeked", "Peeked *", f"{peeked} target labels would have chosen", Style(4, hollow=True)),
        ("oracle", "Oracle *", "trained on target labels: the ceiling", Style(2, hollow=True)),
    )
    chance = 1 / len(classes) if classes else None
    rows = [
        (
            f'<span class="who">{label}</span><span class="soft">{meaning}</span>',
            f'<strong class="big">{as_percent(target[key])}</strong>',
            bar(target[key], style, chance),
        )
        for key, label, meaning, style in rows_of
        if finite(target.get(key))
    ]
    images = f" of {as_number(target['n'])} target test images" if finite(target.get("n")) else ""
    guess = f" The dashed line is blind guessing, {as_percent(chance, 0)}." if chance else ""
    return figure_of(
        table_of(("Model", "Mean class accuracy", ""), rows, "scores"),
        f"Mean class accuracy{images}: the share of right answers, class by class, then averaged, so that rare "
        f"defects count as much as common ones.{guess} * <strong>Peeked and oracle use target labels. They "
        "are shown for judging alone and never choose anything.</strong>",
    )


def _judgement(target: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    parts = []
    if target.get("sentence"):
        parts.append(f'<p class="sentence">{as_text(target["sentence"])}</p>')
    base, selected, oracle = (target.get(key) for key in ("source_only", "selected", "oracle"))
    if finite(base) and finite(selected):
        gain = f"Adaptation changed mean class accuracy by {100 * (selected - base):+.1f} points"
        share = gap_closed(selected - base, oracle - base) if finite(oracle) else None
        if share is not None:
            gain += f", {100 * share:.0f} % of the way to the oracle"
        parts.append(f"<p>{gain}.</p>")
    unknown = ((target.get("details") or {}).get("selected") or {}).get("open")
    if unknown:
        parts.append(
            f"<p>{as_number(unknown['n_unknown'])} test images lie in folders, or have labels, that name no class of "
            f"the source: {as_percent(unknown['unknown'], 0)} of them are answered with so little certainty that they "
            f"count as unknown, while {as_percent(unknown['known'])} of the others (mean over classes) get their own "
            f"class (H-score {unknown['h_score']:.2f}).</p>"
        )
    if report.get("selection"):
        parts.append(f"<p>Rule that chose the checkpoint, without target labels: {rule_of(report['selection'])}.</p>")
    return "".join(parts)


def _confusions(details: Mapping[str, Any], classes: list[str]) -> str:
    figures = []
    for key, title in (("source_only", "Before: source only"), ("selected", "After: selected")):
        counts = np.asarray((details.get(key) or {}).get("confusion") or [], dtype=np.float64)
        if counts.ndim != 2 or not counts.size:
            continue
        mistakes = counts * (1 - np.eye(*counts.shape))
        row, column = np.unravel_index(int(mistakes.argmax()), counts.shape)
        worst = (
            f"The most frequent mistake: {mistakes[row, column]:g} × {as_text(class_name(classes, row))} called "
            f"{as_text(class_name(classes, column))}."
            if mistakes.any()
            else "There is no mistake."
        )
        figures.append(figure_of(confusion_table(counts, classes), worst, title))
    if not figures:
        return ""
    return (
        "<h3>Which class is taken for which</h3><p>Each row is a true class and adds up to 100\u00a0%: blue is right, "
        "red is wrong, the stronger the more images.</p>" + side_by_side(*figures)
    )


def _details(details: Mapping[str, Any]) -> str:
    models = [(key, name) for key, name in (*MODELS, ("oracle", "Oracle *")) if details.get(key)]
    measures = (
        ("mean_class_accuracy", "Mean class accuracy"),
        ("accuracy", "Accuracy"),
        ("macro_f1", "Macro F1"),
        ("escape_rate", "Escapes"),
        ("overkill_rate", "Overkill"),
    )
    rows = []
    for measure, label in measures:
        values = [details[key].get(measure) for key, _ in models]
        if any(value is not None for value in values):
            rows.append((label, *map(_rate, values)))
    return figure_of(
        table_of(("", *(name for _, name in models)), rows, "numbers"),
        "Escapes: defective images called qualified. Overkill: qualified images called defective. Small print: the "
        "range that so few images leave open.",
        "Other measures",
    )


def _rate(value: Any) -> str:
    if not isinstance(value, Mapping):
        return as_percent(value)
    text = as_percent(value.get("rate"))
    if finite(value.get("low")) and finite(value.get("high")):
        text += f"<small>{100 * value['low']:.1f} to {as_percent(value['high'])}</small>"
    return text


def _recalls(details: Mapping[str, Any], classes: list[str]) -> str:
    models = [(key, name) for key, name in MODELS if (details.get(key) or {}).get("per_class")]
    rows = []
    for name in classes:
        found = [details[key]["per_class"].get(name) or {} for key, _ in models]
        bars = "".join(
            bar(measures["recall"], style)
            for measures, style in zip(found, (BEFORE, AFTER), strict=False)
            if finite(measures.get("recall"))
        )
        recalls = [as_percent(measures.get("recall"), 0) for measures in found]
        precision = as_percent(found[-1].get("precision"), 0) if found else "–"
        if bars:
            rows.append((as_text(name), *recalls, f'<div class="bars">{bars}</div>', precision))
    return figure_of(
        table_of(("Class", *(name for _, name in models), "", "Precision"), rows, "numbers"),
        "Recall: of the images of a class, how many were found (hollow before, filled after). Precision, after: of the "
        "images called so, how many are.",
        "Class by class",
    )


def show_rejection(found: Mapping[str, Any] | None, images: str) -> str:
    """Risk over coverage on labelled images, and what the inspector's own thresholds do there."""
    curve = (found or {}).get("risk_coverage") or {}
    if not curve.get("coverage"):
        return ""
    coverage = [100 * value for value in curve["coverage"]]
    errors = {"error among the accepted": curve["risk"]}
    chart = line_chart(coverage, errors, about="risk over coverage", along="accepted, %")
    caption = (
        f"Error among accepted {images} images, over how many percent of them are accepted, the surest first: the "
        "lower on the left, the more a person's look is worth."
    )
    rows = [
        ("Images", as_number(found["n"])),
        ("Calibration error", f"{found['calibration_error']:.3f}"),
        ("Wanted rate of review", as_percent(found["review_rate"])),
        ("Sent to a person", as_percent(found["reviewed"])),
        ("Error of all", as_percent(found["error"])),
        ("Error of the accepted", as_percent(found["error_accepted"])),
    ]
    table = figure_of(
        table_of(("", ""), rows, "numbers"),
        "Thresholds are counted on unlabelled target training images, so the share sent to a person is meant for that "
        "line.",
        "At the inspector's thresholds",
    )
    return side_by_side(figure_of(chart, caption, "Risk over coverage"), table)
