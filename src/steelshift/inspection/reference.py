"""What an inspector remembers of images: source examples to compare with, and how unlike them its own line is.

reference.safetensors beside the weights: features of source training images, with class and name, by which an image is
found strange and its nearest examples are named; and what unlabelled images of the target line scored, by which a
wanted rate of review becomes thresholds. Small, and read without torch.
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
"""Of features kept: a thousand examples of a thousand features, 2 MB."""
MOST_EXAMPLES = 1000
NEIGHBOURS = 5
"""An image is as strange as its fifth nearest example is far."""
SHOWN = 3
"""Nearest examples that a row names."""


@dataclass(frozen=True)
class Reference:
    """Source examples and scores of the target line."""

    examples: np.ndarray
    """float32 (N, F), each of length 1."""
    classes: np.ndarray
    """int64 (N,), index of its class."""
    names: tuple[str, ...]
    """Of the files, as they were called at training."""
    p: np.ndarray
    """float32 (n,), probability of the answer to unlabelled target training images."""
    strange: np.ndarray
    """float32 (n,), how far the same are from the examples."""

    def compare(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features (B, F) -> how strange each is, float32 (B,) within 0 to 2, and its nearest examples, int (B, 3).

        One minus the cosine to the fifth nearest example: k nearest neighbours on normalized features (Sun et al.,
        Out-of-Distribution Detection with Deep Nearest Neighbors, ICML 2022). One matrix product.
        """
        likeness = directions(features) @ self.examples.T
        nearest = np.argpartition(-likeness, self.neighbours - 1, axis=1)[:, : self.neighbours]
        values = np.take_along_axis(likeness, nearest, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        nearest, values = np.take_along_axis(nearest, order, axis=1), np.take_along_axis(values, order, axis=1)
        return 1 - values[:, -1], nearest[:, :SHOWN]

    @property
    def neighbours(self) -> int:
        return min(NEIGHBOURS, len(self.examples))

    def thresholds(self, rate: float) -> Thresholds:
        """By which a share `rate` of images like the target training images would go to a person."""
        return thresholds(self.p, self.strange, rate)


def directions(features: np.ndarray) -> np.ndarray:
    """float (N, F) -> float32 (N, F) of length 1, or 0 where there is no feature at all."""
    features = np.asarray(features, dtype=np.float32)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def chosen(classes: np.ndarray, width: int) -> np.ndarray:
    """Rows (N,) of the examples to keep: of every class in turn, as many as fit."""
    most = min(MOST_EXAMPLES, max(MOST_VALUES // width, NEIGHBOURS * len(np.unique(classes))))
    turn = np.zeros(len(classes), dtype=np.int64)
    for label in np.unique(classes):
        members = np.flatnonzero(classes == label)
        turn[members] = np.arange(len(members))
    return np.sort(np.lexsort((classes, turn))[:most])


def build(
    features: np.ndarray, classes: np.ndarray, names: list[str], target: np.ndarray, target_p: np.ndarray
) -> Reference:
    """Of source training features (N, F) with classes (N,) and names, and features (n, F) and p (n,) of the target."""
    kept = chosen(classes, features.shape[1])
    half = directions(features[kept]).astype(np.float16).astype(np.float32)  # as they are read back
    empty = np.zeros(0, np.float32)
    bare = Reference(half, classes[kept].astype(np.int64), tuple(names[row] for row in kept), empty, empty)
    strange = bare.compare(target)[0]
    return Reference(bare.examples, bare.classes, bare.names, target_p.astype(np.float32), strange)


def save(reference: Reference, folder: Path) -> None:
    """Raises RunFailed."""
    arrays = {
        "examples": reference.examples.astype(np.float16),
        "classes": reference.classes,
        "p": reference.p,
        "strange": reference.strange,
    }
    names = json.dumps(reference.names, ensure_ascii=False)
    write_bytes(folder / FILE, safetensors.numpy.save(arrays, metadata={"names": names}))


def load(folder: Path, width: int | None = None) -> Reference | None:
    """Of an inspector or exported folder; None where it has none. Raises ValueError, KeyError, OSError and such."""
    path = folder / FILE
    if not path.is_file():
        return None
    with safetensors.safe_open(path, framework="numpy") as file:
        arrays = {key: file.get_tensor(key) for key in ("examples", "classes", "p", "strange")}
        names = tuple(map(str, json.loads(file.metadata()["names"])))
    examples = arrays["examples"].astype(np.float32)
    lengths = {len(examples), len(arrays["classes"]), len(names)}
    whole = all(np.isfinite(arrays[key]).all() for key in ("examples", "p", "strange"))
    if len(lengths) > 1 or not len(examples) or examples.ndim != 2 or not whole or (arrays["classes"] < 0).any():
        raise ValueError("the source examples are not what they should be")
    if len(arrays["p"]) != len(arrays["strange"]) or (width is not None and examples.shape[1] != width):
        raise ValueError("the source examples are not of this network")
    return Reference(examples, arrays["classes"], names, arrays["p"], arrays["strange"])
