"""Training what a comparison lacks: each run a process of its own, gone on with where it was left."""

from __future__ import annotations

import csv
import fcntl
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from queue import SimpleQueue
from statistics import mean
from threading import Event

import torch
from rich.console import Console
from rich.live import Live
from rich.table import Table

from detector.commands.comparing.plan import PlannedRun
from detector.commands.record import config_dir_flags
from detector.files import write_text_atomically
from detector.training import load_checkpoint

_FINISHED = "finished.txt"
POLL_S = 1.0
_PATIENCE_S = 10.0

# How the runs that are not finished get trained: why each failed, by folder, empty where it did not.
Way = Callable[[Sequence[PlannedRun], "Board"], Mapping[Path, str]]


def is_finished(run: PlannedRun) -> bool:
    return (run.folder / _FINISHED).is_file()


def log_of(run: PlannedRun) -> Path:
    """What the process of a run prints."""
    return run.folder.with_suffix(".log")


def train_all(runs: Sequence[PlannedRun], *, way: Way) -> dict[Path, str]:
    """Train all that are not finished. Returns why runs failed, by folder.

    A failed run ends neither the others nor the comparison. After an interrupt the same call goes on.
    """
    todo = list({run.folder: run for run in runs if not is_finished(run)}.values())
    board = Board(runs)
    board.say_plan(len(todo))
    with board.shown():
        try:
            done = way(todo, board) if todo else {}
        except KeyboardInterrupt:
            print("Interrupted. The same command goes on from here.", file=sys.stderr)
            raise
    return {folder: why for folder, why in done.items() if why}


def train_here(runs: Sequence[PlannedRun], board: Board, *, parallel: int) -> dict[Path, str]:
    """Train on this machine, `parallel` at a time."""
    flags = config_dir_flags()
    stop = Event()
    devices: SimpleQueue[str | None] = SimpleQueue()
    for device in _devices(parallel):
        devices.put(device)

    def train_one(run: PlannedRun) -> tuple[Path, str]:
        device = devices.get()
        environment = dict(os.environ) | ({} if device is None else {"CUDA_VISIBLE_DEVICES": device})
        try:
            why = train_run(run, flags=flags, environment=environment, watch=partial(watch, run))
        finally:
            devices.put(device)
        if not (why and stop.is_set()):
            board.ended(run, why)
        return run.folder, why

    def watch(run: PlannedRun, process: subprocess.Popen[bytes]) -> None:
        board.started(run)
        while process.poll() is None and not stop.wait(POLL_S):
            board.refresh()
        _end(process)

    with ThreadPoolExecutor(parallel) as threads:
        try:
            return dict(threads.map(train_one, runs))
        except KeyboardInterrupt:
            stop.set()
            threads.shutdown(cancel_futures=True)
            raise


def _devices(parallel: int) -> list[str | None]:
    """A GPU for each of the runs at a time, of those that we may use; one run at a time has them all."""
    if parallel == 1 or not torch.cuda.is_available():
        return [None] * parallel
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(torch.cuda.device_count())))
    names = visible.split(",")
    return [names[number % len(names)] for number in range(parallel)]


def train_run(
    run: PlannedRun,
    *,
    flags: Sequence[str],
    environment: Mapping[str, str],
    watch: Callable[[subprocess.Popen[bytes]], object],
    patience_s: float = 0.0,
) -> str:
    """Train it in a process, which `watch` waits for. Returns why it failed, empty where it did not.

    Whoever trains a run holds a lock on it, which the system takes back when the last process that has it
    ends, killed or not; `patience_s` is for one that is about to. `flags` are Hydra's.
    """
    run.folder.parent.mkdir(parents=True, exist_ok=True)
    with run.folder.with_suffix(".lock").open("w") as lock:
        if not _taken(lock, patience_s):
            return f"another command is training it (it holds {lock.name})"
        return _train_locked(run, flags, environment, watch, lock=lock.fileno())


def _taken(lock: TextIOWrapper, patience_s: float) -> bool:
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_S)


def _train_locked(
    run: PlannedRun,
    flags: Sequence[str],
    environment: Mapping[str, str],
    watch: Callable[[subprocess.Popen[bytes]], object],
    *,
    lock: int,
) -> str:
    if is_finished(run) or _has_all_epochs(run):  # ended in the moment before it was marked
        return _finish(run)
    last = run.folder / "checkpoints" / "last.ckpt"
    if run.folder.exists() and not last.is_file():
        _set_aside(run.folder)  # it ended before its first epoch did
    words = [*run.overrides, f"seed={run.seed}", "name=compared", f"output_dir='{run.folder}'"]
    if last.is_file():
        words.append(f"training.resume='{last}'")
    command = [sys.executable, "-m", "detector", "train", *flags, *words]
    with log_of(run).open("a", encoding="utf-8") as log:
        log.write(f"$ {shlex.join(command)}\n")
        log.flush()
        start = log.tell()
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=environment, pass_fds=(lock,)
        )
        watch(process)
    return _last_words(log_of(run), start, process.returncode) if process.returncode else _finish(run)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Wait for what a terminal interrupts along with us, and interrupt what did not hear of it."""
    try:
        process.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.terminate()
        process.wait()


def _has_all_epochs(run: PlannedRun) -> bool:
    last = run.folder / "checkpoints" / "last.ckpt"
    if not last.is_file() or not (run.folder / "predictions.json").is_file():
        return False
    return load_checkpoint(last).epoch >= run.config["training"]["max_epochs"]


def _finish(run: PlannedRun) -> str:
    write_text_atomically(run.folder / _FINISHED, f"{len(epochs_of(run))} epochs\n")
    return ""


def _set_aside(folder: Path) -> None:
    number = next(n for n in range(1, 10_000) if not folder.with_suffix(f".{n}").exists())
    folder.rename(folder.with_suffix(f".{number}"))


def _last_words(log: Path, start: int, code: int) -> str:
    """What the command said of its end, or else the last line, of what was logged from `start` on."""
    text = log.read_bytes()[start:].decode(errors="replace")
    lines = [line for line in text.splitlines() if line.strip()]
    said = [line for line in lines if line.startswith("detector") and not line.endswith(":")] or lines
    return f"exit code {code}: {said[-1] if said else 'nothing was printed'} (all of it: {log})"


def epochs_of(run: PlannedRun) -> list[dict[str, str]]:
    """The rows of its metrics.csv so far, an epoch each."""
    path = run.folder / "metrics.csv"
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


class Board:
    """How far the runs are: a live table on a terminal, a line for each change elsewhere."""

    def __init__(self, runs: Sequence[PlannedRun]) -> None:
        self._runs = runs
        self._console = Console()
        self._running: set[Path] = set()
        self._failed: dict[Path, str] = {}
        self._told: dict[Path, int] = {}
        self._live: Live | None = None

    def say_plan(self, todo: int) -> None:
        for arm in dict.fromkeys(run.arm for run in self._runs):
            of_arm = [run for run in self._runs if run.arm == arm]
            size, extra = of_arm[0].size, " ".join(of_arm[0].overrides)
            gflop = (size.matrix_flops + size.sampling_flops) / 1e9
            self.say(
                f"{arm}: {size.parameters / 1e6:.2f} M parameters, {gflop:.2f} GFLOP an image, "
                f"{len(of_arm)} run{'s' * (len(of_arm) > 1)}: {extra}"
            )
        self.say(f"{len(self._runs)} runs, {todo} of them to train, kept in {self._runs[0].folder.parent}")

    def shown(self) -> AbstractContextManager[object]:
        if not self._console.is_terminal:
            return nullcontext()
        self._live = Live(self._table(), console=self._console, auto_refresh=False)
        return self._live

    def started(self, run: PlannedRun) -> None:
        self._running.add(run.folder)
        self._told[run.folder] = len(epochs_of(run))
        if self._live is None:
            self.say(f"{run.title}: in {run.folder}")

    def ended(self, run: PlannedRun, why: str) -> None:
        self._running.discard(run.folder)
        if why:
            self._failed[run.folder] = why
            self.say(f"{run.title}: failed: {why}")
        self.refresh()

    def refresh(self) -> None:
        if self._live is not None:
            self._live.update(self._table(), refresh=True)
            return
        for run in self._runs:
            epochs = epochs_of(run) if run.folder in self._told else []
            if len(epochs) > self._told.get(run.folder, 0):
                self._told[run.folder] = len(epochs)
                self.say(f"{run.title}: {self._state(run)}{self._remaining()}")

    def _table(self) -> Table:
        table = Table("run", "state", title=f"Comparison{self._remaining()}", title_justify="left")
        for run in self._runs:
            table.add_row(run.title, self._state(run))
        return table

    def _state(self, run: PlannedRun) -> str:
        epochs, length = epochs_of(run), run.config["training"]["max_epochs"]
        best = max((float(row["val/AP"]) for row in epochs if row.get("val/AP")), default=None)
        ap = "" if best is None else f", best AP {best:.3f}"
        if run.folder in self._failed:
            return f"failed in epoch {len(epochs) + 1}{ap}"
        if is_finished(run):
            return f"finished{ap}"
        if run.folder in self._running or epochs:
            return f"epoch {epochs[-1]['epoch'] if epochs else 0} of {length}{ap}"
        return "waiting"

    def _remaining(self) -> str:
        """An estimate from the epochs so far, once there are some."""
        open_runs = list({r.folder: r for r in self._runs if not is_finished(r)}.values())
        seconds = [float(row["seconds"]) for run in self._runs for row in epochs_of(run)]
        if not seconds or not open_runs:
            return ""
        left = sum(run.config["training"]["max_epochs"] - len(epochs_of(run)) for run in open_runs)
        return f", about {mean(seconds) * left / max(1, len(self._running)) / 60:.0f} min left"

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
