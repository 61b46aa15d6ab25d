"""Batches as a function of the step: `stream[k]` depends on the seed and k alone.

Nothing is remembered between steps, so a run that was killed continues exactly where it was.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from steelshift.data.augment import Augmentation, boxes, grey_values
from steelshift.data.cache import PixelCache
from steelshift.data.shapes import alike
from steelshift.data.tasks import PLAIN, cells
from steelshift.resample import resample, to_grey

Sampler = Literal["balanced", "random"]
CLASS = PLAIN
"""The task of a plain run."""
CPU = torch.device("cpu")


@dataclass(frozen=True)
class SourceBatch:
    images: Tensor
    """float32 (B, 1, S, S) in [0, 255]."""
    labels: dict[str, Tensor]
    """int64 (B,) by task, of a multi-label task (B, K) of 0 and 1; -1 where an image has no label for the task."""


@dataclass(frozen=True)
class TargetBatch:
    """Images of the target line. There is no field for a label, so no method can read one."""

    images: Tensor
    """float32 (B, 1, S, S) in [0, 255]."""
    weak: Tensor
    """The same images, cropped and flipped alike, but in the light in which they were taken."""


@dataclass(frozen=True, kw_only=True)
class _Images:
    cache: PixelCache
    batch: int
    size: int
    augmentation: Augmentation
    seed: int
    bf16: bool = False
    """Whether images are resized in bf16."""
    device: torch.device = CPU
    """Where batches are made, and train."""

    @property
    def epoch(self) -> int:
        """Steps in which every image is seen about once."""
        return max(1, len(self.cache) // self.batch)

    def _draw(self, rows: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Augmented images, and the same before their grey values were changed."""
        shapes = np.array([self.cache.shapes[row][:2] for row in rows])
        cut = boxes(shapes, self.augmentation, rng)
        weak = resized(self.cache, rows, self.size, cut, bf16=self.bf16, device=self.device)
        return grey_values(weak, self.augmentation, rng), weak

    def _generator(self, purpose: int, number: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, purpose, number])

    def _in_turn(self, purpose: int, step: int) -> np.ndarray:
        """Every image once an epoch, in an order that (seed, epoch) gives; the last odd ones wait for the next."""
        count = len(self.cache)
        if count < self.batch:
            return self._generator(purpose, step).integers(0, count, self.batch)
        steps = count // self.batch
        order = self._generator(purpose, step // steps).permutation(count)
        start = step % steps * self.batch
        return order[start : start + self.batch]


@dataclass(frozen=True, kw_only=True)
class SourceStream(_Images):
    labels: dict[str, np.ndarray]
    """int64 (images,) by task, or (images, K)."""
    sampler: Sampler = "balanced"
    """balanced: P classes (of any task) of K images each, so that every class has a positive; random: in turn."""

    def __getitem__(self, step: int) -> SourceBatch:
        rng = self._generator(1, step)
        rows = self._balanced(rng) if self.sampler == "balanced" else self._in_turn(2, step)
        labels = {task: torch.from_numpy(values[rows]).to(self.device) for task, values in self.labels.items()}
        return SourceBatch(self._draw(rows, rng)[0], labels)

    def _balanced(self, rng: np.random.Generator) -> np.ndarray:
        classes = [members for labels in self.labels.values() for members in cells(labels)]
        chosen = rng.permutation(len(classes))[: max(1, self.batch // 2)]
        rows = []
        for place, number in enumerate(chosen):
            wanted = self.batch // len(chosen) + (place < self.batch % len(chosen))
            members = classes[number]
            rows.append(rng.choice(members, wanted, replace=len(members) < wanted))
        return np.concatenate(rows)


@dataclass(frozen=True)
class JoinedStream:
    """Labelled batches of which a part is of the source line, the rest of a few labelled target images.

    A method takes all of them for the source line: where it aligns lines, it aligns what has labels with what has none.
    """

    source: SourceStream
    few: SourceStream

    @property
    def epoch(self) -> int:
        return self.source.epoch

    def __getitem__(self, step: int) -> SourceBatch:
        one, other = self.source[step], self.few[step]
        labels = {task: torch.cat([one.labels[task], other.labels[task]]) for task in one.labels}
        return SourceBatch(torch.cat([one.images, other.images]), labels)


@dataclass(frozen=True, kw_only=True)
class TargetStream(_Images):
    def __getitem__(self, step: int) -> TargetBatch:
        rng = self._generator(3, step)
        return TargetBatch(*self._draw(self._in_turn(4, step), rng))

    def whole(self) -> Iterator[TargetBatch]:
        """Every image once, as it is, in the order of the cache."""
        for start in range(0, len(self.cache), self.batch):
            rows = np.arange(start, min(start + self.batch, len(self.cache)))
            images = resized(self.cache, rows, self.size, bf16=self.bf16, device=self.device)
            yield TargetBatch(images, images)


def spread(count: int, most: int) -> np.ndarray:
    """At most so many of `count` rows, evenly: rows are ordered by file, so that the first would be tiles of few."""
    kept = min(count, most)
    return np.arange(kept) * count // max(1, kept)


def resized(
    cache: PixelCache,
    rows: np.ndarray,
    size: int,
    cut: np.ndarray | None = None,
    *,
    bf16: bool = False,
    device: torch.device = CPU,
) -> Tensor:
    """Rows of a cache at one size: float32 (len(rows), 1, size, size) in [0, 255]; `cut` are boxes, else whole."""
    images = torch.empty(len(rows), 1, size, size, device=device)
    shapes = np.array([cache.shapes[row] for row in rows])
    for at, shape in alike(shapes):
        pixels = torch.from_numpy(np.stack([cache[rows[i]] for i in at])).to(device)
        grey = pixels[..., 0] if shape[2] == 1 else to_grey(pixels)
        height, width = map(float, shape[:2])
        box = np.array([[0, 0, height, width]], np.float32).repeat(len(at), 0) if cut is None else cut[at]
        part = resample(grey, torch.from_numpy(box).to(device), size, bf16=bf16)
        if len(at) == len(rows):
            return part
        images[torch.from_numpy(at)] = part
    return images
