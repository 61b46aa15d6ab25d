"""Small pictures, folders, networks and batches that several tests build."""

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from steelshift.data.cache import PixelCache, cache_pixels
from steelshift.data.stream import CLASS, SourceBatch, TargetBatch
from steelshift.data.table import ImageTable, Row, read_images
from steelshift.nn.convolution import quicken
from steelshift.nn.encoders import Encoder

SIDE = 32
CLASSES = 3


def picture(seed: int = 0, height: int = 24, width: int = 32) -> np.ndarray:
    """uint8 (height, width): waves and a little noise over nearly the whole range, different for every seed."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    waves = 125 + 95 * np.sin(columns / 5 + seed) * np.cos(rows / 6 + 2 * seed)
    return np.clip(waves + rng.normal(0, 6, waves.shape), 0, 255).round().astype(np.uint8)


def encoded(pixels: np.ndarray | Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """An image as the bytes of a file of that kind."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def write_line(folder: Path, counts: dict[str, int], seed: int = 0) -> Path:
    """Class folders of PNG files, no two pictures alike."""
    for name, count in counts.items():
        for _ in range(count):
            seed += 1
            write(folder / name / f"{seed:04d}.png", encoded(picture(seed)))
    return folder


def rows_of(count: int, **columns: list) -> ImageTable:
    """A table of that many rows without files, sorted as the reader sorts; columns are fields of Row."""
    ids = sorted(f"{seed:08x}" for seed in np.random.default_rng(7).choice(2**32, count, replace=False))
    return ImageTable(
        tuple(
            Row(ids[i], Path(f"{i}.png"), **{name: values[i] for name, values in columns.items()}) for i in range(count)
        )
    )


def cached(tmp_path: Path, images: list[np.ndarray]) -> PixelCache:
    """A pixel cache of these images; its rows are in the order of their content."""
    for number, image in enumerate(images):
        write(tmp_path / "images" / f"{number:03d}.png", encoded(image))
    return cache_pixels(read_images([tmp_path / "images"]), tmp_path / "cache")


def tiny_encoder(seed: int = 0, normalized: bool = False) -> Encoder:
    """Two convolutions and 16 features at 32 x 32: milliseconds a step."""
    torch.manual_seed(seed)
    middle = [nn.BatchNorm2d(8)] if normalized else []
    trunk = nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=4, padding=2), *middle, nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(256, 16), nn.ReLU(),
    )  # fmt: skip
    return Encoder(quicken(trunk, SIDE), SIDE)


def batches(
    step: int, count: int = 8, labels: list[int] | None = None, side: int = SIDE
) -> tuple[SourceBatch, TargetBatch]:
    """Batch pair of a step: stripes whose direction is the class, on the target line finer, darker and noisier."""
    rng = torch.Generator().manual_seed(1000 + step)
    truth = torch.tensor(labels if labels is not None else [i % CLASSES for i in range(count)])

    def images(which: torch.Tensor, mean: float, noise: float, pitch: float) -> torch.Tensor:
        at = pitch * torch.arange(side)
        kinds = [at.sin().expand(side, side), at.sin()[:, None].expand(side, side), (at + at[:, None]).sin()]
        grain = noise * torch.randn(len(which), side, side, generator=rng)
        made = mean + 60 * torch.stack(kinds)[which.clamp(min=0)] + grain
        return made.clamp(0, 255).unsqueeze(1)

    unknown = torch.randint(0, CLASSES, (count,), generator=rng)
    source, target = images(truth, 140, 10, 0.5), images(unknown, 90, 25, 0.8)
    return SourceBatch(source, {CLASS: truth}), TargetBatch(target, target)


def damage(path: Path, kind: int, rng: np.random.Generator, canary: Path) -> None:
    """Flip a bit of a file (kind 0), cut it in half (1), or put a pickle there that would write `canary` (2)."""
    content = bytearray(path.read_bytes())
    if kind == 0:
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    elif kind == 1:
        del content[len(content) // 2 :]
    else:
        content[:] = b"cos\nsystem\n(S'touch " + str(canary).encode() + b"'\ntR."
    path.write_bytes(content)
