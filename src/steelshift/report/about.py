"""What a run was made of: its images and its settings."""

from collections.abc import Mapping
from typing import Any

from steelshift.report.pictures import Style, bar, finite
from steelshift.report.shell import as_number, as_text, figure_of, side_by_side, table_of


def show_data(report: Mapping[str, Any], classes: list[str]) -> str:
    lines = report.get("lines") or {}
    source, target = lines.get("source") or {}, lines.get("target") or {}
    labels = (
        ("images", "Images"),
        ("train", "for training"),
        ("val", "for validation"),
        ("test", "for testing"),
        ("labelled", "labelled to train"),
        ("labelled_share", "share of each labelled batch"),
        ("unreadable", "Unreadable, left out"),
        ("duplicates", "Duplicates, kept on one side of the split"),
    )
    rows = [
        (label, as_number(source.get(key)), as_number(target.get(key)))
        for key, label in labels
        if key in source or key in target
    ]
    across = lines.get("duplicates_across")
    few = ", but for those given to train" if target.get("labelled") else ""
    note = f" Images found on both lines: {as_number(across)}." if finite(across) else ""
    left = figure_of(
        table_of(("", "Source", "Target"), rows, "numbers"),
        f"Target images for training have no labels{few}; those for testing were not trained on.{note}",
        "Images",
    )
    counts = source.get("per_class") or {}
    largest = max([*counts.values(), 1])
    names = [*(name for name in classes if name in counts), *sorted({*counts} - {*classes})]
    rows = [(as_text(name), as_number(counts[name]), bar(counts[name] / largest, Style(0))) for name in names]
    right = figure_of(
        table_of(("Class", "Images", ""), rows, "numbers shares"), "Labelled source images by class.", "Classes"
    )
    return side_by_side(left, right)


def show_configuration(report: Mapping[str, Any]) -> str:
    calibration = report.get("calibration") or {}
    labels = {
        "method": "Method",
        "encoder": "Encoder",
        "size": "Image side, pixels",
        "seed": "Seed",
        "pretrain_steps": "Steps on the source alone",
        "steps": "Steps of adaptation",
        "augmentation": "Augmentation",
        "selection": "Selection rule",
        "selected_step": "Selected step",
    }
    rows = [(label, as_text(report[key])) for key, label in labels.items() if report.get(key) is not None]
    rows += [
        (f"Calibration, {key}", as_number(calibration[key]))
        for key in ("temperature", "threshold")
        if finite(calibration.get(key))
    ]
    left = figure_of(table_of(("", ""), rows, "numbers"), "What the run was started with, and what it chose.", "Run")
    rows = [(as_text(key), as_text(value)) for key, value in (report.get("knobs") or {}).items()]
    right = figure_of(table_of(("", ""), rows, "numbers"), "Settings of the method.", "Knobs")
    return side_by_side(left, right)
