"""Strips of metal drawn by numbers: a qualified surface and six defects, each with its mask.

The surface of an image is drawn without knowing the class, from wide ranges that all classes share, so that
shapes carry the class and brightness or roughness don't. Lengths are in 200ths of the image side (pixels at
the usual size), and the rolling direction is vertical.
"""

import csv
import io
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import yaml
from PIL import Image
from scipy import ndimage
from scipy.spatial import cKDTree

from steelshift.data.camera import Shift, aged, magnify, of_new_alloy, photograph
from steelshift.data.metals import METALS, coloured
from steelshift.errors import UsageError

CLASSES = ("qualified", "crazing", "inclusion", "patches", "pitting", "rolled-in scale", "scratches")

MECHANISMS = {
    "qualified": "none",
    "crazing": "thermal",
    "inclusion": "foreign matter",
    "patches": "chemical",
    "pitting": "chemical",
    "rolled-in scale": "thermal",
    "scratches": "mechanical",
}
"""What makes each defect."""
EXTENTS = {"none": 0.0, "small": 0.045, "medium": 0.11, "large": 1.0}
"""How much of an image is defective, as words in order, and the largest share of its area that each is used for."""
QUADRANTS = ("upper left", "upper right", "lower left", "lower right")
COLUMNS = ("path", "label", "mechanism", "extent", "place", "quadrant", "metal", "alloy", "day")
"""Of the manifest of a line; empty where there is nothing to say."""

_LINES = ("source", "target")
_NEUTRAL = Shift()


def draw(
    class_name: str, rng: np.random.Generator, *, size: int = 200, shift: Shift = _NEUTRAL
) -> tuple[np.ndarray, np.ndarray]:
    """One image of the class as the shifted line would show it, in grey, and where its defect lies.

    Returns the image, uint8 (size, size), and the mask, bool (size, size), True on the defect and all False
    for "qualified". Generators in the same state give the same surface and the same camera for every class,
    so an image has a qualified twin that differs by the defect alone. Where the strip's edge is seen, a defect lies
    beside it. `size` is in pixels, 32 or more.

    Raises `ValueError` on a class that isn't in `CLASSES` and on a smaller size.
    """
    if class_name not in CLASSES:
        raise ValueError(f"no class {class_name!r}; the classes are {', '.join(CLASSES)}")
    if size < 32:
        raise ValueError(f"size must be 32 pixels or more, not {size}")
    for_surface, for_defect, for_camera = (np.random.default_rng(s) for s in rng.integers(2**63, size=3))
    inward = None
    if shift.edge:
        for_edge = np.random.default_rng(rng.integers(2**63))
        inward = _strip_edge(for_edge, size, shift)
    reflectance, roughness = _surface(for_surface, size, shift)
    mask = np.zeros((size, size), dtype=bool)
    if class_name != "qualified":
        shape, strength = _visible_defect(class_name, for_defect, size, shift.scale, inward)
        if class_name in _OXIDES:
            strength *= METALS[shift.metal].oxide
        if class_name in shift.inverted:
            strength = -strength
        # Rougher metal needs stronger defects, or they would drown in it.
        contrast = (strength + float(np.copysign(1.5, strength)) * roughness) * shift.defect_contrast
        reflectance = reflectance * (1.0 + contrast * shape)
        mask = magnify((np.abs(shape) > 0.35).astype(np.float32), shift.scale) > 0.5
    if inward is not None:
        reflectance = _beyond_strip(reflectance, inward, for_edge)
    scene = np.rint(255.0 * np.clip(reflectance, 0.0, 1.0)).astype(np.uint8)
    return photograph(scene, shift, for_camera), mask


def write_lines(
    out: Path,
    *,
    shift: Shift,
    images: int,
    seed: int,
    source: Shift = _NEUTRAL,
    days: int = 0,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Write a labelled source line and a shifted target line as class folders, with masks and manifests.

    Makes `out/source/<class>/<number>.png` and `out/target/...`, `images` (7 or more) of each,
    `out/masks/{source,target}/<class>/<number>.png` for the defective ones (white = defect),
    `out/{source,target}.csv` with the `COLUMNS` of every image, and `out/shift.yaml` with shift, images and seed.
    Numbers run over the whole line and tell nothing of the class. The source is by default balanced to within one
    image and taken by the neutral camera; the target follows `shift`, with class frequencies by its `class_mix` and
    `prevalence`: qualified the commonest, the order of the others drawn from `seed` (0 or more). An image depends on
    (seed, line, number) and the line's shift alone, so a longer line begins with the shorter one. `progress` is told
    how many of the 2 x `images` are written, after each.

    days: spreads the target line evenly over so many days, `out/target/day-07/<class>/...`, in which it ages without
        maintenance (`camera.aged`) and, in the second half of a month, takes up a new alloy; 0 for none.

    Nothing half-written is left: the lines grow in a hidden folder beside `out`, which is renamed at the end.

    Raises `UsageError` if `out` is a file or a folder that isn't empty, on fewer than 7 images (a day), and on a
    prevalence of unknown classes, or their inversion.
    """
    out = Path(out).absolute()
    if images < len(CLASSES) * max(1, days):
        raise UsageError("lines_too_short", images=images, least=len(CLASSES) * max(1, days))
    for key, known in (("prevalence", CLASSES), ("inverted", tuple(_DEFECTS))):
        for name in (*getattr(source, key), *getattr(shift, key)):
            if name not in known:
                raise UsageError("shift_unknown_class", key=key, name=name, known=", ".join(known))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError("folder_not_empty", where=out)
    growing = out.with_name(f".{out.name}.{os.getpid()}.partial")
    growing.mkdir(parents=True)
    try:
        done = 0
        for line, line_shift in zip(_LINES, (source, shift), strict=True):
            text = io.StringIO()
            manifest = csv.DictWriter(text, COLUMNS, lineterminator="\n")
            manifest.writeheader()
            for number in range(images):
                day = 1 + number * days // images if line == "target" and days else None
                manifest.writerow(_write_image(growing, line, number, line_shift, seed, day))
                done += 1
                if progress:
                    progress(done)
            (growing / f"{line}.csv").write_text(text.getvalue(), encoding="utf-8")
        record = {"shift": shift.record(), "images": images, "seed": seed}
        if source != _NEUTRAL:
            record["source"] = source.record()
        if days:
            record["days"] = days
        (growing / "shift.yaml").write_text(yaml.safe_dump(record, sort_keys=False), encoding="utf-8")
        if out.exists():
            out.rmdir()  # empty, as checked; not every system renames onto a folder
        growing.rename(out)
    except BaseException:
        shutil.rmtree(growing, ignore_errors=True)
        raise


def _write_image(root: Path, line: str, number: int, shift: Shift, seed: int, day: int | None) -> dict[str, object]:
    """Writes the image and, of a defective one, its mask; returns its row of the manifest."""
    new_alloy = False
    if day is not None:
        shift = aged(shift, day - 1)
        share = min(max((day - 15) / 25, 0.0), 0.6)
        new_alloy = _generator(seed, line, 3, number).random() < share
    class_name = _class_of(number, line, shift, seed)
    if new_alloy:
        shift = of_new_alloy(shift)
    for_image = _generator(seed, line, 0, number)
    if shift.edge:  # decided here for the manifest's sake: of the images that may show the edge, so many do
        shift = replace(shift, edge=float(_generator(seed, line, 4, number).random() < shift.edge))
    image, mask = draw(class_name, for_image, shift=shift)
    inside = Path(line) if day is None else Path(line) / f"day-{day:02d}"
    pictures = {inside / class_name: coloured(image, shift.metal)}
    if class_name != "qualified":
        pictures["masks" / inside / class_name] = mask.astype(np.uint8) * 255
    for folder, picture in pictures.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(root / folder / f"{number:06d}.png", compress_level=1)
    return {
        "path": (inside / class_name / f"{number:06d}.png").as_posix(),
        "label": class_name,
        "mechanism": MECHANISMS[class_name],
        "extent": extent(mask),
        "place": "edge" if shift.edge else "centre",
        "quadrant": quadrant(mask),
        "metal": shift.metal,
        "alloy": "" if day is None else "new" if new_alloy else "usual",
        "day": "" if day is None else day,
    }


def extent(mask: np.ndarray) -> str:
    """The word of `EXTENTS` for a mask, bool (H, W)."""
    share = mask.mean()
    return next(word for word, largest in EXTENTS.items() if share <= largest)


def quadrant(mask: np.ndarray) -> str:
    """Where the middle of a mask, bool (H, W), lies: one of `QUADRANTS`; empty without a defect."""
    if not mask.any():
        return ""
    rows, columns = np.nonzero(mask)
    lower, right = rows.mean() >= (mask.shape[0] - 1) / 2, columns.mean() >= (mask.shape[1] - 1) / 2
    return QUADRANTS[2 * int(lower) + int(right)]


def _generator(seed: int, line: str, *place: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_LINES.index(line), *place)))


def _class_of(number: int, line: str, shift: Shift, seed: int) -> str:
    """The class of an image, from its number alone: every run of 7 numbers is spread evenly over 0..1 in
    shuffled order, and the cumulated class frequencies are looked up there."""
    count = len(CLASSES)
    order = np.r_[0, 1 + _generator(seed, line, 1).permutation(count - 1)]
    frequencies = (1.0 - shift.class_mix) ** (np.arange(count) / (count - 1))
    if shift.prevalence:
        given = np.array([shift.prevalence.get(CLASSES[index], 0.0) for index in order])
        rest = np.where(given > 0, 0.0, frequencies)
        frequencies = given + (1.0 - given.sum()) * rest / max(rest.sum(), 1e-12)
    run, position = divmod(number, count)
    place = _generator(seed, line, 2, run).permutation(count)[position]
    within = (0.5 + run * 0.618034) % 1.0  # golden ratio: runs fill the gaps that earlier runs left
    cumulated = np.cumsum(frequencies) / frequencies.sum()
    found = np.searchsorted(cumulated, (place + within) / count)
    return CLASSES[order[min(found, count - 1)]]


# The surface


def _surface(rng: np.random.Generator, size: int, shift: Shift) -> tuple[np.ndarray, float]:
    """Reflectance (size, size) around 0.25 to 0.65, and the contrast of its texture, 0.03 to 0.2."""
    # All plain numbers first: the noise takes more or fewer draws under another shift.
    metal = METALS[shift.metal]
    level, tilt = rng.uniform(*metal.level), rng.normal(0.0, 0.03)
    slope, direction = rng.uniform(0.0, 0.002), rng.uniform(0.0, 2 * np.pi)
    lines, wavelength = rng.uniform(*metal.lines), rng.uniform(*metal.wavelength)
    grain, grain_width = rng.uniform(*metal.grain), rng.uniform(*metal.grain_width)
    mottle, cloud = rng.uniform(*metal.mottle), (rng.uniform(*metal.cloud_along), rng.uniform(*metal.cloud_across))
    sensor = rng.uniform(0.003, 0.01)
    for_lines, for_grain, for_rest = (np.random.default_rng(s) for s in rng.integers(2**63, size=3))

    level, long = level * shift.reflectance, metal.length
    lines, wavelength = lines * shift.rolling_strength, wavelength * shift.rolling_wavelength
    grain, grain_width = grain * shift.grain**0.5, grain_width * shift.grain**0.5
    texture = (
        lines * _noise(for_lines, size, long * wavelength, wavelength, tilt - metal.crossed)
        + 0.8 * lines * _noise(for_lines, size, 1.6 * long * wavelength, 4 * wavelength, tilt + metal.crossed)
        + grain * _grain(for_grain, size, grain_width, metal.stretch)
        + mottle * _noise(for_rest, size, *cloud, tilt)
    )
    y, x = _grid(size)
    light = 1.0 + slope * (float(np.cos(direction)) * (x - 100) + float(np.sin(direction)) * (y - 100))
    hiss = sensor * for_rest.standard_normal((size, size), dtype=np.float32)
    facets = for_rest.uniform(*metal.facets)
    if facets:
        texture = texture + facets * _facets(for_rest, size, metal.facet)
    roughness = float(np.sqrt(lines**2 + grain**2 + mottle**2 + facets**2))
    return level * light * np.exp(texture) + hiss, roughness


def _facets(rng: np.random.Generator, size: int, width: float) -> np.ndarray:
    """Crystals (size, size) side by side, about `width` wide, of about unit contrast; each has its own brightness,
    and shades off in a direction of its own."""
    y, x = _grid(size)
    count = int((200 / width + 2) ** 2)
    middles = rng.uniform(-width, 200 + width, (count, 2))
    places = np.stack(np.broadcast_arrays(y, x), axis=-1).reshape(-1, 2)
    # A wave on the places makes borders ragged.
    places = places + 0.12 * width * np.stack([_noise(rng, size, width, width).ravel() for _ in range(2)], axis=-1)
    owner = cKDTree(middles).query(places)[1]
    brightness, lean = rng.standard_normal(count), rng.normal(0.0, 0.8 / width, (count, 2))
    crystals = brightness[owner] + ((places - middles[owner]) * lean[owner]).sum(-1)
    return crystals.reshape(size, size).astype(np.float32)


def _grain(rng: np.random.Generator, size: int, width: float, stretch: float) -> np.ndarray:
    """Unit noise of grains `width` wide (as a standard deviation) and `stretch` times that along the rolling direction.

    Filtered from single pixels, since a lattice this fine would show.
    """
    grain = rng.standard_normal((size, size), dtype=np.float32)
    spread = np.array([stretch * width, width]) * size / 200
    grain = ndimage.gaussian_filter(grain, spread, mode="wrap", truncate=2.5)
    return grain / grain.std()


@lru_cache(maxsize=4)
def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows (size, 1) and columns (1, size) in 200ths of the side."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) * (200 / size)
    return axis[:, None], axis[None, :]


def _noise(rng: np.random.Generator, size: int, along: float, across: float, tilt: float = 0.0) -> np.ndarray:
    """Smooth noise (size, size) of about unit variance, with wavelengths along and across the rolling
    direction in 200ths of the side; `tilt` turns it by so many radians, between -pi/2 and pi/2.

    Interpolated twice, since turning a picture costs eight times what enlarging it does: a coarse lattice is
    turned onto a finer one, which follows the noise at two samples a lattice step, and that one is enlarged.
    """
    step_y, step_x = along * size / 400, across * size / 400
    cos, sin = float(np.cos(tilt)), float(np.sin(tilt))
    rows = min(size, 8 + int(2 * size * max(cos / step_y, abs(sin) / step_x)))
    columns = min(size, 8 + int(2 * size * max(cos / step_x, abs(sin) / step_y)))
    reach = size * (cos + abs(sin))
    lattice = rng.standard_normal((int(reach / step_y) + 6, int(reach / step_x) + 6), dtype=np.float32)
    first_x = 2 + rng.random() + max(0.0, -sin) * size / step_x
    first_y = 2 + rng.random() + max(0.0, sin) * size / step_y
    pitch_y, pitch_x = size / rows, size / columns
    turn = (
        cos * pitch_x / step_x, sin * pitch_y / step_x, first_x,
        -sin * pitch_x / step_y, cos * pitch_y / step_y, first_y,
    )  # fmt: skip
    turned = Image.fromarray(lattice).transform((columns, rows), Image.Transform.AFFINE, turn, Image.Resampling.BICUBIC)
    return 1.15 * np.asarray(turned.resize((size, size), Image.Resampling.BICUBIC))


# The defects: each function returns a shape (size, size), -1 (darkest) over 0 (no defect) to 1 (brightest)


def _visible_defect(
    class_name: str, rng: np.random.Generator, size: int, scale: float, inward: np.ndarray | None
) -> tuple[np.ndarray, float]:
    """A shape that the magnified camera still sees, at the strip's edge if that is seen, and its contrast."""
    shape_of, least_share, weakest, strongest = _DEFECTS[class_name]
    if inward is not None:
        least_share = 0.3 * least_share / max(1.0, scale)  # of what would be seen of a whole view of strip
    # Half a defect cut off at the border is hard to name, so the outer twentieth of the view doesn't count.
    margin = round(size * (1 - 0.9 / max(1.0, scale)) / 2)
    for _ in range(20):
        shape = shape_of(rng, size)
        if inward is not None:
            shape = _at_edge(shape, inward, scale)
        seen = shape[margin : size - margin, margin : size - margin]
        if (np.abs(seen) > 0.35).mean() >= least_share:
            break
    return shape, rng.uniform(weakest, strongest)


def _strip_edge(rng: np.random.Generator, size: int, shift: Shift) -> np.ndarray | None:
    """How far inside the strip each pixel lies, (size, size) in 200ths, negative beyond its edge; None if the image
    does not show the edge."""
    shown, left, place = rng.random() < shift.edge, rng.random() < 0.5, rng.uniform(25.0, 70.0)
    if not shown:
        return None
    _, x = _grid(size)
    path = 100 + place / max(1.0, shift.scale) + 0.6 * _wobble(rng, size, 60)[:, None]
    return path - (200 - x if left else x)


def _at_edge(shape: np.ndarray, inward: np.ndarray, scale: float) -> np.ndarray:
    """The shape moved across the strip to its edge, and cut off beyond a band of it."""
    band = _EDGE_BAND / max(1.0, scale)
    size = shape.shape[1]
    columns = np.nonzero(np.abs(shape) > 0.35)[1]
    wanted = np.nonzero(np.abs(inward[size // 2] - band / 2) < 2)[0].mean()
    moved = wanted - (columns.mean() if columns.size else size / 2)
    shape = ndimage.shift(shape, (0.0, moved), order=1, mode="mirror")
    return np.where(inward > 0, shape * _step((band - inward) / 3), 0.0).astype(np.float32)


def _beyond_strip(reflectance: np.ndarray, inward: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The strip up to its sheared edge, and the dark table beyond it."""
    burr, table = rng.uniform(-0.35, 0.5), rng.uniform(0.02, 0.12)
    strip = reflectance * (1.0 + burr * np.exp(-((inward / 1.6) ** 2)))
    below = table * (1.0 + 0.15 * _noise(rng, len(inward), 80, 60)) * (1.0 - 0.7 * np.exp(inward / 10).clip(0, 1))
    share = _step(inward / 0.6)
    return share * strip + (1.0 - share) * below


_EDGE_BAND = 50.0  # 200ths of the view: how far from the edge a defect still counts as being there
_OXIDES = ("patches", "pitting", "rolled-in scale")


def _above(values: np.ndarray, share: float, softness: float) -> np.ndarray:
    """0 to 1, over one half on the `share` of the pixels with the highest values."""
    level = np.quantile(values[::3, ::3], 1.0 - share)
    return _step((values - level) / softness)


def _step(values: np.ndarray) -> np.ndarray:
    """0 to 1, a smooth step around 0."""
    return 0.5 + 0.5 * np.tanh(values)


def _crazing(rng: np.random.Generator, size: int) -> np.ndarray:
    """Fine jagged cracks that branch, mostly across the rolling direction, in fields."""
    tilt = rng.normal(0.0, 0.2)
    cracks = np.zeros((size, size), dtype=np.float32)
    # Level lines of smooth noise meander and meet as cracks do; finer noise makes them jagged.
    for along, across in ((rng.uniform(18, 40), rng.uniform(50, 120)), (rng.uniform(30, 70),) * 2):
        height = _noise(rng, size, along, across, tilt) + 0.16 * _noise(rng, size, 9, 14, tilt)
        height += 0.05 * _noise(rng, size, 4, 5)
        slope_y, slope_x = np.gradient(height)
        distance = np.abs(height) / (np.hypot(slope_y, slope_x) + 0.01) * (200 / size)
        width = rng.uniform(0.65, 1.1) * (1 + 0.5 * _noise(rng, size, 18, 18)).clip(0.35, 2.2)
        broken = _above(_noise(rng, size, 25, 35, tilt), rng.uniform(0.4, 0.75), 0.5)
        cracks = np.maximum(cracks, np.exp(-((distance / width) ** 2)) * broken)
    field = _above(_noise(rng, size, 150, 120), rng.uniform(0.5, 1.0), 0.4)
    return -cracks * field


def _inclusion(rng: np.random.Generator, size: int) -> np.ndarray:
    """Ragged stringers drawn out along the rolling direction, alone or in groups."""
    y, x = _grid(size)
    ragged = _noise(rng, size, 40, 5)
    shape = np.zeros((size, size), dtype=np.float32)
    home = rng.uniform(25, 175)
    for _ in range(rng.integers(1, 6)):
        middle_x = float(np.clip(home + rng.normal(0, 22), 12, 188))
        middle_y, length = rng.uniform(40, 160), rng.uniform(40, 190)
        place = (y - middle_y) / (length / 2)
        path = middle_x + rng.normal(0, 0.04) * (y - middle_y) + 2.0 * _wobble(rng, size, 70)[:, None]
        half_width = rng.uniform(1.2, 5.0) * np.sqrt(np.clip(1 - place**2, 0, None))
        half_width = half_width * (0.9 + 0.4 * _wobble(rng, size, 30)[:, None])
        inside = half_width + 1.5 * ragged - np.abs(x - path)
        inside = np.where(np.abs(place) < 1, inside, -9.0)
        shape = np.maximum(shape, _step(inside / rng.uniform(0.7, 1.6)) * rng.uniform(0.6, 1.0))
    shape = shape * (1.0 - 0.25 * _step(2 * _noise(rng, size, 30, 4)))
    return shape if rng.random() < 0.1 else -shape


def _patches(rng: np.random.Generator, size: int) -> np.ndarray:
    """Few large blotches with soft, torn borders."""
    outline = _noise(rng, size, rng.uniform(80, 170), rng.uniform(45, 90), rng.normal(0, 0.2))
    outline = outline + 0.35 * _noise(rng, size, 26, 20) + 0.15 * _noise(rng, size, 9, 7)
    blotch = _above(outline, rng.uniform(0.06, 0.35), rng.uniform(0.12, 0.4))
    return -blotch * (0.85 + 0.12 * _noise(rng, size, 16, 10)).clip(0.5, 1.0)


def _pitting(rng: np.random.Generator, size: int) -> np.ndarray:
    """Many small round pits, denser here than there; at times a corroded area with a sharp border."""
    width = rng.uniform(6.0, 11.0)
    swarm = _noise(rng, size, rng.uniform(60, 160), rng.uniform(40, 100))
    pits = _noise(rng, size, width, width) + 0.5 * swarm
    depth = (0.85 + 0.2 * _noise(rng, size, 10, 10)).clip(0.5, 1.1)
    shape = _above(pits, rng.uniform(0.03, 0.10), 0.35) * depth
    if rng.random() < 0.3:
        area = _noise(rng, size, 120, 80) + 0.3 * _noise(rng, size, 16, 14)
        shape = np.maximum(shape, rng.uniform(0.5, 0.8) * _above(area, rng.uniform(0.02, 0.08), 0.04))
    return -shape


def _rolled_in_scale(rng: np.random.Generator, size: int) -> np.ndarray:
    """Flakes pressed in across the rolling direction, in swarms; each has a raised, bright edge."""
    tilt = rng.normal(0.0, 0.2)
    swarm = _noise(rng, size, rng.uniform(60, 140), rng.uniform(40, 90))
    flakes = _noise(rng, size, rng.uniform(6, 9), rng.uniform(14, 26), tilt) + 0.5 * swarm
    flakes = flakes + 0.3 * _noise(rng, size, 4, 6, tilt)
    depth = (0.8 + 0.3 * _noise(rng, size, 5, 9)).clip(0.4, 1.1)
    shape = _above(flakes, rng.uniform(0.04, 0.12), 0.5) * depth
    below = np.roll(shape, -max(1, round(2.5 * size / 200)), axis=0)  # lit from above, as the real ones are
    return rng.uniform(0.5, 0.9) * np.clip(below - shape, 0, 1) - shape


def _scratches(rng: np.random.Generator, size: int) -> np.ndarray:
    """Long thin straight grooves in bundles, most along or across the rolling direction."""
    y, x = _grid(size)
    shape = np.zeros((size, size), dtype=np.float32)
    for _ in range(rng.choice([1, 2, 3], p=[0.6, 0.3, 0.1])):
        direction = rng.choice([np.pi / 2, 0.0, rng.uniform(0, np.pi)], p=[0.5, 0.3, 0.2])
        direction = direction + rng.normal(0, 0.04)
        cos, sin = float(np.cos(direction)), float(np.sin(direction))
        middle_x, middle_y = rng.uniform(45, 155), rng.uniform(45, 155)
        length, breaks = rng.uniform(70, 320), rng.uniform(-0.6, 1.6)
        for _ in range(rng.integers(1, 5)):
            along = (x - middle_x) * cos + (y - middle_y) * sin - rng.normal(0, 20)
            bend = rng.normal(0, 2.0) * (along / 100) ** 2
            beside = (y - middle_y) * cos - (x - middle_x) * sin - rng.normal(0, 9) - bend
            width = 0.8 + rng.exponential(0.7)
            flank = (beside - 2.2 * width) / width
            groove = np.exp(-((beside / width) ** 2)) - 0.25 * np.exp(-(flank**2))
            steps = np.clip(along + 300, 0, 599).astype(np.int32)
            depth = _step(2.0 * (breaks + _wobble(rng, 600, 50))) * (0.85 + 0.2 * _wobble(rng, 600, 9))
            ends = _step((length / 2 - np.abs(along)) / 6)
            groove = groove * ends * depth[steps]
            shape = np.where(np.abs(groove) > np.abs(shape), groove, shape)
    return -shape if rng.random() < 0.3 else shape


def _wobble(rng: np.random.Generator, length: int, wavelength: float) -> np.ndarray:
    """Smooth noise (length,) of about unit variance; the wavelength is in samples."""
    knots = int(2 * length / wavelength) + 2
    wobble = np.interp(np.linspace(0, knots - 1, length), np.arange(knots), rng.standard_normal(knots))
    return wobble.astype(np.float32)


_DEFECTS: dict[str, tuple[Callable[[np.random.Generator, int], np.ndarray], float, float, float]] = {
    # shape, least share of the view, below which it could be overlooked, weakest and strongest contrast
    "crazing": (_crazing, 0.03, 0.45, 0.7),
    "inclusion": (_inclusion, 0.02, 0.4, 0.6),
    "patches": (_patches, 0.07, 0.32, 0.5),
    "pitting": (_pitting, 0.03, 0.35, 0.55),
    "rolled-in scale": (_rolled_in_scale, 0.03, 0.4, 0.6),
    "scratches": (_scratches, 0.01, 0.55, 0.95),
}
