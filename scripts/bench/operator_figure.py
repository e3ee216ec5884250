"""The figure that explains deformable convolution: where it samples, and how one sample is made."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle, Wedge

from detector.reports.figures import as_svg, in_style

_CELLS = 11
_CENTER = 5.0
_STEP = 2.0  # dilation: the taps keep apart in the figure
_MIDDLE, _RADIUS = (5.0, 9.8), 5.0  # of the bent bar
_OBJECT, _GRID, _BLUE, _RED = "#dddddd", "#cccccc", "#0072b2", "#d55e00"
_SAMPLE = (0.35, 0.7)  # right and below the upper left pixel of the four


@in_style
def operator_figure() -> str:
    """Three panels as SVG: the taps of a convolution, those of a deformable one, and a bilinear sample."""
    figure = Figure(figsize=(11, 4.2), layout=ConstrainedLayoutEngine(h_pad=0.15))
    regular, deformable, sample = figure.subplots(1, 3)
    homes = [(_CENTER + _STEP * x, _CENTER + _STEP * y) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    _feature_map(regular, "Convolution: 3 x 3 taps around\nthe output position, always the same")
    _taps(regular, homes, color=_BLUE)
    _feature_map(deformable, "Deformable: each tap moves by an offset\npredicted from the features there")
    moved = [_onto_ring(*home) for home in homes]
    for home, tap in zip(homes, moved, strict=True):
        deformable.annotate("", tap, home, arrowprops={"arrowstyle": "->", "color": "#444444", "lw": 1.2})
    _taps(deformable, homes, color=_BLUE, faint=True)
    _taps(deformable, moved, color=_RED)
    _draw_sample(sample)
    return as_svg(figure, grid=False)


def corner_weights(right: float, below: float) -> dict[tuple[int, int], float]:
    """Bilinear weights of the pixels (x, y) around a point, from its distances to the upper left one."""
    return {(x, y): abs(1 - x - right) * abs(1 - y - below) for y in (0, 1) for x in (0, 1)}


def _feature_map(axes: Axes, title: str) -> None:
    """Cells, and an object: a bent bar, which no square of taps fits."""
    axes.add_patch(Wedge(_MIDDLE, _RADIUS + 1.3, 195, 345, width=2.6, facecolor=_OBJECT))
    lines = np.arange(-0.5, _CELLS)
    axes.hlines(lines, -0.5, _CELLS - 0.5, color=_GRID, lw=0.8)
    axes.vlines(lines, -0.5, _CELLS - 0.5, color=_GRID, lw=0.8)
    _finish(axes, title, low=-0.55, high=_CELLS - 0.45)


def _finish(axes: Axes, title: str, *, low: float, high: float) -> None:
    axes.set(xlim=(low, high), ylim=(high, low), aspect="equal")
    axes.axis("off")
    axes.set_title(title, fontsize=11)


def _onto_ring(x: float, y: float) -> tuple[float, float]:
    """A place on the bent bar near a tap's."""
    angle = math.radians(36 * (x - _CENTER) / _STEP)
    radius = _RADIUS - 0.8 * (y - _CENTER) / _STEP
    return _MIDDLE[0] + radius * math.sin(angle), _MIDDLE[1] - radius * math.cos(angle)


def _taps(axes: Axes, places: Sequence[tuple[float, float]], *, color: str, faint: bool = False) -> None:
    x, y = np.array(places).T
    axes.scatter(x, y, s=30, color=color, alpha=0.35 if faint else 1, zorder=3)
    if not faint:
        axes.scatter([_CENTER], [_CENTER], s=130, facecolors="none", edgecolors="black", zorder=4)


def _draw_sample(axes: Axes) -> None:
    right, below = _SAMPLE
    for (x, y), weight in corner_weights(right, below).items():
        axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor="white", edgecolor="#bbbbbb"))
        axes.scatter([x], [y], s=2500 * weight + 8, color=_BLUE, alpha=0.5, linewidths=0)
        axes.text(x, y - 0.34, f"{weight:.3f}", ha="center", va="center")
    axes.scatter([right], [below], s=50, color=_RED, zorder=3)
    axes.annotate("the tap", (right, below), (0.35, 1.3), ha="center", arrowprops={"arrowstyle": "->"})
    _finish(axes, "A tap between pixels is the mean\nof four, weighted by nearness", low=-0.55, high=1.55)
