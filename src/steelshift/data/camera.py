"""A simulated camera, and the description of how a target line differs from the source line.

A `Shift` has a camera part, which `photograph` applies to any grey image, real or drawn, and a scene part,
which only `synthetic` can apply, because it changes the metal itself.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image
from scipy import ndimage

from steelshift.data.metals import METALS
from steelshift.errors import UsageError
from steelshift.files import read_yaml


def _knob(default: float, low: float, high: float) -> Any:
    return field(default=default, metadata={"low": low, "high": high})


@dataclass(frozen=True, kw_only=True)
class Shift:
    """How a line differs from the source line; the defaults are no difference.

    Raises `UsageError` naming the first value that is no number or lies outside its range.
    """

    lighting_gradient: float = _knob(0.0, 0.0, 0.9)
    """Camera: relative gain of light at the lit edge and loss at the other, at most; each image gets
    between half of it and all of it. 0 to 0.9."""
    lighting_direction: float = _knob(0.0, 0.0, 360.0)
    """Camera: where the light comes from, in degrees clockwise from the right edge. 0 to 360."""
    lighting_spread: float = _knob(180.0, 0.0, 180.0)
    """Camera: how far the direction strays to either side from image to image, in degrees. 0 to 180."""
    polarity: float = _knob(0.0, 0.0, 1.0)
    """Camera: probability that an image is taken in dark field (dark surface, bright defects), by a smooth
    inversion. 0 (always bright field) to 1 (always dark field)."""
    gain: float = _knob(1.0, 0.2, 4.0)
    """Camera: factor on the grey level. 0.2 to 4."""
    offset: float = _knob(0.0, -100.0, 100.0)
    """Camera: grey levels added after the gain. -100 to 100, of 255."""
    gamma: float = _knob(1.0, 0.3, 3.0)
    """Camera: exponent on the grey level; above 1 darkens. 0.3 to 3."""
    blur: float = _knob(0.0, 0.0, 5.0)
    """Camera: standard deviation of the Gaussian blur of the lens, in pixels. 0 to 5."""
    noise: float = _knob(0.0, 0.0, 40.0)
    """Camera: standard deviation of the sensor noise, in grey levels of 255. 0 to 40."""
    scale: float = _knob(1.0, 0.5, 3.0)
    """Camera: magnification about the centre, at an unchanged image size; below 1 the border is mirrored.
    0.5 to 3."""
    jpeg_quality: int = _knob(100, 5, 100)
    """Camera: quality of the JPEG that the line stores; 100 stores without loss. Whole number, 5 to 100."""
    dust: int = _knob(0, 0, 400)
    """Camera: specks of dust on its window, out of focus, at the same places in every image; more of them leave
    the earlier ones where they are. Whole number, 0 to 400."""

    metal: str = "steel"
    """Scene: steel, aluminium, copper, zinc alloy or titanium alloy. All but steel are written in colour."""
    reflectance: float = _knob(1.0, 0.3, 2.0)
    """Scene: factor on how bright the surface is, as another alloy of the metal would be. 0.3 to 2."""
    rolling_wavelength: float = _knob(1.0, 0.25, 4.0)
    """Scene: factor on the distance between rolling lines. 0.25 to 4."""
    rolling_strength: float = _knob(1.0, 0.0, 4.0)
    """Scene: factor on the contrast of rolling lines. 0 to 4."""
    grain: float = _knob(1.0, 0.25, 4.0)
    """Scene: factor on the size and the contrast of the grain (its square root on each). 0.25 to 4."""
    defect_contrast: float = _knob(1.0, 0.3, 2.0)
    """Scene: factor on the contrast of defects against the surface around them. 0.3 to 2."""
    class_mix: float = _knob(0.0, 0.0, 0.95)
    """Scene: how unequal classes become: the rarest is 1 - class_mix times as frequent as the commonest.
    0 (balanced) to 0.95."""
    prevalence: Mapping[str, float] = field(default_factory=dict)
    """Scene: share of the images that a class gets, by its name; classes that are not named share the rest by
    `class_mix`. Above 0, together below 1."""
    edge: float = _knob(0.0, 0.0, 1.0)
    """Scene: probability that an image shows the strip's edge; its defect then lies there. 0 to 1."""
    inverted: Sequence[str] = ()
    """Scene: classes whose defects are bright where they are dark otherwise, and dark where they are bright. On steel
    three of ten scratches are bright then, where seven are without it; inclusions, of which one in ten is bright, and
    all other defects, which are dark, turn bright."""

    def __post_init__(self) -> None:
        _check({each.name: getattr(self, each.name) for each in fields(self)}, where="Shift")
        object.__setattr__(self, "inverted", tuple(self.inverted))  # a list, from YAML

    def record(self) -> dict[str, Any]:
        """The knobs as YAML or JSON holds them. Those that were added since lines were first recorded are left out at
        their defaults, so that what is recorded of a line, or hashed from it, stays what it was."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        for each in fields(self):
            default = each.default_factory() if each.default is MISSING else each.default
            if each.name in _ADDED and values[each.name] == default:
                del values[each.name]
        return values


_ADDED = {"dust", "metal", "reflectance", "prevalence", "edge", "inverted"}


def _check(values: dict[str, Any], where: object) -> None:
    known = {each.name: each for each in fields(Shift)}
    for name, value in values.items():
        if name not in known:
            raise UsageError("shift_unknown_key", name=name, where=where, known=", ".join(known))
        if name == "metal":
            if str(value) not in METALS:
                raise UsageError("shift_unknown_metal", value=value, where=where, known=", ".join(METALS))
            continue
        if name == "prevalence":
            shares = value.values() if isinstance(value, Mapping) else [0]
            if not all(isinstance(share, (int, float)) and share > 0 for share in shares) or not sum(shares) < 1:
                raise UsageError("shift_prevalence", value=value, where=where)
            continue
        if name == "inverted":
            if isinstance(value, str) or not isinstance(value, Sequence):
                raise UsageError("shift_inverted", value=value, where=where)
            continue
        low, high = known[name].metadata["low"], known[name].metadata["high"]
        number = isinstance(value, int) if known[name].type is int else isinstance(value, (int, float))
        if not number or not low <= value <= high:  # a NaN fails the comparison
            raise UsageError("shift_out_of_range", name=name, value=value, where=where, low=low, high=high)


SHIFTS: dict[str, Shift] = {
    # The same camera model, aimed a little differently, at a sister mill.
    "mild": Shift(
        lighting_gradient=0.15,
        gain=1.12,
        gamma=1.15,
        blur=0.4,
        noise=2.5,
        rolling_wavelength=1.25,
        rolling_strength=1.2,
        grain=1.2,
    ),
    # Another camera, lamp from one side, other rolls, images stored as JPEG.
    "middle": Shift(
        lighting_gradient=0.45,
        lighting_direction=200.0,
        lighting_spread=60.0,
        gain=0.85,
        offset=30.0,
        gamma=1.2,
        blur=0.7,
        noise=4.5,
        scale=1.25,
        jpeg_quality=60,
        rolling_wavelength=1.8,
        rolling_strength=1.5,
        grain=1.4,
        defect_contrast=0.8,
        class_mix=0.5,
    ),
    # As middle, further, and lit in dark field.
    "high": Shift(
        lighting_gradient=0.5,
        lighting_direction=200.0,
        lighting_spread=90.0,
        polarity=1.0,
        gain=1.05,
        offset=-10.0,
        blur=0.9,
        noise=6.5,
        scale=1.4,
        jpeg_quality=40,
        rolling_wavelength=2.4,
        rolling_strength=1.7,
        grain=1.5,
        defect_contrast=0.85,
        class_mix=0.75,
    ),
}
"""Plausible differences between two mills, graded. Chosen from what cameras and lamps do and from looking at
the images; no training had a say."""


def load_shift(name_or_path: str | Path) -> Shift:
    """The shift of that name in `SHIFTS`, or the one in a YAML file: the target's part of `load_lines`."""
    return load_lines(name_or_path)[1]


def load_lines(name_or_path: str | Path) -> tuple[Shift, Shift]:
    """What source and target line look like: a neutral source and the shift of that name, or both from a YAML file.

    The file maps keys of `Shift` to values; keys left out keep their defaults. They are of the target line; a key
    `source` holds such a map for the source line, which is neutral without it. The `shift.yaml` that
    `synthetic.write_lines` leaves is read as well.

    Raises `UsageError` if it is neither a name nor a file, if the file is no such mapping, and on unknown
    keys and values outside their ranges.
    """
    if str(name_or_path) in SHIFTS:
        return Shift(), SHIFTS[str(name_or_path)]
    path = Path(name_or_path)
    if not path.is_file():
        raise UsageError("shift_not_found", name=name_or_path, known=", ".join(SHIFTS))
    try:
        values = read_yaml(path)
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise UsageError("shift_unreadable", where=path, reason=str(error)) from error
    if not isinstance(values, dict):
        raise UsageError("shift_unreadable", where=path, reason=type(values).__name__)
    source = values.pop("source", {})
    if isinstance(values.get("shift"), dict):
        values = values["shift"]
    if not isinstance(source, dict):
        raise UsageError("shift_unreadable", where=path, reason=type(source).__name__)
    for part in (source, values):
        _check(part, where=path)
    return Shift(**source), Shift(**values)


def aged(shift: Shift, age: float) -> Shift:
    """The line after so many days, 0 or more, without maintenance; what it is on day 0 is `shift`.

    The lamp dims and more at one end, which the camera answers with noise; its window gathers dust and a film that
    veils and blurs; the rolls wear, so that rolling lines grow and widen; defects become unequally frequent.
    """
    return _within_ranges(
        shift,
        gain=shift.gain * (0.68 + 0.32 * float(np.exp(-age / 20))),
        lighting_gradient=shift.lighting_gradient + 0.012 * age,
        lighting_spread=shift.lighting_spread * float(np.exp(-age / 10)),
        noise=shift.noise + 0.25 * age,
        dust=shift.dust + round(2 * age),
        offset=shift.offset + 0.25 * age,
        blur=shift.blur + 0.02 * age,
        rolling_strength=shift.rolling_strength * (1 + 0.04 * age),
        rolling_wavelength=shift.rolling_wavelength * (1 + 0.02 * age),
        defect_contrast=shift.defect_contrast * (1 - min(0.006 * age, 0.4)),
        class_mix=shift.class_mix + 0.025 * age,
    )


def of_new_alloy(shift: Shift) -> Shift:
    """The same line on another alloy of its metal: brighter, of finer grain, its defects a little fainter."""
    return _within_ranges(
        shift,
        reflectance=1.3 * shift.reflectance,
        grain=0.5 * shift.grain,
        rolling_strength=0.8 * shift.rolling_strength,
        defect_contrast=0.85 * shift.defect_contrast,
    )


def _within_ranges(shift: Shift, **values: float) -> Shift:
    ranges = {each.name: each.metadata for each in fields(Shift) if each.metadata}
    return replace(
        shift,
        **{name: min(max(value, ranges[name]["low"]), ranges[name]["high"]) for name, value in values.items()},
    )


def photograph(image: np.ndarray, shift: Shift, rng: np.random.Generator) -> np.ndarray:
    """The image as the shifted camera would take it; the scene part of the shift is not used.

    `image` is uint8 (H, W) of any size, grey levels 0 to 255, and so is the result, always a new array. A
    neutral camera part returns equal pixels. `rng` gives the direction and strength of the light, the
    polarity and the sensor noise; the first three are drawn whether used or not, so that changing one knob
    leaves the others' draws alone.

    Raises `ValueError` if `image` isn't uint8 with two dimensions and at least one pixel.
    """
    if image.dtype != np.uint8 or image.ndim != 2 or image.size == 0:
        raise ValueError(f"photograph wants a uint8 image (H, W), not {image.dtype} {image.shape}")
    strength = shift.lighting_gradient * rng.uniform(0.5, 1.0)
    direction = np.deg2rad(shift.lighting_direction + shift.lighting_spread * rng.uniform(-1.0, 1.0))
    dark_field = rng.random() < shift.polarity

    # In the order of the light: scene, lamp, lens, sensor, file.
    levels = magnify(image.astype(np.float32), shift.scale)
    if dark_field:
        # What scatters little light stays dark; the exponent keeps the surface from turning white.
        levels = 12.0 + 243.0 * (1.0 - np.clip(levels, 0.0, 255.0) / 255.0) ** 1.25
    if shift.dust:
        levels = levels * _dust(levels.shape, shift.dust)
    if strength:
        levels = levels * _light(levels.shape, strength, direction)
    if shift.blur:
        levels = ndimage.gaussian_filter(levels, shift.blur, mode="nearest", truncate=3.0)
    if shift.gain != 1.0 or shift.offset:
        levels = levels * shift.gain + shift.offset
    if shift.gamma != 1.0:
        levels = 255.0 * (np.clip(levels, 0.0, 255.0) / 255.0) ** shift.gamma
    if shift.noise:
        levels = levels + shift.noise * rng.standard_normal(levels.shape, dtype=np.float32)
    taken = np.rint(np.clip(levels, 0.0, 255.0)).astype(np.uint8)
    return taken if shift.jpeg_quality == 100 else _through_jpeg(taken, shift.jpeg_quality)


def magnify(levels: np.ndarray, scale: float) -> np.ndarray:
    """float32 (H, W) magnified about its centre to the same (H, W); below 1 the border is mirrored."""
    if scale == 1.0:
        return levels
    height, width = levels.shape
    picture = Image.fromarray(levels)
    if scale > 1.0:
        left, top = width * (1 - 1 / scale) / 2, height * (1 - 1 / scale) / 2
        box = (left, top, width - left, height - top)
        return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC, box=box))
    small = (max(1, round(width * scale)), max(1, round(height * scale)))
    shrunk = np.asarray(picture.resize(small, Image.Resampling.BICUBIC))
    missing = [(full - part) for full, part in zip(levels.shape, shrunk.shape, strict=True)]
    return np.pad(shrunk, [(each // 2, each - each // 2) for each in missing], mode="symmetric")


def _light(shape: tuple[int, ...], strength: float, direction: float) -> np.ndarray:
    """Factors 1 - strength to 1 + strength, rising towards `direction`; a square image's corners are flat."""
    y, x = (np.linspace(-1.0, 1.0, length, dtype=np.float32) if length > 1 else np.zeros(1, np.float32)
            for length in shape)  # fmt: skip
    towards = np.float32(np.cos(direction)) * x[None, :] + np.float32(np.sin(direction)) * y[:, None]
    return 1.0 + np.float32(strength) * np.clip(towards, -1.0, 1.0)


@lru_cache(maxsize=64)
def _dust(shape: tuple[int, ...], specks: int) -> np.ndarray:
    """Factors 0 to 1 of light that soft round specks let through; their places are the camera's, not the image's."""
    height, width = shape
    drawn = np.random.default_rng(_WINDOW).random((400, 4), dtype=np.float32)[:specks]
    clear = np.ones(shape, dtype=np.float32)
    for y, x, size, shade in drawn:
        radius = (0.004 + 0.02 * size**3) * min(height, width) + 0.5
        reach = int(3 * radius) + 1
        top, left = int(y * height), int(x * width)
        rows, columns = slice(max(0, top - reach), top + reach + 1), slice(max(0, left - reach), left + reach + 1)
        part = clear[rows, columns]
        down = np.arange(rows.start, rows.start + part.shape[0])[:, None] - y * height
        across = np.arange(columns.start, columns.start + part.shape[1])[None, :] - x * width
        part *= 1 - (0.15 + 0.35 * shade) * np.exp(-(((down**2 + across**2) / radius**2) ** 2))
    return clear


_WINDOW = 20  # the seed of the dust: one camera's


def _through_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    stored = io.BytesIO()
    Image.fromarray(image).save(stored, "JPEG", quality=quality)
    return np.array(Image.open(stored))
