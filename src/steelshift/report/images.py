"""Images of both lines on the report: samples, restyled ones, heat maps, and what adaptation calls otherwise."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from steelshift.report.pictures import data_uri, finite, overlay
from steelshift.report.shell import as_percent, as_text, class_name, figure_of, side_by_side

_SHOWN = 16  # images a line


def show_samples(report: Mapping[str, Any], thumbnails: Mapping[str, np.ndarray], classes: list[str]) -> str:
    threshold = (report.get("calibration") or {}).get("threshold")
    source, target = (_images(thumbnails, line) for line in ("source", "target"))
    given, predicted = thumbnails.get("source_class"), thumbnails.get("target_predicted")
    probability = thumbnails.get("target_probability")
    left = figure_of(
        _named(source, given, classes),
        "Labelled images of the source line, with the class that people gave them.",
        "Source line",
    )
    cards, unsure = [], False
    for index, image in enumerate(target):
        label = as_text(class_name(classes, predicted[index])) if predicted is not None else ""
        doubtful = False
        if probability is not None:
            label += f"<small>{as_percent(probability[index], 0)} sure</small>"
            doubtful = finite(threshold) and float(probability[index]) < threshold
        unsure |= doubtful
        cards.append(card_of(image, label, "doubtful" if doubtful else ""))
    dashed = (
        f" A dashed frame: below the threshold of {as_percent(threshold, 0)}, so a person decides." if unsure else ""
    )
    right = figure_of(
        cards_of(cards),
        f"Images of the target line, with the class that the inspector predicts; nobody labelled them.{dashed}",
        "Target line",
    )
    return side_by_side(left, right)


def show_restyled(thumbnails: Mapping[str, np.ndarray], classes: list[str]) -> str:
    cards = _named(_images(thumbnails, "source_restyled"), thumbnails.get("source_class"), classes)
    if not cards:
        return ""
    caption = (
        "The source images above as the target line's camera would have taken them: its polarity, sharpness and noise, "
        "its grey values, from target images that nobody labelled. The inspector learned from training images treated "
        "like this. A class that is dark on one line and bright on the other can be mistaken here."
    )
    return figure_of(cards, caption, "Source images, restyled")


def show_heat(thumbnails: Mapping[str, np.ndarray], classes: list[str]) -> str:
    figures = []
    for line, labels, caption in (
        (
            "target",
            "target_predicted",
            "Target images with what the prediction rests on: steel shows where a region didn't matter, red to yellow "
            "where it mattered most. Heat on the defect is good; heat on edges, glare or markings is a warning, even "
            "when the class is right.",
        ),
        ("source", "source_class", "The same on source images, for comparison: defects should light up alike."),
    ):
        images, heats = _images(thumbnails, line), _images(thumbnails, line + "_heat")
        heated = [overlay(image, heat) for image, heat in zip(images, heats, strict=False)]
        cards = _named(heated, thumbnails.get(labels), classes)
        figures.append(figure_of(cards, caption, f"{line.capitalize()} line"))
    return side_by_side(*figures)


def show_changed(thumbnails: Mapping[str, np.ndarray], classes: list[str]) -> str:
    kept = [thumbnails.get(f"changed_{key}", ()) for key in ("before", "after", "probability")]
    cards = []
    for image, old, new, sure in zip(_images(thumbnails, "changed"), *kept, strict=False):
        names = f"{as_text(class_name(classes, old))} → {as_text(class_name(classes, new))}"
        cards.append(card_of(image, f"{names}<small>{as_percent(sure, 0)} sure</small>"))
    caption = (
        "Target images with the class that the source-only inspector gives them, and the one that the adapted one "
        "gives: of every such pair the surest first. Nobody labelled them. Whoever knows the line sees here whether "
        "adaptation mends mistakes or makes them."
    )
    return figure_of(cards_of(cards), caption)


def _images(thumbnails: Mapping[str, np.ndarray], key: str) -> np.ndarray | list[np.ndarray]:
    images = thumbnails.get(key)
    return [] if images is None else images[:_SHOWN]


def card_of(image: np.ndarray, label: str, style: str = "") -> str:
    css = f' class="{style}"' if style else ""
    return f'<li{css}><img src="{data_uri(image)}" alt="">{f"<span>{label}</span>" if label else ""}</li>'


def cards_of(cards: Sequence[str]) -> str:
    return f'<ul class="cards">{"".join(cards)}</ul>' if cards else ""


def _named(images: Sequence[np.ndarray], names: np.ndarray | None, classes: list[str]) -> str:
    """Cards of images, each under the name of its class where that is known."""
    labels = (
        [""] * len(images) if names is None else [as_text(class_name(classes, name)) for name in names[: len(images)]]
    )
    return cards_of([card_of(image, label) for image, label in zip(images, labels, strict=False)])
