"""Processes of one run end together; the processes here are small ones that stand for ranks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import cast
from unittest.mock import Mock

import pytest
import torch
from lightning import Trainer
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from detector.exceptions import RunError, SharedError, Terminated
from detector.training.ranks import _SIGNALS, RankEndedError, _exit_reason, ending_together

SLEEP = "import time; time.sleep(60)"


def trainer(*programs: str) -> Trainer:
    """A trainer that has started other ranks, which run these programs."""
    launcher = _SubprocessScriptLauncher(LightningEnvironment(), num_processes=len(programs) + 1, num_nodes=1)
    launcher.procs = [subprocess.Popen([sys.executable, "-c", program]) for program in programs]
    mock = Mock(spec=Trainer)
    mock.world_size, mock.callbacks, mock.strategy.launcher = len(programs) + 1, [], launcher
    mock._signal_connector = Mock()
    return mock


def is_there(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        return True
    return False


@pytest.mark.parametrize(
    ("program", "how"),
    [
        ("raise SystemExit(3)", "with exit code 3: its message is above. Kept: it"),
        ("import os; os.kill(os.getpid(), 9)", r"killed \(SIGKILL\), .*memory.* data\.batch_size\. Kept: it"),
        ("import os; os.kill(os.getpid(), 11)", "killed by SIGSEGV"),
    ],
)
def test_a_broken_connection_is_told_by_who_ended_first(program: str, how: str) -> None:
    run = trainer(SLEEP, program)
    sleeping = cast(_SubprocessScriptLauncher, run.strategy.launcher).procs[0]
    with (
        pytest.raises(RankEndedError, match=f"the process of device 2 ended first, {how}"),
        ending_together(run, hint=lambda: "Kept: it."),
    ):
        raise RuntimeError("Connection closed by peer")
    assert not is_there(sleeping)


def test_an_error_of_rank_0_stays_and_ends_the_others() -> None:
    run = trainer(SLEEP)
    (sleeping,) = cast(_SubprocessScriptLauncher, run.strategy.launcher).procs
    with pytest.raises(RunError, match="disk"), ending_together(run, hint=str):
        raise RunError("disk is full")
    assert not is_there(sleeping)


def test_after_a_run_the_next_job_of_a_sweep_starts_ranks_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning takes a process that has LOCAL_RANK for one that was started for it."""
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    run = trainer("")
    with ending_together(run, hint=str):
        os.environ["LOCAL_RANK"] = "0"  # as Lightning does
    assert "LOCAL_RANK" not in os.environ
    assert not cast(_SubprocessScriptLauncher, run.strategy.launcher).procs, (
        "Lightning's own watch, which kills, has none to look at"
    )


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGHUP"])
def test_signals_are_answered_from_when_lightning_would_answer_them(name: str) -> None:
    """Before the first step, too: Lightning's answer waits for the other processes for ever."""
    number = signal.Signals[name]
    before = {one: signal.getsignal(one) for one in _SIGNALS}
    run = trainer(SLEEP)
    (other,) = _launcher(run).procs
    theirs = run._signal_connector.register_signal_handlers

    def begin() -> None:
        run._signal_connector.register_signal_handlers()
        os.kill(os.getpid(), number)
        time.sleep(10)

    try:
        with pytest.raises(Terminated) as ended, ending_together(run, hint=str):
            begin()
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
    assert ended.value.number == number
    cast(Mock, theirs).assert_called_once()
    assert not is_there(other)


@pytest.mark.parametrize(
    ("code", "words"),
    [(-9, "killed (SIGKILL)"), (-15, "killed by SIGTERM"), (138, "ended by SIGUSR1"), (1, "exit code 1")],
)
def test_the_end_of_a_process_is_told_by_its_code(code: int, words: str) -> None:
    assert words in _exit_reason(code)


def _launcher(run: Trainer) -> _SubprocessScriptLauncher:
    return cast(_SubprocessScriptLauncher, run.strategy.launcher)


def test_a_single_process_is_left_alone() -> None:
    with pytest.raises(KeyError), ending_together(trainer(), hint=str):
        raise KeyError


class Exited(BaseException):
    """In place of the end of this process."""


@pytest.mark.parametrize("error", [SharedError("weights"), torch.distributed.DistError("closed")])
def test_what_the_first_process_says_is_said_by_no_other(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DETECTOR_MAIN_PROCESS", str(os.getppid()))
    monkeypatch.setattr("detector.training.ranks._end_with", lambda main: None)
    monkeypatch.setattr("detector.training.ranks._GRACE_S", 0)
    monkeypatch.setattr(os, "_exit", Mock(side_effect=Exited))
    with pytest.raises(Exited), ending_together(trainer(""), hint=str):
        raise error
    assert capsys.readouterr().err == ""
