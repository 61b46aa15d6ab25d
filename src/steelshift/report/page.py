"""The report of a run as one HTML file: no script, no file beside it, and the same bytes for the same numbers.

Whatever target labels (or the clock) decide stands in the one section `judged`; nothing else on the page changes when
they are taken away. Names of classes come from folders that anybody may have named, so every string is escaped.
"""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from steelshift.report.pictures import (
    Group,
    Style,
    bar,
    class_style,
    data_uri,
    finite,
    legend,
    line_chart,
    overlay,
    scatter,
    triplets,
)
from steelshift.selection.metrics import gap_closed

_SHOWN = 16  # images a line
_RULES = {
    "information_maximization": "information maximization: single predictions are sure, all together spread over the "
    "classes",
    "source_validation": "accuracy on the source line's validation images",
    "last": "the last step",
    "entropy": "entropy: single predictions are sure",
    "bnm": "batch nuclear norm: predictions are sure and of many kinds",
    "snd": "soft neighbourhood density: predictions form dense clusters",
    "dev": "deep embedded validation: loss on source validation images, weighted as the target has them",
    "devn": "deep embedded validation, normalized: errors on source validation images, weighted as the target has them",
    "class_ami": "agreement of predicted classes with clusters of features",
    "mixval": "mixtures of two target images get the class of the one they hold more of",
    "circular": "a classifier taught the predictions on the target is right on the source",
}
_LOSSES = {
    "L_task": "task (classes of source images)",
    "L_embedded": "embedded samples",
    "L_adapt": "adaptation (which line?)",
    "L_sep": "separation (shared or private?)",
}
_WEIGHTS = {
    "lambda": "λ, reach of embedded samples",
    "w": "w, real against embedded samples",
    "omega_a": "ω_a, adaptation",
    "omega_p": "ω_p, separation",
}
_BEFORE, _AFTER = Style(6, hollow=True), Style(0)


def render(report: Mapping[str, Any], thumbnails: Mapping[str, np.ndarray]) -> str:
    """The page as text. Keys that are missing or None leave out what they would show."""
    if "tasks" in report:
        from steelshift.report.tasks import render_tasks

        return render_tasks(report, thumbnails)
    classes = [str(name) for name in report.get("classes") or []]
    sections = [
        ("estimate", "How often it is right on the target line, told without labels", _estimate(report)),
        ("samples", "What both cameras see", _samples(report, thumbnails, classes)),
        ("restyled", "The source line in the style of the target", _restyled(thumbnails, classes)),
        ("heat", "Where the inspector looks", _heat(thumbnails, classes)),
        ("shares", "What it predicts on the target line", _shares(report, classes)),
        ("changed", "What adaptation calls otherwise", _changed(thumbnails, classes)),
        ("maps", "How far apart the lines are", _maps(report, classes)),
        ("losses", "Losses during training", _losses(report)),
        ("weights", "Dynamic weights", _weights(report)),
        ("discriminators", "The two discriminators", _discriminators(report)),
        ("embedded", "Embedded samples", _embedded(report, classes)),
        ("candidates", "Which checkpoint was kept", _candidates(report)),
        ("reject", "What sending images to a person buys", _rejection(report.get("reject"), "held-out source")),
        ("distance", "Proxy A-distance and the source line", _distance(report)),
        ("data", "Data", _data(report, classes)),
        ("configuration", "Configuration", _configuration(report)),
    ]
    return shell(report, _key_numbers(report), _judged(report, classes), sections)


def shell(report: Mapping[str, Any], key_numbers: str, judged: str, sections: Sequence[tuple[str, str, str]]) -> str:
    """The page around its sections: key, title and body, in HTML; those without a body are left out."""
    sections = [(key, title, body) for key, title, body in sections if body]
    links = "".join(f'<li><a href="#{key}">{title}</a></li>' for key, title, _ in sections)
    method = escape(str(report.get("method") or "").upper())
    title = f"{method} report · steelshift" if method else "Report · steelshift"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        # Were any of the names ever not inert, the browser would still load and run nothing.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<header>\n"
        f'<p class="eyebrow">steelshift · report of one run{" · " + method if method else ""}</p>\n'
        f"<h1>{_words(report.get('verdict') or 'This run came without a verdict.')}</h1>\n"
        f'{key_numbers}\n<nav aria-label="Contents"><ul>{links}</ul></nav>\n</header>\n<main>\n'
        f"{judged}\n"
        + "".join(f'<section id="{key}">\n<h2>{title}</h2>\n{body}\n</section>\n' for key, title, body in sections)
        + "</main>\n</body>\n</html>\n"
    )


# Words and tables.


def _words(text: Any) -> str:
    return escape(str(text))


def _percent(value: Any, digits: int = 1) -> str:
    return f"{100 * float(value):.{digits}f}\u00a0%" if finite(value) else "–"


def _number(value: Any) -> str:
    """Counts as they are, other numbers to three digits; a dash for what is missing."""
    if isinstance(value, bool) or not finite(value):
        return "–" if value is None or isinstance(value, float) else _words(value)
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.3g}"


def _name(classes: Sequence[str], index: Any) -> str:
    """Name of a class by its index, not yet escaped."""
    return classes[int(index)] if finite(index) and 0 <= int(index) < len(classes) else "unknown"


def _figure(picture: str, caption: str, title: str = "") -> str:
    if not picture:
        return ""
    head = f"<h3>{title}</h3>" if title else ""
    return f"<figure>{head}{picture}<figcaption>{caption}</figcaption></figure>"


def _side_by_side(*figures: str) -> str:
    some = [figure for figure in figures if figure]
    return f'<div class="pair">{"".join(some)}</div>' if some else ""


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], style: str = "") -> str:
    """Cells are HTML already; the first of a row is its head."""
    if not rows:
        return ""
    top = "".join(f'<th scope="col">{head}</th>' for head in heads)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>' for row in rows
    )
    css = f' class="{style}"' if style else ""
    return (
        f'<div class="scroll"><table{css}><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
        if any(heads)
        else f'<div class="scroll"><table{css}><tbody>{body}</tbody></table></div>'
    )


def _tiles(numbers: Sequence[tuple[str, str]]) -> str:
    return "".join(f"<div><dt>{label}</dt><dd>{value}</dd></div>" for value, label in numbers)


# Sections, in the order of the page. Each gives "" when the report holds nothing for it.


def _key_numbers(report: Mapping[str, Any]) -> str:
    lines, source = report.get("lines") or {}, report.get("source") or {}
    domain, predicted = report.get("domain") or {}, report.get("predicted") or {}
    tiles = []
    for line, label in (("source", "labelled source images"), ("target", "unlabelled target images")):
        if finite((lines.get(line) or {}).get("images")):
            tiles.append((_number(lines[line]["images"]), label))
    selected = (source.get("selected") or {}).get("mean_class_accuracy")
    if finite(selected):
        tiles.append((_percent(selected), "right on source test images"))
    told = report.get("estimate") or {}
    if finite(told.get("estimate")):
        tiles.append((_percent(told["estimate"], 0), "right on the target line, estimated without labels"))
    elif finite(told.get("lower_bound")):
        tiles.append((f"≥ {_percent(told['lower_bound'], 0)}", "right on the target line, a bound without labels"))
    if finite(predicted.get("changed")):
        tiles.append((_percent(predicted["changed"], 0), "of target predictions changed"))
    before, after = domain.get("proxy_a_distance_before"), domain.get("proxy_a_distance_after")
    if finite(before) and finite(after):
        tiles.append((f"{before:.2f} → {after:.2f}", "distance between the lines (0 to 2)"))
    return f'<dl class="tiles">{_tiles(tiles)}</dl>' if tiles else ""


def _judged(report: Mapping[str, Any], classes: list[str]) -> str:
    """The only section that reads `target` and `seconds`; it is always there, so that nothing around it moves."""
    target, seconds = report.get("target") or {}, report.get("seconds")
    parts = []
    if target:
        parts.append(_scores(target, report, classes))
        parts.append(_judgement(target, report))
        details = target.get("details") or {}
        parts.append(_confusions(details, classes))
        parts.append(_side_by_side(_details(details), _recalls(details, classes)))
        parts.append(_rejection(target.get("reject"), "target test"))
    else:
        parts.append(
            "<p>No target labels were given to judge by, so nobody knows how often this inspector is right on the "
            "target line. Label a few hundred target images and judge the run with them before relying on it.</p>"
        )
    if finite(seconds):
        parts.append(f'<p class="soft">The run took {_duration(float(seconds))}.</p>')
    title = "Judged with target labels" if target else "Not judged"
    return f'<section id="judged">\n<h2>{title}</h2>\n{"".join(parts)}\n</section>'


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
        (label, f"<strong>{_percent(found[key])}</strong>", bar(found[key], style))
        for key, label, style in (("estimate", "Estimate", _AFTER), ("lower_bound", "Lower bound, 95 %", _BEFORE))
        if finite(found.get(key))
    ]
    caption = (
        "Plain accuracy on target test images, from the answers alone. Such estimates know changes of the camera; "
        "where defects themselves look otherwise, they are too high. <code>steelshift estimate RUN --labels</code> "
        "makes an interval of a few labels."
    )
    words = f'<p class="sentence">{_TOLD[found["verdict"]]}</p><p>{_words(found["reason"])}</p>'
    return words + (_figure(_table(("", "Accuracy", ""), rows, "numbers shares"), caption) if rows else "")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    minutes = round(seconds / 60)
    return f"{minutes} minutes" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def _scores(target: Mapping[str, Any], report: Mapping[str, Any], classes: list[str]) -> str:
    peeked = (
        f"step {_number(target['peeked_step'])}, which" if finite(target.get("peeked_step")) else "the checkpoint that"
    )
    chosen = f", step {_number(report['selected_step'])}" if finite(report.get("selected_step")) else ""
    rows_of = (
        ("source_only", "Source only", "trained on the source line, not adapted", _BEFORE),
        (
            "selected",
            "Selected",
            f"<strong>what you get</strong>: adapted, chosen without target labels{chosen}",
            _AFTER,
        ),
        ("last", "Last", "the same training at its last step", Style(5)),
        ("peeked", "Peeked *", f"{peeked} target labels would have chosen", Style(4, hollow=True)),
        ("oracle", "Oracle *", "trained on target labels: the ceiling", Style(2, hollow=True)),
    )
    chance = 1 / len(classes) if classes else None
    rows = [
        (
            f'<span class="who">{label}</span><span class="soft">{meaning}</span>',
            f'<strong class="big">{_percent(target[key])}</strong>',
            bar(target[key], style, chance),
        )
        for key, label, meaning, style in rows_of
        if finite(target.get(key))
    ]
    images = f" of {_number(target['n'])} target test images" if finite(target.get("n")) else ""
    guess = f" The dashed line is blind guessing, {_percent(chance, 0)}." if chance else ""
    return _figure(
        _table(("Model", "Mean class accuracy", ""), rows, "scores"),
        f"Mean class accuracy{images}: the share of right answers, class by class, then averaged, so that rare "
        f"defects count as much as common ones.{guess} * <strong>Peeked and oracle use target labels. They "
        "are shown for judging alone and never choose anything.</strong>",
    )


def _judgement(target: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    parts = []
    if target.get("sentence"):
        parts.append(f'<p class="sentence">{_words(target["sentence"])}</p>')
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
            f"<p>{_number(unknown['n_unknown'])} test images lie in folders, or have labels, that name no class of the "
            f"source: {_percent(unknown['unknown'], 0)} of them are answered with so little certainty that they count "
            f"as unknown, while {_percent(unknown['known'])} of the others (mean over classes) get their own class "
            f"(H-score {unknown['h_score']:.2f}).</p>"
        )
    if report.get("selection"):
        parts.append(f"<p>Rule that chose the checkpoint, without target labels: {_rule(report['selection'])}.</p>")
    return "".join(parts)


def _rule(rule: Any) -> str:
    return _RULES.get(str(rule)) or _words(str(rule).replace("_", " "))


def _confusions(details: Mapping[str, Any], classes: list[str]) -> str:
    figures = []
    for key, title in (("source_only", "Before: source only"), ("selected", "After: selected")):
        counts = np.asarray((details.get(key) or {}).get("confusion") or [], dtype=np.float64)
        if counts.ndim != 2 or not counts.size:
            continue
        mistakes = counts * (1 - np.eye(*counts.shape))
        row, column = np.unravel_index(int(mistakes.argmax()), counts.shape)
        worst = (
            f"The most frequent mistake: {mistakes[row, column]:g} × {_words(_name(classes, row))} called "
            f"{_words(_name(classes, column))}."
            if mistakes.any()
            else "There is no mistake."
        )
        figures.append(_figure(_confusion(counts, classes), worst, title))
    if not figures:
        return ""
    return (
        "<h3>Which class is taken for which</h3><p>Each row is a true class and adds up to 100\u00a0%: blue is right, "
        "red is wrong, the stronger the more images.</p>" + _side_by_side(*figures)
    )


def _confusion(counts: np.ndarray, classes: list[str]) -> str:
    heads = "".join(f'<th scope="col"><span>{_words(_name(classes, i))}</span></th>' for i in range(counts.shape[1]))
    rows = []
    for index, row in enumerate(counts):
        total = row.sum()
        cells = []
        for column, count in enumerate(row):
            share = count / total if total else 0.0
            # Opacity ends at .6, where dark letters on light and light ones on dark stay legible.
            colour = "0,114,178" if column == index else "213,94,0"
            background = f' style="background:rgba({colour},{0.6 * share:.2f})"' if share else ""
            cells.append(f"<td{background}>{f'{100 * share:.0f}' if count else '·'}</td>")
        name = f'<th scope="row">{_words(_name(classes, index))}</th>'
        rows.append(f'<tr>{name}{"".join(cells)}<td class="count">{total:g}</td></tr>')
    return (
        '<div class="scroll"><table class="confusion"><thead><tr><th class="corner">true ↓ predicted →</th>'
        f'{heads}<th scope="col"><span>images</span></th></tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _details(details: Mapping[str, Any]) -> str:
    models = [(key, name) for key, name in (*_MODELS, ("oracle", "Oracle *")) if details.get(key)]
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
    return _figure(
        _table(("", *(name for _, name in models)), rows, "numbers"),
        "Escapes: defective images called qualified. Overkill: qualified images called defective. Small print: the "
        "range that so few images leave open.",
        "Other measures",
    )


_MODELS = (("source_only", "Source only"), ("selected", "Selected"))


def _rate(value: Any) -> str:
    if not isinstance(value, Mapping):
        return _percent(value)
    text = _percent(value.get("rate"))
    if finite(value.get("low")) and finite(value.get("high")):
        text += f"<small>{100 * value['low']:.1f} to {_percent(value['high'])}</small>"
    return text


def _recalls(details: Mapping[str, Any], classes: list[str]) -> str:
    models = [(key, name) for key, name in _MODELS if (details.get(key) or {}).get("per_class")]
    rows = []
    for name in classes:
        found = [details[key]["per_class"].get(name) or {} for key, _ in models]
        bars = "".join(
            bar(measures["recall"], style)
            for measures, style in zip(found, (_BEFORE, _AFTER), strict=False)
            if finite(measures.get("recall"))
        )
        recalls = [_percent(measures.get("recall"), 0) for measures in found]
        precision = _percent(found[-1].get("precision"), 0) if found else "–"
        if bars:
            rows.append((_words(name), *recalls, f'<div class="bars">{bars}</div>', precision))
    return _figure(
        _table(("Class", *(name for _, name in models), "", "Precision"), rows, "numbers"),
        "Recall: of the images of a class, how many were found (hollow before, filled after). Precision, after: of the "
        "images called so, how many are.",
        "Class by class",
    )


def _samples(report: Mapping[str, Any], thumbnails: Mapping[str, np.ndarray], classes: list[str]) -> str:
    threshold = (report.get("calibration") or {}).get("threshold")
    source, target = (_images(thumbnails, line) for line in ("source", "target"))
    given, predicted = thumbnails.get("source_class"), thumbnails.get("target_predicted")
    probability = thumbnails.get("target_probability")
    left = _figure(
        _named(source, given, classes),
        "Labelled images of the source line, with the class that people gave them.",
        "Source line",
    )
    cards, unsure = [], False
    for index, image in enumerate(target):
        label = _words(_name(classes, predicted[index])) if predicted is not None else ""
        doubtful = False
        if probability is not None:
            label += f"<small>{_percent(probability[index], 0)} sure</small>"
            doubtful = finite(threshold) and float(probability[index]) < threshold
        unsure |= doubtful
        cards.append(_card(image, label, "doubtful" if doubtful else ""))
    dashed = f" A dashed frame: below the threshold of {_percent(threshold, 0)}, so a person decides." if unsure else ""
    right = _figure(
        _cards(cards),
        f"Images of the target line, with the class that the inspector predicts; nobody labelled them.{dashed}",
        "Target line",
    )
    return _side_by_side(left, right)


def _restyled(thumbnails: Mapping[str, np.ndarray], classes: list[str]) -> str:
    cards = _named(_images(thumbnails, "source_restyled"), thumbnails.get("source_class"), classes)
    if not cards:
        return ""
    caption = (
        "The source images above as the target line's camera would have taken them: its polarity, sharpness and noise, "
        "its grey values, from target images that nobody labelled. The inspector learned from training images treated "
        "like this. A class that is dark on one line and bright on the other can be mistaken here."
    )
    return _figure(cards, caption, "Source images, restyled")


def _images(thumbnails: Mapping[str, np.ndarray], key: str) -> np.ndarray | list[np.ndarray]:
    images = thumbnails.get(key)
    return [] if images is None else images[:_SHOWN]


def _card(image: np.ndarray, label: str, style: str = "") -> str:
    css = f' class="{style}"' if style else ""
    return f'<li{css}><img src="{data_uri(image)}" alt="">{f"<span>{label}</span>" if label else ""}</li>'


def _cards(cards: Sequence[str]) -> str:
    return f'<ul class="cards">{"".join(cards)}</ul>' if cards else ""


def _named(images: Sequence[np.ndarray], names: np.ndarray | None, classes: list[str]) -> str:
    """Cards of images, each under the name of its class where that is known."""
    labels = [""] * len(images) if names is None else [_words(_name(classes, name)) for name in names[: len(images)]]
    return _cards([_card(image, label) for image, label in zip(images, labels, strict=False)])


def _heat(thumbnails: Mapping[str, np.ndarray], classes: list[str]) -> str:
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
        figures.append(_figure(cards, caption, f"{line.capitalize()} line"))
    return _side_by_side(*figures)


def _shares(report: Mapping[str, Any], classes: list[str]) -> str:
    predicted = report.get("predicted") or {}
    before, after = predicted.get("source_only") or {}, predicted.get("selected") or {}
    counts = ((report.get("lines") or {}).get("source") or {}).get("per_class") or {}
    total = sum(counts.values())
    names = [*classes, *sorted({*before, *after} - {*classes})]
    largest = max([*before.values(), *after.values(), 0.01])
    rows = [
        (
            _words(name),
            _percent(counts[name] / total, 0) if total and name in counts else "–",
            _percent(before.get(name), 0),
            _percent(after.get(name), 0),
            '<div class="bars">'
            + "".join(bar(some.get(name, 0.0) / largest, style) for some, style in ((before, _BEFORE), (after, _AFTER)))
            + "</div>",
        )
        for name in names
        if name in before or name in after
    ]
    changed = (
        f" Adaptation changed {_percent(predicted['changed'], 0)} of the predictions."
        if finite(predicted.get("changed"))
        else ""
    )
    return _figure(
        _table(("Class", "Labelled source", "Before", "After", ""), rows, "numbers shares"),
        "Share of each class among the predictions on target test images, before (hollow) and after adaptation "
        f"(filled); no labels enter.{changed} A class that vanishes or swallows the others is a warning.",
    )


def _changed(thumbnails: Mapping[str, np.ndarray], classes: list[str]) -> str:
    kept = [thumbnails.get(f"changed_{key}", ()) for key in ("before", "after", "probability")]
    cards = []
    for image, old, new, sure in zip(_images(thumbnails, "changed"), *kept, strict=False):
        names = f"{_words(_name(classes, old))} → {_words(_name(classes, new))}"
        cards.append(_card(image, f"{names}<small>{_percent(sure, 0)} sure</small>"))
    caption = (
        "Target images with the class that the source-only inspector gives them, and the one that the adapted one "
        "gives: of every such pair the surest first. Nobody labelled them. Whoever knows the line sees here whether "
        "adaptation mends mistakes or makes them."
    )
    return _figure(_cards(cards), caption)


def _maps(report: Mapping[str, Any], classes: list[str]) -> str:
    maps = report.get("map") or {}
    by_line, by_class = [], []
    for key, title in (("before", "Before adaptation"), ("after", "After adaptation")):
        points = maps.get(key)
        if not points or not points.get("x"):
            continue
        line, about = _by_line(points), f"Map of both lines' features {title.lower()}"
        by_line.append(
            _figure(
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
            _figure(
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
        + f"</p>{_side_by_side(*by_line)}{_side_by_side(*by_class)}"
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


def _curves(report: Mapping[str, Any], labels: Mapping[str, str]) -> tuple[list[float], dict[str, list[Any]]]:
    curves = report.get("curves") or {}
    steps = list(curves.get("step") or [])
    some = {label: list(curves[key]) for key, label in labels.items() if any(map(finite, curves.get(key) or []))}
    return steps, some


def _losses(report: Mapping[str, Any]) -> str:
    steps, curves = _curves(report, _LOSSES)
    labels = list(_LOSSES.values())
    pictures = []
    for title, keys, references, caption in (
        (
            "Telling classes apart",
            labels[:2],
            {},
            "Both should fall and settle. Embedded samples are made to be hard, so their loss may stay above; if it "
            "runs away, they are noise and the weight w holds them back.",
        ),
        (
            "Telling lines and feature parts apart",
            labels[2:],
            {"can't tell the lines: 0.69": 0.693},
            "Adaptation near 0.69 means that the discriminator can't tell the lines apart, which is the aim (or that "
            "it sleeps: compare the A-distance). Separation should fall: private features get clear of shared ones.",
        ),
    ):
        some = {label: curves[label] for label in keys if label in curves}
        references = references if labels[2] in some else {}
        chart = line_chart(
            steps, some, about=title, references=references, first_style=labels.index(next(iter(some), labels[0]))
        )
        pictures.append(_figure(chart, caption, title))
    return _side_by_side(*pictures)


def _weights(report: Mapping[str, Any]) -> str:
    steps, curves = _curves(report, _WEIGHTS)
    labels = list(_WEIGHTS.values())
    figures = []
    for title, keys, caption in (
        (
            "Of the classes",
            labels[:2],
            "λ near 1 leaves embedded samples at the other class (training is still hard); near 0 they come close to "
            "the original (training is easy). w is the share that real samples have in the class loss.",
        ),
        (
            "Of the adversaries",
            labels[2:],
            "Each of the two losses weighs as much as it still has to do. A weight that stays near 0 has switched its "
            "part off.",
        ),
    ):
        some = {label: curves[label] for label in keys if label in curves}
        style = labels.index(next(iter(some), labels[0]))
        figures.append(_figure(line_chart(steps, some, about=title, first_style=style), caption, title))
    return _side_by_side(*figures)


def _discriminators(report: Mapping[str, Any]) -> str:
    figures = []
    for key, label, references, caption in (
        (
            "accuracy_D_a",
            "D_a: source or target?",
            {"guessing: 0.5": 0.5},
            "Share of shared features whose line the adaptation discriminator tells. <strong>Look for</strong> a curve "
            "that starts high and comes down towards 0.5: the encoder learned to hide the line. Stuck at 1, "
            "adaptation failed; at 0.5 from the start, the discriminator never learned.",
        ),
        (
            "accuracy_D_p",
            "D_p: shared, source-private or target-private?",
            {"always “shared”: 0.5": 0.5, "by lot: 0.375": 0.375},
            "Share of features whose part the separation discriminator tells; half of them are shared, a quarter each "
            "private to a line. <strong>Look for</strong> a curve well above 0.5: the private encoders took over what "
            "only one line shows.",
        ),
    ):
        steps, curves = _curves(report, {key: label})
        chart = line_chart(
            steps, curves, about=label, high=1.0, references=references, first_style=2 + (key == "accuracy_D_p")
        )
        figures.append(_figure(chart, caption, label))
    return _side_by_side(*figures)


def _embedded(report: Mapping[str, Any], classes: list[str]) -> str:
    embedded = report.get("embedded_samples") or {}
    picture = triplets(embedded, about="Triplets and the new samples between them") if embedded else ""
    if picture:
        used = {c for t in embedded["triplets"] for c in (t["class"], t["negative_class"])}
        used |= set((embedded.get("background") or {}).get("class") or [])
        picture += legend([(_name(classes, index), class_style(index)) for index in sorted(used)])
    lambdas = ", ".join(_number(value) for value in embedded.get("lambdas") or [])
    figure = _figure(
        picture,
        "X and X⁺ are source images of one class, X⁻ one of another. Hollow marks between X and X⁻ are the new "
        f"samples, taught as the class of X⁻, from small to large at λ = {_words(lambdas)}: the easier training gets, "
        "the closer to X they come, yet never closer than X⁺ is.",
        "New samples between classes",
    )
    steps, curves = _curves(report, {"valid_triplets": "usable triplets"})
    share = all(value <= 1 for values in curves.values() for value in values if finite(value))
    chart = line_chart(steps, curves, about="Usable triplets", high=1.0 if share else None, first_style=4)
    return _side_by_side(
        figure,
        _figure(
            chart,
            f"{'Share' if share else 'Number'} of triplets where X⁺ is closer to X than X⁻ is. Only they give a sample "
            "between the two; elsewhere the new sample is X⁻ itself.",
            "Usable triplets",
        ),
    )


def _candidates(report: Mapping[str, Any]) -> str:
    candidates, selection = report.get("candidates") or {}, report.get("selection")
    steps, chosen = list(candidates.get("step") or []), report.get("selected_step")
    titles = {
        "source_validation": "Accuracy on source validation",
        "information_maximization": "Information maximization on the target",
    }
    captions = {
        "source_validation": "Right answers on labelled source images kept aside: if this falls, adaptation damages "
        "what the inspector knew.",
        "information_maximization": "Computed on target images without labels; higher is better. It rises when single "
        "predictions are sure while all classes occur.",
    }
    figures = []
    for number, (key, values) in enumerate((k, v) for k, v in candidates.items() if k != "step"):
        if not any(map(finite, values or [])):
            continue
        title = titles.get(key) or _words(key.replace("_", " ").capitalize())
        frame: dict[str, float | None] = {"low": None}
        if key == "source_validation":
            # A frame of ten points at least, or half a point of chance would look like a cliff.
            frame = {"low": max(0.0, math.floor(10 * min(filter(finite, values)) - 0.5) / 10), "high": 1.0}
        curve = {"candidate checkpoints": values}
        chart = line_chart(steps, curve, about=str(key), chosen=chosen, first_style=number, **frame)
        figures.append(_figure(chart, captions.get(key, "Computed without target labels."), title))
    rule = f"<p>The checkpoint was chosen by {_rule(selection)}. No target label took part.</p>" if selection else ""
    tried = [(each["method"], _number(each["step"]), f"{each['score']:.3f}") for each in report.get("auto") or []]
    if tried:
        rule += "<p>Several methods were trained; these are the scores of the best checkpoint of each by that rule.</p>"
        rule += _table(("Method", "Step", "Score"), tried, "numbers")
    return rule + _side_by_side(*figures) if figures else ""


def _rejection(found: Mapping[str, Any] | None, images: str) -> str:
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
        ("Images", _number(found["n"])),
        ("Calibration error", f"{found['calibration_error']:.3f}"),
        ("Wanted rate of review", _percent(found["review_rate"])),
        ("Sent to a person", _percent(found["reviewed"])),
        ("Error of all", _percent(found["error"])),
        ("Error of the accepted", _percent(found["error_accepted"])),
    ]
    table = _figure(
        _table(("", ""), rows, "numbers"),
        "Thresholds are counted on unlabelled target training images, so the share sent to a person is meant for that "
        "line.",
        "At the inspector's thresholds",
    )
    return _side_by_side(_figure(chart, caption, "Risk over coverage"), table)


def _distance(report: Mapping[str, Any]) -> str:
    domain, source = report.get("domain") or {}, report.get("source") or {}
    pairs = (("Before", "proxy_a_distance_before", _BEFORE), ("After", "proxy_a_distance_after", _AFTER))
    rows = [
        (label, f"<strong>{domain[key]:.2f}</strong>", bar(domain[key] / 2, style))
        for label, key, style in pairs
        if finite(domain.get(key))
    ]
    left = _figure(
        _table(("", "0 to 2", ""), rows, "numbers shares"),
        "A fresh classifier tries to tell the lines apart by the inspector's features. 2: always right; 0: it guesses, "
        "so the lines look alike. A low value alone doesn't prove that the classes are right.",
        "Proxy A-distance",
    )
    rows = [
        (name, f"<strong>{_percent(model.get('mean_class_accuracy'))}</strong>", _percent(model.get("accuracy")))
        for key, name in _MODELS
        if (model := source.get(key))
    ]
    images = f" {_number(source['n'])}" if finite(source.get("n")) else ""
    right = _figure(
        _table(("", "Mean class accuracy", "Accuracy"), rows, "numbers"),
        f"On{images} source test images: adaptation should cost the source line little or nothing.",
        "Source line, before and after",
    )
    return _side_by_side(left, right)


def _data(report: Mapping[str, Any], classes: list[str]) -> str:
    lines = report.get("lines") or {}
    source, target = lines.get("source") or {}, lines.get("target") or {}
    labels = (
        ("images", "Images"),
        ("train", "for training"),
        ("val", "for validation"),
        ("test", "for testing"),
        ("labelled", "labelled to train"),
        ("unreadable", "Unreadable, left out"),
        ("duplicates", "Duplicates, left out"),
    )
    rows = [
        (label, _number(source.get(key)), _number(target.get(key)))
        for key, label in labels
        if key in source or key in target
    ]
    across = lines.get("duplicates_across")
    few = ", but for those given to train" if target.get("labelled") else ""
    note = f" Images found on both lines: {_number(across)}." if finite(across) else ""
    left = _figure(
        _table(("", "Source", "Target"), rows, "numbers"),
        f"Target images for training have no labels{few}; those for testing were not trained on.{note}",
        "Images",
    )
    counts = source.get("per_class") or {}
    largest = max([*counts.values(), 1])
    names = [*(name for name in classes if name in counts), *sorted({*counts} - {*classes})]
    rows = [(_words(name), _number(counts[name]), bar(counts[name] / largest, Style(0))) for name in names]
    right = _figure(
        _table(("Class", "Images", ""), rows, "numbers shares"), "Labelled source images by class.", "Classes"
    )
    return _side_by_side(left, right)


def _configuration(report: Mapping[str, Any]) -> str:
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
    rows = [(label, _words(report[key])) for key, label in labels.items() if report.get(key) is not None]
    rows += [
        (f"Calibration, {key}", _number(calibration[key]))
        for key in ("temperature", "threshold")
        if finite(calibration.get(key))
    ]
    left = _figure(_table(("", ""), rows, "numbers"), "What the run was started with, and what it chose.", "Run")
    rows = [(_words(key), _words(value)) for key, value in (report.get("knobs") or {}).items()]
    right = _figure(_table(("", ""), rows, "numbers"), "Settings of the method.", "Knobs")
    return _side_by_side(left, right)


_STYLE = """
:root{color-scheme:light dark;--paper:#fff;--card:#f6f8fa;--ink:#1b2530;--soft:#56626e;--rule:#d5dce3;--accent:#0072b2;
--k0:#0072b2;--k1:#d55e00;--k2:#009e73;--k3:#cc79a7;--k4:#e69f00;--k5:#56b4e9;--k6:#6b7680}
@media screen and (prefers-color-scheme:dark){:root{--paper:#11161b;--card:#192027;--ink:#e6ebf0;--soft:#a3afba;
--rule:#34404b;--accent:#5fb3ec;--k0:#3d9be0;--k1:#f2854a;--k2:#2cc79b;--k3:#e09cc4;--k4:#f0b429;--k5:#a6dbfa;--k6:#a6b1bc}}
*{box-sizing:border-box}
html{scroll-behavior:smooth;-webkit-text-size-adjust:100%}
body{margin:0 auto;max-width:1120px;padding:28px 24px 64px;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,"PingFang SC","Microsoft YaHei",
"Noto Sans CJK SC","WenQuanYi Zen Hei",sans-serif;print-color-adjust:exact;-webkit-print-color-adjust:exact;
overflow-wrap:break-word}
h1{font-size:clamp(1.35rem,3.6vw,2rem);line-height:1.25;margin:.3em 0 .7em;letter-spacing:-.01em;max-width:30em}
h2{font-size:1.35rem;line-height:1.3;margin:0 0 .5em}
h3{font-size:1rem;margin:0 0 .6em}
p{margin:0 0 .9em;max-width:46em}
a{color:var(--accent)}
.eyebrow{margin:0;color:var(--soft);font-size:.875rem}
.soft,small{color:var(--soft)}
small{display:block;font-size:.78rem;line-height:1.3}
section{margin-top:44px;scroll-margin-top:12px}
section+section{padding-top:28px;border-top:1px solid var(--rule)}
#judged{border:2px solid var(--accent);border-radius:14px;padding:22px 22px 10px;margin-top:28px}
#judged>h3{margin-top:1.4em}
.sentence{font-size:1.1rem;font-weight:600}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:10px;margin:0}
.tiles>div{display:flex;flex-direction:column-reverse;justify-content:flex-end;background:var(--card);border-radius:10px;
padding:12px 14px}
.tiles dt{color:var(--soft);font-size:.84rem;line-height:1.3}
.tiles dd{margin:0;font-size:1.4rem;font-weight:650;font-variant-numeric:tabular-nums;white-space:nowrap}
nav ul{display:flex;flex-wrap:wrap;gap:6px 18px;list-style:none;padding:0;margin:24px 0 0;font-size:.9rem}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr));gap:18px;margin-bottom:18px}
figure{margin:0 0 18px;padding:16px;background:var(--card);border-radius:12px;min-width:0;break-inside:avoid}
.pair>figure{margin:0}
figcaption{margin-top:12px;font-size:.9rem;line-height:1.45;color:var(--soft);max-width:52em}
figcaption strong{color:var(--ink)}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.92rem;font-variant-numeric:tabular-nums}
th,td{padding:6px 8px;text-align:left;vertical-align:middle;border-bottom:1px solid var(--rule)}
tbody tr:last-child>*{border-bottom:0}
thead th{font-size:.8rem;font-weight:500;color:var(--soft);vertical-align:bottom;line-height:1.25}
tbody th{font-weight:500}
.numbers td{text-align:right}
.numbers thead th:not(:first-child){text-align:right}
.numbers tbody th{min-width:5.5em}
.numbers td:has(svg){width:34%}
.shares td:has(svg){width:42%}
.scores tbody th{width:36%;font-weight:400}
.scores td:nth-child(2){width:1%;white-space:nowrap;text-align:right}
.scores thead th:nth-child(2){text-align:right}
.who{display:block;font-weight:650;font-size:1.02rem}
.scores .soft{font-size:.84rem;line-height:1.3;display:block}
.scores .soft strong{color:var(--ink)}
.big{font-size:1.65rem;font-weight:680;letter-spacing:-.01em}
.bar{display:block;width:100%;min-width:44px;height:18px;overflow:visible}
.scores .bar{height:26px}
.bars .bar{height:11px}
.bar rect{fill:currentColor;stroke:currentColor;stroke-width:1.5;vector-effect:non-scaling-stroke}
.bar rect.hollow{fill:none}
.bar .track{stroke:var(--rule);stroke-width:1;vector-effect:non-scaling-stroke}
.confusion th,.confusion td{border:1px solid var(--paper);padding:5px;text-align:center;font-size:.84rem}
.confusion tbody th{text-align:right;padding-right:8px;
min-width:5.5em;max-width:9em;overflow-wrap:break-word;line-height:1.2}
.confusion td{min-width:2.3em;background:var(--paper)}
.confusion thead span{display:inline-block;writing-mode:vertical-rl;text-orientation:sideways;
transform:rotate(180deg);max-height:10em;
line-height:1.15;text-align:left;color:var(--ink)}
.confusion .corner{font-size:.72rem;text-align:right}
.confusion .count{color:var(--soft);background:none}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(104px,1fr));gap:12px 10px;list-style:none;
margin:0;padding:0}
.cards li{font-size:.8rem;line-height:1.25;min-width:0;break-inside:avoid}
.cards img{display:block;width:100%;aspect-ratio:1;object-fit:cover;border-radius:6px;margin-bottom:5px}
.cards .doubtful img{outline:2px dashed var(--k1);outline-offset:1px}
.chart{display:block;width:100%;height:auto;max-width:640px;margin:0 auto}
.chart text{font-size:12.5px;fill:var(--ink);font-family:inherit;font-variant-numeric:tabular-nums}
.chart text.soft{fill:var(--soft)}
.chart text.strong{font-weight:650;font-size:13.5px}
.chart text.halo{stroke:var(--card);stroke-width:4px;paint-order:stroke;stroke-linejoin:round}
.grid{stroke:var(--rule);stroke-width:1}
.axis,.frame{stroke:var(--rule);stroke-width:1;fill:none}
.axis{stroke:var(--soft)}
.frame{fill:var(--paper)}
.reference{stroke:var(--soft);stroke-width:1.2;stroke-dasharray:4 4;fill:none;vector-effect:non-scaling-stroke}
.chosen{stroke:var(--ink);stroke-width:1.6}
.curve{fill:none;stroke:currentColor;stroke-width:2;stroke-linejoin:round}
.mark{fill:currentColor;fill-opacity:.78;stroke:none}
.mark.faint{fill-opacity:.3}
.mark.hollow{fill:none;stroke:currentColor;stroke-width:1.3;stroke-opacity:.85}
.mark.outlined{fill-opacity:1;stroke:var(--ink);stroke-width:1.4}
.towards{stroke:var(--soft);stroke-width:1.2;stroke-dasharray:2 3}
.same{stroke:var(--ink);stroke-width:1.2}
.legend{display:flex;flex-wrap:wrap;gap:4px 16px;list-style:none;padding:0;margin:10px 0 0;font-size:.86rem;
line-height:1.3}
.legend li{display:flex;align-items:center;gap:6px;min-width:0}
.swatch{flex:none}
.k0{color:var(--k0)}.k1{color:var(--k1)}.k2{color:var(--k2)}.k3{color:var(--k3)}.k4{color:var(--k4)}.k5{color:var(--k5)}
.k6{color:var(--k6)}
@media (max-width:560px){body{padding:18px 14px 48px}#judged{padding:16px 12px 4px}figure{padding:12px}
.scores thead{display:none}.scores tr{display:grid;grid-template-columns:1fr auto;align-items:center;padding:8px 0;
border-bottom:1px solid var(--rule)}.scores tr:last-child{border:0}
.scores th,.scores td{border:0;padding:2px 4px;width:auto!important}
.scores td:last-child{grid-column:1/-1}.tiles{grid-template-columns:1fr 1fr}.tiles dd{font-size:1.15rem}
.chart text{font-size:14px}.cards{grid-template-columns:repeat(4,minmax(0,1fr));gap:10px 8px}.cards li{font-size:.74rem}
.confusion th,.confusion td{padding:4px 2px}.confusion td{min-width:2em}th,td{padding:5px 5px}}
@media print{body{max-width:none;padding:0;font-size:10pt}nav{display:none}section{margin-top:24px}
.pair{grid-template-columns:1fr 1fr}.pair:has(.confusion){grid-template-columns:1fr}h2,h3,section>p{break-after:avoid}
.scroll{overflow:visible}.cards{grid-template-columns:repeat(4,minmax(0,1fr));gap:8px 6px}figure{padding:10px}
.cards li{font-size:.7rem}}
""".strip()
