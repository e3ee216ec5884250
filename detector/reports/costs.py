"""Tables of the costs of the variants of a comparison."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from detector.reports.study import Condition, Curve, ModelSize


@dataclass(frozen=True)
class CostTable:
    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def cost_tables(condition: Condition) -> list[CostTable]:
    """Return tables of size, and of time and memory, by variant, without what is known of no variant."""
    variants = (condition.baseline, *condition.comparisons)
    sizes, latencies, per_ms = condition.sizes or {}, condition.latencies or {}, ap_per_ms(condition)
    curves = {variant: [*of_variant.values()] for variant, of_variant in (condition.curves or {}).items()}
    size: dict[str, Mapping[str, str]] = {
        name: {variant: show(of_variant) for variant, of_variant in sizes.items()}
        for name, show in _SIZE.items()
    }
    time: dict[str, Mapping[str, str]] = {
        name: {variant: cell for variant, of_variant in curves.items() if (cell := show(of_variant))}
        for name, show in _TRAINING.items()
    }
    devices = {one.device for of_variant in latencies.values() for one in of_variant}
    for batch_size in dict.fromkeys(
        one.batch_size for of_variant in latencies.values() for one in of_variant
    ):
        images = f"{batch_size} image{'s' * (batch_size > 1)} ({', '.join(sorted(devices))})"
        time[f"ms for {images}: p50 / p95"] = {
            variant: f"{one.p50_ms:.1f} / {one.p95_ms:.1f}"
            for variant, of_variant in latencies.items()
            for one in of_variant
            if one.batch_size == batch_size
        }
    time["AP per ms"] = {variant: f"{value:.3g}" for variant, value in per_ms.items()}
    several = any(len(of_variant) > 1 for of_variant in curves.values())
    of = ": means of all seeds, peak of all, latency of the first" if several else ""
    tables = [_table("Size", variants, size), _table(f"Time and memory{of}", variants, time)]
    return [table for table in tables if len(table.header) > 1]


def ap_per_ms(condition: Condition) -> dict[str, float]:
    """Return AP divided by the median time to detect in one image, for the variants that have both."""
    aps: dict[str, float] = {}
    for variant, comparison in condition.comparisons.items():
        if "AP" in comparison.metrics:
            aps.setdefault(condition.baseline, comparison.metrics["AP"].a)
            aps[variant] = comparison.metrics["AP"].b
    alone = {
        variant: one.p50_ms
        for variant, of_variant in (condition.latencies or {}).items()
        for one in of_variant
        if one.batch_size == 1
    }
    return {variant: ap / alone[variant] for variant, ap in aps.items() if variant in alone}


def _table(title: str, variants: Sequence[str], columns: Mapping[str, Mapping[str, str]]) -> CostTable:
    """Build a table without the columns that no variant has."""
    known = {name: cells for name, cells in columns.items() if cells}
    rows = [(variant, *(cells.get(variant, "-") for cells in known.values())) for variant in variants]
    return CostTable(title, ("variant", *known), rows)


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
