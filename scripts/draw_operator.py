"""Draws docs/images/deformable.svg, the figure that explains deformable convolution."""

from __future__ import annotations

from pathlib import Path

from bench.operator_figure import operator_figure

FIGURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "deformable.svg"

if __name__ == "__main__":
    FIGURE.write_text(operator_figure(), encoding="utf-8")
