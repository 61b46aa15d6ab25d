"""Images of any sizes, taken together where their shapes are equal."""

from collections.abc import Iterator

import numpy as np


def alike(shapes: np.ndarray, most: int = 16_000_000) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Places of images of one shape, with at most `most` values together or one at a time, and that shape."""
    for shape in np.unique(shapes, axis=0):
        places = np.flatnonzero((shapes == shape).all(axis=1))
        few = max(1, most // int(shape.prod()))
        for start in range(0, len(places), few):
            yield places[start : start + few], shape
