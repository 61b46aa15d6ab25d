"""Five metals as numbers: how bright they are, how their surface was made, and what colour a camera sees.

Ranges are of each image's own draw, in units of `synthetic`: reflectance 0 to 1, contrasts as a share of it, lengths in
200ths of the image side. Chosen from photographs' looks and by eye; no training had a say.
"""

from dataclasses import dataclass

import numpy as np

Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Metal:
    """The surface of one metal; the defaults are hot-rolled steel seen by a grey camera."""

    level: Range = (0.28, 0.62)
    """Reflectance."""
    lines: Range = (0.01, 0.05)
    """Contrast of rolling or brushing lines."""
    wavelength: Range = (5.0, 11.0)
    """Distance of those lines."""
    length: float = 25.0
    """Their length, in wavelengths: short where rolled, long where brushed."""
    crossed: float = 0.0
    """Radians by which two families of ground lines lean to either side; 0 for one family along the strip."""
    grain: Range = (0.02, 0.09)
    """Contrast of the grain."""
    grain_width: Range = (0.5, 1.0)
    """Width of a grain, as a standard deviation."""
    stretch: float = 2.0
    """Length of a grain along the strip against its width."""
    mottle: Range = (0.01, 0.07)
    """Contrast of clouds."""
    cloud_along: Range = (30.0, 120.0)
    cloud_across: Range = (20.0, 80.0)
    facets: Range = (0.0, 0.0)
    """Contrast of crystals that lie side by side (spangle)."""
    facet: float = 22.0
    """Their size."""
    oxide: float = 1.0
    """Factor on the contrast of patches, pitting and scale: negative where the oxide is brighter than the metal."""
    colour: tuple[float, float, float] | None = None
    """Exponents of red, green and blue on the grey level; None is written as grey. Below 1 is more of that colour;
    highlights stay white and black stays black."""


METALS: dict[str, Metal] = {
    "steel": Metal(),
    # Brushed: fine lines as long as the view, and broad bands where they glance.
    "aluminium": Metal(
        level=(0.52, 0.74), lines=(0.05, 0.1), wavelength=(2.2, 4.0), length=90.0, grain=(0.005, 0.02),
        mottle=(0.04, 0.09), cloud_along=(300.0, 600.0), cloud_across=(18.0, 60.0), oxide=0.8,
        colour=(1.02, 1.0, 0.96),
    ),
    # Annealed and rolled: coarse round grain like orange peel, and clouds of tarnish.
    "copper": Metal(
        level=(0.4, 0.62), lines=(0.008, 0.025), wavelength=(9.0, 18.0), grain=(0.03, 0.07), grain_width=(1.1, 1.8),
        stretch=1.15, mottle=(0.05, 0.11), cloud_along=(60.0, 160.0), cloud_across=(50.0, 140.0), oxide=1.1,
        colour=(0.5, 1.15, 1.6),
    ),
    # Crystals as on galvanised sheet; its corrosion is white.
    "zinc alloy": Metal(
        level=(0.4, 0.56), lines=(0.004, 0.015), wavelength=(12.0, 20.0), grain=(0.015, 0.04), stretch=1.0,
        mottle=(0.01, 0.03), facets=(0.06, 0.13), oxide=-0.9, colour=(1.05, 1.0, 0.9),
    ),
    # Ground crosswise: dark, dull, with a net of fine marks.
    "titanium alloy": Metal(
        level=(0.2, 0.36), lines=(0.05, 0.09), wavelength=(3.0, 5.0), length=14.0, crossed=0.6, grain=(0.03, 0.07),
        grain_width=(0.6, 0.9), stretch=1.0, mottle=(0.02, 0.05), oxide=1.0, colour=(0.94, 1.0, 1.12),
    ),
}  # fmt: skip


def coloured(image: np.ndarray, metal: str) -> np.ndarray:
    """A grey image, uint8 (H, W), as a colour camera would have taken it: (H, W, 3), or the image where grey is meant.

    Grey of the result (0.299 red + 0.587 green + 0.114 blue) stays within 12 levels of the image.
    """
    exponents = METALS[metal].colour
    if exponents is None:
        return image
    levels = np.arange(256) / 255.0
    share = np.clip((levels - 0.06) / 0.2, 0.0, 1.0)  # what is nearly black is no metal, or has no colour to show
    mixed = [(1 - share) * levels + share * levels**exponent for exponent in exponents]
    return np.rint(255.0 * np.stack(mixed, axis=-1)).astype(np.uint8)[image]
