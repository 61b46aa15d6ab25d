"""The critical-difference diagram of Demšar (2006): mean ranks on a line, bars join what cannot be told apart."""

import logging
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Any
from warnings import catch_warnings

import numpy as np

FORMATS = ("png", "svg")
_SIZE, _SMALL = 11, 9  # of letters, in points, as all lengths here
_ROW, _LEVEL, _MARGIN = 20, 8, 14
_INK, _SOFT, _BAR = "#1b2530", "#5a6672", "#0072B2"


def draw_ranks(
    names: Sequence[str], ranks: Sequence[float], width: float, groups: Sequence[Sequence[int]], about: str, kind: str
) -> bytes:
    """A picture of kind png or svg: best on the left, `width` the critical difference, `groups` what bars join.

    Letters of a png are those of `font_for`; letters of an svg are the reader's.
    """
    from matplotlib.figure import Figure

    order = [int(place) for place in np.argsort(ranks, kind="stable")]
    half = (len(order) + 1) // 2
    shown = {place: f"{names[place]}  {ranks[place]:.2f}" for place in order}
    left, right = (max(map(_length, (shown[p] for p in side))) + 18 for side in (order[:half], order[half:]))
    line = max(260, 26 * (len(names) - 1))
    whole = max(left + line + right, _length(about) * _SMALL / _SIZE) + 2 * _MARGIN
    start = _MARGIN + left + (whole - 2 * _MARGIN - left - line - right) / 2

    def across(rank: float) -> float:
        return start + line * (rank - 1) / (len(names) - 1)

    levels = _levels([(min(ranks[p] for p in group), max(ranks[p] for p in group)) for group in groups])
    axis = 62
    first = axis + 10 + _LEVEL * (max((level for *_, level in levels), default=0) + 1) + 14
    height = first + _ROW * half + 20
    with lettered("".join(names)):
        figure = Figure(figsize=(whole / 72, height / 72), dpi=144, facecolor="white")
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, whole), ylim=(height, 0))
        axes.set_axis_off()

        def stroke(xs: Sequence[float], ys: Sequence[float], colour: str = _INK, thick: float = 1) -> None:
            axes.plot(xs, ys, color=colour, linewidth=thick, solid_capstyle="butt", solid_joinstyle="miter")

        def write(x: float, y: float, text: str, side: str, size: float = _SIZE, colour: str = _INK) -> None:
            axes.text(x, y, text, ha=side, va="center", fontsize=size, color=colour, parse_math=False)

        stroke([across(1), across(1 + width)], [20, 20], thick=2)
        for end in (1, 1 + width):
            stroke([across(end)] * 2, [16, 24])
        write(across(1 + width) + 8, 20, f"critical difference {width:.2f}", "left", _SMALL)
        stroke([across(1), across(len(names))], [axis, axis])
        for rank in range(1, len(names) + 1):
            stroke([across(rank)] * 2, [axis - 5, axis])
            write(across(rank), axis - 13, str(rank), "center", _SMALL, _SOFT)
        for number, place in enumerate(order):
            best = number < half
            y = first + _ROW * (number if best else len(order) - 1 - number)
            edge, side = (start - 12, "right") if best else (start + line + 12, "left")
            stroke([across(ranks[place])] * 2 + [edge], [axis, y, y], _SOFT)
            write(edge + (-4 if best else 4), y, shown[place], side)
        for low, high, level in levels:
            y = axis + 10 + _LEVEL * level
            stroke([across(low) - 3, across(high) + 3], [y, y], _BAR, 4)
        write(whole / 2, height - 14, about, "center", _SMALL, _SOFT)
        return rendered(figure, kind)


@contextmanager
def lettered(text: str) -> Iterator[None]:
    """Draw with fonts that have these letters; an svg keeps letters as text, and equal figures as equal bytes."""
    from matplotlib import rc_context

    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # it reports fonts of another weight
    families = ["DejaVu Sans", *filter(None, [font_for(text)]), "sans-serif"]
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "steelshift", "font.family": families}):
        yield


def rendered(figure: Any, kind: str) -> bytes:
    """A matplotlib figure as a png or an svg, inside of `lettered`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = BytesIO()
    if kind == "svg":
        with catch_warnings(category=UserWarning, action="ignore"):  # letters that only the reader may have
            FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    else:
        FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def font_for(text: str) -> str | None:
    """A font of this machine for the letters that DejaVu Sans lacks: None where it lacks none, or none has them."""
    from matplotlib.font_manager import fontManager, get_font

    lacking = letters_lacking(text)
    for font in fontManager.ttflist if lacking else ():
        if font.style != "normal" or font.name.startswith("Last Resort"):  # that one shows boxes for all letters
            continue
        if all(map(get_font(font.fname).get_char_index, map(ord, lacking))):
            return font.name
    return None


def letters_lacking(text: str) -> str:
    """Letters that DejaVu Sans, which comes with matplotlib, does not have."""
    from matplotlib.font_manager import findfont, get_font

    font = get_font(findfont("DejaVu Sans"))
    return "".join(sorted({letter for letter in text if not font.get_char_index(ord(letter))}))


def _length(text: str) -> float:
    """Of a text, in points: Chinese letters are counted, for the reader's font may be another."""
    from matplotlib.textpath import TextPath

    wide = [letter for letter in text if unicodedata.east_asian_width(letter) in "WF"]
    rest = "".join(letter for letter in text if letter not in wide).replace("$", r"\$")  # no formulas
    return len(wide) * _SIZE + (TextPath((0, 0), rest, size=_SIZE).get_extents().width if rest else 0)


def _levels(bars: Sequence[tuple[float, float]]) -> list[tuple[float, float, int]]:
    """Bars with the level, counted from the line downwards, at which none touches another."""
    ends: list[float] = []
    found = []
    for low, high in sorted(bars):
        level = next((level for level, end in enumerate(ends) if end < low), len(ends))
        ends[level : level + 1] = [high]
        found.append((low, high, level))
    return found
