"""A watch that lets the processes of a run on several devices end together.

Rank 0 starts the others and waits for them in every collective, as they wait for it: without a watch, a
process that ends leaves the others waiting forever.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import torch
from lightning import Trainer
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from detector.exceptions import RunError, SharedError, Terminated

_MAIN_PROCESS = "DETECTOR_MAIN_PROCESS"  # rank 0's process id, for the processes it starts
_LAUNCHED_WITH = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_POLL_S = 0.3
_GRACE_S = 20.0  # time for a process to end by its own error before it is killed
_SIGNALS = [  # Windows lacks some
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
    if hasattr(signal, name)
]


class RankEndedError(RunError):
    """Another process of the run ended, so this one ends too."""


@contextmanager
def ending_together(trainer: Trainer, *, hint: Callable[[], str]) -> Iterator[None]:
    """Watch the processes of a training that runs inside, so that they end together.

    A process that ends by an error, a signal or a kill ends the others within a minute. The first error is
    the one that is shown. Signals to any process are passed to rank 0, which ends the others.
    `hint` returns a text on what the run leaves behind.

    Raises:
        RankEndedError: in rank 0, if another process ended first.
    """
    is_main = os.environ.get(_MAIN_PROCESS) is None
    started_here = isinstance(trainer.strategy.launcher, _SubprocessScriptLauncher)
    if trainer.world_size == 1 or (is_main and not started_here):  # torchrun, srun watch their own
        yield
    elif is_main:
        with _main_rank(trainer, hint):
            yield
    else:
        with _other_rank(trainer, main=int(os.environ[_MAIN_PROCESS])):
            yield


# Rank 0


@contextmanager
def _main_rank(trainer: Trainer, hint: Callable[[], str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in (*_LAUNCHED_WITH, _MAIN_PROCESS)}
    os.environ[_MAIN_PROCESS] = str(os.getpid())
    others = _OtherRanks(trainer, hint)
    _answer_signals(trainer, others.interrupt)
    threading.Thread(target=others.watch, daemon=True).start()
    try:
        yield
        others.join()
    except Exception as error:
        # A broken connection raises many types of errors, but none of our own types.
        if not isinstance(error, RunError | ValueError | OSError) and (first := others.first_to_end()):
            raise RankEndedError(first) from None
        raise
    finally:
        others.kill()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        for name, value in before.items():  # else Lightning starts no processes in the next job of a sweep
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


class _OtherRanks:
    """The other processes of the run, which rank 0 started."""

    def __init__(self, trainer: Trainer, hint: Callable[[], str]) -> None:
        self._trainer = trainer
        self._hint = hint
        self._processes: list[subprocess.Popen[bytes]] = []
        self._ended = threading.Event()
        self._interrupted = False
        self._first: str | None = None

    def watch(self) -> None:
        """End this process some time after another one ended, unless it ends by itself."""
        while not self._ended.wait(_POLL_S):
            if self._look() is None:
                continue
            if not self._ended.wait(_GRACE_S):
                print(f"detector failed: {self._first}", file=sys.stderr, flush=True)
                self.kill()
                os._exit(1)
            return

    def first_to_end(self) -> str | None:
        """Describe the process that ended first; return None if none ends within a few seconds."""
        deadline = time.monotonic() + 5
        while self._look() is None and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        return self._first

    def interrupt(self, number: int) -> None:
        """Handle the first signal: kill the others at once, as they have nothing to save."""
        if not self._interrupted:
            self._interrupted = True
            self._ended.set()
            self.kill()
            raise KeyboardInterrupt if number == signal.SIGINT else Terminated(number)

    def join(self) -> None:
        """Wait for the others, which have finished their training too."""
        self._ended.set()
        for process in self._all_processes():
            try:
                process.wait(timeout=_GRACE_S)
            except subprocess.TimeoutExpired:
                process.kill()

    def kill(self) -> None:
        self._ended.set()
        for process in self._all_processes():
            process.kill()

    def _look(self) -> str | None:
        for number, process in enumerate(self._all_processes(), start=1):
            if self._first is None and process.poll():
                reason = _exit_reason(process.returncode)
                self._first = f"the process of device {number} ended first, {reason}. {self._resume_hint()}"
        return self._first

    def _resume_hint(self) -> str:
        try:
            return self._hint()
        except (ValueError, OSError) as error:  # an unreadable checkpoint must not end the watch
            return str(error)

    def _all_processes(self) -> list[subprocess.Popen[bytes]]:
        """Return the processes, taken from Lightning's own watch, which would kill this process too."""
        launcher = self._trainer.strategy.launcher
        assert isinstance(launcher, _SubprocessScriptLauncher)
        while launcher.procs:
            self._processes.append(launcher.procs.pop(0))
        return self._processes


def _exit_reason(code: int) -> str:
    """Describe how a process ended by its exit code, which is negative for a signal."""
    if code == -signal.SIGKILL:
        return "killed (SIGKILL), most often because memory ran out: lower data.batch_size"
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    if code - 128 in _SIGNALS:
        return f"ended by {signal.Signals(code - 128).name}"
    return f"with exit code {code}: its message is above"


# The others


@contextmanager
def _other_rank(trainer: Trainer, *, main: int) -> Iterator[None]:
    threading.Thread(target=_end_with, args=(main,), daemon=True).start()
    _answer_signals(trainer, lambda number: _pass_on(number, main))
    try:
        yield
    except RuntimeError as error:
        # Another rank ended and says why, or all have this error: then rank 0 ends, and this process with it.
        is_from_others = isinstance(error, torch.distributed.DistError | SharedError)
        if is_from_others or "gloo" in str(error):
            time.sleep(_GRACE_S)
            os._exit(1)
        _end_within(_GRACE_S, code=1)
        raise
    except BaseException:
        _end_within(_GRACE_S, code=1)  # so that no library keeps an ending process waiting
        raise


def _end_with(main: int) -> None:
    while os.getppid() == main:
        time.sleep(_POLL_S)
    os._exit(1)


def _pass_on(number: int, main: int) -> None:
    """Pass a signal on to rank 0, which says what is kept and ends this process."""
    os.kill(main, number)
    _end_within(_GRACE_S, code=128 + number)


def _end_within(seconds: float, *, code: int) -> None:
    timer = threading.Timer(seconds, os._exit, [code])
    timer.daemon = True
    timer.start()


def _answer_signals(trainer: Trainer, answer: Callable[[int], None]) -> None:
    """Let `answer` handle signals from when Lightning installs handlers of its own, in their place.

    Lightning's starts a collective in whichever process is signaled, and waits in it forever. At the end of
    the training it restores the handlers from before.
    """
    connector = trainer._signal_connector
    theirs = connector.register_signal_handlers

    def handle(number: int, frame: FrameType | None) -> None:
        answer(number)

    def register() -> None:
        theirs()
        for number in _SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup(1) ignores SIGHUP
                signal.signal(number, handle)

    connector.register_signal_handlers = register  # type: ignore[method-assign]  # there is no hook for it
