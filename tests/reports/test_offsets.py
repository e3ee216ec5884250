"""The offsets of a run in its report."""

from __future__ import annotations

from pathlib import Path

import pytest

from detector.reports.charts import offsets_chart
from detector.reports.offsets import OFFSET_HEADER, offset_rows
from detector.reports.study import OffsetCurve
from detector.runs.curves import read_offsets


@pytest.fixture
def curves(tmp_path: Path) -> dict[str, OffsetCurve]:
    """Of two layers; the first epoch was not measured, "frozen" has no gradient."""
    (tmp_path / "metrics.csv").write_text(
        "epoch,val/AP,offsets/frozen/mean_px,offsets/b.1/mean_px,offsets/b.1/outside,offsets/b.1/gradient_norm\n"
        "1,0.1,,,,\n"
        "2,0.2,0.0,0.5,0.01,0.125\n"
        "3,0.3,0.0,1.25,0.0625,3.0\n"
    )
    return read_offsets(tmp_path)


def test_curves_are_read_from_the_metrics_of_a_run(curves: dict[str, OffsetCurve]) -> None:
    assert curves["b.1"].epochs == (1, 2, 3)
    assert curves["b.1"].statistics["mean_px"] == (None, 0.5, 1.25)
    assert curves["frozen"].statistics.keys() == {"mean_px"}


def test_a_plain_run_has_none(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,val/AP\n1,0.1\n")
    assert read_offsets(tmp_path) == {}


def test_rows_show_the_last_epoch(curves: dict[str, OffsetCurve]) -> None:
    rows = offset_rows(curves)
    assert rows == [
        ("frozen", "0.00", "-", "-", "-", "-", "-"),
        ("b.1", "1.25", "-", "6.2%", "-", "-", "3"),
    ]
    assert {len(row) for row in rows} == {len(OFFSET_HEADER)}


def test_chart_has_a_line_for_each_layer(curves: dict[str, OffsetCurve]) -> None:
    lines = {line["name"]: line["y"] for line in offsets_chart(curves)["series"]}
    assert lines == {"frozen": [None, 0.0, 0.0], "b.1": [None, 0.5, 1.25]}
