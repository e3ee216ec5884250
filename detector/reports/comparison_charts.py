"""Charts of a comparison, as columns that the page's script draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detector.evaluation.metrics import MONITORED
from detector.evaluation.statistics import Difference
from detector.reports.study import Condition, Study
from detector.reports.tables import signed

Chart = dict[str, Any]


def differences_chart(conditions: Sequence[Condition]) -> Chart:
    """Plot the AP difference of each variant with its interval, and zero."""
    rows = [
        {
            "name": f"{condition.name}: {variant}" if condition.name else variant,
            "low": round(ap.low, 4),
            "value": round(ap.delta, 4),
            "high": round(ap.high, 4),
            "text": signed(ap.delta),
            "tone": "" if not comparison.is_real else "good" if comparison.is_better else "bad",
        }
        for condition in conditions
        for variant, comparison in condition.comparisons.items()
        for ap in _ap(condition, variant)
    ]
    seeds = {
        comparison.num_seeds for condition in conditions for comparison in condition.comparisons.values()
    }
    mean = f", mean of {' or '.join(map(str, sorted(seeds)))} seeds" if max(seeds, default=1) > 1 else ""
    return {
        "type": "forest",
        "rows": rows,
        "label": f"difference in {_metric(conditions)}{mean}, 95 % interval",
    }


def curves_chart(condition: Condition) -> Chart | None:
    """Plot validation AP against images seen, each run thin, a variant's mean thick; None without runs."""
    if not condition.curves:
        return None
    series = []
    for number, (variant, by_seed) in enumerate(condition.curves.items()):
        by_images: dict[int, list[float]] = {}
        for curve in by_seed.values():
            known = [(n, ap) for n, ap in zip(curve.images_seen, curve.ap, strict=True) if ap is not None]
            if len(by_seed) > 1:
                run = {"name": variant, "color": number, "width": 0.8, "opacity": 0.6, "quiet": True}
                series.append({**run, **_xy(known)})
            for images, ap in known:
                by_images.setdefault(images, []).append(ap)
        mean = sorted((images, sum(aps) / len(aps)) for images, aps in by_images.items())
        series.append({"name": variant, "color": number, "width": 2.4, "dots": True, **_xy(mean)})
    x, y = (
        {"label": "images seen", "min": 0},
        {"label": f"{condition.metric} on the validation images", "min": 0},
    )
    return {"type": "lines", "x": x, "y": y, "series": series}


def conditions_chart(study: Study) -> Chart | None:
    """Plot AP of each variant by condition, with the interval of its difference; None if there is one."""
    if len(study.conditions) < 2:
        return None
    place = {condition.name: number for number, condition in enumerate(study.conditions)}
    first = [(place[p.name], ap.a) for p in study.conditions for ap in _ap(p, next(iter(p.comparisons)))]
    series = [{"name": study.conditions[0].baseline, "color": 0, "dots": True, **_xy(first)}]
    variants = dict.fromkeys(variant for condition in study.conditions for variant in condition.comparisons)
    for number, variant in enumerate(variants, start=1):
        rows = [
            (place[p.name], ap.b, (ap.high - ap.low) / 2) for p in study.conditions for ap in _ap(p, variant)
        ]
        bars = {
            "low": [round(value - half, 4) for _, value, half in rows],
            "high": [round(value + half, 4) for _, value, half in rows],
        }
        values = _xy([row[:2] for row in rows])
        series.append({"name": variant, "color": number, "dots": True, **values, **bars})
    x = {
        "label": study.name,
        "min": -0.3,
        "max": len(place) - 0.7,
        "ticks": [*place.values()],
        "names": [*place],
    }
    return {"type": "lines", "x": x, "y": {"label": _metric(study.conditions)}, "series": series}


def _xy(points: Sequence[tuple[int, float]]) -> dict[str, list[Any]]:
    return {"x": [x for x, _ in points], "y": [round(y, 5) for _, y in points]}


def _ap(condition: Condition, variant: str) -> list[Difference]:
    """Return the difference that decides, if any: a variant may have failed, a condition have no object."""
    comparison = condition.comparisons.get(variant)
    return [comparison.decisive] if comparison and comparison.decisive else []


def _metric(conditions: Sequence[Condition]) -> str:
    return next((condition.metric for condition in conditions), MONITORED.name)
