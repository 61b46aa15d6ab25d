import copy
import html
import math
import re
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from steelshift import evidence
from steelshift.report import page, pictures

CLASSES = ["qualified", "划痕", "<script>alert(1)</script>", "a\"b'c&d</section>"]
JUDGED = re.compile(r'<section id="judged">.*?</section>', re.DOTALL)
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Walk(HTMLParser):
    """Fails on tags that don't close in order; collects tags, identifiers, sources and text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.ids, self.references, self.text = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.ids += [value for key, value in attributes if key == "id"]
        self.references += [value for key, value in attributes if key in ("src", "href", "xlink:href", "srcset")]
        assert not any(key.startswith("on") for key, _ in attributes)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def map_of(rng, parts):
    count = 40
    points = {
        "x": rng.normal(size=count).tolist(),
        "y": rng.normal(size=count).tolist(),
        "line": ["source", "target"] * (count // 2),
        "class": rng.integers(0, len(CLASSES), count).tolist(),
    }
    return points | ({"part": ["shared"] * 30 + ["private"] * 10} if parts else {})


def measures(rng):
    confusion = rng.integers(0, 9, (len(CLASSES), len(CLASSES)))
    return {
        "n": int(confusion.sum()),
        "accuracy": 0.5,
        "mean_class_accuracy": 0.4,
        "macro_f1": 0.3,
        "per_class": {name: {"n": 9, "recall": 0.5, "precision": None} for name in CLASSES},
        "confusion": confusion.tolist(),
        "escape_rate": {"rate": 0.1, "low": 0.05, "high": 0.2},
        "overkill_rate": 0.07,
    }


def invented():
    rng = np.random.default_rng(3)
    steps = list(range(0, 60, 2))
    curves = ("L_task", "L_embedded", "L_adapt", "L_sep", "lambda", "w", "omega_a", "omega_p", "accuracy_D_a")
    shares = dict(zip(CLASSES, (0.4, 0.3, 0.2, 0.1), strict=True))
    counts = {"images": 1234567, "train": 30, "val": 5, "test": 5, "unreadable": 1, "duplicates": 2}
    report = {
        "schema": 1,
        "method": "iadsa",
        "encoder": "alexnet",
        "size": 112,
        "seed": 0,
        "steps": 60,
        "pretrain_steps": 30,
        "augmentation": "plain",
        "knobs": {"pull": "auto", "w_bounds": (0.1, 0.9), "<i>": None, "ramp": True},
        "classes": CLASSES,
        "lines": {
            "source": counts | {"per_class": {name: 10 for name in CLASSES}},
            "target": {"images": 40, "train": 35, "test": 5, "unreadable": 0, "duplicates": 0},
            "duplicates_across": 1,
        },
        "estimate": {"verdict": "estimate", "estimate": 0.813, "lower_bound": 0.64, "reason": "<b>They</b> agree."},
        "selection": "information_maximization",
        "selected_step": 40,
        "candidates": {
            "step": [20, 40, 60],
            "source_validation": [0.9, 0.91, None],
            "information_maximization": [0.5, 0.7, 0.6],
        },
        "curves": {"step": steps, **{key: rng.random(len(steps)).tolist() for key in curves}},
        "source": {
            "n": 5,
            "source_only": {"accuracy": 1.0, "mean_class_accuracy": 0.99},
            "selected": {"accuracy": 0.9, "mean_class_accuracy": 0.89},
        },
        "domain": {"proxy_a_distance_before": 1.9, "proxy_a_distance_after": 0.4},
        "predicted": {"source_only": {CLASSES[0]: 1.0}, "selected": shares, "changed": 0.6},
        "verdict": "Usable <b>soon</b>.",
        "map": {"before": map_of(rng, False), "after": map_of(rng, True)},
        "embedded_samples": {
            "background": {"x": [0.0, 4.0], "y": [0.0, 1.0], "class": [0, 1]},
            "lambdas": [0.1, 0.5],
            "triplets": [
                {
                    "x": [0, 0],
                    "positive": [1, 0],
                    "negative": [4, 0],
                    "new": [[1.3, 0], [2.5, 0]],
                    "class": 0,
                    "negative_class": 1,
                }
            ],
        },
        "calibration": {"temperature": 1.5, "threshold": 0.7},
        "seconds": 12.5,
        "target": {
            "source_only": 0.4,
            "selected": 0.7,
            "last": 0.65,
            "peeked": 0.72,
            "oracle": 0.9,
            "n": 5,
            "peeked_step": 20,
            "sentence": "Adaptation helped & paid.",
            "details": {key: measures(rng) for key in ("source_only", "selected", "oracle")},
        },
    }
    report["curves"]["L_task"][3] = None
    report["curves"]["L_sep"][4] = math.nan
    images = rng.integers(0, 256, (4, 5, 32, 32)).astype(np.uint8)
    thumbnails = {
        "source": images[0],
        "source_class": np.arange(5) % len(CLASSES),
        "source_heat": images[1],
        "source_restyled": images[3],
        "target": images[2],
        "target_predicted": np.arange(5)[::-1] % len(CLASSES),
        "target_probability": np.linspace(0.4, 1, 5),
        "target_heat": images[3],
        "changed": images[1],
        "changed_before": np.arange(5) % len(CLASSES),
        "changed_after": (np.arange(5) + 1) % len(CLASSES),
        "changed_probability": np.linspace(0.99, 0.5, 5),
    }
    return report, thumbnails


def test_the_page_tells_what_is_known_without_labels():
    report, thumbnails = invented()
    text = page.render(report, thumbnails)
    assert "81.3" in text and "64.0" in text and "&lt;b&gt;They&lt;/b&gt; agree." in text
    report["estimate"] = {"verdict": "refused", "estimate": None, "lower_bound": None, "reason": "Too far."}
    text = page.render(report, thumbnails)
    assert "Without labels nothing can be said." in text and "Too far." in text and "Lower bound" not in text
    Walk(text)


def test_page_is_well_formed_and_complete():
    text = page.render(*invented())
    walk = Walk(text)
    sections = ["judged", "estimate", "samples", "restyled", "heat", "shares", "changed", "maps", "losses", "weights"]
    assert walk.ids == [*sections, "discriminators", "embedded", "candidates", "distance", "data", "configuration"]
    assert {reference[1:] for reference in walk.references if reference.startswith("#")} == {*walk.ids} - {"judged"}
    assert walk.tags.count("figcaption") == walk.tags.count("figure") > 20
    assert "划痕" in "".join(walk.text) and "1234567" in walk.text and "chosen: step 40" in text


def test_nothing_is_loaded_or_run():
    text = page.render(*invented())
    walk = Walk(text)
    assert not {"script", "link", "iframe", "object", "b", "i"} & {*walk.tags}
    assert all(reference.startswith(("#", "data:image/jpeg;base64,")) for reference in walk.references)
    assert "//" not in re.sub(r"data:image/jpeg;base64,[A-Za-z0-9+/=]+", "", text)
    assert "@import" not in text and "url(" not in text
    assert "<script>alert(1)</script>" in walk.text  # as letters to read


def test_same_numbers_same_bytes():
    assert page.render(*invented()) == page.render(*invented())
    assert pictures.before_after(*invented()) == pictures.before_after(*invented())


@pytest.mark.parametrize("missing", [("target",), ("seconds",), ("target", "seconds")])
def test_judging_changes_the_judged_section_alone(missing):
    report, thumbnails = invented()
    judged = page.render(report, thumbnails)
    unjudged = page.render({key: value for key, value in report.items() if key not in missing}, thumbnails)
    assert len(JUDGED.findall(judged)) == len(JUDGED.findall(unjudged)) == 1
    assert judged != unjudged
    assert JUDGED.sub("", judged) == JUDGED.sub("", unjudged)
    assert ("peeked" in unjudged.lower()) == ("target" not in missing)


def test_renders_without_any_one_key():
    report, thumbnails = invented()
    for key in report:
        Walk(page.render({**report, key: None}, thumbnails))
        Walk(page.render({k: v for k, v in report.items() if k != key}, thumbnails))
    for outer in ("lines", "source", "domain", "predicted", "map", "target", "calibration", "candidates", "curves"):
        for key in report[outer]:
            fewer = copy.copy(report)
            fewer[outer] = {**report[outer], key: None}
            Walk(page.render(fewer, thumbnails))
    for key in thumbnails:
        Walk(page.render(report, {k: v for k, v in thumbnails.items() if k != key}))
    assert Walk(page.render({}, {})).ids == ["judged"]
    assert pictures.before_after({}, {}).startswith(b"\x89PNG")


def test_restyled_images_are_shown_where_a_method_learned_from_such():
    report, thumbnails = invented()
    assert "Source images, restyled" in page.render(report, thumbnails)
    del thumbnails["source_restyled"]
    assert "restyled" not in page.render(report, thumbnails)


def test_of_what_changed_every_pair_of_classes_is_shown_the_surest_first():
    target = torch.arange(6.0).reshape(6, 1, 1, 1).expand(-1, -1, 4, 4)
    before = np.array([0, 0, 0, 0, 2, 2])
    p = np.array([[0.9, 0.1, 0], [0.2, 0.7, 0.1], [0, 0.95, 0.05], [0.1, 0.1, 0.8], [0.4, 0.3, 0.3], [0.1, 0.1, 0.8]])
    found = evidence._changed(target, before, p)
    assert found["changed"][:, 0, 0].tolist() == [2, 3, 4, 1]
    assert found["changed_before"].tolist() == [0, 0, 2, 0] and found["changed_after"].tolist() == [1, 2, 0, 1]
    assert found["changed_probability"].tolist() == [0.95, 0.8, 0.4, 0.7]


def test_what_adaptation_calls_otherwise_is_shown_under_both_names():
    report, thumbnails = invented()
    first, second = (html.escape(str(name)) for name in CLASSES[:2])
    assert f"{first} → {second}<small>99\u00a0% sure</small>" in page.render(report, thumbnails)
    for key in ("changed", "changed_before", "changed_after", "changed_probability"):
        thumbnails[key] = thumbnails[key][:0]
    assert "calls otherwise" not in page.render(report, thumbnails)


def test_long_runs_and_large_images_stay_small():
    report, thumbnails = invented()
    rng = np.random.default_rng(0)
    report["curves"] = {"step": list(range(50000)), "L_task": rng.random(50000).tolist()}
    many = {"x": rng.normal(size=9000).tolist(), "y": rng.normal(size=9000).tolist()}
    many |= {"line": ["source", "target", "target"] * 3000, "class": [0, 1, 2] * 3000}
    report["map"] = {"before": many, "after": many}
    for key in ("source", "target", "source_heat", "target_heat"):
        thumbnails[key] = rng.integers(0, 256, (16, 224, 224)).astype(np.uint8)
    for key in ("source_class", "target_predicted", "target_probability"):
        thumbnails[key] = np.ones(16, dtype=int)
    assert len(page.render(report, thumbnails)) < 3e6


def test_line_chart_draws_gaps_and_cuts_spikes():
    assert ">accepted, %<" in pictures.line_chart([0, 1], {"error": [0.0, 1.0]}, about="risk", along="accepted, %")
    gap = pictures.line_chart([0, 1, 2, 3], {"loss": [1.0, None, 0.5, math.inf]}, about="loss")
    assert re.search(r'd="M[\d. ]+M[\d. ]+"', gap)
    assert pictures.line_chart([0, 1], {"loss": [None, None]}, about="loss") == ""
    assert pictures.line_chart([], {}, about="loss") == ""
    spiked = pictures.line_chart(range(100), {"loss": [1.0] * 99 + [1e6]}, about="loss")
    assert ">1.5</text>" in spiked and "000</text>" not in spiked
    assert ">0.1</text>" in pictures.line_chart([0, 1], {"loss": [0.0, 0.0]}, about="loss")
    assert "NaN" not in (single := pictures.line_chart([5], {"loss": [2.0]}, about="loss")) and "nan" not in single


def test_styles_of_classes_differ():
    styles = {(style.colour, style.shape) for style in map(pictures.class_style, range(42))}
    assert len(styles) == 42


def test_overlay_keeps_cold_steel_and_colours_hot_steel():
    image, heat = np.full((2, 2), 100, np.uint8), np.array([[0, 255], [0, 0]], np.uint8)
    laid = pictures.overlay(image, heat)
    assert laid.dtype == np.uint8 and laid.shape == (2, 2, 3)
    assert (laid[0, 0] == 100).all() and laid[0, 1, 0] > 200 > laid[0, 1, 2]


def test_confusion_names_the_worst_mistake_and_survives_an_empty_class():
    report, thumbnails = invented()
    confusion = np.diag([5, 5, 0, 5])
    confusion[0, 1] = 3
    report["target"]["details"]["selected"]["confusion"] = confusion.tolist()
    text = page.render(report, thumbnails)
    assert "The most frequent mistake: 3 × qualified called 划痕." in text and "nan" not in text


def test_before_after_is_a_wide_picture_with_or_without_labels():
    report, thumbnails = invented()
    with_labels = pictures.before_after(report, thumbnails)
    without = pictures.before_after({**report, "target": None}, thumbnails)
    assert with_labels != without
    for picture in (with_labels, without):
        assert Image.open(BytesIO(picture)).size == (1200, 520)
