"""Pictures of many tasks: how related they are, where their images lie in feature space, how rough their losses are.

Each returns the bytes of an svg; letters as in `ranks`. What a colour says, a number or a shape says too.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from steelshift.report.ranks import lettered, rendered

_INK, _SOFT = "#1b2530", "#5a6672"
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#1b2530")
_MARKS = ("o", "^", "s", "D", "P", "v")


def draw_relatedness(
    names: Sequence[str], relatedness: np.ndarray, groups: Sequence[Sequence[int]], about: str
) -> bytes:
    """A matrix of relatedness (T, T) in [-1, 1], NaN where it wasn't measured, rows in the order of the groups, which
    are framed."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    order = [task for group in groups for task in group]
    values = np.asarray(relatedness, dtype=float)[np.ix_(order, order)]
    side = max(3.2, 0.62 * len(order))
    with lettered("".join(names) + about):
        figure = Figure(figsize=(side + 2.4, side + 1.9), dpi=144, facecolor="white", layout="constrained")
        axes = figure.add_subplot()
        shown = axes.imshow(np.ma.masked_invalid(values), cmap="PuOr_r", vmin=-1, vmax=1)
        for row, column in np.ndindex(*values.shape):
            value = values[row, column]
            text, dark = ("?", False) if np.isnan(value) else (f"{value:.2f}", abs(value) > 0.65)
            colour = "white" if dark else _INK
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
        start = 0
        for group in groups:
            frame = Rectangle((start - 0.5, start - 0.5), len(group), len(group), fill=False, color=_INK, linewidth=2.5)
            axes.add_patch(frame)
            start += len(group)
        labels = [names[task] for task in order]
        axes.set_xticks(range(len(order)), labels, rotation=40, ha="right", fontsize=9, color=_INK, parse_math=False)
        axes.set_yticks(range(len(order)), labels, fontsize=9, color=_INK, parse_math=False)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        bar = figure.colorbar(shown, ax=axes, shrink=0.7)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=8, colors=_SOFT)
        axes.set_title(about, fontsize=9, color=_SOFT, parse_math=False)
        return rendered(figure, "svg")


def draw_maps(maps: Mapping[str, tuple[np.ndarray, np.ndarray]], names: Sequence[str], about: str) -> bytes:
    """Maps side by side, each of places (n, 2) and of what each point is, an index into `names`."""
    from matplotlib.figure import Figure

    with lettered("".join([*names, *maps, about])):
        figure = Figure(figsize=(4.2 * len(maps), 5.2), dpi=144, facecolor="white", layout="constrained")
        for number, (title, (places, labels)) in enumerate(maps.items(), start=1):
            axes = figure.add_subplot(1, len(maps), number, xticks=[], yticks=[], facecolor="#f6f8fa", aspect="equal")
            for label, name in enumerate(names):
                points = places[labels == label]
                style = {"c": _COLOURS[label % len(_COLOURS)], "marker": _MARKS[label % len(_MARKS)]}
                axes.scatter(points[:, 0], points[:, 1], s=16, alpha=0.75, linewidths=0, label=name, **style)
            axes.set_title(title, fontsize=11, color=_INK, parse_math=False)
            axes.spines[:].set_color("#d5dce3")
        handles, labels = axes.get_legend_handles_labels()
        legend = figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
        for text in legend.get_texts():
            text.set_parse_math(False)
        figure.suptitle(about, fontsize=9, color=_SOFT, parse_math=False)
        return rendered(figure, "svg")


def draw_surfaces(surfaces: Mapping[str, np.ndarray], rough: Mapping[str, float], about: str) -> bytes:
    """Loss surfaces (n, n) side by side as level lines, as many points between any two, with their roughness."""
    from matplotlib.colors import BoundaryNorm
    from matplotlib.figure import Figure

    with lettered("".join([*surfaces, about])):
        figure = Figure(figsize=(3.4 * len(surfaces), 4.0), dpi=144, facecolor="white", layout="constrained")
        for number, (name, surface) in enumerate(surfaces.items(), start=1):
            axes = figure.add_subplot(1, len(surfaces), number, xticks=[], yticks=[], aspect="equal")
            low, high = float(surface.min()), float(surface.max())
            # As many points between any two lines, and a shade each: by the loss itself a steep rim leaves one colour.
            levels = np.unique(np.quantile(surface, np.linspace(0, 1, 16)))
            levels = levels if len(levels) > 1 else np.array([low, low + 1])
            axis = np.linspace(-1, 1, len(surface))
            axes.contourf(axis, axis, surface, levels=levels, cmap="cividis", norm=BoundaryNorm(levels, 256))
            axes.contour(axis, axis, surface, levels=levels, colors="white", linewidths=0.5)
            axes.plot([0], [0], marker="+", color="white", markersize=11, markeredgewidth=2)
            title = f"{name}\nroughness {rough[name]:.3f}, loss {low:.3g} to {high:.3g}"
            axes.set_title(title, fontsize=9, color=_INK, parse_math=False)
        figure.suptitle(about, fontsize=9, color=_SOFT, parse_math=False)
        return rendered(figure, "svg")
