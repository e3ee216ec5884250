"""Training the missing runs of a comparison, each in its own process, resumed where it was left."""

from __future__ import annotations

import ctypes
import fcntl
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from queue import SimpleQueue
from threading import Event

import torch

from detector.checkpoint import load_checkpoint
from detector.comparing.plan import PlannedRun
from detector.comparing.progress import Board, epochs_of, is_finished
from detector.exceptions import Terminated
from detector.files import write_text_atomically
from detector.quoting import override
from detector.run_folder import RunFolder

POLL_S = 1.0
_PATIENCE_S = 10.0  # for processes that the terminal interrupts along with us
_SET_PDEATHSIG = 1  # prctl option, from linux/prctl.h
_PRCTL = ctypes.CDLL(None).prctl if sys.platform == "linux" else None  # looked up before a fork

# Trains the unfinished runs and returns why each failed, by folder; empty if it succeeded.
TrainRuns = Callable[[Sequence[PlannedRun], "Board"], Mapping[Path, str]]


def train_all(runs: Sequence[PlannedRun], *, train: TrainRuns) -> dict[Path, str]:
    """Train all unfinished runs and return why runs failed, by folder.

    A failed run ends neither the others nor the comparison. After an interrupt the same call resumes.
    """
    todo = list({run.folder: run for run in runs if not is_finished(run)}.values())
    board = Board(runs)
    board.print_plan(len(todo))
    with board.shown():
        try:
            failures = train(todo, board) if todo else {}
        except KeyboardInterrupt:
            print("Interrupted. The same command goes on from here.", file=sys.stderr)
            raise
    return {folder: failure for folder, failure in failures.items() if failure}


def train_here(
    runs: Sequence[PlannedRun], board: Board, *, parallel: int, flags: Sequence[str] = ()
) -> dict[Path, str]:
    """Train on this machine, `parallel` runs at a time. `flags` are passed to Hydra."""
    stop = Event()
    patience_s = _PATIENCE_S
    devices: SimpleQueue[str | None] = SimpleQueue()
    for device in _devices(parallel):
        devices.put(device)

    def train_one(run: PlannedRun) -> tuple[Path, str]:
        device = devices.get()
        environment = dict(os.environ) | ({} if device is None else {"CUDA_VISIBLE_DEVICES": device})
        try:
            failure = train_run(run, flags=flags, environment=environment, watch=partial(watch, run))
        except (OSError, ValueError) as error:  # a full disk or broken checkpoint concerns this run only
            failure = str(error)
        finally:
            devices.put(device)
        if not (failure and stop.is_set()):
            board.ended(run, failure)
        return run.folder, failure

    def watch(run: PlannedRun, process: subprocess.Popen[bytes]) -> None:
        board.started(run)
        while process.poll() is None and not stop.wait(POLL_S):
            board.refresh()
        _end(process, patience_s=patience_s)

    with ThreadPoolExecutor(parallel) as threads:
        try:
            return dict(threads.map(train_one, runs))
        except KeyboardInterrupt as interrupt:
            if isinstance(interrupt, Terminated):
                patience_s = 0.0
            stop.set()
            threads.shutdown(cancel_futures=True)
            raise


def _devices(parallel: int) -> list[str | None]:
    """Return a visible GPU for each parallel run; a run alone gets all (None)."""
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
    """Train a run in a process that `watch` waits for, and return why it failed; empty if it succeeded.

    Whoever trains a run holds a lock on it, which the system releases when the last process that has it ends,
    killed or not; `patience_s` allows for one that is about to end. `flags` are passed to Hydra.
    """
    run.folder.parent.mkdir(parents=True, exist_ok=True)
    with RunFolder(run.folder).training_lock.open("w") as lock:
        if not _locked(lock, patience_s):
            return f"another command is training it (it holds {lock.name})"
        return _train_locked(run, flags, environment, watch, lock=lock.fileno())


def _locked(lock: TextIOWrapper, patience_s: float) -> bool:
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
    if is_finished(run) or _has_all_epochs(run):  # ended just before it was marked as finished
        return _finish(run)
    last, output = RunFolder(run.folder).last, RunFolder(run.folder).output
    if run.folder.exists() and not last.is_file():
        _set_aside(run.folder)  # it ended before its first epoch was complete
    words = [*run.overrides, f"seed={run.seed}", "name=compared", override("output_dir", run.folder)]
    if last.is_file():
        words.append(override("training.resume", last))
    command = [sys.executable, "-m", "detector", "train", *flags, *words]
    with output.open("a", encoding="utf-8") as log:
        log.write(f"$ {shlex.join(command)}\n")
        log.flush()
        start = log.tell()
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            pass_fds=(lock,),
            preexec_fn=_end_with_parent,
        )
        watch(process)
    return _last_message(output, start, process.returncode) if process.returncode else _finish(run)


def _end_with_parent() -> None:
    """Let Linux send this child SIGTERM when the thread that started it is gone, killed or not."""
    if _PRCTL is not None:
        _PRCTL(_SET_PDEATHSIG, signal.SIGTERM)


def _end(process: subprocess.Popen[bytes], *, patience_s: float) -> None:
    """Wait for a process that may have been interrupted too, then terminate it."""
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        process.terminate()
        process.wait()


def _has_all_epochs(run: PlannedRun) -> bool:
    files = RunFolder(run.folder)
    if not files.last.is_file() or not files.predictions.is_file():
        return False
    return load_checkpoint(files.last).epoch >= run.config["training"]["max_epochs"]


def _finish(run: PlannedRun) -> str:
    """Mark a run as finished, and drop the state that it would have been resumed from."""
    files = RunFolder(run.folder)
    write_text_atomically(files.finished, f"{len(epochs_of(run))} epochs\n")
    files.last.unlink(missing_ok=True)
    return ""


def _set_aside(folder: Path) -> None:
    number = next(n for n in range(1, 10_000) if not folder.with_suffix(f".{n}").exists())
    folder.rename(folder.with_suffix(f".{number}"))


def _last_message(log: Path, start: int, code: int) -> str:
    """Return the last line logged from byte `start` on, preferably one of the command's own messages."""
    text = log.read_bytes()[start:].decode(errors="replace")
    lines = [line for line in text.splitlines() if line.strip()]
    messages = [line for line in lines if line.startswith("detector") and not line.endswith(":")] or lines
    return f"exit code {code}: {messages[-1] if messages else 'nothing was printed'} (all of it: {log})"
