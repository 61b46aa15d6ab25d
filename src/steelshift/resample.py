"""The one place where images change size: exact in eager mode, under export and in training.

Resizing is two matrix products with triangle-filter weights (antialiased bilinear). The weights are computed from
positions alone, so any runtime that can subtract, clamp and multiply gives the same pixels. A crop or a flip is only
another box, so training crops at full resolution and resizes in the same pass.
"""

import numpy as np
import torch
from torch import Tensor

from steelshift.light import LUMINANCE


def to_grey(images: Tensor) -> Tensor:
    """uint8 (B, H, W, C) with C = 1 or 3 -> float32 (B, H, W) in [0, 255]."""
    images = images.float()
    if images.shape[-1] == 1:
        return images[..., 0]
    red, green, blue = images.unbind(-1)
    return LUMINANCE[0] * red + LUMINANCE[1] * green + LUMINANCE[2] * blue


def grey_levels(images: Tensor) -> np.ndarray:
    """Prepared images, float (B, 1, H, W), as they are shown: uint8 (B, H, W)."""
    return images[:, 0].detach().round().clamp(0, 255).to(torch.uint8).cpu().numpy()


def whole(images: Tensor) -> Tensor:
    """The box of the whole image, for every image of a batch (B, H, W, C): float32 (B, 4)."""
    batch, height, width = images.shape[:3]
    return torch.tensor([[0.0, 0.0, float(height), float(width)]], device=images.device).expand(batch, 4)


def resample(grey: Tensor, boxes: Tensor, size: int, *, bf16: bool = False) -> Tensor:
    """Cut a box out of every image and bring it to size x size.

    grey: float or uint8 (B, H, W) in [0, 255]. boxes: float (B, 4), top, left, bottom, right in pixels; bottom < top
    flips, and what reaches outside repeats the edge. bf16: multiply in that format, three times as fast and within one
    grey level; for training. Returns float (B, 1, size, size) in [0, 255].
    """
    rows = _weights(boxes[:, 0], boxes[:, 2], grey.shape[1], size)
    columns = _weights(boxes[:, 1], boxes[:, 3], grey.shape[2], size).transpose(1, 2)
    if bf16:  # small numbers are finer in it: grey levels are counted from the middle
        centred = (grey.float().sub_(128.0) if grey.dtype == torch.uint8 else grey - 128.0).bfloat16()
        small = rows.bfloat16() @ centred @ columns.bfloat16()
        return small.float().add_(128.0).unsqueeze(1)
    return (rows @ grey.float() @ columns).unsqueeze(1)


def _weights(start: Tensor, end: Tensor, length: int, size: int) -> Tensor:
    """(B, size, length): row i says how output pixel i mixes the input pixels; each row sums to 1."""
    step = ((end - start) / size)[:, None]
    places = torch.arange(size, device=start.device, dtype=torch.float32) + 0.5
    centres = (start[:, None] + places * step).clamp(0.5, length - 0.5)
    pixels = torch.arange(length, device=start.device, dtype=torch.float32) + 0.5
    support = step.abs().clamp(min=1.0)[:, :, None]
    weights = (pixels - centres[:, :, None]).abs_().div_(-support).add_(1.0).clamp_(min=0.0)
    return weights.div_(weights.sum(2, keepdim=True))
