"""Augmentation of one batch: a box to cut out of every image, and what happens to its grey values."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Augmentation = Literal["none", "upright", "plain", "strong"]


@dataclass(frozen=True)
class _Strength:
    flips: bool
    """Whether half of the images are turned left to right, and half upside down."""
    smallest_crop: float
    """Smallest share of the area that a crop keeps."""
    contrast: float
    """Largest relative change of contrast."""
    brightness: float
    """Largest change of brightness in grey levels."""
    gamma: float
    """Largest absolute logarithm of the exponent on the grey values."""
    invert: float
    """Probability of inverted polarity: bright field becomes dark field."""
    gradient: float
    """Largest difference of lighting across the image in grey levels."""
    noise: float
    """Largest standard deviation of noise in grey levels."""


_STRENGTHS = {
    "upright": _Strength(False, 0.9, 0.2, 20, 0.0, 0.0, 0.0, 0.0),
    "plain": _Strength(True, 0.7, 0.2, 20, 0.0, 0.0, 0.0, 0.0),
    "strong": _Strength(True, 0.5, 0.4, 40, 0.5, 0.5, 60.0, 12.0),
}


def boxes(shapes: np.ndarray, kind: Augmentation, rng: np.random.Generator) -> np.ndarray:
    """Random crops and flips: float32 (B, 4) as `resample` takes them, for images of `shapes` (B, 2)."""
    batch = len(shapes)
    top, left = np.zeros(batch), np.zeros(batch)
    height, width = shapes[:, 0].astype(float), shapes[:, 1].astype(float)
    if kind != "none":
        side = np.sqrt(rng.uniform(_STRENGTHS[kind].smallest_crop, 1.0, batch))
        top, left = height * (1 - side) * rng.random(batch), width * (1 - side) * rng.random(batch)
        height, width = height * side, width * side
    bottom, right = top + height, left + width
    if kind != "none" and _STRENGTHS[kind].flips:
        over, across = rng.random(batch) < 0.5, rng.random(batch) < 0.5
        top, bottom = np.where(over, bottom, top), np.where(over, top, bottom)
        left, right = np.where(across, right, left), np.where(across, left, right)
    return np.stack([top, left, bottom, right], axis=1).astype(np.float32)


def grey_values(images: Tensor, kind: Augmentation, rng: np.random.Generator) -> Tensor:
    """Random light, contrast, polarity and noise on float (B, 1, S, S) in [0, 255]; same shape and range."""
    if kind == "none":
        return images
    strength = _STRENGTHS[kind]
    batch, size = images.shape[0], images.shape[-1]

    def draw(low: float, high: float) -> Tensor:
        return torch.from_numpy(rng.uniform(low, high, (batch, 1, 1, 1)).astype(np.float32)).to(images.device)

    if strength.gamma:
        images = (images / 255).clamp(0, 1) ** draw(-strength.gamma, strength.gamma).exp() * 255
    if strength.invert:
        flip = draw(0, 1) < strength.invert
        images = torch.where(flip, 255 - images, images)
    mean = images.mean(dim=(2, 3), keepdim=True)
    contrast = draw(1 - strength.contrast, 1 + strength.contrast)
    # (images - mean) * contrast + mean + brightness, in two passes over the pixels
    images = (images * contrast).add_(mean * (1 - contrast) + draw(-strength.brightness, strength.brightness))
    if strength.gradient:
        angle = draw(0, 2 * np.pi)
        ramp = torch.linspace(-0.5, 0.5, size, device=images.device)
        slope = angle.cos() * ramp + angle.sin() * ramp[:, None]
        images = images + draw(0, strength.gradient) * slope
    if strength.noise:
        generator = torch.Generator(images.device).manual_seed(int(rng.integers(2**63)))
        noise = torch.randn(images.shape, generator=generator, device=images.device)
        images = images + draw(0, strength.noise) * noise
    return images.clamp_(0, 255)


def cut_out(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Put the mean grey over a random square of each image (B, 1, S, S), a quarter to half of its side wide."""
    batch, size = images.shape[0], images.shape[-1]
    side = rng.uniform(0.25, 0.5, (batch, 1)) * size
    start = rng.uniform(0, 1, (2, batch, 1)) * (size - side)
    at = np.arange(size) + 0.5
    within = (at >= start) & (at < start + side)
    hole = torch.from_numpy(within[0][:, :, None] & within[1][:, None, :]).unsqueeze(1).to(images.device)
    return torch.where(hole, images.mean(dim=(2, 3), keepdim=True), images)


def strong_view(images: Tensor) -> Tensor:
    """The same images under other light, polarity, noise and a hole: (B, 1, S, S) in [0, 255].

    All at random, from torch's generator: within a step of training nothing else says which step it is.
    """
    rng = np.random.default_rng(int(torch.randint(2**62, ())))
    return cut_out(grey_values(images, "strong", rng), rng)
