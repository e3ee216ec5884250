"""`detector compare`: train variants on the same data with the same seeds, and test whether they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from detector.comparing.cluster import Cluster, chosen_cluster, train_on_cluster
from detector.comparing.compared import changed_images, compared
from detector.comparing.latency import with_latencies
from detector.comparing.plan import PlannedRun, plan_runs
from detector.comparing.progress import is_finished
from detector.comparing.subjects import Subject, subject_of_files, subject_of_folders, subject_of_plan
from detector.comparing.training import TrainRuns, train_all, train_here
from detector.evaluation.metrics import MONITORED
from detector.exceptions import RunError
from detector.files import write_text_atomically
from detector.option_types import NonNegativeInt, PositiveInt
from detector.reports.comparison import Study, print_study, write_study
from detector.reports.html import comparison_html
from detector.run_folder import RunFolder
from detector.runs.console import echo
from detector.runs.context import Context, overridden_key
from detector.runs.options import TrainOptions
from detector.runs.parts import weights_note
from detector.runs.record import require_no_training_run, require_writable, write_record


@dataclass(frozen=True)
class Plan:
    """The `variants` to compare under each of `conditions`; both map names to override lists of `train`.

    The verdict is on `metric`: AP of boxes, or another such as segm/AP.
    """

    variants: Mapping[str, Sequence[str]]
    conditions: Mapping[str, Sequence[str]] | None = None
    base: Sequence[str] = ()
    stages: Sequence[int] | None = None
    metric: str = MONITORED.name


@dataclass(frozen=True)
class Options(TrainOptions):
    """The keys of configs/compare.yaml: those of configs/train.yaml, and these."""

    compare: Plan = field(default_factory=lambda: Plan({}))
    seeds: Sequence[NonNegativeInt] = (0,)
    num_resamples: PositiveInt = 1000
    parallel: PositiveInt = 1
    runs_dir: str = ""
    runs: Sequence[str | Sequence[str]] | None = None
    predictions: Sequence[str | Sequence[str]] | None = None
    annotations: str | None = None
    latency: bool = True


OWN_KEYS = (
    "compare",
    "seeds",
    "num_resamples",
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
    "num_resamples",
    "compare.metric",
    "evaluation",
    "name",
    "output_dir",
    "hydra",
    "allow_targets",
)


def run(options: Options, context: Context) -> None:
    """Train missing runs, compare, and write report.html, report.md and comparison.json to `output_dir`.

    Raises:
        ValueError: there is nothing to compare, or the variants cannot be compared.
        RunError: a variant has no finished run with a seed of the first variant.
    """
    output_dir = Path(options.output_dir)
    require_no_training_run(output_dir)
    require_writable(output_dir)
    if options.num_resamples < 2:
        raise ValueError("num_resamples=1: an interval takes at least 2, and 1000 to be exact.")
    subjects = _subjects(options, context)
    write_record(output_dir, context)
    if options.latency:
        subjects = with_latencies(
            subjects, accelerator=options.training.accelerator, generate_into=output_dir / "data"
        )
    results = [compared(subject, num_resamples=options.num_resamples) for subject in subjects]
    study = Study(
        name=_title(options, context, subjects), conditions=tuple(condition for condition, _ in results)
    )
    pairs = sum(len(condition.comparisons) for condition in study.conditions)
    changes = [change for _, models in results for change in changed_images(models, pairs=pairs)]
    files = RunFolder(output_dir)
    write_study(study, output_dir, changes=changes)
    write_text_atomically(files.report, comparison_html(study, changes))
    print_study(study)
    print(f"Written to {output_dir}: open {files.report}")


def _title(options: Options, context: Context, subjects: Sequence[Subject]) -> str:
    """Return the study's name; for runs= and predictions= it lists the variants, unless a name was given."""
    trained = options.runs is None and options.predictions is None
    if trained or any(overridden_key(override) == "name" for override in context.overrides):
        return options.name
    first, *others = subjects[0].results
    return f"{', '.join(others)} against {first}"


def _subjects(options: Options, context: Context) -> list[Subject]:
    """Return the results of each variant and seed with their ground truth, one subject for each condition."""
    sources = [key for key in ("runs", "predictions") if getattr(options, key) is not None]
    if len(sources) > 1:
        raise ValueError("Both runs= and predictions= are given. Compare one of them.")
    if options.annotations is not None and sources != ["predictions"]:
        raise ValueError(f"annotations={options.annotations} is the ground truth of predictions=.")
    if sources:
        _require_effect(sources[0], context, also=("latency",) if sources == ["runs"] else ())
    if options.predictions is not None:
        of_files = subject_of_files(
            options.predictions, options.annotations, options.evaluation, metric=options.compare.metric
        )
        return [of_files]
    if options.runs is not None:
        return [
            subject_of_folders(
                options.runs,
                options.evaluation,
                generate_into=Path(options.output_dir) / "data",
                metric=options.compare.metric,
            )
        ]
    cluster = chosen_cluster(context.launcher)
    train = _train_runs(cluster, parallel=options.parallel, flags=context.config_dir_flags)
    runs = plan_runs(context, own_keys=OWN_KEYS, here=cluster is None)
    _require_a_device_each(runs, parallel=options.parallel)
    if note := weights_note([run.config["model"] for run in runs if not is_finished(run)], options.data):
        echo(f"note: {note}")
    failed = train_all(runs, train=train)
    conditions = dict.fromkeys(run.condition for run in runs)
    subjects, lost = [], []
    for condition in conditions:
        try:
            subjects.append(
                subject_of_plan(
                    [r for r in runs if r.condition == condition],
                    failed,
                    options.evaluation,
                    metric=options.compare.metric,
                )
            )
        except RunError as error:
            lost.append(f"{condition}: {error}" if condition else str(error))
    if not subjects:
        raise RunError("\n".join(lost))
    return [replace(subjects[0], notes=(*subjects[0].notes, *lost)), *subjects[1:]]


def _require_a_device_each(runs: Sequence[PlannedRun], *, parallel: int) -> None:
    """Raise ValueError if parallel runs would use other devices than sequential ones."""
    if parallel == 1:
        return
    for run in runs:
        if (devices := run.config["training"]["devices"]) != 1:
            raise ValueError(
                f"parallel={parallel} gives each run one device, and training.devices={devices}. Set "
                "training.devices=1, or leave out parallel."
            )


def _train_runs(cluster: Cluster | None, *, parallel: int, flags: Sequence[str]) -> TrainRuns:
    """Return how the runs are trained; raise ValueError for `parallel` on a cluster, which has its own."""
    if cluster is None:
        return partial(train_here, parallel=parallel, flags=flags)
    if parallel > 1:
        advice = {"slurm": f", or set hydra.launcher.array_parallelism={parallel}"}.get(cluster.executor, "")
        raise ValueError(
            f"parallel={parallel} is for runs on this machine; hydra/launcher={cluster.choice} submits all "
            f"at once. Leave it out{advice}."
        )
    return partial(train_on_cluster, cluster=cluster, flags=flags)


def _require_effect(option: str, context: Context, *, also: tuple[str, ...]) -> None:
    """Raise ValueError for overrides of training options, as nothing is trained."""
    used = (*OF_FILES, *also)
    keys = {override: overridden_key(override) for override in context.overrides}
    unused = [o for o, key in keys.items() if key not in used and key.partition(".")[0] not in used]
    if unused:
        raise ValueError(
            f"{option}= compares existing files: {', '.join(unused)} would have no effect. Leave it out."
        )
