"""The figure of docs/deformable.md, and its table of errors."""

from __future__ import annotations

import re
from pathlib import Path

import bench.numerics as benchmark_numerics
import pytest
from bench.operator_figure import corner_weights, operator_figure

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_figure_in_the_documentation_says_what_is_drawn() -> None:
    """Its lines differ by the version of matplotlib."""
    kept, drawn = (DOCS / "images" / "deformable.svg").read_text(encoding="utf-8"), operator_figure()
    assert labels(kept) == labels(drawn)
    assert {"0.455", "the tap"} <= set(labels(drawn))


def labels(svg: str) -> list[str]:
    return re.findall(r">([^<>]*)</text>", svg)


def test_a_sample_weighs_the_nearest_pixel_most() -> None:
    weights = corner_weights(0.35, 0.7)
    assert sum(weights.values()) == pytest.approx(1)
    assert weights[0, 1] == pytest.approx(0.65 * 0.7) == max(weights.values())


def test_errors_are_those_of_the_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark_numerics, "_SHAPE", (1, 4, 5, 168))
    monkeypatch.setattr(benchmark_numerics, "get_args", lambda _: ("gather", "auto"))
    _, _, *rows = benchmark_numerics.numerics_table("cpu").splitlines()
    errors = {tuple(row.split(" | ")[:2]): row.rstrip(" |").split(" | ")[2:] for row in rows}
    assert len(errors) == 6
    for (name, dtype), measured in errors.items():
        if "gather" in name:
            limit = {"float32": 1e-6, "bfloat16": 5e-3, "float16": 1e-3}[dtype]
            assert all(1e-9 < float(error) < limit for error in measured), (name, dtype, measured)
    assert [*errors].count(("| torchvision's operator itself", "bfloat16")) == 1
