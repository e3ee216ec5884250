"""The folder of a run: the only owner of its file names, and of the formats that no other module owns."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import yaml

from detector.files import write_json, write_text_atomically
from detector.option_types import TaskName

Row = dict[str, int | float]  # an epoch: columns of metrics.csv and their values
_WHOLE_NUMBERS = ("epoch", "step", "images_seen")


class _Inside:
    """A descriptor that gives a path inside the folder."""

    def __init__(self, *parts: str) -> None:
        self._parts = parts

    def __get__(self, folder: RunFolder, owner: type[RunFolder] | None = None) -> Path:
        return folder.path.joinpath(*self._parts)


@dataclass(frozen=True)
class RunFolder:
    """The files that a command leaves in its `output_dir`; not every command writes every file."""

    path: Path

    # The record of the run.
    config = _Inside("config.yaml")
    overrides = _Inside("overrides.txt")
    environment = _Inside("environment.json")
    # Written by training.
    checkpoints = _Inside("checkpoints")
    best = _Inside("checkpoints", "best.ckpt")
    last = _Inside("checkpoints", "last.ckpt")
    epochs = _Inside("metrics.csv")
    tensorboard = _Inside("tensorboard")
    stopped = _Inside("stopped.txt")  # why training ended early
    finished = _Inside("finished.txt")  # a comparison marks its finished runs
    # The results of evaluation and of comparisons.
    predictions = _Inside("predictions.json")
    metrics = _Inside("metrics.json")
    errors = _Inside("errors.json")
    interval = _Inside("interval.json")
    report = _Inside("report.html")
    comparison = _Inside("comparison.json")
    summary = _Inside("report.md")

    lock = _Inside(".lock")  # held by the command that writes into the folder

    def of_task(self, task: TaskName) -> RunFolder:
        """Return the folder with the report of another task than the first one evaluated."""
        return RunFolder(self.path / task)

    @property
    def output(self) -> Path:
        """The output of the process of a comparison's run: beside the folder, which it may outlive."""
        return self.path.with_suffix(".log")

    @property
    def training_lock(self) -> Path:
        """The lock of the comparison that trains the run, also beside the folder."""
        return self.path.with_suffix(".lock")

    def write_record(
        self, *, config: Mapping[str, Any], overrides: Sequence[str], environment: Mapping[str, Any]
    ) -> None:
        """Write what is needed to know and to repeat the run."""
        text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        write_text_atomically(self.config, text)
        write_text_atomically(self.overrides, "".join(f"{override}\n" for override in overrides))
        write_json(self.environment, environment)

    def read_config(self) -> dict[str, Any]:
        """Read the configuration, which an earlier version may have written, in the form of this one."""
        from detector.earlier import updated  # needed only to read

        config = yaml.safe_load(self.config.read_text(encoding="utf-8"))
        assert isinstance(config, dict)
        return updated(config)

    def read_environment(self) -> dict[str, Any]:
        return _json(self.environment)

    def read_metrics(self) -> dict[str, Any]:
        return _json(self.metrics)

    def write_epochs(self, rows: Sequence[Row]) -> None:
        """Write all of metrics.csv: a row for each epoch, a column for each name in any row."""
        text = StringIO(newline="")
        writer = csv.DictWriter(text, columns_of(rows), restval="")
        writer.writeheader()
        writer.writerows(rows)
        write_text_atomically(self.epochs, text.getvalue())

    def read_epochs(self) -> list[Row]:
        """Read the rows of metrics.csv; a row lacks the columns whose cells are empty."""
        from detector.earlier import present_row  # needed only to read

        with self.epochs.open(newline="", encoding="utf-8") as file:
            return [
                present_row({name: _number(name, cell) for name, cell in row.items() if cell})
                for row in csv.DictReader(file)
            ]


def require_checkpoint_file(path: Path) -> None:
    """Raise ValueError if `path` is no file; the message names a checkpoint in a folder."""
    if path.is_dir():
        folder = RunFolder(path)
        inside = [file for file in (folder.best, folder.last) if file.is_file()]
        hint = f"Pass {inside[0]}." if inside else "Pass the file, such as <run>/checkpoints/best.ckpt."
        raise ValueError(f"{path}: a folder, expected a checkpoint file. {hint}")
    if not path.is_file():
        raise ValueError(
            f"{path}: no such file (looked from {Path.cwd()}). "
            "`detector train` writes checkpoints/best.ckpt and checkpoints/last.ckpt into its output_dir."
        )


def columns_of(rows: Sequence[Row]) -> list[str]:
    """Return the columns that any of the rows has, in the order of their first appearance."""
    return list(dict.fromkeys(name for row in rows for name in row))


def _number(column: str, cell: str) -> int | float:
    return int(float(cell)) if column in _WHOLE_NUMBERS else float(cell)


def _json(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content
