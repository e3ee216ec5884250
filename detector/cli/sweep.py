"""Results of the jobs of a sweep, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from detector.evaluation.metrics import COCO_METRICS
from detector.quoting import quoted, shell_command
from detector.reports.tables import print_table
from detector.run_folder import RunFolder
from detector.runs.context import overridden_key


@dataclass(frozen=True)
class SweepJob:
    """A job of a sweep: its overrides and output folder."""

    overrides: Sequence[str]
    folder: Path

    @property
    def files(self) -> RunFolder:
        return RunFolder(self.folder)


_SHOWN = COCO_METRICS[:2]


def print_sweep(jobs: Sequence[SweepJob]) -> None:
    """Print a table of the jobs with their differing overrides and metrics, and a command to compare them.

    The command is for trained jobs. Nothing is printed if no job has metrics.
    """
    if not any(job.files.metrics.is_file() for job in jobs):
        return
    shared = set.intersection(*(set(job.overrides) for job in jobs))
    rows = [
        (str(number), " ".join(_own(job, shared)), *_scores(job.files), str(job.folder))
        for number, job in enumerate(jobs)
    ]
    header = ("job", "overrides", *(spec.label for spec in _SHOWN), "folder")
    print_table("Sweep", header, rows, console=Console())
    if runs := _comparable(jobs, shared):
        print(f"To compare them: {shell_command('compare', [f'runs={runs}'])}")


def _own(job: SweepJob, shared: set[str]) -> list[str]:
    return [override for override in job.overrides if override not in shared]


def _scores(files: RunFolder) -> list[str]:
    if not files.metrics.is_file():  # it failed
        return ["-"] * len(_SHOWN)
    metrics = files.read_metrics()
    return [f"{metrics[spec.name]:.3f}" for spec in _SHOWN]


def _comparable(jobs: Sequence[SweepJob], shared: set[str]) -> str:
    """Return the runs in the form of `detector compare runs=`; runs that differ only by seed share a list.

    Return "" unless there are at least two such variants, with equally many seeds.
    """
    variants: dict[tuple[str, ...], list[str]] = {}
    for job in jobs:
        if job.files.metrics.is_file() and job.files.checkpoints.is_dir():
            variant = tuple(override for override in _own(job, shared) if overridden_key(override) != "seed")
            variants.setdefault(variant, []).append(quoted(str(job.folder)))
    counts = {len(folders) for folders in variants.values()}
    if len(variants) < 2 or len(counts) > 1:
        return ""
    lists = [",".join(folders) for folders in variants.values()]
    return f"[{','.join(lists)}]" if counts == {1} else f"[{','.join(f'[{one}]' for one in lists)}]"
