"""Tables of what variants cost, and AP by time, against values computed by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from detector.evaluation.statistics import Comparison, Difference
from detector.profiling.latency import Latency
from detector.reports.costs import ap_per_ms, cost_tables
from detector.reports.study import Condition, Curve, ModelSize


def comparison(a: float, b: float) -> Comparison:
    ap = Difference(a, b, b - a, 0.0, 0.0, 1.0, 0.0, 0.0)
    return Comparison({"AP": ap}, {}, 1, (b - a,), 1.0, None, 10, identical=False)


def curve(seconds: float, *, peak_mb: float | None) -> Curve:
    return Curve((1, 2), (0.1, 0.2), (seconds, seconds), (20.0, 20.0), (4000, 8000), (None, peak_mb))


CONDITION = Condition(
    name="",
    baseline="plain",
    comparisons={"bent": comparison(0.4, 0.5), "other": comparison(0.4, 0.3)},
    curves={
        "plain": {0: curve(3.0, peak_mb=700.0), 1: curve(5.0, peak_mb=900.4)},
        "bent": {0: curve(6.0, peak_mb=None)},
    },
    sizes={"plain": ModelSize(2_000_000, 3 * 10**9, 0, 7_000_000)},
    latencies={
        "plain": [Latency("cpu", 1, 8.0, 9.0, 100), Latency("cpu", 32, 64.0, 80.0, 10)],
        "bent": [Latency("cpu", 1, 20.0, 21.0, 100), Latency("cpu", 32, 128.0, 160.0, 10)],
    },
)


def test_every_cost_has_its_column_and_what_is_not_known_a_dash() -> None:
    size, time = cost_tables(CONDITION)
    assert size.title == "Size"
    assert time.title == "Time and memory: means of all seeds, peak of all, latency of the first"
    assert dict(zip(size.header, zip(*size.rows, strict=True), strict=True)) == {
        "variant": ("plain", "bent", "other"),
        "parameters": ("2.00 M", "-", "-"),
        "GFLOP an image": ("3.00", "-", "-"),
        "of it sampling": ("0.00", "-", "-"),
        "MB of activations": ("7.0", "-", "-"),
    }
    assert dict(zip(time.header, zip(*time.rows, strict=True), strict=True)) == {
        "variant": ("plain", "bent", "other"),
        "seconds an epoch": ("4.0", "6.0", "-"),
        "images a second": ("20.0", "20.0", "-"),
        "peak MB": ("900", "-", "-"),
        "ms for 1 image (cpu): p50 / p95": ("8.0 / 9.0", "20.0 / 21.0", "-"),
        "ms for 32 images (cpu): p50 / p95": ("64.0 / 80.0", "128.0 / 160.0", "-"),
        "AP per ms": ("0.05", "0.025", "-"),
    }


def test_columns_and_tables_of_which_nothing_is_known_are_left_out() -> None:
    (time,) = cost_tables(replace(CONDITION, sizes=None, latencies=None))
    assert time.header == ("variant", "seconds an epoch", "images a second", "peak MB")
    assert cost_tables(replace(CONDITION, sizes=None, latencies=None, curves=None)) == []


def test_ap_is_by_the_median_time_of_one_image() -> None:
    assert ap_per_ms(CONDITION) == pytest.approx({"plain": 0.4 / 8, "bent": 0.5 / 20})
    without_ap = {"bent": replace(CONDITION.comparisons["bent"], metrics={})}
    assert ap_per_ms(replace(CONDITION, comparisons=without_ap)) == {}
