"""The report of a run as one HTML file: no script, no file beside it, and the same bytes for the same numbers.

Whatever target labels (or the clock) decide stands in the one section `judged`; nothing else on the page changes when
they are taken away. Names of classes come from folders that anybody may have named, so every string is escaped.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from steelshift.report.about import show_configuration, show_data
from steelshift.report.images import show_changed, show_heat, show_restyled, show_samples
from steelshift.report.judged import MODELS, show_judged, show_rejection
from steelshift.report.pictures import Group, Style, bar, class_style, finite, legend, scatter
from steelshift.report.shell import (
    AFTER,
    BEFORE,
    as_number,
    as_percent,
    as_text,
    figure_of,
    shell,
    side_by_side,
    table_of,
    tiles_of,
)
from steelshift.report.tasks import render_tasks
from steelshift.report.training import show_candidates, show_discriminators, show_embedded, show_losses, show_weights


def render(report: Mapping[str, Any], thumbnails: Mapping[str, np.ndarray]) -> str:
    """The page as text. Keys that are missing or None leave out what they would show."""
    if "tasks" in report:
        return render_tasks(report, thumbnails)
    classes = [str(name) for name in report.get("classes") or []]
    sections = [
        ("estimate", "How often it is right on the target line, told without labels", _estimate(report)),
        ("samples", "What both cameras see", show_samples(report, thumbnails, classes)),
        ("restyled", "The source line in the style of the target", show_restyled(thumbnails, classes)),
        ("heat", "Where the inspector looks", show_heat(thumbnails, classes)),
        ("shares", "What it predicts on the target line", _shares(report, classes)),
        ("changed", "What adaptation calls otherwise", show_changed(thumbnails, classes)),
        ("maps", "How far apart the lines are", _maps(report, classes)),
        ("losses", "Losses during training", show_losses(report)),
        ("weights", "Dynamic weights", show_weights(report)),
        ("discriminators", "The two discriminators", show_discriminators(report)),
        ("embedded", "Embedded samples", show_embedded(report, classes)),
        ("candidates", "Which checkpoint was kept", show_candidates(report)),
        ("reject", "What sending images to a person buys", show_rejection(report.get("reject"), "held-out source")),
        ("distance", "Proxy A-distance and the source line", _distance(report)),
        ("data", "Data", show_data(report, classes)),
        ("configuration", "Configuration", show_configuration(report)),
    ]
    return shell(report, _key_numbers(report), show_judged(report, classes), sections)


def _key_numbers(report: Mapping[str, Any]) -> str:
    lines, source = report.get("lines") or {}, report.get("source") or {}
    domain, predicted = report.get("domain") or {}, report.get("predicted") or {}
    tiles = []
    for line, label in (("source", "labelled source images"), ("target", "unlabelled target images")):
        if finite((lines.get(line) or {}).get("images")):
            tiles.append((as_number(lines[line]["images"]), label))
    selected = (source.get("selected") or {}).get("mean_class_accuracy")
    if finite(selected):
        tiles.append((as_percent(selected), "right on source test images"))
    told = report.get("estimate") or {}
    if finite(told.get("estimate")):
        tiles.append((as_percent(told["estimate"], 0), "right on the target line, estimated without labels"))
    elif finite(told.get("lower_bound")):
        tiles.append((f"≥ {as_percent(told['lower_bound'], 0)}", "right on the target line, a bound without labels"))
    if finite(predicted.get("changed")):
        tiles.append((as_percent(predicted["changed"], 0), "of target predictions changed"))
    before, after = domain.get("proxy_a_distance_before"), domain.get("proxy_a_distance_after")
    if finite(before) and finite(after):
        tiles.append((f"{before:.2f} → {after:.2f}", "distance between the lines (0 to 2)"))
    return f'<dl class="tiles">{tiles_of(tiles)}</dl>' if tiles else ""


_TOLD = {
    "estimate": "An estimate, and a lower bound.",
    "bound": "Only a lower bound can be given.",
    "refused": "Without labels nothing can be said.",
}


def _estimate(report: Mapping[str, Any]) -> str:
    found = report.get("estimate") or {}
    if found.get("verdict") not in _TOLD:
        return ""
    rows = [
        (label, f"<strong>{as_percent(found[key])}</strong>", bar(found[key], style))
        for key, label, style in (("estimate", "Estimate", AFTER), ("lower_bound", "Lower bound, 95 %", BEFORE))
        if finite(found.get(key))
    ]
    caption = (
        "Plain accuracy on target test images, from the answers alone. Such estimates know changes of the camera; "
        "where defects themselves look otherwise, they are too high. <code>steelshift estimate RUN --labels</code> "
        "makes an interval of a few labels."
    )
    words = f'<p class="sentence">{_TOLD[found["verdict"]]}</p><p>{as_text(found["reason"])}</p>'
    return words + (figure_of(table_of(("", "Accuracy", ""), rows, "numbers shares"), caption) if rows else "")


def _shares(report: Mapping[str, Any], classes: list[str]) -> str:
    predicted = report.get("predicted") or {}
    before, after = predicted.get("source_only") or {}, predicted.get("selected") or {}
    counts = ((report.get("lines") or {}).get("source") or {}).get("per_class") or {}
    total = sum(counts.values())
    names = [*classes, *sorted({*before, *after} - {*classes})]
    largest = max([*before.values(), *after.values(), 0.01])
    rows = [
        (
            as_text(name),
            as_percent(counts[name] / total, 0) if total and name in counts else "–",
            as_percent(before.get(name), 0),
            as_percent(after.get(name), 0),
            '<div class="bars">'
            + "".join(bar(some.get(name, 0.0) / largest, style) for some, style in ((before, BEFORE), (after, AFTER)))
            + "</div>",
        )
        for name in names
        if name in before or name in after
    ]
    changed = (
        f" Adaptation changed {as_percent(predicted['changed'], 0)} of the predictions."
        if finite(predicted.get("changed"))
        else ""
    )
    return figure_of(
        table_of(("Class", "Labelled source", "Before", "After", ""), rows, "numbers shares"),
        "Share of each class among the predictions on target test images, before (hollow) and after adaptation "
        f"(filled); no labels enter.{changed} A class that vanishes or swallows the others is a warning.",
    )


def _maps(report: Mapping[str, Any], classes: list[str]) -> str:
    maps = report.get("map") or {}
    by_line, by_class = [], []
    for key, title in (("before", "Before adaptation"), ("after", "After adaptation")):
        points = maps.get(key)
        if not points or not points.get("x"):
            continue
        line, about = _by_line(points), f"Map of both lines' features {title.lower()}"
        by_line.append(
            figure_of(
                scatter(line, about=about) + legend([(g.label, g.style) for g in reversed(line)]),
                "Each point is one image. Where circles and triangles mix, the inspector no longer sees which line an "
                "image comes from."
                if key == "after"
                else "Each point is one image. Islands of one line alone mean that the inspector meets looks that "
                "it was never trained on.",
                f"{title}, by line",
            )
        )
        groups = _by_class(points, classes)
        present = {group.label for group in groups}
        order = [(name, class_style(index)) for index, name in enumerate(classes) if name in present]
        by_class.append(
            figure_of(
                scatter(groups, about=about + ", by class") + legend(order),
                "The same points, by class: pale is the source line with its given class, strong the target line "
                "with its predicted class. Good: each strong group lies on the pale group of its class.",
                f"{title}, by class",
            )
        )
    if not by_line:
        return ""
    private = any((points or {}).get("part") for points in maps.values())
    return (
        "<p>The maps (t-SNE) squeeze hundreds of features into two directions and keep neighbours together. Lengths, "
        "sizes of groups and gaps between them aren't to scale, and two maps can't be laid over each other."
        + (
            " Private features, drawn hollow, hold what only one line shows; they should lie apart from shared ones."
            if private
            else ""
        )
        + f"</p>{side_by_side(*by_line)}{side_by_side(*by_class)}"
    )


def _by_line(points: Mapping[str, Any]) -> list[Group]:
    parts = points.get("part") or ["shared"] * len(points["x"])
    groups = []
    for part in ("private", "shared"):
        for line, colour, shape in (("target", 1, "triangle"), ("source", 0, "circle")):
            label = f"{line}, {part}" if points.get("part") else line
            mask = [a == line and b == part for a, b in zip(points["line"], parts, strict=True)]
            groups.append(_group(label, Style(colour, shape, hollow=part == "private"), points, mask))
    return [group for group in groups if len(group.x)]


def _by_class(points: Mapping[str, Any], classes: list[str]) -> list[Group]:
    """Shared features alone: private ones hold no class."""
    parts = points.get("part") or ["shared"] * len(points["x"])
    groups = []
    for line in ("source", "target"):
        for index, name in enumerate(classes):
            mask = [
                a == line and b == "shared" and c == index
                for a, b, c in zip(points["line"], parts, points["class"], strict=True)
            ]
            groups.append(_group(name, class_style(index, faint=line == "source"), points, mask))
    return [group for group in groups if len(group.x)]


def _group(label: str, style: Style, points: Mapping[str, Any], mask: Sequence[bool]) -> Group:
    x, y = ([v for v, inside in zip(points[axis], mask, strict=True) if inside] for axis in ("x", "y"))
    return Group(label, style, x, y)


def _distance(report: Mapping[str, Any]) -> str:
    domain, source = report.get("domain") or {}, report.get("source") or {}
    pairs = (("Before", "proxy_a_distance_before", BEFORE), ("After", "proxy_a_distance_after", AFTER))
    rows = [
        (label, f"<strong>{domain[key]:.2f}</strong>", bar(domain[key] / 2, style))
        for label, key, style in pairs
        if finite(domain.get(key))
    ]
    left = figure_of(
        table_of(("", "0 to 2", ""), rows, "numbers shares"),
        "A fresh classifier tries to tell the lines apart by the inspector's features. 2: always right; 0: it guesses, "
        "so the lines look alike. A low value alone doesn't prove that the classes are right.",
        "Proxy A-distance",
    )
    rows = [
        (name, f"<strong>{as_percent(model.get('mean_class_accuracy'))}</strong>", as_percent(model.get("accuracy")))
        for key, name in MODELS
        if (model := source.get(key))
    ]
    images = f" {as_number(source['n'])}" if finite(source.get("n")) else ""
    right = figure_of(
        table_of(("", "Mean class accuracy", "Accuracy"), rows, "numbers"),
        f"On{images} source test images: adaptation should cost the source line little or nothing.",
        "Source line, before and after",
    )
    return side_by_side(left, right)
