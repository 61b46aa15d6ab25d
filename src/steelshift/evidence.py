"""The numbers and pictures that a report shows of a run, all of them made without a target label."""

import json
from typing import Any

import numpy as np
import torch
from scipy.special import softmax
from sklearn.decomposition import PCA

from steelshift.data.cache import PixelCache
from steelshift.data.restyle import restyle
from steelshift.data.splits import TEST, TRAIN, VAL
from steelshift.data.stream import CLASS, resized, spread
from steelshift.inspection.inspector import Inspector, in_batches
from steelshift.lines import Line, Lines
from steelshift.losses.embedded import embed, mine
from steelshift.messages import say
from steelshift.methods import Method
from steelshift.methods.bridge import Bridge
from steelshift.methods.iadsa import IADSA
from steelshift.multitask.separation import flat_map
from steelshift.resample import grey_levels
from steelshift.selection.metrics import scores
from steelshift.selection.validators import information_maximization, proxy_a_distance
from steelshift.training.config import Config, to_mapping

ON_MAP = 150
"""Images of each line on the t-SNE map."""
MEASURED = 400
"""Images of each line for the proxy A-distance."""
MARGIN = 0.1
"""By how much source only must be more decided on the target line, in nats, for a warning. Of the 288 development runs
in docs/results/development.csv 33 were, and 15 of them were harmed by more than a point; of the others 34."""
SHOWN = 14
"""Thumbnails of each line."""


def collect_evidence(
    config: Config, lines: Lines, phase: str, method: Method, inspector: Inspector, baseline: Inspector
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The report without its `target` block, `candidates` and `seconds`, and its thumbnails. phase: of the method."""
    source, target = lines.source.part(TEST), lines.target.part(TEST)
    prepared = {"source": _prepared(source, config.size), "target": _prepared(target, config.size)}
    logits_before, logits = (in_batches(network.logits, prepared["target"]) for network in (baseline, inspector))
    probabilities = inspector.calibrated(torch.from_numpy(logits)).numpy()
    predicted_before, predicted = logits_before.argmax(1), probabilities.argmax(1)
    truth = lines.labels(TEST)
    distance = {
        "proxy_a_distance_before": _distance(baseline, lines, config),
        "proxy_a_distance_after": _distance(inspector, lines, config),
    }
    changed = float((predicted != predicted_before).mean())
    decided = {
        name: information_maximization(softmax(found.astype(np.float64), axis=1))
        for name, found in (("source_only", logits_before), ("selected", logits))
    }
    report = {
        **facts(config),
        "augmentation": config.augmentation,
        "knobs": to_mapping(config.knobs),
        "classes": list(lines.classes.names),
        "lines": {
            "source": _counts(lines.source) | {"per_class": _per_class(lines)},
            "target": _counts(lines.target) | _few(config, lines),
            "duplicates_across": len(set(lines.source.cache.digests) & set(lines.target.cache.digests)),
        },
        "curves": curves(config, phase),
        "source": {
            "n": len(source),
            "source_only": _source_scores(baseline, prepared["source"], truth, lines),
            "selected": _source_scores(inspector, prepared["source"], truth, lines),
        },
        "domain": distance,
        "predicted": {
            "source_only": _shares(predicted_before, lines),
            "selected": _shares(predicted, lines),
            "changed": changed,
            "information_maximization": decided,
        },
        "verdict": say(
            "verdict_unjudged",
            before=distance["proxy_a_distance_before"],
            after=distance["proxy_a_distance_after"],
            changed=changed,
        )
        + (" " + say("verdict_prefers_source") if decided["source_only"] > decided["selected"] + MARGIN else ""),
        "map": {
            "before": _map(prepared, truth, predicted_before, baseline, None, config.seed),
            "after": _map(prepared, truth, predicted, inspector, method, config.seed),
        },
        "embedded_samples": _embedded_samples(lines, inspector, config),
        "calibration": {
            "temperature": inspector.specification.temperature,
            "threshold": inspector.specification.threshold,
        },
    }
    thumbnails = _thumbnails(prepared, truth, probabilities, inspector)
    thumbnails |= _changed(prepared["target"], predicted_before, probabilities)
    if isinstance(config.knobs, Bridge.Knobs) and config.knobs.restyled:
        thumbnails["source_restyled"] = _restyled(prepared, truth, inspector, config.seed)
    return report, thumbnails


def facts(config: Config) -> dict[str, Any]:
    """How every report begins: what was trained, and for how long."""
    return {
        "schema": 1,
        "method": config.method,
        "encoder": config.encoder,
        "size": config.size,
        "seed": config.seed,
        "steps": config.steps,
        "pretrain_steps": config.pretrain_steps,
    }


def _prepared(cache: PixelCache, size: int) -> torch.Tensor:
    return resized(cache, np.arange(len(cache)), size)


def _few(config: Config, lines: Lines) -> dict[str, Any]:
    """How many labelled target images train, and what they fill of each labelled batch."""
    if lines.few is None:
        return {}
    return {"labelled": len(lines.few), "labelled_share": config.share_of_few(lines.few_per_class)}


def _counts(line: Line) -> dict[str, int]:
    cache = line.cache
    parts = {"train": TRAIN, "val": VAL, "test": TEST}
    return {
        "images": len(cache),
        **{name: int((line.side == part).sum()) for name, part in parts.items() if (line.side == part).any()},
        "unreadable": len(cache.table.unreadable),
        "duplicates": len(cache) - len(set(cache.digests)),
    }


def _per_class(lines: Lines) -> dict[str, int]:
    return {name: int((lines.source_labels[CLASS] == index).sum()) for index, name in enumerate(lines.classes.names)}


def _shares(predicted: np.ndarray, lines: Lines) -> dict[str, float]:
    return {name: float((predicted == index).mean()) for index, name in enumerate(lines.classes.names)}


def _source_scores(inspector: Inspector, prepared: torch.Tensor, truth: np.ndarray, lines: Lines) -> dict[str, float]:
    found = scores(truth, in_batches(inspector.logits, prepared).argmax(1), lines.classes.names, None)
    return {key: found[key] for key in ("accuracy", "mean_class_accuracy")}


def curves(config: Config, phase: str) -> dict[str, list]:
    """What the method logged, by symbol; None where it said nothing at a step."""
    lines = (config.out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [record for record in map(json.loads, lines) if record["phase"] == phase]
    keys = [key for key in dict.fromkeys(key for record in records for key in record) if key not in ("phase", "step")]
    return {"step": [record["step"] for record in records]} | {
        key: [record.get(key) for record in records] for key in keys
    }


def _features(inspector: Inspector, prepared: torch.Tensor) -> np.ndarray:
    return in_batches(inspector.encoder, prepared).astype(np.float64)


def _distance(inspector: Inspector, lines: Lines, config: Config) -> float:
    """Between training images of both lines, on the features of an inspector."""
    found = []
    for line in (lines.source, lines.target):
        cache = line.part(TRAIN)
        prepared = resized(cache, spread(len(cache), MEASURED), config.size)
        found.append(_features(inspector, prepared))
    return proxy_a_distance(*found, seed=config.seed)


def _map(
    prepared: dict[str, torch.Tensor],
    source_class: np.ndarray,
    target_class: np.ndarray,
    inspector: Inspector,
    method: Method | None,
    seed: int,
) -> dict[str, list] | None:
    """t-SNE of features of test images of both lines; with private features where the method has private encoders."""
    parts: list[tuple[str, str, np.ndarray, np.ndarray]] = []
    for line, classes in (("source", source_class), ("target", target_class)):
        rows = spread(len(classes), ON_MAP)
        images, classes = prepared[line][rows], classes[rows]
        parts.append((line, "shared", _features(inspector, images), classes))
        if isinstance(method, IADSA):
            encoder = method.source_encoder if line == "source" else method.target_encoder
            private = in_batches(encoder.cpu().eval(), images).astype(np.float64)
            parts.append((line, "private", private, classes))
    features = np.concatenate([part[2] for part in parts])
    if len(features) < 20:
        return None
    places = flat_map(features, seed)
    return {
        "x": [round(float(x), 3) for x in places[:, 0]],
        "y": [round(float(y), 3) for y in places[:, 1]],
        "line": [line for line, _, found, _ in parts for _ in found],
        "part": [part for _, part, found, _ in parts for _ in found],
        "class": [int(value) for _, _, _, classes in parts for value in classes],
    }


def _embedded_samples(lines: Lines, inspector: Inspector, config: Config) -> dict[str, Any] | None:
    """New samples for three factors, as the method makes them, in the plane of largest spread: patent figure 3."""
    knobs = config.knobs
    if not isinstance(knobs, IADSA.Knobs) or knobs.embedding == "none":
        return None
    cache = lines.source.part(VAL)
    labels = torch.from_numpy(lines.labels(VAL))
    features = torch.from_numpy(_features(inspector, _prepared(cache, config.size)))
    torch.manual_seed(config.seed)
    triplets = mine(features, labels, "farthest", "random")
    if len(triplets) < 3:
        return None
    pca = PCA(2, random_state=config.seed).fit(features.numpy())
    lambdas = [0.8, 0.5, 0.1]

    def place(points: torch.Tensor) -> list[list[float]]:
        return [[round(float(value), 4) for value in point] for point in pca.transform(points.numpy())]

    new = [place(embed(triplets, torch.tensor(lam), knobs.embedding, knobs.t_min)[0]) for lam in lambdas]
    valid = embed(triplets, torch.tensor(0.5))[2].nonzero()[:, 0]
    by_class = {int(triplets.negative_label[row]): int(row) for row in valid.flip(0)}
    background = place(features)
    anchors, positives, negatives = (
        place(points) for points in (triplets.anchor, triplets.positive, triplets.negative)
    )
    of_row = {tuple(row.tolist()): int(label) for row, label in zip(features, labels, strict=True)}
    return {
        "background": {
            "x": [point[0] for point in background],
            "y": [point[1] for point in background],
            "class": labels.tolist(),
        },
        "lambdas": lambdas,
        "triplets": [
            {
                "x": anchors[row],
                "positive": positives[row],
                "negative": negatives[row],
                "new": [points[row] for points in new],
                "class": of_row[tuple(triplets.anchor[row].tolist())],
                "negative_class": label,
            }
            for label, row in list(by_class.items())[:3]
        ],
    }


def _thumbnails(
    prepared: dict[str, torch.Tensor], source_class: np.ndarray, probabilities: np.ndarray, inspector: Inspector
) -> dict[str, np.ndarray]:
    """A few test images of each line, of different (predicted) classes first, with heat maps."""
    predicted = probabilities.argmax(1)
    of_source, of_target = _of_each(source_class), _of_each(predicted)
    found = {
        "source_class": source_class[of_source],
        "target_predicted": predicted[of_target],
        "target_probability": probabilities[of_target].max(1),
    }
    for line, rows, classes in (("source", of_source, source_class), ("target", of_target, predicted)):
        images = prepared[line][rows].clone()
        heat = inspector.heat_maps(images, torch.from_numpy(classes[rows]))
        found[line] = grey_levels(images)
        found[f"{line}_heat"] = (heat * 255).round().to(torch.uint8).numpy()
    return found


def _changed(target: torch.Tensor, before: np.ndarray, probabilities: np.ndarray) -> dict[str, np.ndarray]:
    """Target test images that adaptation calls otherwise: of every pair of classes, the surest first."""
    after, sure = probabilities.argmax(1), probabilities.max(1)
    rows = np.flatnonzero(after != before)
    rows = rows[np.argsort(-sure[rows], kind="stable")]
    rows = rows[_of_each(before[rows] * probabilities.shape[1] + after[rows])]
    return {
        "changed": grey_levels(target[rows]),
        "changed_before": before[rows],
        "changed_after": after[rows],
        "changed_probability": sure[rows],
    }


def _restyled(
    prepared: dict[str, torch.Tensor], source_class: np.ndarray, inspector: Inspector, seed: int
) -> np.ndarray:
    """The shown source images in the style of the target line, as the method learned from such."""
    torch.manual_seed(seed)
    even = inspector.encoder.even
    source, target = prepared["source"][_of_each(source_class)], prepared["target"]
    target = target[spread(len(target), MEASURED)]
    return grey_levels(restyle(even(source), even(target)))


def _of_each(classes: np.ndarray) -> np.ndarray:
    members = [np.flatnonzero(classes == label) for label in np.unique(classes)]
    order = [rows[turn] for turn in range(SHOWN) for rows in members if turn < len(rows)]
    return np.array(order[:SHOWN], dtype=np.int64)
