"""Pictures of a run: SVG for the report, letters and colours left to the reader's browser, and a PNG for a README.

The SVG is written here and not by matplotlib, which has no Chinese letters on many machines and whose colours can't
follow a dark screen. Colours are classes (`k0` to `k6`, Okabe and Ito's palette, set in page.py's style sheet), and
whatever a colour says, a shape or a dash says too.
"""

import base64
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from PIL import Image

WIDTH, HEIGHT = 480, 270
"""Of a chart, in its own units: small, so that the letters stay legible on a phone."""
COLOURS = 7
SHAPES = ("circle", "triangle", "square", "diamond", "plus", "fallen")
_DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 2", "12 4")
_LARGEST_THUMBNAIL = 144  # pixels; keeps a page of 64 of them well under 1 MB
_MOST_POINTS = 1500  # of a map
_MOST_STEPS = 240  # of a curve; more are averaged in groups

# Corners in units of the radius.
_CORNERS = {
    "triangle": ((0, -1.2), (1.1, 0.8), (-1.1, 0.8)),
    "fallen": ((0, 1.2), (1.1, -0.8), (-1.1, -0.8)),
    "square": ((-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)),
    "diamond": ((0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)),
    "plus": (
        *((-0.4, -1.2), (0.4, -1.2), (0.4, -0.4), (1.2, -0.4), (1.2, 0.4), (0.4, 0.4)),
        *((0.4, 1.2), (-0.4, 1.2), (-0.4, 0.4), (-1.2, 0.4), (-1.2, -0.4), (-0.4, -0.4)),
    ),
}


@dataclass(frozen=True)
class Style:
    """How one group of points or one curve looks."""

    colour: int
    shape: str = "circle"
    hollow: bool = False
    faint: bool = False
    dash: str = ""

    @property
    def classes(self) -> str:
        return f"k{self.colour}" + " hollow" * self.hollow + " faint" * self.faint


@dataclass(frozen=True)
class Group:
    """Points of a map that look alike."""

    label: str
    style: Style
    x: Sequence[float]
    y: Sequence[float]


def class_style(index: int, *, faint: bool = False) -> Style:
    """Colour and shape of class `index`; the first 42 differ."""
    return Style(index % COLOURS, SHAPES[index % len(SHAPES)], faint=faint)


def curve_style(index: int) -> Style:
    return Style(index % COLOURS, SHAPES[index % len(SHAPES)], dash=_DASHES[index % len(_DASHES)])


# Images.


def data_uri(image: np.ndarray) -> str:
    """A uint8 image, (S, S) or (S, S, 3), as a small JPEG that needs no file beside the page."""
    picture = Image.fromarray(np.ascontiguousarray(image, dtype=np.uint8))
    picture.thumbnail((_LARGEST_THUMBNAIL, _LARGEST_THUMBNAIL))
    buffer = BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Heat, uint8 (S, S), laid over a grey image: steel where it is cold, red over orange to yellow where it is hot."""
    seen = cv2.multiply(image, cv2.LUT(heat, 1 - _COVER), dtype=cv2.CV_32F)
    return cv2.merge([cv2.add(seen, cv2.LUT(heat, laid), dtype=cv2.CV_8U) for laid in (_COVER * _HOT).T.copy()])


def heat_layer(heat: np.ndarray) -> np.ndarray:
    """What `overlay` lays over an image, by itself: RGBA uint8 (S, S, 4) of heat, uint8 (S, S)."""
    return np.rint(np.concatenate([_HOT, 255 * _COVER], -1)).astype(np.uint8)[heat]


def _hot() -> tuple[np.ndarray, np.ndarray]:
    """Of every level of heat the colour, float32 (256, 3) from 0 to 255, and how much it covers, (256, 1) to 1."""
    heat = np.arange(256) / 255.0
    levels = [0.0, 0.4, 0.7, 1.0]
    colours = np.array([[165, 30, 40], [213, 94, 0], [240, 160, 20], [250, 235, 80]], dtype=np.float64)
    hot = np.stack([np.interp(heat, levels, channel) for channel in colours.T], axis=-1)
    return hot.astype(np.float32), (0.8 * heat**0.8)[:, None].astype(np.float32)


_HOT, _COVER = _hot()


# Marks.


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0").replace("-0.0", "0")


def mark(shape: str, x: float, y: float, radius: float) -> str:
    """Path data of one mark."""
    if shape == "circle":
        r, d = _short(radius), _short(2 * radius)
        return f"M{_short(x - radius)} {_short(y)}a{r} {r} 0 1 0 {d} 0a{r} {r} 0 1 0-{d} 0"
    corners = _CORNERS[shape]
    way = (f"{_short((b[0] - a[0]) * radius)} {_short((b[1] - a[1]) * radius)}" for a, b in pairwise(corners))
    return f"M{_short(x + corners[0][0] * radius)} {_short(y + corners[0][1] * radius)}l{' '.join(way)}z"


def _marks(style: Style, points: Sequence[tuple[float, float]], radius: float) -> str:
    """One path for all marks of a group, so a map of a thousand points stays small."""
    path = "".join(mark(style.shape, x, y, radius) for x, y in points)
    return f'<path class="mark {style.classes}" d="{path}"/>' if path else ""


def legend(entries: Sequence[tuple[str, Style]], *, lines: bool = False) -> str:
    """HTML, not SVG: long names wrap and Chinese ones get the reader's font."""
    items = []
    for label, style in entries:
        dash = f' stroke-dasharray="{style.dash}"' if style.dash else ""
        stroke = f'<path class="curve {style.classes}"{dash} d="M0 7h28"/>' if lines else ""
        middle = 14 if lines else 7
        swatch = (
            f'<svg class="swatch" viewBox="0 0 {2 * middle} 14" width="{2 * middle}" height="14" aria-hidden="true">'
            f"{stroke}{_marks(style, [(middle, 7)], 4)}</svg>"
        )
        items.append(f"<li>{swatch}{escape(label)}</li>")
    return f'<ul class="legend">{"".join(items)}</ul>'


# Charts.


def finite(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and math.isfinite(value)


def bar(share: float, style: Style, line: float | None = None) -> str:
    """A bar from 0 to `share` of the cell's width, with an optional dashed line across it."""
    length = _short(100 * min(max(share, 0.0), 1.0))
    dashed = "" if line is None else f'<path class="reference" d="M{_short(100 * line)} 0v10"/>'
    return (
        f'<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true"><path class="track" '
        f'd="M0 10h100"/><rect class="{style.classes}" x="0" y="1" width="{length}" height="8"/>{dashed}</svg>'
    )


def _ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers from low to high, about `count`."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * power for unit in (1, 2, 2.5, 5, 10) if unit * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 10) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _groups_averaged(values: Sequence[Any], size: int) -> list[float | None]:
    grouped = ([v for v in values[i : i + size] if finite(v)] for i in range(0, len(values), size))
    return [math.fsum(some) / len(some) if some else None for some in grouped]


def line_chart(
    x: Sequence[float],
    curves: Mapping[str, Sequence[float | None]],
    *,
    about: str,
    along: str = "training step",
    low: float | None = 0.0,
    high: float | None = None,
    references: Mapping[str, float] | None = None,
    chosen: float | None = None,
    first_style: int = 0,
) -> str:
    """Curves over what `along` names, several with a legend; gaps where a value is None or not finite.

    `references` are named horizontal lines, `chosen` a step to point out. `low` None fits the axis. Frames that a few
    spikes would flatten end at 1.5 times the 98th percentile; spikes are drawn along the edge.
    """
    if not len(x):
        return ""
    size = max(1, math.ceil(len(x) / _MOST_STEPS))
    start, end = float(x[0]), max(float(x[-1]), float(x[0]) + 1e-9)
    x = [float(v) for v in _groups_averaged(x, size) if v is not None]
    series = {label: _groups_averaged(values, size) for label, values in curves.items()}
    flat = [v for values in series.values() for v in values if v is not None]
    if not flat:
        return ""
    bottom = min(min(flat), low) if low is not None else min(flat)
    top = max(flat) if high is None else high
    if high is None and top > 3 * (usual := float(np.percentile(flat, 98))) > 0:
        top = 1.5 * usual
    if low is None or top <= bottom:
        pad = 0.08 * (top - bottom) or max(abs(top), 1.0) * 0.1
        bottom, top = bottom - pad * (low is None or bottom < low), top + pad
    elif high is None:
        top += 0.06 * (top - bottom)
    left, right, above, below = 44, WIDTH - 12, 12, HEIGHT - 36

    def across(value: float) -> float:
        return left + (right - left) * (value - start) / (end - start)

    def up(value: float) -> float:
        return below - (below - above) * (min(max(value, bottom), top) - bottom) / (top - bottom)

    parts = []
    for tick in _ticks(bottom, top, 5):
        parts.append(f'<path class="grid" d="M{left} {_short(up(tick))}H{right}"/>')
        parts.append(f'<text x="{left - 6}" y="{_short(up(tick) + 4)}" text-anchor="end">{tick:g}</text>')
    for tick in _ticks(start, end, 6):
        parts.append(f'<text x="{_short(across(tick))}" y="{below + 17}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<path class="axis" d="M{left} {below}H{right}"/>')
    parts.append(f'<text class="soft" x="{right}" y="{HEIGHT - 4}" text-anchor="end">{along}</text>')
    references = references or {}
    for value in references.values():
        parts.append(f'<path class="reference" d="M{left} {_short(up(value))}H{right}"/>')
    entries = []
    for number, (label, values) in enumerate(series.items()):
        style = curve_style(first_style + number)
        points = [(across(s), up(v)) if v is not None else None for s, v in zip(x, values, strict=False)]
        dash = f' stroke-dasharray="{style.dash}"' if style.dash else ""
        parts.append(f'<path class="curve {style.classes}"{dash} d="{_curve(points)}"/>')
        every = max(1, len(points) // 7)
        some = [point for point in points[(number * every // 3) % every :: every] if point]
        parts.append(_marks(style, some, 3.6))
        entries.append((label, style))
    for label, value in references.items():
        place = f'x="{right}" y="{_short(up(value) + 15)}" text-anchor="end"'
        parts.append(f'<text class="soft halo" {place}>{escape(label)}</text>')
    if finite(chosen) and start <= chosen <= end:
        place = across(chosen)
        anchor, shift = ("end", -6) if place > WIDTH / 2 else ("start", 6)
        parts.append(f'<path class="chosen" d="M{_short(place)} {above}V{below}"/>')
        parts.append(
            f'<text class="strong halo" x="{_short(place + shift)}" y="{below - 8}" text-anchor="{anchor}">'
            f"chosen: step {chosen:.0f}</text>"
        )
    chart = _svg(WIDTH, HEIGHT, about, "".join(parts))
    return chart + legend(entries, lines=True) if len(entries) > 1 else chart


def _curve(points: Sequence[tuple[float, float] | None]) -> str:
    path, pen = [], "M"
    for point in points:
        if point is None:
            pen = "M"
            continue
        path.append(f"{pen}{_short(point[0])} {_short(point[1])}")
        pen = "L"
    return "".join(path)


def _svg(width: int, height: int, about: str, content: str) -> str:
    return f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(about)}">{content}</svg>'


class _Fit:
    """Both axes on one scale, so that circles stay round; y grows upwards."""

    def __init__(self, x: Sequence[float], y: Sequence[float], width: int, height: int, margin: int) -> None:
        self.middle = ((min(x) + max(x)) / 2, (min(y) + max(y)) / 2)
        spans = ((max(x) - min(x)) / (width - 2 * margin), (max(y) - min(y)) / (height - 2 * margin))
        self.scale = 1 / (max(spans) or 1.0)
        self.centre = (width / 2, height / 2)

    def __call__(self, x: float, y: float) -> tuple[float, float]:
        return (
            self.centre[0] + (x - self.middle[0]) * self.scale,
            self.centre[1] - (y - self.middle[1]) * self.scale,
        )


def scatter(groups: Sequence[Group], *, about: str) -> str:
    """A map without axes. Of very many points every second, third ... is drawn."""
    size, margin = 440, 14
    total = sum(len(group.x) for group in groups)
    if not total:
        return ""
    every = math.ceil(total / _MOST_POINTS)
    fit = _Fit([v for g in groups for v in g.x], [v for g in groups for v in g.y], size, size, margin)
    radius = 3.6 if total > 300 else 4.5
    drawn = (_marks(g.style, [fit(*p) for p in zip(g.x, g.y, strict=True)][::every], radius) for g in groups)
    return _svg(
        size, size, about, f'<path class="frame" d="M.5.5h{size - 1}v{size - 1}h-{size - 1}z"/>' + "".join(drawn)
    )


def triplets(embedded: Mapping[str, Any], *, about: str) -> str:
    """The patent's figure 3: X, X+, X- of some triplets and the new samples between X and X-, larger with lambda."""
    width, height = WIDTH, 380
    background = embedded.get("background") or {"x": [], "y": [], "class": []}
    some = list(embedded.get("triplets") or [])[:6]
    if not some:
        return ""
    corners = [p for t in some for p in (t["x"], t["positive"], t["negative"], *t["new"])]
    x, y = [*background["x"], *(p[0] for p in corners)], [*background["y"], *(p[1] for p in corners)]
    fit = _Fit(x, y, width, height, 26)
    parts = [f'<path class="frame" d="M.5.5h{width - 1}v{height - 1}h-{width - 1}z"/>']
    for index in sorted(set(background["class"])):
        places = zip(background["x"], background["y"], background["class"], strict=True)
        points = [fit(a, b) for a, b, c in places if c == index]
        parts.append(_marks(class_style(index, faint=True), points, 3))
    for triplet in some:
        parts.extend(_triplet(triplet, fit))
    return _svg(width, height, about, "".join(parts))


def _triplet(triplet: Mapping[str, Any], fit: _Fit) -> Iterator[str]:
    anchor, positive, negative = (fit(*triplet[key]) for key in ("x", "positive", "negative"))
    own, other = class_style(triplet["class"]), class_style(triplet["negative_class"])
    yield f'<path class="towards" d="{_curve([anchor, negative])}"/>'
    yield f'<path class="same" d="{_curve([anchor, positive])}"/>'
    yield _marks(own, [anchor, positive], 6).replace('class="mark', 'class="mark outlined')
    yield _marks(other, [negative], 6).replace('class="mark', 'class="mark outlined')
    for number, place in enumerate(triplet["new"]):
        yield _marks(Style(other.colour, other.shape, hollow=True), [fit(*place)], 3 + 1.2 * number)
    middle = [(anchor[i] + negative[i]) / 2 for i in (0, 1)]
    for name, (a, b) in (("X", anchor), ("X⁺", positive), ("X⁻", negative)):
        away = 1 if a >= middle[0] else -1  # outside of the line, where the new samples aren't
        side = "start" if away > 0 else "end"
        where = f'x="{_short(a + 10 * away)}" y="{_short(b - 6)}" text-anchor="{side}"'
        yield f'<text class="strong halo" {where}>{name}</text>'


# The README's picture.


def before_after(report: Mapping[str, Any], thumbnails: Mapping[str, np.ndarray]) -> bytes:
    """A PNG of 1200 x 520: images of both lines, the maps before and after, and what it gained where labels told."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    target, maps = report.get("target") or {}, report.get("map") or {}
    figure = Figure(figsize=(12, 5.2), dpi=100, facecolor="white", layout=None)
    ink, soft, blue, red = "#1b2530", "#5a6672", "#0072B2", "#D55E00"
    figure.text(0.022, 0.915, "What the cameras see", fontsize=14, fontweight="bold", color=ink)
    strips = (("source", "source line, labelled", blue, 0.52), ("target", "target line, no labels", red, 0.115))
    for line, title, colour, bottom in strips:
        figure.text(0.022, bottom + 0.325, title, fontsize=11.5, color=colour, fontweight="bold")
        images = thumbnails.get(line)
        chosen = [] if images is None else _spread(images, thumbnails.get(_GROUPED[line]), 6)
        for number, image in enumerate(chosen):
            axes = figure.add_axes((0.022 + 0.0712 * (number % 3), bottom + 0.16 * (1 - number // 3), 0.067, 0.1547))
            axes.imshow(image, cmap="gray", vmin=0, vmax=255)
            axes.set_axis_off()
    bars = [(k, n, target[k]) for k, n in _JUDGED if finite(target.get(k))]
    side, gap = (0.265, 0.012) if bars else (0.35, 0.02)
    for number, (key, title) in enumerate((("before", "Features before"), ("after", "Features after"))):
        left = 0.262 + number * (side + gap)
        figure.text(left, 0.915, title, fontsize=14, fontweight="bold", color=ink)
        axes = figure.add_axes((left, 0.115, side, 0.76), xticks=[], yticks=[], facecolor="#f6f8fa")
        for spine in axes.spines.values():
            spine.set_color("#d5dce3")
        points = maps.get(key) or {"x": [], "y": [], "line": []}
        shared = [part != "private" for part in points.get("part") or ["shared"] * len(points["x"])]
        for line, shape, colour in (("source", "o", blue), ("target", "^", red)):
            mask = [a == line and b for a, b in zip(points["line"], shared, strict=True)]
            axes.scatter(
                np.asarray(points["x"])[mask], np.asarray(points["y"])[mask],
                s=15, marker=shape, c=colour, alpha=0.7, linewidths=0, label=line,
            )  # fmt: skip
    figure.text(
        0.262, 0.045, "●  source", color=blue, fontsize=11, fontweight="bold", family="DejaVu Sans",
    )  # fmt: skip
    figure.text(0.335, 0.045, "▲  target", color=red, fontsize=11, fontweight="bold", family="DejaVu Sans")
    figure.text(0.408, 0.045, "each point an image (t-SNE): mixed is good", color=soft, fontsize=10.5)
    if bars:
        figure.text(0.835, 0.915, "Target accuracy", fontsize=14, fontweight="bold", color=ink)
        axes = figure.add_axes((0.835, 0.115, 0.145, 0.76))
        faces = {"source_only": "#9aa5b0", "selected": blue, "oracle": "white"}
        for place, (key, _, value) in enumerate(bars):
            edge = "#9aa5b0" if key == "source_only" else blue
            axes.bar(place, value, width=0.68, color=faces[key], edgecolor=edge, linewidth=1.6)
            axes.text(
                place, value + 0.015, f"{100 * value:.0f} %", ha="center", fontsize=12, fontweight="bold", color=ink
            )
        axes.set(ylim=(0, 1.08), xlim=(-0.5, len(bars) - 0.5), yticks=[], xticks=range(len(bars)))
        axes.set_xticklabels([name for _, name, _ in bars], fontsize=9.5, color=ink, linespacing=1.25)
        axes.tick_params(length=0, pad=6)
        for edge, spine in axes.spines.items():
            spine.set_visible(edge == "bottom")
            spine.set_color("#9aa5b0")
    buffer = BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


_GROUPED = {"source": "source_class", "target": "target_predicted"}
_JUDGED = (("source_only", "source\nonly"), ("selected", "adapted"), ("oracle", "target\nlabels"))


def _spread(images: np.ndarray, groups: np.ndarray | None, count: int) -> list[np.ndarray]:
    """Images of as many classes as there are, first ones first."""
    order = list(range(len(images)))
    if groups is not None:
        seen: dict[int, int] = {}
        turn = []
        for index in order:
            turn.append(seen.get(int(groups[index]), 0))
            seen[int(groups[index])] = turn[-1] + 1
        order.sort(key=lambda index: turn[index])
    return [images[index] for index in order[:count]]
