"""Images as an encoder reads them, without torch: what `resample` and `nn.encoders.even_light` do.

Those are matrix products, which every runtime can do and which is how networks are taught; here are the same sums by
OpenCV and Pillow, which need a tenth of the time: of a window they take what goes in and out, of neighbours only those
that count. A large image costs one channel of it as float32, and nothing once it is small.
"""

import cv2
import numpy as np
from PIL import Image

WINDOWS = 4
"""Windows of local lighting along one side of an image."""
FAINT = 2.0
"""Grey levels added to the spread of an image, so that the noise of an empty one is not blown up."""
LUMINANCE = (0.299, 0.587, 0.114)
"""Of red, green and blue."""


def window_side(size: int) -> int:
    """Pixels along a window of local lighting for images of this side."""
    return size // WINDOWS | 1


def prepare(images: np.ndarray, prepared: np.ndarray) -> None:
    """Grey, resized and evenly lit as an encoder does it: uint8 (B, H, W, C) into float32 (B, 1, S, S), spread near 1.

    C: 1 or 3.
    """
    size = prepared.shape[2]
    means = np.empty((size, size), np.float32)
    for (even,), image in zip(prepared, images, strict=True):
        planes = [_resized(image[..., channel], size) for channel in range(image.shape[2])]
        grey = planes[0]
        if len(planes) > 1:  # mixed when they are small
            grey = cv2.transform(np.dstack(planes).astype(np.float32), np.array([LUMINANCE], np.float32))
        cv2.subtract(grey, window_means(grey, window_side(size), means), dst=even, dtype=cv2.CV_32F)
        even *= np.float32(1.0 / (cv2.norm(even) / size + FAINT))


def _resized(plane: np.ndarray, size: int) -> np.ndarray:
    """uint8 (H, W) -> (S, S), float32 unless it has that size, by antialiased bilinear weights."""
    if plane.shape == (size, size):
        return plane
    if max(plane.shape) <= size:
        return cv2.resize(plane.astype(np.float32), (size, size), interpolation=cv2.INTER_LINEAR)
    reduced = Image.fromarray(plane).convert("F").resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(reduced)  # OpenCV knows no such weights where sides become smaller


def window_means(image: np.ndarray, side: int, means: np.ndarray | None = None) -> np.ndarray:
    """Means over windows, mirrored at the edges: uint8 or float32 (H, W) -> float32 (H, W).

    side: odd, below twice the smaller side of the image. means: where they are written, if anywhere in particular.
    """
    return cv2.boxFilter(image, cv2.CV_32F, (side, side), dst=means, borderType=cv2.BORDER_REFLECT_101)
