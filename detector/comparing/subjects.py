"""The subjects of a comparison: results of each variant and seed on one ground truth, from any source."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detector.coco.ground_truth import GroundTruth
from detector.comparing.plan import PlannedRun
from detector.comparing.progress import is_finished
from detector.data.dataset import CocoDataset
from detector.evaluation.coco import CocoEvaluator
from detector.evaluation.metrics import MONITORED, MetricSpec
from detector.evaluation.result_boxes import check_boxes
from detector.evaluation.result_files import read_results
from detector.evaluation.several import TaskEvaluators
from detector.evaluation.task_metrics import deciding_spec, held_tasks, task_and_name
from detector.evaluation.tasks import NOUNS
from detector.exceptions import RunError
from detector.option_types import TaskName
from detector.profiling.latency import Latency
from detector.quoting import advised
from detector.reports.gallery import ReadImage
from detector.reports.study import Curve, ModelSize
from detector.run_folder import RunFolder
from detector.runs.curves import read_curve
from detector.runs.model_size import model_size
from detector.runs.parts import validated_truth
from detector.runs.resume import flattened
from detector.runs.validation import open_validation

Results = list[Any]
_DIFFER_BY_RUN = ("seed", "data.seed", "name", "output_dir", "training.resume", "evaluation.backend")
_TIME = re.compile(r"\d{4}-\d\d-\d\d([_T ].*)?")  # of a folder's name, as the default output_dir has it
_MAX_NAMED = 3  # options in the name of a run
# Variants may differ in these without a note, the runs of one variant may not.
_DIFFER_BY_VARIANT = ("model.",)


@dataclass(frozen=True)
class Subject:
    """The results of variants that are compared with the first one.

    `results` and `curves` are by variant and seed. `notes` are for the reader of the report; `folders` has
    each variant's first run. `run_names` name runs that seeds do not identify; `is_trained` says that the
    runs are trainings of this project. `others` evaluate the other tasks that all runs have.
    """

    name: str
    evaluator: CocoEvaluator
    results: Mapping[str, Mapping[int, Results]]
    notes: tuple[str, ...] = ()
    curves: Mapping[str, Mapping[int, Curve]] | None = None
    sizes: Mapping[str, ModelSize] | None = None
    read_image: ReadImage | None = None
    folders: Mapping[str, Path] | None = None
    latencies: Mapping[str, Sequence[Latency]] | None = None
    run_names: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    is_trained: bool = True
    metric: str = MONITORED.name
    others: Sequence[CocoEvaluator] = ()

    @property
    def decided_by(self) -> MetricSpec:
        """The spec of the metric that decides, by the name that its own task gives it."""
        return deciding_spec(self.evaluator, self.metric)

    def run_name(self, variant: str, seed: int) -> str:
        """Return the name of a run; empty if it is the only one of its variant."""
        count = len(self.results[variant])
        name = self.run_names.get(variant, {}).get(seed, f"seed {seed}")
        return f"{name}, one of {count}" if count > 1 else ""


def subject_of_plan(
    runs: Sequence[PlannedRun],
    failed: Mapping[Path, str],
    make_evaluator: Callable[..., CocoEvaluator],
    *,
    metric: str = MONITORED.name,
) -> Subject:
    """Build a subject from the finished runs of one condition.

    Variants that share no seed with the first are skipped.

    Raises:
        RunError: only the first variant is left.
    """
    variants = {
        variant: [r for r in runs if r.variant == variant]
        for variant in dict.fromkeys(run.variant for run in runs)
    }
    done = {
        variant: [run for run in variant_runs if is_finished(run)]
        for variant, variant_runs in variants.items()
    }
    configs = {variant: [run.config for run in variant_runs] for variant, variant_runs in variants.items()}
    notes = _differences(configs, expected=_overridden_options(runs))
    if len({run.data.fingerprint for run in runs}) > 1:
        notes.append("The variants were trained on different images or boxes.")
    notes += [f"{run.title} failed: {failed[run.folder]}" for run in runs if run.folder in failed]
    results = {
        variant: {run.seed: read_results(RunFolder(run.folder).predictions) for run in variant_runs}
        for variant, variant_runs in done.items()
    }
    results = _with_shared_seeds(results, notes)
    tasks = _tasks(results, metric=metric)
    evaluator, *others = _evaluators(make_evaluator, runs[0].data.ground_truth, tasks)
    return Subject(
        name=runs[0].condition,
        evaluator=evaluator,
        others=others,
        metric=metric,
        results=results,
        notes=tuple(notes),
        curves={
            variant: {r.seed: read_curve(r.folder, column=f"val/{metric}") for r in variant_runs}
            for variant, variant_runs in done.items()
        },
        sizes={variant: variant_runs[0].size for variant, variant_runs in variants.items()},
        read_image=runs[0].data.read_image,
        folders={variant: done[variant][0].folder for variant in results},
    )


def subject_of_folders(
    variants: Sequence[str | Sequence[str]],
    make_evaluator: Callable[..., CocoEvaluator],
    *,
    generate_into: Path,
    metric: str = MONITORED.name,
) -> Subject:
    """Build a subject from folders of detector train.

    Raises:
        ValueError: there are fewer than two variants, a folder is no finished run, or variants cannot be
            compared.
    """
    runs = _paths_by_variant("runs", variants)
    runs, configs = _without_times(
        runs, {variant: [_config_of(folder) for folder in folders] for variant, folders in runs.items()}
    )
    first, first_config = next((variant, variant_configs[0]) for variant, variant_configs in configs.items())
    seeds, notes = _seeds(configs)
    folders = {variant: dict(zip(seeds[variant], paths, strict=True)) for variant, paths in runs.items()}
    results = {
        variant: {seed: read_results(RunFolder(folder).predictions) for seed, folder in by_seed.items()}
        for variant, by_seed in folders.items()
    }
    tasks = _tasks(results, metric=metric)
    val_set = _val_set(runs[first][0], first_config, generate_into=generate_into, tasks=tasks)
    truth = validated_truth(val_set, first_config)
    _require_same_truth(runs, configs, truth, generate_into=generate_into, tasks=tasks)
    evaluator, *others = _evaluators(make_evaluator, truth, tasks)
    return Subject(
        name="",
        evaluator=evaluator,
        others=others,
        metric=metric,
        results=results,
        notes=(*notes, *_differences(configs)),
        curves={
            variant: {seed: read_curve(folder, column=f"val/{metric}") for seed, folder in by_seed.items()}
            for variant, by_seed in folders.items()
        },
        sizes={
            variant: model_size(variant_configs[0], truth.annotations.categories)
            for variant, variant_configs in configs.items()
        },
        read_image=val_set.read_image,
        folders={variant: paths[0] for variant, paths in runs.items()},
        run_names={
            variant: {
                seed: f"seed {config['seed']}"
                for seed, config in zip(seeds[variant], variant_configs, strict=True)
            }
            for variant, variant_configs in configs.items()
        },
    )


def _require_same_truth(
    runs: Mapping[str, Sequence[Path]],
    configs: Mapping[str, Sequence[dict[str, Any]]],
    truth: GroundTruth,
    *,
    generate_into: Path,
    tasks: Sequence[TaskName],
) -> None:
    """Raise ValueError unless all runs were validated on `truth`, that of the very first run."""
    first = next(iter(configs))
    first_config = configs[first][0]
    for variant, variant_configs in configs.items():
        for config, folder in zip(variant_configs, runs[variant], strict=True):
            if all(config[part] == first_config[part] for part in ("data", "training")):
                continue
            other = _val_set(folder, config, generate_into=generate_into, tasks=tasks)
            if not validated_truth(other, config).same_as(truth):
                raise ValueError(
                    f"{first} and {variant} were validated on different images or boxes: their numbers "
                    "cannot be compared. Evaluate both on one of them, and give predictions= and "
                    "annotations=."
                )


def subject_of_files(
    variants: Sequence[str | Sequence[str]],
    annotations: str | None,
    make_evaluator: Callable[..., CocoEvaluator],
    *,
    metric: str = MONITORED.name,
) -> Subject:
    """Build a subject from COCO results files and their ground truth.

    Raises:
        ValueError: a file cannot be read, or the files cannot be compared.
    """
    if annotations is None:
        raise ValueError("predictions= needs its ground truth: annotations=<COCO file>.json.")
    by_variant = _paths_by_variant("predictions", variants)
    evaluator = make_evaluator(annotations, task=task_and_name(metric)[0])
    evaluator.truth.require_objects()
    results: dict[str, dict[int, Results]] = {variant: {} for variant in by_variant}
    notes: list[str] = []
    for variant, files in by_variant.items():
        for seed, file in enumerate(files):
            results[variant][seed] = read_results(file)
            rows, file_notes = evaluator.read(results[variant][seed], source=str(file))
            notes += file_notes
            if evaluator.task == "bbox":
                notes += check_boxes(rows, evaluator.truth, source=str(file))
    return Subject(
        name="",
        evaluator=evaluator,
        metric=metric,
        results=results,
        notes=tuple(dict.fromkeys(notes)),
        run_names={
            variant: {n: file.name for n, file in enumerate(files)} for variant, files in by_variant.items()
        },
        is_trained=False,
    )


def _paths_by_variant(option: str, variants: Sequence[str | Sequence[str]]) -> dict[str, list[Path]]:
    """Return the paths of each variant by a short name: the shortest distinctive end of its first path."""
    paths = [[Path(p) for p in ([variant] if isinstance(variant, str) else variant)] for variant in variants]
    if len(paths) < 2:
        raise ValueError(f"{option}=: expected at least 2 to compare, got {len(paths)}.")
    counts = {len(variant_paths) for variant_paths in paths}
    if len(counts) > 1 or 0 in counts:
        raise ValueError(f"{option}=: expected as many seeds of each variant, got {[len(p) for p in paths]}.")
    firsts = [variant_paths[0].parts for variant_paths in paths]
    for ends in ([[part for part in parts if not _TIME.fullmatch(part)] for parts in firsts], firsts):
        for depth in range(1, max(map(len, firsts)) + 1):
            names = ["/".join(parts[-depth:]) for parts in ends]
            if len(set(names)) == len(names):
                return dict(zip(names, paths, strict=True))
    raise ValueError(f"{option}=: {paths[0][0]} is given twice. Compare different ones.")


def _without_times(
    by_variant: dict[str, list[Path]], configs: dict[str, list[dict[str, Any]]]
) -> tuple[dict[str, list[Path]], dict[str, list[dict[str, Any]]]]:
    """Name runs that only the time in their folder's name tells apart by the options in which they differ."""
    if not any(_TIME.fullmatch(part) for name in by_variant for part in name.split("/")):
        return by_variant, configs
    flat = {name: flattened(variant_configs[0]) for name, variant_configs in configs.items()}
    keys = sorted({key for config in flat.values() for key in config if not key.startswith(_DIFFER_BY_RUN)})
    differing = [key for key in keys if len({str(config.get(key)) for config in flat.values()}) > 1]
    names = {
        name: ", ".join(
            [configs[name][0]["name"], *(f"{key.rpartition('.')[2]}={config.get(key)}" for key in differing)]
        )
        for name, config in flat.items()
    }
    if len(set(names.values())) < len(names) or len(differing) > _MAX_NAMED:
        return by_variant, configs
    return {names[k]: v for k, v in by_variant.items()}, {names[k]: v for k, v in configs.items()}


def _config_of(folder: Path) -> dict[str, Any]:
    files = RunFolder(folder)
    for file in (files.config, files.predictions, files.epochs):
        if not file.is_file():
            raise ValueError(f"runs=: {folder} is no finished run of detector train: it has no {file.name}.")
    config = files.read_config()
    epochs, planned = read_curve(folder).epochs, config["training"]["max_epochs"]
    if epochs[-1] < planned and config["training"]["early_stopping_patience"] is None:
        raise ValueError(
            f"runs=: {folder} ended in epoch {epochs[-1]} of {planned}. "
            f"Go on with it by {advised('training.resume', folder)}"
        )
    return config


def _seeds(configs: Mapping[str, Sequence[Mapping[str, Any]]]) -> tuple[dict[str, list[int]], list[str]]:
    """Return the seed of each run, and notes. Variants with different seeds are paired in the order given."""
    seeds = {
        variant: [config["seed"] for config in variant_configs]
        for variant, variant_configs in configs.items()
    }
    if len({frozenset(variant_seeds) for variant_seeds in seeds.values()}) == 1 and all(
        len(set(variant_seeds)) == len(variant_seeds) for variant_seeds in seeds.values()
    ):
        return seeds, []
    shown = ", ".join(f"{variant} {variant_seeds}" for variant, variant_seeds in seeds.items())
    note = f"The variants were not trained with the same seeds ({shown}): runs are paired in the order given."
    return {variant: list(range(len(variant_seeds))) for variant, variant_seeds in seeds.items()}, [note]


def _classes_of(folder: Path) -> tuple[str, ...]:
    """Return the classes that a run was trained on; empty if its metrics are missing."""
    files = RunFolder(folder)
    return tuple(files.read_metrics()["per_class"]) if files.metrics.is_file() else ()


def _val_set(
    folder: Path, config: Mapping[str, Any], *, generate_into: Path, tasks: Sequence[TaskName]
) -> CocoDataset:
    opened = open_validation(
        config["data"],
        class_names=_classes_of(folder),
        source=RunFolder(folder).config,
        tasks=tuple(task for task in NOUNS if task == "bbox" or task in tasks),
        generate_into=generate_into,
    )
    return opened.val_set


def _tasks(results: Mapping[str, Mapping[int, Results]], *, metric: str) -> list[TaskName]:
    """Return the task of the metric, and the others that all results have which are not empty."""
    decisive = task_and_name(metric)[0]
    held = [{*held_tasks(rows)} for by_seed in results.values() for rows in by_seed.values() if rows]
    others = [task for task in NOUNS if task != decisive and all(task in one for one in held)]
    return [decisive, *(others if held else [])]


def _evaluators(
    make_evaluator: Callable[..., CocoEvaluator], truth: GroundTruth | None, tasks: Sequence[TaskName]
) -> list[CocoEvaluator]:
    """Build an evaluator for each task, in this order."""
    assert truth is not None
    return [*TaskEvaluators.of(make_evaluator, truth, tasks).evaluators]


def _overridden_options(runs: Sequence[PlannedRun]) -> tuple[str, ...]:
    """Return the option names that the overrides of the runs set."""
    words = {word for run in runs for word in run.overrides}
    return tuple(word.lstrip("+~").partition("=")[0].replace("/", ".") for word in words)


def _differences(
    configs: Mapping[str, Sequence[Mapping[str, Any]]], *, expected: tuple[str, ...] = ()
) -> list[str]:
    """Return notes on options in which the variants, or the runs of one variant, differ.

    Each may also explain a difference in results. Options of the model and `expected` ones are skipped
    between variants.
    """
    flat = [[flattened(config) for config in variant_configs] for variant_configs in configs.values()]
    keys = sorted({key for variant_configs in flat for config in variant_configs for key in config})
    notes = []
    for key in keys:
        values = [
            list(dict.fromkeys(str(config.get(key)) for config in variant_configs))
            for variant_configs in flat
        ]
        shown = ", ".join(" and ".join(variant_configs) for variant_configs in values)
        if key.startswith(_DIFFER_BY_RUN):
            continue
        if any(len(variant_configs) > 1 for variant_configs in values):
            notes.append(f"The runs of a variant differ in {key}: {shown}.")
        elif not key.startswith((*_DIFFER_BY_VARIANT, *expected)) and values != values[:1] * len(values):
            notes.append(f"The variants differ in {key}, too: {shown}.")
    return notes


def _with_shared_seeds(
    results: dict[str, dict[int, Results]], notes: list[str]
) -> dict[str, dict[int, Results]]:
    first, *others = results
    unpaired = [variant for variant in others if not set(results[first]) & set(results[variant])]
    if unpaired == others:
        raise RunError(
            "\n".join([f"There is no seed with which {first} and another variant were trained.", *notes])
        )
    notes += [f"{variant} is left out: no seed of it and of {first} was trained." for variant in unpaired]
    return {variant: by_seed for variant, by_seed in results.items() if variant not in unpaired}
