"""The report of a run of declared tasks: a section a task, and what they share."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from steelshift.report.about import show_configuration
from steelshift.report.images import card_of, cards_of
from steelshift.report.pictures import finite, line_chart, overlay
from steelshift.report.shell import (
    as_duration,
    as_number,
    as_percent,
    as_text,
    class_name,
    confusion_table,
    figure_of,
    shell,
    side_by_side,
    table_of,
    tiles_of,
)

_COLUMNS = ("mean_class_accuracy", "accuracy", "macro_f1", "mean_absolute_error")
_HEADS = ("", "mean class accuracy", "accuracy", "macro F1", "mean absolute error, classes", "images")
_SHARED = {
    "kind": "How",
    "channels": "Channels shared, mean over layers",
    "parameters": "Of one task's parameters",
    "flops": "Of one task's multiplications",
    "flops_ratio": "All tasks' multiplications against one network's",
}


def render_tasks(report: Mapping[str, Any], thumbnails: Mapping[str, np.ndarray]) -> str:
    """The page as text."""
    names = list(report["tasks"])
    sections = [
        (f"task-{number}", as_text(name), _task(report, name, number, thumbnails)) for number, name in enumerate(names)
    ]
    sections += [
        ("sharing", "What the tasks share", _sharing(report)),
        ("losses", "Losses and weights of the tasks", _losses(report)),
        ("configuration", "Configuration", show_configuration(report)),
    ]
    return shell(report, _key_numbers(report), _judged(report), sections)


def _key_numbers(report: Mapping[str, Any]) -> str:
    numbers = [
        (str(len(report["tasks"])), "tasks"),
        (as_percent(report["source"]["mean"]), "mean on held-out source images"),
    ]
    return f'<dl class="tiles">{tiles_of(numbers)}</dl>'


def _judged(report: Mapping[str, Any]) -> str:
    """What target labels say, which nothing else on the page depends on."""
    target = report.get("target")
    if not target:
        return ""
    networks = [name for name in ("source_only", "selected", "oracle") if name in target]
    rows = [
        [as_text(name), *(as_percent(target[network]["tasks"][name]["mean_class_accuracy"]) for network in networks)]
        for name in target["selected"]["tasks"]
    ]
    rows.append(["mean", *(as_percent(target[network]["mean"]) for network in networks)])
    caption = (
        f"Mean class accuracy on {target.get('labelled', target['n'])} target test images with labels, which were read "
        "after everything was chosen. "
        f"The run took {as_duration(report['seconds'])}."
    )
    heads = ("", *(network.replace("_", " ") for network in networks))
    table = figure_of(table_of(heads, rows, "numbers"), caption)
    words = f'<p class="sentence">{as_text(target["sentence"])}</p>' if target.get("sentence") else ""
    return f'<section id="judged">\n<h2>On the target line</h2>\n{words}{table}\n</section>'


def _task(report: Mapping[str, Any], name: str, number: int, thumbnails: Mapping[str, np.ndarray]) -> str:
    task, scores = report["tasks"][name], report["source"]["tasks"].get(name)
    classes = [str(each) for each in task["classes"]]
    nature = ", ".join(as_text(task[key]) for key in ("material", "mechanism") if task.get(key))
    parts = [f"<p>{as_text(task['kind'])}{f', {nature}' if nature else ''}: {', '.join(map(as_text, classes))}.</p>"]
    if scores:
        row = ["held-out source", *(as_percent(scores.get(key)) for key in _COLUMNS[:3])]
        row += [as_number(scores.get("mean_absolute_error")), as_number(scores["n"])]
        each = [
            [as_text(label), as_number(values["n"]), as_percent(values["recall"]), as_percent(values["precision"])]
            for label, values in scores["per_class"].items()
        ]
        left = figure_of(
            table_of(_HEADS, [row], "numbers"), "Images of the source line that did not train it.", "Scores"
        )
        right = figure_of(table_of(("", "images", "recall", "precision"), each, "numbers"), "By class.", "Classes")
        parts.append(side_by_side(left, right))
        if "confusion" in scores:
            parts.append(
                figure_of(confusion_table(np.array(scores["confusion"]), classes), "Percent of the true class.")
            )
    images, heats = (thumbnails.get(f"task_{number}{end}", ()) for end in ("", "_heat"))
    said = thumbnails.get(f"task_{number}_said", ())
    cards = [
        card_of(overlay(image, heat), as_text(class_name(classes, answer)))
        for image, heat, answer in zip(images, heats, said, strict=True)
    ]
    if cards:
        caption = "Where this task looks: what its strongest answer rests on, red where it matters most."
        parts.append(figure_of(cards_of(cards), caption))
    return "".join(parts)


def _sharing(report: Mapping[str, Any]) -> str:
    sharing = report["sharing"]
    rows = [
        (label, as_text(sharing[key]) if key == "kind" else as_number(sharing[key]) if key == "flops_ratio"
         else as_percent(sharing[key]))
        for key, label in _SHARED.items()
    ]  # fmt: skip
    return figure_of(
        table_of(("", ""), rows, "numbers"),
        "Three currencies that differ: most channels may be shared while most parameters are not.",
    )


def _losses(report: Mapping[str, Any]) -> str:
    curves, figures = report["curves"], []
    steps = curves.get("step") or []
    for letter, title, caption in (
        ("L", "Loss of each task", "Each should fall; one that does not is starved or cannot be learnt."),
        ("w", "Weight of each task", "What its loss was multiplied with, of mean 1."),
    ):
        some = {
            name: curves[f"{letter} {name}"]
            for name in report["tasks"]
            if any(finite(value) for value in curves.get(f"{letter} {name}") or [])
        }
        figures.append(figure_of(line_chart(steps, some, about=title) if some else "", caption, title))
    return side_by_side(*figures)
