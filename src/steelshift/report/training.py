"""How a run was trained, as curves: losses, weights, discriminators, embedded samples, and the checkpoint kept."""

import math
from collections.abc import Mapping
from typing import Any

from steelshift.report.pictures import class_style, finite, legend, line_chart, triplets
from steelshift.report.shell import as_number, as_text, class_name, figure_of, side_by_side, table_of

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


def show_losses(report: Mapping[str, Any]) -> str:
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
        pictures.append(figure_of(chart, caption, title))
    return side_by_side(*pictures)


def show_weights(report: Mapping[str, Any]) -> str:
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
        figures.append(figure_of(line_chart(steps, some, about=title, first_style=style), caption, title))
    return side_by_side(*figures)


def show_discriminators(report: Mapping[str, Any]) -> str:
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
        figures.append(figure_of(chart, caption, label))
    return side_by_side(*figures)


def show_embedded(report: Mapping[str, Any], classes: list[str]) -> str:
    embedded = report.get("embedded_samples") or {}
    picture = triplets(embedded, about="Triplets and the new samples between them") if embedded else ""
    if picture:
        used = {c for t in embedded["triplets"] for c in (t["class"], t["negative_class"])}
        used |= set((embedded.get("background") or {}).get("class") or [])
        picture += legend([(class_name(classes, index), class_style(index)) for index in sorted(used)])
    lambdas = ", ".join(as_number(value) for value in embedded.get("lambdas") or [])
    figure = figure_of(
        picture,
        "X and X⁺ are source images of one class, X⁻ one of another. Hollow marks between X and X⁻ are the new "
        f"samples, taught as the class of X⁻, from small to large at λ = {as_text(lambdas)}: the easier training gets, "
        "the closer to X they come, yet never closer than X⁺ is.",
        "New samples between classes",
    )
    steps, curves = _curves(report, {"valid_triplets": "usable triplets"})
    share = all(value <= 1 for values in curves.values() for value in values if finite(value))
    chart = line_chart(steps, curves, about="Usable triplets", high=1.0 if share else None, first_style=4)
    return side_by_side(
        figure,
        figure_of(
            chart,
            f"{'Share' if share else 'Number'} of triplets where X⁺ is closer to X than X⁻ is. Only they give a sample "
            "between the two; elsewhere the new sample is X⁻ itself.",
            "Usable triplets",
        ),
    )


def show_candidates(report: Mapping[str, Any]) -> str:
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
        title = titles.get(key) or as_text(key.replace("_", " ").capitalize())
        frame: dict[str, float | None] = {"low": None}
        if key == "source_validation":
            # A frame of ten points at least, or half a point of chance would look like a cliff.
            frame = {"low": max(0.0, math.floor(10 * min(filter(finite, values)) - 0.5) / 10), "high": 1.0}
        curve = {"candidate checkpoints": values}
        chart = line_chart(steps, curve, about=str(key), chosen=chosen, first_style=number, **frame)
        figures.append(figure_of(chart, captions.get(key, "Computed without target labels."), title))
    rule = f"<p>The checkpoint was chosen by {rule_of(selection)}. No target label took part.</p>" if selection else ""
    tried = report.get("auto") or []
    if tried:
        rule += "<p>Several methods were trained; these are the scores of the best checkpoint of each by that rule.</p>"
        rows = [(each["method"], as_number(each["step"]), f"{each['score']:.3f}") for each in tried]
        rule += table_of(("Method", "Step", "Score"), rows, "numbers")
    for each in tried:
        if each.get("left_out"):
            rule += (
                f"<p>{as_text(each['method'])} scores higher but was left out: its accuracy on source validation "
                "images is far below another's, or it gives nearly all target images one answer.</p>"
            )
    return rule + side_by_side(*figures) if figures else ""


def rule_of(rule: Any) -> str:
    return _RULES.get(str(rule)) or as_text(str(rule).replace("_", " "))


def _curves(report: Mapping[str, Any], labels: Mapping[str, str]) -> tuple[list[float], dict[str, list[Any]]]:
    curves = report.get("curves") or {}
    steps = list(curves.get("step") or [])
    some = {label: list(curves[key]) for key, label in labels.items() if any(map(finite, curves.get(key) or []))}
    return steps, some
