"""The plan of a comparison: its runs are composed, checked and built before the first begins."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from omegaconf import DictConfig

from detector.coco.ground_truth import GroundTruth
from detector.config.build import build_options
from detector.config.check import check
from detector.config.errors import ConfigError
from detector.config.overrides import composed
from detector.config.plain import resolved
from detector.data.datamodule import DetectionDataModule
from detector.data.keypoint_schemas import keypoint_schemas
from detector.earlier import with_earlier_names
from detector.evaluation.metrics import METRIC_NAMES, MONITORED
from detector.evaluation.several import TaskEvaluators
from detector.evaluation.task_metrics import deciding_spec, task_and_name
from detector.factory import weights_in
from detector.option_types import TaskName
from detector.reports.gallery import ReadImage
from detector.reports.study import ModelSize
from detector.runs.context import Context, overridden_key
from detector.runs.model_size import model_size
from detector.runs.options import TrainOptions
from detector.runs.parts import build_model, require_buildable, require_hardware, validated_truth
from detector.version import __version__

_VALIDATION_OPTIONS = ("limit_val_batches", "devices")  # of training: they decide which images are validated
_WITHOUT_EFFECT = ("output_dir", "name", "seed")  # the seed is part of the digest by itself
# Not in the identity at these values: runs from before there were such options keep their folders.
_LATER_DATA_OPTIONS = {"boxes_from_masks": False, "keypoint_flip_pairs": None, "keypoint_sigmas": None}


@dataclass(frozen=True)
class DataFacts:
    """The facts about a run's data that are known before it begins."""

    fingerprint: str
    ground_truth: GroundTruth | None  # None in a job on a cluster, which does not need it
    read_image: ReadImage | None


@dataclass(frozen=True)
class PlannedRun:
    """A training of one variant with one seed, under one condition.

    `overrides` are those of detector train, except for seed and folder. `folder` is named by the hash of all
    that decides the result, so that the same run is found again.
    """

    condition: str
    variant: str
    seed: int
    overrides: tuple[str, ...]
    config: dict[str, Any]
    data: DataFacts
    size: ModelSize
    folder: Path

    @property
    def title(self) -> str:
        return ", ".join([*filter(None, [self.condition]), self.variant, f"seed {self.seed}"])


def plan_runs(context: Context, *, own_keys: Sequence[str], here: bool = True) -> list[PlannedRun]:
    """Plan every run of every condition, variant and seed, without training.

    `own_keys` are configuration keys of the comparison itself, not of the runs. `here` says that this machine
    trains the runs, so that its hardware is checked.

    Raises:
        ConfigError: variants have configuration errors; all of them are listed.
        ValueError: there are fewer than two variants, variants have different validation images, or a part
            cannot be built.
    """
    config = context.config
    plan, seeds = config["compare"], config["seeds"]
    _require_variants(plan["variants"], seeds)
    shared = _of_runs(context.overrides, own_keys)
    _require_effect(shared, plan["variants"])
    _require_own_options(plan)
    configs = _checked(
        {
            (condition, variant): (*plan.get("base", ()), *shared, *changes, *overrides)
            for condition, changes in (plan.get("conditions") or {"": []}).items()
            for variant, overrides in plan["variants"].items()
        }
    )
    runs = []
    metric = plan.get("metric", MONITORED.name)
    models = {
        key: _built(variant_cfg, variant=key[1], metric=metric, here=here)
        for key, (_, variant_cfg) in configs.items()
    }
    every = {task for _, tasks in models.values() for task in tasks}
    # All read what any of them needs, so that their ground truths are the same.
    read = _DataReader(tuple(task for task in get_args(TaskName) if task in every))
    for (condition, variant), (words, variant_cfg) in configs.items():
        plain, (options, tasks) = resolved(variant_cfg), models[condition, variant]
        try:
            facts = read(options.data, plain)
            assert facts.ground_truth is not None
            categories = facts.ground_truth.annotations.categories
            evaluators = TaskEvaluators.of(options.evaluation, facts.ground_truth, tasks)
            options.training.monitored(evaluators.specs)
            for evaluator in evaluators.evaluators:
                if evaluator.task == task_and_name(metric)[0]:
                    deciding_spec(evaluator, metric)
            weights = weights_in(plain["model"])
            if weights:  # check that they fit
                schemas = keypoint_schemas(categories)
                build_model(options.model, len(categories), keypoint_schemas=schemas)
            size = model_size(plain, categories)
        except ValueError as error:
            raise ValueError(f"variant {variant}: {error}") from error
        identity = _identity(plain)
        for seed in seeds:
            digest = _digest(facts.fingerprint, _file_hashes(weights), seed, identity)
            folder = Path(config["runs_dir"]) / digest
            runs.append(PlannedRun(condition, variant, seed, words, identity, facts, size, folder))
    _require_same_truth(runs)
    return runs


def _built(
    config: DictConfig, *, variant: str, metric: str, here: bool
) -> tuple[TrainOptions, tuple[TaskName, ...]]:
    """Return the options of a variant and the tasks of its model, which must include that of the metric."""
    try:
        options = build_options(config, TrainOptions)
        if here:
            require_hardware(options.training)
        tasks = require_buildable(options.model)
        options.training.require_monitor_of(tasks)
    except ValueError as error:
        raise ValueError(f"variant {variant}: {error}") from error
    if (task := task_and_name(metric)[0]) not in tasks:
        raise ValueError(
            f"compare.metric={metric}: the model of the variant {variant} predicts {', '.join(tasks)}, no "
            f"{task}. Choose a model that does, or another metric."
        )
    return options, tasks


def _identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a configuration that decides the result of its run, seed aside."""
    identity = {k: v for k, v in config.items() if k not in _WITHOUT_EFFECT}
    identity["evaluation"].pop("backend", None)  # all backends give the same numbers
    monitored = task_and_name(identity["training"]["monitor"])[1]
    if monitored in METRIC_NAMES:  # others are computed from the predictions
        identity["evaluation"].pop("metrics", None)
    if identity["training"]["monitor"] == MONITORED.name:  # as before there was the option
        del identity["training"]["monitor"]
    identity["training"].pop("log_offsets_every_n_steps", None)  # it only logs
    for option, default in _LATER_DATA_OPTIONS.items():
        if identity["data"].get(option, default) == default:
            identity["data"].pop(option, None)
    return identity


def _require_variants(variants: Mapping[str, Sequence[str]], seeds: Sequence[int]) -> None:
    if len(variants) < 2:
        raise ValueError(
            f"compare.variants: expected at least 2, got {len(variants)}: {', '.join(variants)}."
        )
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds={list(seeds)}: expected at least one, each once.")


def _require_effect(shared: Sequence[str], variants: Mapping[str, Sequence[str]]) -> None:
    """Raise ValueError for an override that every variant replaces with its own."""
    set_by_all = set.intersection(*({overridden_key(word) for word in words} for words in variants.values()))
    for override in shared:
        if overridden_key(override) in set_by_all:
            raise ValueError(
                f"{override}: has no effect, every variant sets {overridden_key(override)} itself. Change "
                f"the variants: compare.variants.{list(variants)[-1]}=[...], compare.stages=[...] or a file "
                "of your own."
            )


def _require_own_options(plan: Mapping[str, Any]) -> None:
    """Raise ValueError for overrides in a file that would be trusted as if given on the command line."""
    by_name = {"base": plan.get("base", ()), **(plan.get("conditions") or {}), **plan["variants"]}
    for name, words in by_name.items():
        for word in words:
            if overridden_key(word.strip()).partition(".")[0] in ("allow_targets", "hydra"):
                raise ValueError(
                    f"compare, {name}: {word}: variants may differ in options of a training only. Give it on "
                    "the command line, for all runs."
                )


def _of_runs(overrides: Sequence[str], own_keys: Sequence[str]) -> list[str]:
    """Return the overrides of the command line that apply to every run."""
    shared = []
    for override in overrides:
        key = overridden_key(override).partition(".")[0]
        if key == "seed":
            raise ValueError(f"{override}: a comparison has seeds=[{override.partition('=')[2]}].")
        if key not in (*own_keys, "name", "output_dir", "hydra"):
            shared.append(override)
    return shared


def _checked(
    overrides: Mapping[tuple[str, str], tuple[str, ...]],
) -> dict[tuple[str, str], tuple[tuple[str, ...], DictConfig]]:
    """Return each list of overrides with the configuration of detector train that it composes."""
    configs, problems = {}, []
    for (condition, variant), words in overrides.items():
        try:
            cfg = composed("train", [*words, "name=compared", "output_dir=compared"])
            check(cfg, TrainOptions)
            configs[condition, variant] = words, cfg
        except ConfigError as error:
            where = f"variant {variant}" + (f" under {condition}" if condition else "")
            problems += [f"{where}: {problem}" for problem in error.problems]
    if problems:
        raise ConfigError(problems)
    return configs


class _DataReader:
    """A reader that reads the data of all variants, which mostly share it, once, with what `tasks` need."""

    def __init__(self, tasks: tuple[TaskName, ...]) -> None:
        self._tasks = tasks
        self._facts: dict[str, DataFacts] = {}

    def __call__(self, data: DetectionDataModule, config: Mapping[str, Any]) -> DataFacts:
        validated = {key: config["training"][key] for key in _VALIDATION_OPTIONS}
        key = json.dumps([config["data"], validated], sort_keys=True)
        if key not in self._facts:
            data.use_tasks(self._tasks)
            data.prepare_data()
            data.setup("fit")
            truth = validated_truth(data.val_set, config)
            self._facts[key] = DataFacts(data.fingerprint, truth, data.val_set.read_image)
        return self._facts[key]


def _file_hashes(weights: Sequence[str]) -> list[str]:
    """Hash the weights that are files; published weights are identified by their names."""
    hashes = []
    for path in map(Path, weights):
        if path.is_file():
            with path.open("rb") as file:
                hashes.append(hashlib.file_digest(file, "sha256").hexdigest())
    return hashes


def _digest(fingerprint: str, weights: Sequence[str], seed: int, config: Mapping[str, Any]) -> str:
    config = with_earlier_names(config)  # which keeps the folders of runs that are there
    identity = json.dumps([__version__, fingerprint, weights, seed, config], sort_keys=True)
    return hashlib.sha256(identity.encode()).hexdigest()[:12]


def _require_same_truth(runs: Sequence[PlannedRun]) -> None:
    first: dict[str, PlannedRun] = {}
    for run in runs:
        other = first.setdefault(run.condition, run)
        truth, other_truth = run.data.ground_truth, other.data.ground_truth
        assert truth is not None
        assert other_truth is not None
        if not truth.same_as(other_truth):
            raise ValueError(
                f"The variants {other.variant} and {run.variant} have different validation images or boxes, "
                "so that their numbers cannot be compared. Let the variants differ in nothing of data.val."
            )
