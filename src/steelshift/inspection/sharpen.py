"""Heat maps drawn finely: where a network's evidence lies, times how far each place stands out from its surroundings.

The last maps of a network are a few positions wide, and where a thin defect lies within one of them they do not tell.
The image does. Guided Grad-CAM (Selvaraju et al. 2017) multiplies by a gradient at the pixels for the same reason; the
image's own contrast needs no second pass through the network. How near such maps come to pixel masks, against either
factor alone, is in docs/results/heat-maps.md. Without torch: every runtime's maps are drawn here.
"""

import numpy as np
from PIL import Image

from steelshift.light import WINDOWS, window_means, window_side

BLUR = 16
"""Windows along one side of an image, over which contrast is averaged."""


def sharpen(evidence: np.ndarray, grey: np.ndarray) -> np.ndarray:
    """Evidence float (h, w), 0 or more, of a class and the image that it was found in -> heat float32 (H, W), 0 to 1.

    grey: uint8 (H, W). The square root of the evidence counts: it says where to look, not what to see there.
    """
    height, width = grey.shape
    field = Image.fromarray(np.sqrt(evidence, dtype=np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    heat = np.asarray(field) * contrast(grey)
    return heat / max(float(heat.max()), 1e-12)


def contrast(grey: np.ndarray) -> np.ndarray:
    """Grey levels uint8 (H, W) by which a place differs from the mean around it, averaged nearby: float32 (H, W)."""
    side = min(grey.shape)
    if side < 2 * WINDOWS:
        return np.ones(grey.shape, np.float32)
    apart = np.abs(grey - window_means(grey, window_side(side)))
    apart *= apart > 0.01  # the mean of equal levels is not always quite that level
    return window_means(apart, side // BLUR | 1)
