"""`detector compare`: arms trained on the same data with the same seeds, and whether they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from detector.commands import train
from detector.commands.comparing.latency import with_latencies
from detector.commands.comparing.plan import plan_runs
from detector.commands.comparing.subjects import Subject, of_files, of_folders, of_planned
from detector.commands.comparing.training import train_all
from detector.commands.record import (
    overridden_key,
    require_no_training_run,
    require_writable,
    task_overrides,
    write_record,
)
from detector.config import resolved
from detector.errors import RunError
from detector.evaluation import Replicates, compare, draw
from detector.files import write_text_atomically
from detector.reports.comparison import Point, Study, print_study, write_study
from detector.reports.html import comparison_html
from detector.structures import NonNegativeInt, PositiveInt


@dataclass(frozen=True)
class Plan:
    """What is compared: `arms` and, each at a time, `points`, by name; all are override lists of train."""

    arms: Mapping[str, Sequence[str]]
    points: Mapping[str, Sequence[str]] | None = None
    base: Sequence[str] = ()
    stages: Sequence[int] | None = None


@dataclass(frozen=True)
class Options(train.Options):
    """The keys of configs/compare.yaml, which are those of configs/train.yaml and these."""

    compare: Plan = field(default_factory=lambda: Plan({}))
    seeds: Sequence[NonNegativeInt] = (0,)
    replicates: PositiveInt = 1000
    parallel: PositiveInt = 1
    runs_dir: str = ""
    runs: Sequence[str | Sequence[str]] | None = None
    predictions: Sequence[str | Sequence[str]] | None = None
    annotations: str | None = None
    latency: bool = True


OWN_KEYS = (
    "compare",
    "seeds",
    "replicates",
    "parallel",
    "runs_dir",
    "runs",
    "predictions",
    "annotations",
    "latency",
)
OF_FILES = (
    "runs",
    "predictions",
    "annotations",
    "replicates",
    "evaluation",
    "name",
    "output_dir",
    "hydra",
    "allow_targets",
)


def run(cfg: DictConfig) -> None:
    """Train what is not there yet, compare, and write report.html, report.md and comparison.json to
    `output_dir`.

    Raises:
        ValueError: nothing to compare, or arms that cannot be compared.
        RunError: an arm has no finished run with a seed of the first arm.
    """
    config = resolved(cfg)
    output_dir = Path(config["output_dir"])
    require_no_training_run(output_dir)
    require_writable(output_dir)
    if config["replicates"] < 2:
        raise ValueError("replicates=1: an interval takes at least 2, and 1000 to be exact.")
    subjects = _subjects(cfg, config)
    write_record(output_dir, config=config)
    if config["latency"]:
        subjects = with_latencies(subjects, accelerator=config["training"]["accelerator"])
    points = [_compared(subject, replicates=config["replicates"]) for subject in subjects]
    study = Study(name=config["name"], points=tuple(points))
    write_study(study, output_dir)
    write_text_atomically(output_dir / "report.html", comparison_html(study))
    print_study(study)
    print(f"Written to {output_dir}: open {output_dir / 'report.html'}")


def _subjects(cfg: DictConfig, config: Mapping[str, Any]) -> list[Subject]:
    """Results of each arm and seed with their ground truth, one for each point."""
    given = [key for key in ("runs", "predictions") if config[key] is not None]
    if len(given) > 1:
        raise ValueError("Both runs= and predictions= are given. Compare one of them.")
    if config["annotations"] is not None and given != ["predictions"]:
        raise ValueError(f"annotations={config['annotations']} is the ground truth of predictions=.")
    if given:
        _require_effect(given[0], also=("latency",) if given == ["runs"] else ())
    if given == ["predictions"]:
        return [of_files(config["predictions"], config["annotations"], cfg.evaluation)]
    if given == ["runs"]:
        return [of_folders(config["runs"], cfg.evaluation)]
    runs = plan_runs(cfg, own_keys=OWN_KEYS)
    failed = train_all(runs, parallel=config["parallel"])
    points = dict.fromkeys(run.point for run in runs)
    subjects, lost = [], []
    for point in points:
        try:
            subjects.append(of_planned([r for r in runs if r.point == point], failed, cfg.evaluation))
        except RunError as error:
            lost.append(f"{point}: {error}" if point else str(error))
    if not subjects:
        raise RunError("\n".join(lost))
    return [replace(subjects[0], notes=(*subjects[0].notes, *lost)), *subjects[1:]]


def _require_effect(option: str, *, also: tuple[str, ...]) -> None:
    """Raise ValueError for overrides of what is trained, where nothing is."""
    unused = [o for o in task_overrides() if overridden_key(o).partition(".")[0] not in (*OF_FILES, *also)]
    if unused:
        raise ValueError(
            f"{option}= compares what is there: {', '.join(unused)} would have no effect. Leave it out."
        )


def _compared(subject: Subject, *, replicates: int) -> Point:
    """Each arm against the first, with the seeds that both have."""
    keys = [(arm, seed) for arm, by_seed in subject.results.items() for seed in by_seed]
    runs = [
        Replicates(subject.evaluator.matched(subject.results[arm][seed], source=f"{arm}, seed {seed}"))
        for arm, seed in keys
    ]
    draws = draw(runs, replicates=replicates)
    first, *others = subject.results
    comparisons = {}
    for arm in others:
        seeds = [seed for seed in subject.results[first] if seed in subject.results[arm]]
        a, b = ([keys.index((name, seed)) for seed in seeds] for name in (first, arm))
        identical = all(subject.results[arm][seed] == subject.results[first][seed] for seed in seeds)
        names = subject.evaluator.class_names
        comparisons[arm] = compare(draws, a, b, class_names=names, identical=identical)
    return Point(
        name=subject.name,
        baseline=first,
        comparisons=comparisons,
        notes=subject.notes,
        curves=subject.curves,
        sizes=subject.sizes,
        latencies=subject.latencies,
    )
