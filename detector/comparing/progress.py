"""The progress of the runs of a comparison, and its display while they train."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from statistics import mean

from rich.console import Console
from rich.live import Live
from rich.table import Table

from detector.comparing.plan import PlannedRun
from detector.evaluation.metrics import MONITORED
from detector.run_folder import Row, RunFolder


def is_finished(run: PlannedRun) -> bool:
    return RunFolder(run.folder).finished.is_file()


def epochs_of(run: PlannedRun) -> list[Row]:
    """Return the metrics of the epochs so far."""
    files = RunFolder(run.folder)
    return files.read_epochs() if files.epochs.is_file() else []


class Board:
    """A display of the runs' progress: a live table on a terminal, else a line for each change."""

    def __init__(self, runs: Sequence[PlannedRun]) -> None:
        self._runs = runs
        self._console = Console()
        self._running: set[Path] = set()
        self._failed: dict[Path, str] = {}
        self._shown_epochs: dict[Path, int] = {}
        self._live: Live | None = None

    def print_plan(self, todo: int) -> None:
        for variant in dict.fromkeys(run.variant for run in self._runs):
            runs = [run for run in self._runs if run.variant == variant]
            size, extra = runs[0].size, " ".join(runs[0].overrides)
            gflop = (size.matrix_flops + size.sampling_flops) / 1e9
            self.print(
                f"{variant}: {size.parameters / 1e6:.2f} M parameters, {gflop:.2f} GFLOP an image, "
                f"{len(runs)} run{'s' * (len(runs) > 1)}: {extra}"
            )
        self.print(f"{len(self._runs)} runs, {todo} of them to train, kept in {self._runs[0].folder.parent}")

    def shown(self) -> AbstractContextManager[object]:
        if not self._console.is_terminal:
            return nullcontext()
        self._live = Live(self._table(), console=self._console, auto_refresh=False)
        return self._live

    def started(self, run: PlannedRun) -> None:
        self._running.add(run.folder)
        self._shown_epochs[run.folder] = len(epochs_of(run))
        if self._live is None:
            self.print(f"{run.title}: in {run.folder}")

    def ended(self, run: PlannedRun, failure: str) -> None:
        self._running.discard(run.folder)
        if failure:
            self._failed[run.folder] = failure
            self.print(f"{run.title}: failed: {failure}")
        self.refresh()

    def refresh(self) -> None:
        if self._live is not None:
            self._live.update(self._table(), refresh=True)
            return
        for run in self._runs:
            epochs = epochs_of(run) if run.folder in self._shown_epochs else []
            if len(epochs) > self._shown_epochs.get(run.folder, 0):
                self._shown_epochs[run.folder] = len(epochs)
                self.print(f"{run.title}: {self._state(run)}{self._remaining()}")

    def _table(self) -> Table:
        table = Table("run", "state", title=f"Comparison{self._remaining()}", title_justify="left")
        for run in self._runs:
            table.add_row(run.title, self._state(run))
        return table

    def _state(self, run: PlannedRun) -> str:
        epochs, length = epochs_of(run), run.config["training"]["max_epochs"]
        column = f"val/{MONITORED.name}"
        best = min((row[column] for row in epochs if column in row), key=MONITORED.rank, default=None)
        ap = "" if best is None else f", best {MONITORED.label} {best:.3f}"
        if run.folder in self._failed:
            return f"failed in epoch {len(epochs) + 1}{ap}"
        if is_finished(run):
            return f"finished{ap}"
        if run.folder in self._running or epochs:
            return f"epoch {epochs[-1]['epoch'] if epochs else 0} of {length}{ap}"
        return "waiting"

    def _remaining(self) -> str:
        """Return an estimate of the time left from the epochs so far; empty without any."""
        open_runs = list({r.folder: r for r in self._runs if not is_finished(r)}.values())
        seconds = [row["seconds"] for run in self._runs for row in epochs_of(run)]
        if not seconds or not open_runs:
            return ""
        left = sum(run.config["training"]["max_epochs"] - len(epochs_of(run)) for run in open_runs)
        return f", about {mean(seconds) * left / max(1, len(self._running)) / 60:.0f} min left"

    def print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
