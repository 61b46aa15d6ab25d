"""Means over windows that see an edge mirrored, by sums of sums: what `nn.encoders.even_light` does, without torch.

A product with a window matrix costs as many sums for every pixel as the window is wide; doubling costs their logarithm.
All sums are of whole numbers that float32 holds exactly, so both ways give the same means.
"""

import numpy as np

WINDOWS = 4
"""Windows of local lighting along one side of an image."""
FAINT = 2.0
"""Grey levels added to the spread of an image, so that the noise of an empty one is not blown up."""


def window_side(size: int) -> int:
    """Pixels along a window of local lighting for images of this side."""
    return size // WINDOWS | 1


def even_images(images: np.ndarray) -> np.ndarray:
    """Evenly lit as the encoder does it: uint8 (B, S, S, 1) -> float32 (B, 1, S, S), spread near 1.

    S: 8 or more, the side of what the encoder reads.
    """
    size = images.shape[1]
    side = window_side(size)
    margin = side // 2
    padded = np.empty((size + 2 * margin, size + 2 * margin), np.uint8)
    means = np.empty((size, size + 2 * margin), np.float32)
    even = np.empty((len(images), 1, size, size), np.float32)
    for (tile,), image in zip(even, images[..., 0], strict=True):
        padded[margin : margin + size, margin : margin + size] = image
        padded[margin : margin + size, :margin] = image[:, margin:0:-1]
        padded[margin : margin + size, margin + size :] = image[:, -2 : -margin - 2 : -1]
        padded[:margin] = padded[2 * margin : margin : -1]
        padded[margin + size :] = padded[margin + size - 2 : size - 2 : -1]
        sums = _windows(padded, side)
        np.multiply(sums, np.float32(1.0 / side**2), out=means.reshape(-1)[: len(sums)])
        np.subtract(image, means[:, :size], out=tile)
        tile *= np.float32(1.0 / (np.sqrt(np.vdot(tile, tile) / size**2) + FAINT))
    return even


def window_means(image: np.ndarray, side: int) -> np.ndarray:
    """Means over windows, mirrored at the edges: uint8 (H, W) -> float32 (H, W).

    side: odd, below twice the smaller side of the image.
    """
    height, width = image.shape
    padded = np.pad(image, side // 2, mode="reflect")
    means = np.empty((height, padded.shape[1]), np.float32)
    sums = _windows(padded, side)
    means.reshape(-1)[: len(sums)] = sums
    return means[:, :width] / np.float32(side**2)


def _windows(padded: np.ndarray, side: int) -> np.ndarray:
    """Sums over windows of uint8 (h, w), in rows as long as those of `padded`, whose ends are to be cut off."""
    return _sums(_sums(padded.reshape(-1), side, padded.shape[1], 255), side, 1, 255 * side)


def _sums(values: np.ndarray, count: int, step: int, largest: int) -> np.ndarray:
    """Sums of `count` values (n,) that lie `step` apart, for each that has as many behind it, by doubling.

    largest: no value is larger; sums are of 16 bit while they fit.
    """

    def plus(one: np.ndarray, other: np.ndarray, terms: int) -> np.ndarray:
        if terms * largest < 1 << 16:
            return np.add(one, other, dtype=np.uint16)
        return np.add(one.astype(np.float32, copy=False), other.astype(np.float32, copy=False))

    length = len(values) - (count - 1) * step
    total, taken, width = None, 0, 1
    while True:
        if count & width:
            part = values[taken * step : taken * step + length]
            taken += width
            total = part if total is None else plus(total, part, taken)
        if 2 * width > count:
            return total
        values = plus(values[: -width * step], values[width * step :], 2 * width)
        width *= 2
