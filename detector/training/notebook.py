"""The display of a run's progress in a notebook."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from detector.evaluation.metrics import IN_LOG
from detector.training.displays import Display, EpochReport, StepReport

_KEYS = {"train/loss": "loss", "val/loss": "val loss", **{f"val/{spec.name}": spec.label for spec in IN_LOG}}


class NotebookDisplay(Display):
    """A table that grows by one row per epoch, and a line about the present step, in one output."""

    def __init__(self) -> None:
        self._ipython: Any = sys.modules["IPython"].display  # which a notebook has imported
        self._output: Any = None
        self._rows: list[str] = []
        self._line = ""

    def step(self, number: int, steps: int, report: Callable[[], StepReport]) -> None:
        if number % max(1, steps // 50) and number != steps:
            return
        now = report()
        minutes, seconds = divmod(round(now.eta_seconds), 60)
        self._show(
            f"epoch {now.epoch}/{now.epochs}, step {number}/{steps}: loss {now.losses['loss']:.3f}, "
            f"{now.images_per_second:.1f} images/s, {minutes} min {seconds} s left"
        )

    def validating(self, number: int, batches: int) -> None:
        self._show(f"validation, batch {number}/{batches}")

    def epoch(self, report: EpochReport) -> None:
        cells = [f"{report.values[key]:.3f}" if key in report.values else "-" for key in _KEYS]
        columns = [f"{report.epoch}/{report.epochs}", *cells, f"{report.seconds:.1f} s"]
        style = ' style="font-weight: bold"' if report.is_best else ""
        self._rows.append(f"<tr{style}>{''.join(f'<td>{cell}</td>' for cell in columns)}</tr>")
        self._show("")

    def close(self) -> None:
        if self._line:
            self._show("")

    def _show(self, line: str) -> None:
        self._line = line
        header = "".join(f"<th>{title}</th>" for title in ("epoch", *_KEYS.values(), "time"))
        table = f"<table><tr>{header}</tr>{''.join(self._rows)}</table>" if self._rows else ""
        html = self._ipython.HTML(f"{table}<p>{line}</p>" if line else table)
        if self._output is None:
            self._output = self._ipython.display(html, display_id=True)
        else:
            self._output.update(html)
