"""A table of the offsets of deformable layers at the end of training."""

from __future__ import annotations

from collections.abc import Mapping

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
