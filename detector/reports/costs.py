"""Tables of the costs of the arms of a comparison."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from detector.reports.study import Curve, ModelSize, Point


@dataclass(frozen=True)
class CostTable:
    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def cost_tables(point: Point) -> list[CostTable]:
    """Return tables of size, and of time and memory, by arm, without what is known of no arm."""
    arms = (point.baseline, *point.comparisons)
    sizes, latencies, per_ms = point.sizes or {}, point.latencies or {}, ap_per_ms(point)
    curves = {arm: [*of_arm.values()] for arm, of_arm in (point.curves or {}).items()}
    size: dict[str, Mapping[str, str]] = {
        name: {arm: show(of_arm) for arm, of_arm in sizes.items()} for name, show in _SIZE.items()
    }
    time: dict[str, Mapping[str, str]] = {
        name: {arm: cell for arm, of_arm in curves.items() if (cell := show(of_arm))}
        for name, show in _TRAINING.items()
    }
    devices = {one.device for of_arm in latencies.values() for one in of_arm}
    for batch_size in dict.fromkeys(one.batch_size for of_arm in latencies.values() for one in of_arm):
        images = f"{batch_size} image{'s' * (batch_size > 1)} ({', '.join(sorted(devices))})"
        time[f"ms for {images}: p50 / p95"] = {
            arm: f"{one.p50_ms:.1f} / {one.p95_ms:.1f}"
            for arm, of_arm in latencies.items()
            for one in of_arm
            if one.batch_size == batch_size
        }
    time["AP per ms"] = {arm: f"{value:.3g}" for arm, value in per_ms.items()}
    several = any(len(of_arm) > 1 for of_arm in curves.values())
    of = ": means of all seeds, peak of all, latency of the first" if several else ""
    tables = [_table("Size", arms, size), _table(f"Time and memory{of}", arms, time)]
    return [table for table in tables if len(table.header) > 1]


def ap_per_ms(point: Point) -> dict[str, float]:
    """Return AP divided by the median time to detect in one image, for the arms that have both."""
    aps: dict[str, float] = {}
    for arm, found in point.comparisons.items():
        if "AP" in found.metrics:
            aps.setdefault(point.baseline, found.metrics["AP"].a)
            aps[arm] = found.metrics["AP"].b
    alone = {
        arm: one.p50_ms
        for arm, of_arm in (point.latencies or {}).items()
        for one in of_arm
        if one.batch_size == 1
    }
    return {arm: ap / alone[arm] for arm, ap in aps.items() if arm in alone}


def _table(title: str, arms: Sequence[str], columns: Mapping[str, Mapping[str, str]]) -> CostTable:
    """Build a table without the columns that no arm has."""
    known = {name: cells for name, cells in columns.items() if cells}
    rows = [(arm, *(cells.get(arm, "-") for cells in known.values())) for arm in arms]
    return CostTable(title, ("arm", *known), rows)


def _peak(curves: Sequence[Curve]) -> str:
    known = [mb for curve in curves for mb in curve.peak_memory_mb if mb is not None]
    return f"{max(known):.0f}" if known else ""


def _mean(values: Sequence[float]) -> str:
    return f"{mean(values):.1f}" if values else ""


_SIZE: dict[str, Callable[[ModelSize], str]] = {
    "parameters": lambda size: f"{size.parameters / 1e6:.2f} M",
    "GFLOP an image": lambda size: f"{(size.matrix_flops + size.sampling_flops) / 1e9:.2f}",
    "of it sampling": lambda size: f"{size.sampling_flops / 1e9:.2f}",
    "MB of activations": lambda size: f"{size.activation_bytes / 1e6:.1f}",
}
_TRAINING: dict[str, Callable[[Sequence[Curve]], str]] = {
    "seconds an epoch": lambda curves: _mean([s for curve in curves for s in curve.seconds]),
    "images a second": lambda curves: _mean([n for curve in curves for n in curve.images_per_second]),
    "peak MB": _peak,
}
