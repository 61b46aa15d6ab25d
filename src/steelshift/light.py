"""Even light, and images that become no smaller, without torch: what `resample` and `nn.encoders.even_light` do.

Those are matrix products, which every runtime can do and which is how networks are taught; here are the same sums by
OpenCV, which needs a tenth of the time: of a window it takes what goes in and out, of two neighbours only those two.
"""

import cv2
import numpy as np

WINDOWS = 4
"""Windows of local lighting along one side of an image."""
FAINT = 2.0
"""Grey levels added to the spread of an image, so that the noise of an empty one is not blown up."""
LUMINANCE = (0.299, 0.587, 0.114)
"""Of red, green and blue."""


def window_side(size: int) -> int:
    """Pixels along a window of local lighting for images of this side."""
    return size // WINDOWS | 1


def prepares(shape: tuple[int, ...], size: int) -> bool:
    """Whether `prepare` can: images (..., H, W, C) that are not reduced."""
    return max(shape[-3:-1]) <= size and size >= 2 * WINDOWS


def prepare(images: np.ndarray, prepared: np.ndarray) -> None:
    """Grey, resized and evenly lit as an encoder does it: uint8 (B, H, W, C) into float32 (B, 1, S, S), spread near 1.

    C: 1 or 3. S: not below H and W.
    """
    size = prepared.shape[2]
    resized, means = np.empty((2, size, size), np.float32)
    for (even,), image in zip(prepared, images, strict=True):
        if image.shape[2] == 1:
            grey = image[..., 0]
        else:
            grey = cv2.transform(image.astype(np.float32), np.array([LUMINANCE], np.float32))
        if grey.shape != (size, size):
            grey = grey.astype(np.float32, copy=False)
            grey = cv2.resize(grey, (size, size), dst=resized, interpolation=cv2.INTER_LINEAR)
        cv2.subtract(grey, window_means(grey, window_side(size), means), dst=even, dtype=cv2.CV_32F)
        even *= np.float32(1.0 / (cv2.norm(even) / size + FAINT))


def window_means(image: np.ndarray, side: int, means: np.ndarray | None = None) -> np.ndarray:
    """Means over windows, mirrored at the edges: uint8 or float32 (H, W) -> float32 (H, W).

    side: odd, below twice the smaller side of the image. means: where they are written, if anywhere in particular.
    """
    return cv2.boxFilter(image, cv2.CV_32F, (side, side), dst=means, borderType=cv2.BORDER_REFLECT_101)
