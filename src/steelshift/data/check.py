"""What is in two lines, and what is wrong with it, before anything is trained."""

import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from steelshift.data.cache import PixelCache, cache_pixels
from steelshift.data.table import Classes, find_classes, left_out, load_classes, read_images, read_labels
from steelshift.messages import say
from steelshift.progress import showing

RARE = 0.02
"""Classes below this share of a line are named."""
SATURATED = 0.01
"""Images with more of their pixels black or white are counted."""
LOOKED_AT = 2_000_000
"""Values of an image from which on only some of its rows tell its appearance."""
NAMED = 20
"""How many files a finding names."""


def check_lines(source: Sequence[Path], target: Sequence[Path], classes_file: Path | None) -> dict[str, Any]:
    """Counts, unreadable files, duplicates within and across lines, sizes, depths, brightness and sharpness.

    Labels of the target are looked at, to name classes that one line lacks; nothing is trained here. Raises DataError
    only where a line has no readable image at all.
    """
    classes = load_classes(classes_file) if classes_file else find_classes(source)
    found: dict[str, Any] = {"classes": list(classes.names)}
    caches: dict[str, PixelCache] = {}
    with tempfile.TemporaryDirectory() as folder:
        for line, places in (("source", source), ("target", target)):
            # As `fit` does: the target is taken whole.
            table = read_images(places, classes if classes_file and line == "source" else None, labelled=True)
            with showing(say("decoding", line=line), len(table)) as advance:
                caches[line] = cache_pixels(table, Path(folder), progress=advance)
            found[line] = _line(caches[line], read_labels(places, classes, caches[line].table), classes)
            found[line]["left_out"] = left_out(places, classes)
        found["duplicates_across"] = _across(caches)
    found["findings"] = _findings(found)
    return found


def _line(cache: PixelCache, labels: np.ndarray, classes: Classes) -> dict[str, Any]:
    groups: dict[str, list[int]] = {}
    for row, digest in enumerate(cache.digests):
        groups.setdefault(digest, []).append(row)
    twins = [rows for rows in groups.values() if len(rows) > 1]
    path = [str(row.path) for row in cache.table.rows]
    brightness, sharpness, saturated = _appearance(cache)
    return {
        "images": len(cache),
        "per_class": {name: int((labels == index).sum()) for index, name in enumerate(classes.names)},
        "unlabelled": int((labels < 0).sum()),
        "unreadable": [{"path": str(name), "why": why} for name, why in cache.table.unreadable],
        "duplicates": [[path[row] for row in rows] for rows in twins],
        "duplicates_of_other_class": [[path[row] for row in rows] for rows in twins if len(set(labels[rows])) > 1],
        "sizes": {f"{w} x {h}": n for (h, w), n in Counter(shape[:2] for shape in cache.shapes).most_common(10)},
        "colour": sum(shape[2] == 3 for shape in cache.shapes),
        "bit_depths": {str(depth): count for depth, count in sorted(Counter(cache.depths).items())},
        "brightness": round(float(np.mean(brightness)), 1),
        "sharpness": round(float(np.mean(sharpness)), 2),
        "saturated": saturated,
    }


def _appearance(cache: PixelCache) -> tuple[list[float], list[float], int]:
    """Mean grey level, mean absolute difference of neighbours, and how many images are clipped."""
    brightness, sharpness, saturated = [], [], 0
    for row in range(len(cache)):
        pixels = cache[row]
        grey = pixels[:: 1 + pixels.size // LOOKED_AT].mean(2, dtype=np.float32)
        brightness.append(float(grey.mean()))
        sharpness.append(float(np.abs(np.diff(grey, axis=1)).mean()))
        saturated += bool(((grey <= 0) | (grey >= 255)).mean() > SATURATED)
    return brightness, sharpness, saturated


def _across(caches: dict[str, PixelCache]) -> list[list[str]]:
    of_source = {digest: row for row, digest in enumerate(caches["source"].digests)}
    source, target = caches["source"].table.rows, caches["target"].table.rows
    return [
        [str(source[of_source[digest]].path), str(target[row].path)]
        for row, digest in enumerate(caches["target"].digests)
        if digest in of_source
    ]


def _findings(found: dict[str, Any]) -> list[str]:
    """Sentences on what deserves a look."""
    sentences: list[str] = []
    for line in ("source", "target"):
        part = found[line]
        labelled = sum(part["per_class"].values())
        for entry in part["unreadable"][:NAMED]:
            sentences.append(say("check_unreadable", line=line, path=entry["path"], why=entry["why"]))
        if len(part["unreadable"]) > NAMED:
            sentences.append(say("check_more", count=len(part["unreadable"]) - NAMED, line=line))
        if part["duplicates"]:
            sentences.append(say("check_duplicates", line=line, count=len(part["duplicates"])))
        for paths in part["duplicates_of_other_class"][:NAMED]:
            sentences.append(say("check_two_classes", line=line, paths=", ".join(paths)))
        for folder, count in sorted(part["left_out"].items()):
            key = "left_out" if line == "source" else "check_unknown_class"
            sentences.append(say(key, folder=folder, count=count, line=line))
        if part["saturated"]:
            sentences.append(say("check_saturated", line=line, count=part["saturated"], share=SATURATED))
        for name, count in part["per_class"].items():
            if labelled and count == 0:
                sentences.append(say("check_absent", line=line, name=name))
            elif labelled and count < RARE * labelled:
                sentences.append(say("check_rare", line=line, name=name, count=count, total=labelled))
    if found["duplicates_across"]:
        sentences.append(say("check_across", count=len(found["duplicates_across"])))
    return sentences
