"""A cheap first stage: passes tiles of a strip that are clearly qualified, so that the network judges only the rest.

Some numbers of a tile - how uneven it is at three scales, as a whole, along and across, and at its worst place - and a
small network of one hidden layer that turns them into a score. It is fitted on labelled tiles; its threshold is set on
tiles of images that it was not fitted on, at a wanted share of defects that may be missed, and what it misses is
counted on images that neither has seen. Without torch, some two nanoseconds a pixel. All numbers are relative to a
tile's own mean, for brightness carries no class.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from steelshift.data.cache import crop_pixels
from steelshift.data.decode import Decoded, Unreadable, decode, read_bytes
from steelshift.data.table import Place, list_places, load_classes
from steelshift.data.tiles import QUALIFIED
from steelshift.errors import ArtifactRefused, DataError, UsageError
from steelshift.files import keep_inputs, write_json
from steelshift.inspection.specification import Specification
from steelshift.progress import Advance, note

SCHEMA = 1
CELL = 4
"""Pixels along the smallest cell; sides of tiles are multiples of it."""
LEAST_SIDE = 32
DARK = 8.0
"""Grey levels added to a tile's mean, so that the noise of a dark one is not blown up."""
HIDDEN = 64
ROUNDS = 80
"""Passes over the tiles that it is fitted on."""
LEAST = 20
"""Defective tiles, and qualified ones, that each part of the data must have."""
PARTS = ("fit", "threshold", "judge")
_AT_ONCE = 8


@dataclass(frozen=True)
class FirstStage:
    """What its file holds. Scores are log-odds of a defect, as of balanced classes."""

    tile: int
    """Side in pixels of the tiles that it was fitted on; it knows no others."""
    threshold: float
    """Tiles that score less are passed."""
    miss: float
    """Share of defective tiles that it was allowed to pass."""
    measured: dict[str, Any]
    """On images that neither the fit nor the threshold has seen: rates of missed defects and of tiles forwarded."""
    centre: list[float]
    """What each number is lessened by, and then divided by."""
    spread: list[float]
    weights: list[list[list[float]]]
    biases: list[list[float]]
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        arrays = [np.array(values, np.float32) for values in (self.centre, self.spread, *self.weights, *self.biases)]
        centre, spread, first, second, hidden, last = arrays
        if (centre.shape, second.shape, last.shape) != (spread.shape, (len(hidden), 1), (1,)) or first.shape != (
            len(statistics(np.zeros((1, LEAST_SIDE, LEAST_SIDE), np.uint8))[0]), len(hidden),
        ):  # fmt: skip
            raise ValueError("its numbers do not fit together")
        if not all(np.isfinite(values).all() for values in arrays) or not (spread > 0).all():
            raise ValueError("it holds numbers that are none")
        object.__setattr__(self, "_arrays", arrays)

    def scores(self, band: np.ndarray, starts: Sequence[int]) -> np.ndarray:
        """Of the tiles of a band as high as they are, uint8 (tile, W, C), that begin at `starts`: float32 (tiles,)."""
        grey = band[..., band.shape[2] // 2]  # green of colour
        tiles = [grey[:, x : x + self.tile] for x in starts]
        return np.concatenate(
            [self.score(np.stack(tiles[at : at + _AT_ONCE])) for at in range(0, len(tiles), _AT_ONCE)]
        )

    def score(self, tiles: np.ndarray) -> np.ndarray:
        """uint8 (B, tile, tile) -> float32 (B,)."""
        centre, spread, first, second, hidden, last = self._arrays
        values = (statistics(tiles) - centre) / spread
        return (np.maximum(values @ first + hidden, 0) @ second + last)[:, 0]

    def check(self, tile: int, specification: Specification) -> None:
        """Raises UsageError where it is not for such tiles or such an inspector."""
        if tile != self.tile:
            raise UsageError("first_stage_tile", tile=self.tile, given=tile)
        if QUALIFIED not in specification.classes:
            raise UsageError("first_stage_qualified", classes=", ".join(specification.classes))


def statistics(tiles: np.ndarray) -> np.ndarray:
    """uint8 (B, S, S) -> float32 (B, 42): of cells of 4, 8 and 16 pixels, how much they differ."""
    mean, power = _cells(tiles)
    level = mean.mean((1, 2)) + np.float32(DARK)
    mean /= level[:, None, None]
    within = np.sqrt(np.maximum(power / (level * level)[:, None, None] - mean * mean, 0))
    found = [within.mean((1, 2)), within.max((1, 2)), within.std((1, 2))]
    for _ in range(3):
        change = mean - mean.mean((1, 2), keepdims=True)
        flat = change.reshape(len(change), -1)
        squares = flat * flat
        spread = np.sqrt(squares.mean(1))
        along, across = np.abs(np.diff(change, axis=1)), np.abs(np.diff(change, axis=2))
        rows, columns = change.mean(2), change.mean(1)
        found += [
            spread, flat.max(1), -flat.min(1),
            along.mean((1, 2)), across.mean((1, 2)), along.max((1, 2)), across.max((1, 2)),
            (squares * flat).mean(1) / (spread + 0.01) ** 3, (squares * squares).mean(1) / (spread + 0.01) ** 4,
            rows.std(1), columns.std(1), np.abs(rows).max(1), np.abs(columns).max(1),
        ]  # fmt: skip
        mean = _halved(mean)
    values = np.stack(found, 1)
    return np.sign(values) * np.log1p(30 * np.abs(values))


def _cells(tiles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means over cells of grey levels and of their squares, float32 (B, S / 4, S / 4) each."""

    def down(values: np.ndarray) -> np.ndarray:
        rows = values.reshape(len(values), -1, CELL, values.shape[2])
        total = np.add(rows[:, :, 0], rows[:, :, 1], dtype=np.uint16)
        for row in range(2, CELL):
            total += rows[:, :, row]
        return total

    def across(values: np.ndarray) -> np.ndarray:
        cells = values.reshape(*values.shape[:2], -1, CELL)
        return sum((cells[..., column] for column in range(1, CELL)), start=cells[..., 0])

    half = tiles >> 1  # four squares of those fit into 16 bits
    squares = down(np.multiply(half, half, dtype=np.uint16)).astype(np.float32)
    return across(down(tiles)).astype(np.float32) / CELL**2, across(squares) * np.float32(4 / CELL**2)


def _halved(values: np.ndarray) -> np.ndarray:
    """Means over 2 x 2 of float32 (B, h, w); a last odd row or column is left out, finer scales have seen it."""
    height, width = (side // 2 * 2 for side in values.shape[1:])
    rows = values[:, 0:height:2, :width] + values[:, 1:height:2, :width]
    return (rows[:, :, 0::2] + rows[:, :, 1::2]) * np.float32(0.25)


def fit(
    source: Sequence[Path],
    out: Path,
    *,
    miss: float = 0.005,
    classes: Path | None = None,
    advance: Advance = lambda done: None,
) -> FirstStage:
    """Fit a first stage on labelled tiles and write it.

    source: manifests as `tiles` writes them, or class folders; every tile a square of one size. classes: YAML map that
    says which labels are `qualified`. miss: share of defective tiles that may be passed, above 0 and below 1.
    Raises UsageError, DataError, RunFailed.
    """
    from steelshift.selection.metrics import rate

    if not 0 < miss < 1:
        raise UsageError("option_range", key="miss", value=miss, range="above 0 and below 1")
    keep_inputs(out, source)
    tiles, defective, parts = _read(source, classes, advance)
    for part, name in enumerate(PARTS):
        for kind, right in (("defective", defective), (QUALIFIED, ~defective)):
            count = int((right & (parts == part)).sum())
            if count < LEAST:
                raise DataError("first_stage_few", part=name, kind=kind, count=count, least=LEAST)
    values = np.concatenate([statistics(tiles[at : at + _AT_ONCE]) for at in range(0, len(tiles), _AT_ONCE)])
    fitted = parts == 0
    centre, spread = values[fitted].mean(0), values[fitted].std(0) + 1e-3
    weights, biases = _fit((values[fitted] - centre) / spread, defective[fitted])
    made = FirstStage(
        tiles.shape[1], 0.0, miss, {}, centre.tolist(), spread.tolist(), [w.tolist() for w in weights],
        [b.tolist() for b in biases],
    )  # fmt: skip
    scores = np.concatenate([made.score(tiles[at : at + _AT_ONCE]) for at in range(0, len(tiles), _AT_ONCE)])
    of_defects = np.sort(scores[defective & (parts == 1)])
    threshold = float(of_defects[_allowed(len(of_defects), miss)])
    judged = parts == 2
    measured = {
        "missed": rate(int((scores[judged & defective] < threshold).sum()), int((judged & defective).sum())),
        "qualified_forwarded": rate(
            int((scores[judged & ~defective] >= threshold).sum()), int((judged & ~defective).sum())
        ),
    }
    made = FirstStage(**asdict(made) | {"threshold": threshold, "measured": measured})
    write_json(out, asdict(made))
    return made


def load(path: Path) -> FirstStage:
    """Raises ArtifactRefused."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["schema"] != SCHEMA:
            raise ValueError(f"schema {record['schema']}")
        return FirstStage(**record)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        why = (" ".join(str(error).split()) or type(error).__name__)[:160]
        raise ArtifactRefused("first_stage_broken", path=path, why=why) from error


def _read(source: Sequence[Path], classes: Path | None, advance: Advance) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tiles uint8 (N, S, S), whether each is defective, and its part; tiles of a group are in one part."""
    names = load_classes(classes) if classes else None
    tiles, defective, parts = [], [], []
    last: tuple[Path, Decoded] | None = None
    for done, place in enumerate(list_places(source), start=1):
        advance(done)
        label = place.label
        if names is not None and label is not None:
            label = names.names[names.holders[label]] if label in names.holders else None
        if label is None:
            continue
        try:
            if last is None or last[0] != place.path:
                last = place.path, decode(read_bytes(place.path)[1])
            pixels = crop_pixels(last[1].pixels, place)
        except Unreadable as error:
            note(f"{place.path}: {error}")
            continue
        tiles.append(pixels[..., pixels.shape[2] // 2])  # green of colour
        defective.append(label != QUALIFIED)
        parts.append(_part(place))
    shapes = {tile.shape for tile in tiles}
    if not tiles:
        raise DataError("no_images", where=", ".join(map(str, source)))
    height, width = next(iter(shapes))
    if len(shapes) > 1 or height != width or height < LEAST_SIDE or height % CELL:
        sizes = ", ".join(f"{width} x {height}" for height, width in sorted(shapes)[:3])
        raise DataError("first_stage_sizes", sizes=sizes, least=LEAST_SIDE, cell=CELL)
    return np.stack(tiles), np.array(defective), np.array(parts)


def _part(place: Place) -> int:
    """Half of all groups to fit on, a quarter for the threshold, a quarter to judge by."""
    name = place.group or str(place.path)
    return (0, 0, 1, 2)[hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[0] % 4]


def _allowed(count: int, miss: float) -> int:
    """How many of `count` defects may be passed so that their share elsewhere is at most `miss`, 19 times of 20.

    None may where they are too few to promise that; what is measured then says how near it comes.
    """
    from scipy.stats import beta

    passed = 0
    while passed + 1 < count and beta.ppf(0.95, passed + 2, count - passed - 1) <= miss:
        passed += 1
    return passed


def _fit(values: np.ndarray, defective: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Weights and biases of both layers; defective and qualified tiles count alike, by drawing the rarer ones again."""
    from sklearn.neural_network import MLPClassifier

    rng = np.random.default_rng(0)
    kinds = [np.flatnonzero(defective), np.flatnonzero(~defective)]
    rows = rng.permutation(np.concatenate([np.resize(kind, max(map(len, kinds))) for kind in kinds]))
    network = MLPClassifier((HIDDEN,), alpha=1e-2, batch_size=min(200, len(rows)), random_state=0)
    for _ in range(ROUNDS):
        network.partial_fit(values[rows], defective[rows], classes=[False, True])
        rows = rng.permutation(rows)
    return network.coefs_, network.intercepts_
