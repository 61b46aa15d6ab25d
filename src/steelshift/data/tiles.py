"""Tiles of one size out of large images, each labelled by what of it a mask or the boxes cover."""

import csv
import io
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from steelshift.data.decode import Unreadable, decode, read_bytes
from steelshift.data.table import Place, list_places
from steelshift.errors import DataError, UsageError
from steelshift.files import write_text
from steelshift.messages import say
from steelshift.progress import Advance, note

QUALIFIED = "qualified"
COVERED = 0.02
"""A tile is defective from this share of its area on, or from half of one image's defect, whichever is less."""
COLUMNS = ("path", "crop", "label", "group", "covered")


@dataclass(frozen=True)
class Tile:
    x: int
    y: int
    label: str
    covered: float
    """Share of the tile's area that is marked as defect."""


@dataclass(frozen=True)
class Marked:
    """Where the defects of an image lie: one mask, bool (H, W), a label."""

    masks: dict[str, np.ndarray]


def write_tiles(
    images: Path,
    out: Path,
    *,
    tile: int,
    stride: int | None = None,
    masks: Path | None = None,
    boxes: Path | None = None,
    advance: Advance = lambda done: None,
) -> dict[str, int]:
    """Write a manifest of tiles; returns how many tiles each label has.

    images: a folder, whose subfolders name the defect of their images. masks: images of the same relative path, or of
    the same name, white where a defect is. boxes: Pascal VOC XML likewise; the boxes name the defect. Without either,
    every tile has its image's label. Tiles of one image form a group. Tiles that hold a little of a defect, too little
    to count, are left out. Raises UsageError, DataError, RunFailed.
    """
    if masks and boxes:
        raise UsageError("tiles_both")
    if tile < 8 or (stride is not None and stride < 1):
        raise UsageError("option_range", key="tile, stride", value=(tile, stride), range="at least 8, at least 1")
    for folder in (images, masks, boxes):
        if folder is not None and not folder.is_dir():
            raise DataError("no_such_place", path=folder)
    marks = (
        {path.stem: path for path in sorted((masks or boxes).rglob("*")) if path.is_file()} if masks or boxes else {}
    )
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    counts: dict[str, int] = {}
    for done, place in enumerate(list_places([images]), start=1):
        try:
            pixels = decode(read_bytes(place.path)[1]).pixels
        except Unreadable as error:
            note(f"{place.path}: {error}")
            continue
        name = place.path.relative_to(images)
        mark = (masks or boxes) / name.with_suffix(".png" if masks else ".xml") if masks or boxes else None
        mark = mark if mark is None or mark.exists() else marks.get(place.path.stem)
        marked = _marked(mark, place, pixels.shape[:2]) if masks or boxes else None
        for found in cut(pixels.shape[:2], marked, place.label or QUALIFIED, tile, stride or tile):
            counts[found.label] = counts.get(found.label, 0) + 1
            writer.writerow(
                {
                    "path": os.path.relpath(place.path, out.parent),
                    "crop": f"{found.x} {found.y} {tile} {tile}",
                    "label": found.label,
                    "group": name.as_posix(),
                    "covered": f"{found.covered:.4f}",
                }
            )
        advance(done)
    if not counts:
        raise DataError("tiles_none", where=images, tile=tile)
    write_text(out, text.getvalue())
    return counts


def cut(shape: tuple[int, int], marked: Marked | None, label: str, tile: int, stride: int) -> Iterator[Tile]:
    """Tiles of an image of `shape` (H, W), the last ones flush with its border; none where it is smaller than a tile.

    marked: None where nothing is known of single tiles: all have `label`. A tile without a marked pixel is qualified,
    or has `label` where the image has no mark at all.
    """
    for y in starts(shape[0], tile, stride):
        for x in starts(shape[1], tile, stride):
            if marked is None or not marked.masks:
                yield Tile(x, y, label, 0.0)
                continue
            inside = {name: int(mask[y : y + tile, x : x + tile].sum()) for name, mask in marked.masks.items()}
            name = max(inside, key=inside.__getitem__)
            share = inside[name] / tile**2
            if inside[name] == 0:
                yield Tile(x, y, QUALIFIED, 0.0)
            elif inside[name] >= min(COVERED * tile**2, 0.5 * marked.masks[name].sum()):
                yield Tile(x, y, name, share)


def starts(length: int, tile: int, stride: int) -> list[int]:
    """Where tiles of an image's side begin, the last one flush with its end; none where it is shorter than a tile."""
    if length < tile:
        return []
    return sorted({*range(0, length - tile + 1, stride), length - tile})


def _marked(mark: Path | None, place: Place, shape: tuple[int, int]) -> Marked:
    if mark is None:
        return Marked({})
    if mark.suffix.lower() == ".xml":
        return Marked(_boxes(mark, shape))
    mask = read_mask(mark)
    if mask.shape != shape:
        raise DataError("mask_unusable", path=mark, why=say("mask_size", mask=mask.shape[::-1], image=shape[::-1]))
    return Marked({place.label or "defective": mask} if mask.any() else {QUALIFIED: mask})


def read_mask(path: Path) -> np.ndarray:
    """Which pixels are marked, bool (H, W): white, or of any number in masks of class numbers. Raises DataError."""
    try:
        levels = decode(read_bytes(path)[1]).pixels[..., 0]
    except Unreadable as error:
        raise DataError("mask_unusable", path=path, why=error) from error
    numbers = levels.max() <= 127 and path.suffix.lower() not in (".jpg", ".jpeg")  # what JPEG adds to black is none
    return levels > (0 if numbers else 127)


def _boxes(path: Path, shape: tuple[int, int]) -> dict[str, np.ndarray]:
    masks: dict[str, np.ndarray] = {}
    try:
        for item in ElementTree.parse(path).getroot().iter("object"):
            name = (item.findtext("name") or "").strip() or "defective"
            left, top, right, bottom = (
                max(0, round(float(item.findtext(f"bndbox/{edge}")))) for edge in ("xmin", "ymin", "xmax", "ymax")
            )
            masks.setdefault(name, np.zeros(shape, bool))[top:bottom, left:right] = True
    except (ElementTree.ParseError, TypeError, ValueError, OSError) as error:
        raise DataError("boxes_unreadable", path=path, why=" ".join(str(error).split())[:160]) from error
    return masks
