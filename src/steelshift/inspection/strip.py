"""Whole strips: images of any size as overlapping tiles, a map of them, and a list of what is wrong where.

Each tile is judged as an image of its own. A network that pads its maps and lights each image evenly says other things
of a tile than of the same place in one pass over the whole strip; tiles are what it was taught on, so tiles are exact.

Memory holds a few bands of a strip, as high as a tile, and of the rest a few bytes a tile: read in pieces where the
format allows it (`data.strips`), a strip may be as long as it likes.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from steelshift.data.decode import Unreadable
from steelshift.data.strips import BAND_PIXELS, Strip, open_strip
from steelshift.data.table import Place
from steelshift.data.tiles import QUALIFIED, starts
from steelshift.errors import UsageError
from steelshift.files import as_csv, write_atomically, write_text
from steelshift.inspection.first_stage import FirstStage
from steelshift.inspection.rows import ImageRow, judge_batch
from steelshift.inspection.side_by_side import ahead, cores, workers
from steelshift.inspection.specification import Judge
from steelshift.messages import say
from steelshift.progress import Advance, note

BATCH = 16
"""Tiles that go through the network together."""
MOST_WAITING = 4096
"""Rows that wait for a batch to fill, where the first stage passes nearly all of them."""
LARGEST_MAP = 3000
"""Pixels of the longer side of a strip map."""
COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")
"""Of classes on a strip map, in their order (Okabe and Ito)."""


@dataclass(frozen=True)
class Layout:
    """How a strip is cut, and what a pixel of it measures."""

    tile: int
    """Side of a tile in pixels."""
    overlap: float = 0.0
    """Share of a tile that the next one sees again, 0 to below 1."""
    along: Literal["x", "y"] = "y"
    """The direction in which the strip runs: y for line-scan cameras, whose rows follow each other in time."""
    mm_per_pixel: float | None = None
    speed: float | None = None
    """Of the strip, in metres a second."""

    def __post_init__(self) -> None:
        for key, value, right, words in (
            ("tile", self.tile, self.tile >= 8, "8 or more"),
            ("overlap", self.overlap, 0 <= self.overlap < 1, "0 or more, below 1"),
            ("mm_per_pixel", self.mm_per_pixel, self.mm_per_pixel is None or self.mm_per_pixel > 0, "above 0"),
            ("speed", self.speed, self.speed is None or self.speed > 0, "above 0"),
            ("speed", self.speed, self.speed is None or self.mm_per_pixel is not None, say("with_mm_per_pixel")),
        ):
            if not right:
                raise UsageError("option_range", key=key, value=value, range=words)

    @property
    def stride(self) -> int:
        return max(1, round(self.tile * (1 - self.overlap)))


@dataclass(frozen=True)
class Defect:
    """Tiles of one class that touch each other, across borders of tiles: one entry of the list."""

    path: str
    number: int
    """On the strip map, from 1."""
    class_: str
    p: float
    """The largest of its tiles."""
    decision: str
    """accept where one of its tiles is accepted."""
    tiles: int
    x: int
    """Of the box around its tiles, in pixels, as are y, width and height."""
    y: int
    width: int
    height: int
    x_mm: float | None = None
    y_mm: float | None = None
    width_mm: float | None = None
    height_mm: float | None = None
    along_m: float | None = None
    """Metres from the beginning of the image along the strip to the beginning of the box."""
    along_s: float | None = None
    """Seconds from the beginning of the image, by the strip's speed."""


@dataclass
class Findings:
    """What was found beside the rows."""

    defects: list[Defect] = field(default_factory=list)
    maps: list[str] = field(default_factory=list)
    tiles: int = 0
    forwarded: int = 0
    """Tiles that the first stage did not pass; all of them without one."""


@dataclass(frozen=True)
class _Tile:
    """A tile on its way: its row, and its pixels unless the first stage passed it."""

    row: ImageRow
    pixels: np.ndarray | None


def inspect_strips(
    judge: Judge,
    places: Iterable[Place],
    layout: Layout,
    findings: Findings,
    maps: Path | None = None,
    first_stage: FirstStage | None = None,
    advance: Advance = lambda done: None,
) -> Iterator[ImageRow]:
    """A row for every tile of every strip, in order: from left to right, then down. What cannot be read is a row too.

    findings: filled in as strips are done. maps: folder of strip maps. Raises RunFailed where a map cannot be written.
    """
    with workers(max(2, cores())) as pool:
        for done, place in enumerate(places, start=1):
            name = str(place.path).encode("utf-8", "backslashreplace").decode()
            bare = ImageRow(None, name, reason=say("row_unreadable"))
            try:
                with open_strip(place, bit_depth=judge.specification.bit_depth) as strip:
                    bare = replace(bare, id=strip.id, width=strip.width, height=strip.height, bit_depth=strip.bit_depth)
                    yield from inspect_strip(judge, strip, bare, layout, findings, pool, maps, first_stage)
            except Unreadable as error:
                yield replace(bare, error=str(error))
            advance(done)


def inspect_strip(
    judge: Judge,
    strip: Strip,
    bare: ImageRow,
    layout: Layout,
    findings: Findings,
    pool: Executor,
    maps: Path | None = None,
    first_stage: FirstStage | None = None,
) -> Iterator[ImageRow]:
    """The same of one strip. bare: what its rows have in common. Raises Unreadable where it is smaller than a tile."""
    if min(strip.width, strip.height) < layout.tile:
        raise Unreadable("smaller_than_tile", width=strip.width, height=strip.height, tile=layout.tile)
    if strip.width * layout.tile > BAND_PIXELS:
        raise Unreadable("too_many_pixels", width=strip.width, height=layout.tile, limit=BAND_PIXELS)
    columns, lines = (starts(length, layout.tile, layout.stride) for length in (strip.width, strip.height))
    grid = _Grid(judge.specification.classes, len(columns), len(lines))
    picture = _Picture(strip, layout.tile) if maps else None

    def bands() -> Iterator[tuple[int, np.ndarray]]:
        for y in lines:
            band = strip.read(y, y + layout.tile)
            if picture:
                picture.add(y, band)
            yield y, band

    def cut(band: tuple[int, np.ndarray]) -> list[_Tile]:
        return _cut(*band, columns, bare, layout.tile, first_stage)

    def judged(batch: list[_Tile]) -> list[ImageRow]:
        return list(judge_batch(judge, [(tile.row, tile.pixels) for tile in batch]))

    tiles = (tile for tiles in ahead(pool, cut, bands(), 2) for tile in tiles)
    for rows in ahead(pool, judged, _batches(tiles, findings), 3):
        for row in rows:
            grid.add(row)
            yield row
    found = grid.defects(bare.path, columns, lines, layout)
    findings.defects += found
    if maps and picture:
        target = maps / f"{len(findings.maps) + 1:05d}-{Path(bare.path).stem}.png"
        write_atomically(target, lambda file: picture.draw(grid, found, columns, lines).save(file, "PNG"))
        findings.maps.append(str(target))


def _cut(
    y: int, band: np.ndarray, columns: Sequence[int], bare: ImageRow, tile: int, first_stage: FirstStage | None
) -> list[_Tile]:
    """The tiles of a band; those that the first stage passes are already judged."""
    scores = first_stage.scores(band, columns) if first_stage else [None] * len(columns)
    found = []
    for x, score in zip(columns, scores, strict=True):
        row = replace(bare, id=f"{bare.id}#{x},{y},{tile},{tile}", tile=f"{x} {y} {tile} {tile}")
        if first_stage and score < first_stage.threshold:
            reason = say("row_passed", score=float(score), threshold=first_stage.threshold)
            found.append(_Tile(replace(row, class_=QUALIFIED, decision="accept", reason=reason), None))
        else:
            found.append(_Tile(row, np.ascontiguousarray(band[:, x : x + tile])))
    return found


def _batches(tiles: Iterable[_Tile], findings: Findings) -> Iterator[list[_Tile]]:
    """Tiles in their order, so many together that a batch of them has to be judged."""
    batch: list[_Tile] = []
    forwarded = 0
    for tile in tiles:
        batch.append(tile)
        forwarded += tile.pixels is not None
        if forwarded == BATCH or len(batch) == MOST_WAITING:
            findings.tiles, findings.forwarded = findings.tiles + len(batch), findings.forwarded + forwarded
            yield batch
            batch, forwarded = [], 0
    findings.tiles, findings.forwarded = findings.tiles + len(batch), findings.forwarded + forwarded
    yield batch


class _Grid:
    """What was said of each tile, a few bytes each."""

    def __init__(self, classes: Sequence[str], columns: int, lines: int) -> None:
        self.classes = classes
        self.numbers = {name: number for number, name in enumerate(classes)}
        self.shape = (lines, columns)
        self.class_ = np.full(lines * columns, -1, np.int16)
        """Number of the defect class; -1 where the surface is qualified."""
        self.p = np.zeros(lines * columns, np.float32)
        self.accepted = np.ones(lines * columns, bool)
        self.filled = 0

    def add(self, row: ImageRow) -> None:
        if row.class_ != QUALIFIED:
            self.class_[self.filled] = self.numbers[row.class_]
        self.p[self.filled] = 1.0 if row.p is None else row.p
        self.accepted[self.filled] = row.decision == "accept"
        self.filled += 1

    def defects(self, path: str, columns: Sequence[int], lines: Sequence[int], layout: Layout) -> list[Defect]:
        """Tiles of one class that touch, corners included, from the beginning of the strip on."""
        found = []
        kinds, p, accepted = (values.reshape(self.shape) for values in (self.class_, self.p, self.accepted))
        for number in np.unique(self.class_[self.class_ >= 0]):
            regions, _ = ndimage.label(kinds == number, structure=np.ones((3, 3)))
            for region, (down, across) in enumerate(ndimage.find_objects(regions), start=1):
                inside = regions[down, across] == region
                x, y = columns[across.start], lines[down.start]
                width = columns[across.stop - 1] + layout.tile - x
                height = lines[down.stop - 1] + layout.tile - y
                found.append(
                    Defect(
                        path,
                        0,
                        self.classes[number],
                        round(float(p[down, across][inside].max()), 6),
                        "accept" if accepted[down, across][inside].any() else "reject",
                        int(inside.sum()),
                        *(x, y, width, height),
                        **_measured(x, y, width, height, layout),
                    )
                )
        found.sort(key=lambda defect: (defect.y, defect.x) if layout.along == "y" else (defect.x, defect.y))
        return [replace(defect, number=number) for number, defect in enumerate(found, start=1)]


def _measured(x: int, y: int, width: int, height: int, layout: Layout) -> dict[str, float]:
    if layout.mm_per_pixel is None:
        return {}
    lengths = {"x_mm": x, "y_mm": y, "width_mm": width, "height_mm": height}
    found = {key: round(pixels * layout.mm_per_pixel, 3) for key, pixels in lengths.items()}
    along = (y if layout.along == "y" else x) * layout.mm_per_pixel / 1000
    found["along_m"] = round(along, 6)
    return found | ({} if layout.speed is None else {"along_s": round(along / layout.speed, 6)})


class _Picture:
    """A small picture of a strip, made from its bands as they pass."""

    def __init__(self, strip: Strip, tile: int) -> None:
        self.tile = tile
        self.step = max(1, -(-max(strip.width, strip.height) // LARGEST_MAP))
        self.grey = np.zeros((-(-strip.height // self.step), -(-strip.width // self.step)), np.uint8)

    def add(self, y: int, band: np.ndarray) -> None:
        first = -y % self.step
        rows = band[first :: self.step, :: self.step, min(1, band.shape[2] - 1)]
        start = (y + first) // self.step
        self.grey[start : start + len(rows)] = rows

    def draw(self, grid: _Grid, defects: Sequence[Defect], columns: Sequence[int], lines: Sequence[int]) -> Image.Image:
        """Defective tiles tinted by class, boxes with their numbers; crosses where a person should look."""
        picture = Image.fromarray(self.grey).convert("RGB")
        tint = Image.new("RGBA", picture.size)
        pen = ImageDraw.Draw(tint)
        side = self.tile / self.step
        for place in np.flatnonzero((grid.class_ >= 0) | ~grid.accepted):
            line, column = divmod(int(place), len(columns))
            x, y = columns[column] / self.step, lines[line] / self.step
            if grid.class_[place] >= 0:
                pen.rectangle((x, y, x + side - 1, y + side - 1), fill=_colour(grid.class_[place]) + "48")
            if not grid.accepted[place]:
                pen.line((x, y, x + side - 1, y + side - 1), fill="#ffffffc0")
                pen.line((x, y + side - 1, x + side - 1, y), fill="#ffffffc0")
        numbers = {name: number for number, name in enumerate(grid.classes)}
        for defect in defects:
            box = [value / self.step for value in (defect.x, defect.y, defect.width, defect.height)]
            corners = (box[0], box[1], box[0] + box[2] - 1, box[1] + box[3] - 1)
            pen.rectangle(corners, outline=_colour(numbers[defect.class_]), width=2)
            words = str(defect.number)
            size = max(12, max(picture.size) // 80)
            pen.rectangle(pen.textbbox((box[0] + 4, box[1] + 2), words, font_size=size), fill="#000000c0")
            pen.text((box[0] + 4, box[1] + 2), words, fill="#ffffff", font_size=size)
        return Image.alpha_composite(picture.convert("RGBA"), tint).convert("RGB")


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def write_defects(defects: Sequence[Defect], path: Path) -> None:
    """The list as .csv, or .json where `path` says so. Raises RunFailed."""
    records = [{key.rstrip("_"): value for key, value in asdict(defect).items()} for defect in defects]
    if path.suffix == ".json":
        write_text(path, json.dumps(records, indent=1, ensure_ascii=False) + "\n")
        return
    write_text(path, as_csv([item.name.rstrip("_") for item in fields(Defect)], records))


def beside(out: Path) -> tuple[Path, Path]:
    """The list of defects and the folder of strip maps that belong to a table."""
    suffix = ".json" if out.suffix.lower() == ".jsonl" else ".csv"
    return out.with_name(f"{out.stem}-defects{suffix}"), out.with_name(f"{out.stem}-maps")


def inspect_into(
    judge: Judge, places: Sequence[Place], out: Path, layout: Layout, first_stage: FirstStage | None, advance: Advance
) -> dict[str, Any]:
    """Write a table of tiles, and beside it the list of defects and the strip maps; returns what to tell of it.

    Raises UsageError, RunFailed.
    """
    from collections import Counter

    from steelshift.inspection.rows import write_rows

    if judge.specification.heads:
        raise UsageError("one_task_only", what="--strip", count=len(judge.specification.heads))
    if first_stage:
        first_stage.check(layout.tile, judge.specification)
    if QUALIFIED not in judge.specification.classes:
        note(say("strip_all_defects"))
    findings = Findings()
    decisions: Counter[str] = Counter()

    def counted(rows: Iterable[ImageRow]) -> Iterator[ImageRow]:
        for row in rows:
            decisions[row.decision] += 1
            yield row

    listed, maps = beside(out)
    rows = inspect_strips(judge, places, layout, findings, maps, first_stage, advance)
    count = write_rows(counted(rows), out)
    write_defects(findings.defects, listed)
    return {
        "out": str(out),
        "rows": count,
        "decisions": dict(decisions),
        "defects": len(findings.defects),
        "defect_list": str(listed),
        "maps": findings.maps,
        "forwarded": findings.forwarded,
        "tiles": findings.tiles,
    }
