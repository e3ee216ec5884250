"""Displays of a run's progress: live on a terminal, line by line in a log file."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from detector.evaluation.metrics import IN_LOG, MetricSpec
from detector.option_types import PositiveInt


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """The state of a run after a batch. Epochs and steps count from 1; a step is a batch here."""

    epoch: int
    epochs: int
    step: int
    steps: int
    losses: Mapping[str, float]
    lr: float
    images_per_second: float
    eta_seconds: float


@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """The result of an epoch: mean training losses, and losses and metrics of its validation, if any.

    `in_log` are the metrics to show; metrics.csv has all.
    """

    epoch: int
    epochs: int
    values: Mapping[str, float]
    seconds: float
    eta_seconds: float
    is_best: bool = False
    in_log: Sequence[MetricSpec] = IN_LOG


_SILENCE_S = 30.0  # longest silence in a log file during a validation


class Display(ABC):
    """A display of a run's progress."""

    @abstractmethod
    def step(self, number: int, steps: int, report: Callable[[], StepReport]) -> None:
        """Handle the end of batch `number` of `steps`.

        `report` waits for the device: call it only to show the result.
        """

    @abstractmethod
    def validating(self, number: int, batches: int) -> None:
        """Handle the end of batch `number` of a validation."""

    @abstractmethod
    def epoch(self, report: EpochReport) -> None:
        """Handle the end of an epoch and its validation."""

    @abstractmethod
    def close(self) -> None:
        """Handle the end or failure of the run. May be called again."""


class LineDisplay(Display):
    """A display for log files and programs, with lines of the form `key value key value ...`.

    It writes a line every n batches and every epoch, and every half a minute in a long validation.
    """

    def __init__(
        self,
        *,
        every_n_steps: PositiveInt,
        write: Callable[[str], object] = print,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._every = every_n_steps
        self._write_line = write
        self._clock = clock
        self._written = clock()

    def step(self, number: int, steps: int, report: Callable[[], StepReport]) -> None:
        if number % self._every == 0:
            self._write(step_line(report()))

    def validating(self, number: int, batches: int) -> None:
        if self._clock() - self._written >= _SILENCE_S:
            self._write(f"validation {number}/{batches}")

    def epoch(self, report: EpochReport) -> None:
        self._write(epoch_line(report))

    def _write(self, line: str) -> None:
        self._write_line(line)
        self._written = self._clock()

    def close(self) -> None:
        pass


class TerminalDisplay(Display):
    """A progress bar below a table that grows by one row per epoch."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f}  {task.fields[note]}"),
            console=console,
            transient=True,
        )
        self._task: TaskID | None = None
        self._has_header = False

    def step(self, number: int, steps: int, report: Callable[[], StepReport]) -> None:
        if number % max(1, steps // 200) and number != steps:
            return
        now = report()
        note = (
            f"loss {now.losses['loss']:.3f}  {now.images_per_second:.1f} img/s  eta {_clock(now.eta_seconds)}"
        )
        self._show(f"epoch {now.epoch}/{now.epochs}", number, steps, note)

    def validating(self, number: int, batches: int) -> None:
        self._show("validation", number, batches, "")

    def epoch(self, report: EpochReport) -> None:
        if not self._has_header:
            self._console.print(
                "".join(f"{title:>{width}}" for title, _, width in _columns(report)), style="bold"
            )
            self._has_header = True
        cells = [f"{_cell(report, key):>{width}}" for _, key, width in _columns(report)]
        self._console.print("".join(cells), "best" if report.is_best else "", highlight=False)

    def close(self) -> None:
        self._bar.stop()

    def _show(self, description: str, done: int, total: int, note: str) -> None:
        if self._task is None:
            self._bar.start()
            self._task = self._bar.add_task(description, total=total, note=note)
        self._bar.update(self._task, description=description, completed=done, total=total, note=note)


def _columns(report: EpochReport) -> list[tuple[str, str, int]]:
    """Return the title of each column, the key of the report's values, and the width."""
    return [
        ("epoch", "epoch", 8),
        ("loss", "train/loss", 9),
        ("val loss", "val/loss", 10),
        *((spec.label, f"val/{spec.name}", max(8, len(spec.label) + 2)) for spec in report.in_log),
        ("time", "seconds", 9),
        ("left", "eta", 9),
    ]


def step_line(report: StepReport) -> str:
    """Return `epoch 1/12 step 40/73 loss 1.234 loss_cls 0.6 ... lr 0.01 img/s 12.3 eta 0:03:10`."""
    losses = " ".join(f"{name} {value:.4f}" for name, value in report.losses.items())
    return (
        f"epoch {report.epoch}/{report.epochs} step {report.step}/{report.steps} {losses} lr {report.lr:.3g} "
        f"img/s {report.images_per_second:.1f} eta {_clock(report.eta_seconds)}"
    )


def epoch_line(report: EpochReport) -> str:
    """Return `epoch 1/12 done train/loss 1.2 ... val/AP 0.412 ... seconds 21.3 eta 0:03:10 best`.

    Validation losses come before the metrics.
    """
    in_log = {f"val/{spec.name}" for spec in report.in_log}
    shown = {name: value for name, value in report.values.items() if "loss" in name or name in in_log}
    values = " ".join(f"{name} {value:.4f}" for name, value in shown.items())
    return (
        f"epoch {report.epoch}/{report.epochs} done {values} seconds {report.seconds:.1f} "
        f"eta {_clock(report.eta_seconds)}{' best' if report.is_best else ''}"
    )


def _cell(report: EpochReport, key: str) -> str:
    if key == "epoch":
        return f"{report.epoch}/{report.epochs}"
    if key == "seconds":
        return f"{report.seconds:.1f} s"
    if key == "eta":
        return _clock(report.eta_seconds)
    return f"{report.values[key]:.3f}" if key in report.values else "-"


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
