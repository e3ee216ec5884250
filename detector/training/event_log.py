"""TensorBoard curves, written without a thread."""

from __future__ import annotations

import os
import socket
import time
from argparse import Namespace
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from detector.files import write_whole
from detector.training.steady import Steady


class TensorBoard(Logger):
    """A logger that writes each call's numbers to an event file in `folder` before it returns.

    TensorBoard's own writer passes them to a thread through a queue. An exception raised by a signal handler
    inside that queue leaves it waiting for its next flush, two minutes later; and a write that fails there
    ends training.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._steady = Steady(f"{folder} (curves)")
        self._file: BinaryIO | None = None

    @property
    def name(self) -> str:
        return "tensorboard"

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self._folder.parent)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: config.yaml has the hyperparameters."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        values = [Summary.Value(tag=name, simple_value=float(value)) for name, value in metrics.items()]
        self._steady(lambda: self._add(Event(step=step or 0, summary=Summary(value=values))))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _add(self, event: Event) -> None:
        if self._file is None:
            self._file = self._opened()
        _append(self._file, event)

    def _opened(self) -> BinaryIO:
        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns() // 10**9:010}.{socket.gethostname()}.{os.getpid()}"
        file = (self._folder / name).open("ab", buffering=0)
        _append(file, Event(file_version="brain.Event:2"))
        return file


def _append(file: BinaryIO, event: Event) -> None:
    """Write all of the record or nothing: readers stop at an incomplete record."""
    event.wall_time = time.time()
    record = BytesIO()
    RecordWriter(record).write(event.SerializeToString())
    write_whole(file, record.getvalue())


def read_events(folder: Path) -> dict[str, tuple[list[int], list[float]]]:
    """Read the steps (from 1) and values of each number from the event files in `folder`."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    values: dict[str, dict[int, float]] = {}
    for file in sorted(folder.glob("events.out.tfevents.*")):
        for event in LegacyEventFileLoader(str(file)).Load():
            for value in event.summary.value:
                of_name = values.setdefault(value.tag, {})
                while of_name and next(reversed(of_name)) > event.step:
                    of_name.popitem()  # a resumed run takes these steps again
                of_name[event.step + 1] = value.simple_value
    return {name: ([*of_name], [*of_name.values()]) for name, of_name in values.items()}
