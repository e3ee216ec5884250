"""Training the missing runs of a comparison as cluster jobs, with the options of the submitit launchers."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detector.comparing.plan import PlannedRun
from detector.comparing.progress import Board
from detector.comparing.training import POLL_S, train_run
from detector.exceptions import RunError
from detector.runs.context import Launcher

if TYPE_CHECKING:  # an optional dependency: imported where it is used
    from submitit import Job
    from submitit.helpers import DelayedSubmission

_HERE = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
_EXECUTORS = {
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher": "local",
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher": "slurm",
}
_PATIENCE_S = 60.0  # the system takes its time to end the job that trained the run before


@dataclass(frozen=True)
class Cluster:
    """The cluster of hydra/launcher: its name there, its name in submitit, and the rest of hydra.launcher."""

    choice: str
    executor: str
    parameters: Mapping[str, Any]


def chosen_cluster(launcher: Launcher | None) -> Cluster | None:
    """Return the cluster that hydra/launcher selects; None for training on this machine.

    Raises:
        ValueError: the launcher is neither Hydra's own nor submitit's, or its jobs have several tasks.
    """
    if launcher is None or launcher.target == _HERE:
        return None
    if launcher.target not in _EXECUTORS:
        raise ValueError(
            f"hydra/launcher={launcher.choice}: a comparison is trained by basic, submitit_local or "
            "submitit_slurm."
        )
    parameters = launcher.parameters()
    for key in ("nodes", "tasks_per_node"):
        if parameters[key] != 1:
            raise ValueError(
                f"hydra.launcher.{key}={parameters[key]}: expected 1. A run is one task, which "
                "starts the processes of its devices itself: training.devices=... "
                "hydra.launcher.gpus_per_node=..."
            )
    return Cluster(launcher.choice, _EXECUTORS[launcher.target], parameters)


def train_on_cluster(
    runs: Sequence[PlannedRun], board: Board, *, cluster: Cluster, flags: Sequence[str]
) -> dict[Path, str]:
    """Train each run in a job, started when the cluster allows, and return why runs failed, by folder.

    The text is empty for a run that succeeded. An interrupt cancels the jobs.
    """
    jobs = _submit(runs, cluster, flags)
    board.print(
        f"{len(jobs)} jobs submitted by hydra/launcher={cluster.choice}: "
        f"{', '.join(job.job_id for job in jobs)}. Their own output: {cluster.parameters['submitit_folder']}"
    )
    failures: dict[Path, str] = {}
    started: set[Path] = set()
    try:
        while len(failures) < len(jobs):
            for run, job in zip(runs, jobs, strict=True):
                if run.folder not in started and job.paths.stdout.exists():
                    started.add(run.folder)
                    board.started(run)
                if run.folder not in failures and job.done():
                    failures[run.folder] = _failure(job)
                    board.ended(run, failures[run.folder])
            board.refresh()
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        for run, job in zip(runs, jobs, strict=True):
            if run.folder not in failures:
                job.cancel(check=False)
        raise
    return failures


def _submit(runs: Sequence[PlannedRun], cluster: Cluster, flags: Sequence[str]) -> list[Job[str]]:
    """Submit the runs as Hydra's submitit plugin does, whose own jobs are Hydra jobs."""
    from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf
    from submitit import AutoExecutor

    shared_options = {field.name for field in fields(BaseQueueConf)}
    parameters = {
        k if k in shared_options else f"{cluster.executor}_{k}": v for k, v in cluster.parameters.items()
    }
    folder = parameters.pop("submitit_folder")
    at_start = {k: parameters.pop(k) for k in ("slurm_max_num_timeout",) if k in parameters}
    # Jobs do not need the annotations, which would be pickled into the file of each job.
    without_annotations = [
        replace(run, data=replace(run.data, ground_truth=None, read_image=None)) for run in runs
    ]
    try:
        executor = AutoExecutor(folder, cluster=cluster.executor, **at_start)
        executor.update_parameters(**parameters)
        return executor.map_array(_Training(tuple(flags)), without_annotations)
    except RuntimeError as error:
        raise RunError(f"hydra/launcher={cluster.choice}: no job could be submitted: {error}") from error


def _failure(job: Job[str]) -> str:
    try:
        return job.result()
    except RuntimeError:  # submitit's error, with all that the job printed
        where = f"its output: {job.paths.folder}"
        return f"job {job.job_id} ended without a result, in state {job.state} ({where})"


@dataclass(frozen=True)
class _Training:
    """The callable that a job runs with its planned run."""

    flags: tuple[str, ...]

    def __call__(self, run: PlannedRun) -> str:
        from submitit.core.utils import UncompletedJobError

        # Otherwise Lightning takes the one task of the job for one of its own processes.
        environment = {k: v for k, v in os.environ.items() if k != "SLURM_NTASKS"}
        try:
            return train_run(
                run, flags=self.flags, environment=environment, watch=_wait, patience_s=_PATIENCE_S
            )
        except UncompletedJobError as error:  # submitit may raise it at any point in here
            return f"{error} The same command goes on; hydra.launcher.timeout_min gives it more time."

    def checkpoint(self, run: PlannedRun) -> DelayedSubmission:
        """Tell submitit what to run after a preemption: the same run, which resumes from its last epoch."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, run)


def _wait(process: subprocess.Popen[bytes]) -> None:
    """Wait for the end of the process; terminate it if the job ends."""
    try:
        process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise
