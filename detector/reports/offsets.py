"""A table and a figure of the offsets of deformable layers during training."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib import colormaps
from matplotlib.ticker import MaxNLocator

from detector.reports.figures import as_svg, in_style, new_figure
from detector.reports.study import OffsetCurve

_COLUMNS = {
    "mean_px": ("offset, px", "{:.2f}"),
    "effective_dilation": ("dilation, px", "{:.2f}"),
    "outside": ("outside", "{:.1%}"),
    "modulation_mean": ("modulation", "{:.2f}"),
    "modulation_entropy": ("entropy", "{:.2f}"),
    "gradient_norm": ("gradient", "{:.2g}"),
}
OFFSET_HEADER = ("layer", *(title for title, _ in _COLUMNS.values()))


def offset_rows(curves: Mapping[str, OffsetCurve]) -> list[tuple[str, ...]]:
    """Return the last statistics of each layer, in the order of the network."""
    return [
        (
            layer,
            *(_shown(curve.statistics.get(name, (None,))[-1], show) for name, (_, show) in _COLUMNS.items()),
        )
        for layer, curve in curves.items()
    ]


def _shown(value: float | None, show: str) -> str:
    return "-" if value is None else show.format(value)


@in_style
def offsets_figure(curves: Mapping[str, OffsetCurve]) -> str:
    """Plot the mean offset of each layer against epochs, from dark (first layer) to bright (last)."""
    columns = 2
    figure = new_figure(height_in=2.8 + 0.2 * -(-len(curves) // columns))
    axes = figure.subplots()
    for number, (layer, curve) in enumerate(curves.items()):
        known = [
            (epoch, px)
            for epoch, px in zip(curve.epochs, curve.statistics["mean_px"], strict=True)
            if px is not None
        ]
        colour = colormaps["viridis"](0.9 * number / max(1, len(curves) - 1))
        axes.plot(*zip(*known, strict=True), color=colour, marker="o", markersize=3, label=layer)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="epoch", ylabel="mean offset, px")
    axes.set_ylim(bottom=0)
    figure.legend(frameon=False, loc="outside lower center", ncols=columns, fontsize=9)
    return as_svg(figure)
