"""Training on a cluster: submitit's local executor, and a Slurm that only writes down what it is told."""

from __future__ import annotations

import fcntl
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hydra.core.config_store import ConfigStore
from submitit.core.utils import UncompletedJobError

from detector.commands import compare
from detector.comparing import cluster, training
from detector.comparing.plan import PlannedRun
from detector.comparing.training import TrainRuns
from detector.exceptions import RunError
from tests.comparing.command import command_words, comparison, variants
from tests.comparing.planned import planned_runs
from tests.training.tiny import write_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("submitted") / "data")


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of its commands, where what they are called with is kept: sbatch.txt, scancel.txt."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, answer in (("srun", ""), ("scancel", ""), ("sacct", ""), ("sbatch", "Submitted batch job 12")):
        keep = f'cat "$1" >> {folder}/sbatch.txt' if name == "sbatch" else f'echo "$@" >> {folder}/{name}.txt'
        (folder / name).write_text(f"#!/bin/sh\n{keep}\necho {answer}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


@pytest.fixture
def stub_plan(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[PlannedRun]:
    """What every comparison plans."""
    runs = planned_runs(tmp_path / "runs", 2)
    monkeypatch.setattr(compare, "plan_runs", lambda *_, **__: runs)
    return runs


def test_slurm_gets_an_array_with_the_options_of_the_launcher_and_an_interrupt_cancels_it(
    slurm: Path,
    stub_plan: list[PlannedRun],
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cluster.time, "sleep", interrupt)
    words = [
        "hydra/launcher=submitit_slurm",
        "hydra.launcher.partition=gpu",
        "hydra.launcher.timeout_min=600",
    ]
    more = ["hydra.launcher.array_parallelism=1", "hydra.launcher.gpus_per_node=1"]
    assert variants(dataset, tmp_path, *words, *more) == 130
    submitted = (slurm / "sbatch.txt").read_text()
    for option in ("partition=gpu", "time=600", "array=0-1%1", "gpus-per-node=1", "nodes=1"):
        assert f"#SBATCH --{option}\n" in submitted
    assert f"#SBATCH --output={tmp_path}/out/.submitit/%A_%a/%A_%a_0_log.out" in submitted
    assert (slurm / "scancel.txt").read_text() == "12_0\n12_1\n"
    output = capsys.readouterr()
    assert "2 jobs submitted by hydra/launcher=submitit_slurm: 12_0, 12_1." in output.out
    assert "Interrupted. The same command goes on from here." in output.err
    # A job knows its run, and not the annotations of a whole dataset.
    (file,) = tmp_path.glob("out/.submitit/12_1/*.pkl")
    assert pickle.loads(file.read_bytes()).args[0].folder == stub_plan[1].folder
    assert file.stat().st_size < 5000


def test_what_slurm_refuses_is_told(
    slurm: Path,
    stub_plan: list[PlannedRun],
    dataset: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (slurm / "sbatch").write_text("#!/bin/sh\necho 'invalid partition specified: gpu' >&2\nexit 1\n")
    assert variants(dataset, tmp_path, "hydra/launcher=submitit_slurm") == 1
    output = capsys.readouterr().err
    assert (
        "hydra/launcher=submitit_slurm: no job could be submitted: invalid partition specified: gpu" in output
    )


@pytest.mark.slow
def test_what_a_cluster_leaves_no_room_for_is_refused(
    stub_plan: list[PlannedRun], dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, expected in (
        (["parallel=2", "hydra/launcher=submitit_slurm"], "hydra.launcher.array_parallelism=2."),
        (["parallel=2", "hydra/launcher=submitit_local"], "submits all at once. Leave it out.\n"),
        (
            ["hydra/launcher=submitit_slurm", "hydra.launcher.tasks_per_node=2"],
            "hydra.launcher.tasks_per_node=2: expected 1. A run is one task",
        ),
        (
            ["hydra.launcher._target_=hydra_plugins.other.Launcher"],
            "hydra.launcher._target_ = hydra_plugins.other.Launcher: not allowed",
        ),
    ):
        assert variants(dataset, tmp_path, *words) == 2
        assert expected in capsys.readouterr().err


def test_the_missing_extra_is_named(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    launchers = ConfigStore.instance().repo["hydra"]["launcher"]
    monkeypatch.delitem(launchers, "submitit_slurm.yaml")
    assert variants(dataset, tmp_path, "hydra/launcher=submitit_slurm") == 2
    assert "It comes with an extra: pip install 'detector[slurm]'" in capsys.readouterr().err


@pytest.mark.slow
def test_hydra_launcher_basic_trains_here(
    stub_plan: list[PlannedRun], dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways: list[Any] = []

    def train_all(runs: list[PlannedRun], *, train: TrainRuns) -> dict[Path, str]:
        ways.append(train)
        raise RunError("planned")

    monkeypatch.setattr(compare, "train_all", train_all)
    for words in (["parallel=2"], ["hydra/launcher=basic"], ["hydra/launcher=submitit_local"]):
        assert variants(dataset, tmp_path, *words) == 1
    assert [way.func for way in ways] == [training.train_here, training.train_here, cluster.train_on_cluster]


def test_a_job_starts_all_processes_of_its_run_itself_and_says_that_its_time_ran_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run,) = planned_runs(tmp_path, 1)
    arguments: list[Any] = []

    def train_run(run: PlannedRun, **options: Any) -> str:
        arguments.append(options)
        raise UncompletedJobError("Job not requeued because: timed-out too many times.")

    monkeypatch.setattr(cluster, "train_run", train_run)
    monkeypatch.setenv("SLURM_NTASKS", "1")
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    job = cluster._Training(("--config-dir", "mine"))
    assert job(run).endswith("The same command goes on; hydra.launcher.timeout_min gives it more time.")
    assert arguments[0]["flags"] == ("--config-dir", "mine")
    assert arguments[0]["environment"]["SLURM_JOB_ID"] == "12"
    assert "SLURM_NTASKS" not in arguments[0]["environment"]
    again = job.checkpoint(run)
    assert (again.function, again.args) == (job, (run,))


def test_the_training_ends_with_its_job() -> None:
    def interrupt(*_: object) -> None:
        raise UncompletedJobError("time is over")

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with subprocess.Popen(["sleep", "20"]) as process:
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(UncompletedJobError):
                cluster._wait(process)
            assert process.poll() == -signal.SIGTERM
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_run_is_taken_over_from_a_process_that_ends(tmp_path: Path) -> None:
    with (tmp_path / "run.lock").open("w") as other, (tmp_path / "run.lock").open("w") as lock:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert not training._locked(lock, 0.0)
        holder = subprocess.Popen(["sleep", "1.5"], pass_fds=(other.fileno(),))
        other.close()
        assert training._locked(lock, 60.0)
        assert holder.wait() == 0


@pytest.mark.nightly
def test_jobs_train_as_processes_here_do(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = "+compare.variants.broken=['optimizer.lr=1e30','training.gradient_clip_val=null']"
    assert variants(dataset, tmp_path, bad, "hydra/launcher=submitit_local") == 0
    output = capsys.readouterr().out
    assert "3 jobs submitted by hydra/launcher=submitit_local" in output
    assert "broken, seed 0: failed: exit code 1: detector failed: Training stopped at epoch 1" in output
    (condition,) = comparison(tmp_path / "out")["conditions"]
    assert list(condition["comparisons"]) == ["deformable"]
    assert "broken, seed 0 failed: exit code 1" in condition["notes"][0]
    assert len(list((tmp_path / "runs").glob("*/finished.txt"))) == 2
    # Here, they are found again.
    assert variants(dataset, tmp_path, out="here") == 0
    assert "2 runs, 0 of them to train" in capsys.readouterr().out
    assert comparison(tmp_path / "here")["conditions"][0]["comparisons"] == condition["comparisons"]


@pytest.mark.nightly
def test_an_interrupt_ends_the_jobs_and_the_same_command_goes_on(dataset: Path, tmp_path: Path) -> None:
    words = [w for w in command_words(dataset, tmp_path, out="cut") if not w.startswith("training.max")]
    more = ["training.max_epochs=4", "hydra/launcher=submitit_local"]
    process = subprocess.Popen(
        [sys.executable, "-m", "detector", "compare", *words, *more],
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # whoever started the tests
    )
    while not any(len(p.read_text().splitlines()) > 2 for p in (tmp_path / "runs").glob("*/metrics.csv")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)  # to the command alone: its jobs hear of it from submitit
    assert process.wait(timeout=60) == 130
    for path in (tmp_path / "runs").glob("*.lock"):
        with path.open("w") as lock:
            assert training._locked(lock, 60.0), "its training goes on"
    assert not list((tmp_path / "runs").glob("*/finished.txt"))
    assert variants(dataset, tmp_path, *more, out="on") == 0
    assert any("training.resume=" in log.read_text() for log in (tmp_path / "runs").glob("*.log"))
    curves = comparison(tmp_path / "on")["conditions"][0]["curves"]
    assert [len(curve["0"]["ap"]) for curve in curves.values()] == [4, 4]
