"""What an inspector remembers of images: by what it finds one strange, source examples to compare with, and how its own
line scored.

reference.safetensors beside the weights: where the features of each class lie, by which an image is found strange;
features of source training images, with class and name, of which the nearest are named; and what unlabelled images of
the target line scored, by which a wanted rate of review becomes thresholds. Small, and read without torch.

Strange is what is far from every class but not from images at large: relative Mahalanobis distance (Ren et al., A
Simple Fix to Mahalanobis Distance for Improving Near-OOD Detection, 2021) of features of length 1, per dimension.
Classes are those of source training images, and of unlabelled target training images as the inspector answers them:
else every image of a new line would be strange. Chosen on development pairs, docs/results/inspection.md.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from steelshift.files import write_bytes
from steelshift.selection.reject import Thresholds, thresholds

FILE = "reference.safetensors"
MOST_VALUES = 1_000_000
"""Of features of examples: a thousand of a thousand features, 2 MB."""
MOST_EXAMPLES = 1000
MOST_DIRECTIONS = 256
"""Principal directions in which distances are measured."""
SHRINKAGE = 0.1
"""Added to the variance of every direction, in mean variances: few images say little of the smallest ones."""
LEAST_ANSWERS = 5
"""Target images with one answer, below which they say nothing of that class."""
SHOWN = 3
"""Nearest examples that a row names."""
_ARRAYS = ("within", "means", "overall", "middle", "examples", "classes", "p", "strange")


@dataclass(frozen=True)
class Reference:
    """Where classes lie, source examples, and scores of the target line."""

    within: np.ndarray
    """float32 (F, D): brings differences within a class to spread 1 in every direction."""
    means: np.ndarray
    """float32 (K, D), class means so brought."""
    overall: np.ndarray
    """float32 (F, D): brings differences among all images to spread 1."""
    middle: np.ndarray
    """float32 (D,), mean of all images so brought."""
    examples: np.ndarray
    """float32 (N, F), each of length 1."""
    classes: np.ndarray
    """int64 (N,), index of its class."""
    names: tuple[str, ...]
    """Of the files, as they were called at training."""
    p: np.ndarray
    """float32 (n,), probability of the answer to unlabelled target training images."""
    strange: np.ndarray
    """float32 (n,), how strange the same are."""

    def compare(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features (B, F) -> how strange each is, float32 (B,), and its nearest examples by angle, int (B, 3)."""
        given = directions(features)
        centre = self.means.mean(0)  # far from it, the squares below would cancel to a few digits
        placed, means = given @ self.within - centre, self.means - centre
        far = ((placed * placed).sum(1, keepdims=True) - 2 * placed @ means.T + (means * means).sum(1)).min(1)
        at_large = np.square(given @ self.overall - self.middle).sum(1)
        likeness = given @ self.examples.T
        shown = min(SHOWN, len(self.examples))
        nearest = np.argpartition(-likeness, shown - 1, axis=1)[:, :shown]
        order = np.argsort(-np.take_along_axis(likeness, nearest, axis=1), axis=1, kind="stable")
        return (far - at_large) / self.within.shape[1], np.take_along_axis(nearest, order, axis=1)

    def thresholds(self, rate: float) -> Thresholds:
        """By which a share `rate` of images like the target training images would go to a person."""
        return thresholds(self.p, self.strange, rate)


def directions(features: np.ndarray) -> np.ndarray:
    """float (N, F) -> float32 (N, F) of length 1, or 0 where there is no feature at all."""
    features = np.asarray(features, dtype=np.float32)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def chosen(classes: np.ndarray, width: int) -> np.ndarray:
    """Rows (N,) of the examples to keep: of every class in turn, as many as fit."""
    most = min(MOST_EXAMPLES, max(MOST_VALUES // width, SHOWN * len(np.unique(classes))))
    turn = np.zeros(len(classes), dtype=np.int64)
    for label in np.unique(classes):
        members = np.flatnonzero(classes == label)
        turn[members] = np.arange(len(members))
    return np.sort(np.lexsort((classes, turn))[:most])


def build(
    features: np.ndarray, classes: np.ndarray, names: list[str], target: np.ndarray, probabilities: np.ndarray
) -> Reference:
    """Of source training features (N, F) with classes (N,) and names, and of target training images.

    target: features (n, F). probabilities: (n, K), calibrated.
    """
    kept = chosen(classes, features.shape[1])
    answers = probabilities.argmax(1)
    counted = np.bincount(answers, minlength=probabilities.shape[1])[answers] >= LEAST_ANSWERS
    examples = directions(features[kept]).astype(np.float16).astype(np.float32)  # as they are read back
    remembered = {
        "examples": examples, "classes": classes[kept].astype(np.int64), "names": tuple(names[row] for row in kept),
        "p": probabilities.max(1).astype(np.float32),
    }  # fmt: skip

    def fitted(part: np.ndarray, strange: np.ndarray) -> Reference:
        """On the source images and a part of the target images."""
        known = np.concatenate([features, target[part]])
        return Reference(strange=strange, **remembered, **_places(known, np.concatenate([classes, answers[part]])))

    # Images are nearer to what was fitted on them than others of their line: each half is scored without itself.
    strange = np.zeros(len(target), np.float32)
    half = np.arange(len(target)) % 2 == 0
    for part in (half, ~half):
        if part.any():
            strange[part] = fitted(counted & ~part, strange).compare(target[part])[0]
    return fitted(counted, strange)


def _places(features: np.ndarray, classes: np.ndarray) -> dict[str, np.ndarray]:
    """Where classes lie, as fields of a reference: features (N, F), classes (N,)."""
    known = directions(features).astype(np.float64)
    middle = known.mean(0)
    main = np.linalg.svd(known - middle, full_matrices=False)[2][:MOST_DIRECTIONS].T
    present = np.unique(classes)
    means = np.stack([known[classes == label].mean(0) for label in present])
    within = _whitening((known - means[np.searchsorted(present, classes)]) @ main, main)
    overall = _whitening((known - middle) @ main, main)
    placed = {"means": means @ within, "middle": middle @ overall}
    return {"within": within, "overall": overall} | {key: value.astype(np.float32) for key, value in placed.items()}


def _whitening(differences: np.ndarray, main: np.ndarray) -> np.ndarray:
    """(F, D): main directions (F, D), each turned and scaled so that these differences (N, D) spread by 1 in all."""
    covariance = differences.T @ differences / len(differences)
    values, vectors = np.linalg.eigh(covariance)
    values = values.clip(min=0) + SHRINKAGE * values.mean() + 1e-12
    return (main @ vectors / np.sqrt(values)).astype(np.float32)


def save(reference: Reference, folder: Path) -> None:
    """Raises RunFailed."""
    arrays = {key: getattr(reference, key) for key in _ARRAYS} | {"examples": reference.examples.astype(np.float16)}
    names = json.dumps(reference.names, ensure_ascii=False)
    write_bytes(folder / FILE, safetensors.numpy.save(arrays, metadata={"names": names}))


def load(folder: Path, width: int, classes: int) -> Reference | None:
    """Of an inspector or exported folder with so many features and classes; None where it has none.

    Raises ValueError, KeyError, OSError and such.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    with safetensors.safe_open(path, framework="numpy") as file:
        arrays = {key: file.get_tensor(key) for key in _ARRAYS}
        names = tuple(map(str, json.loads(file.metadata()["names"])))
    arrays["examples"] = arrays["examples"].astype(np.float32)
    shapes = {key: arrays[key].shape for key in _ARRAYS}
    features, found = shapes["within"]
    right = (
        all(np.isfinite(arrays[key]).all() for key in _ARRAYS)
        and shapes["overall"] == (features, found)
        and shapes["means"][1:] == (found,)
        and shapes["middle"] == (found,)
        and shapes["examples"] == (len(names), features)
        and shapes["classes"] == (len(names),)
        and shapes["p"] == shapes["strange"]
        and min(len(names), shapes["means"][0]) > 0
        and 0 <= arrays["classes"].min() <= arrays["classes"].max() < classes
        and features == width
    )
    if not right:
        raise ValueError("what it remembers of images is not of this network")
    return Reference(names=names, **arrays)
