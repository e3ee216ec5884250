"""The subjects of a comparison: results of each arm and seed on one ground truth, from any source."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detector.checkpoint import updated
from detector.coco.truth_file import read_ground_truth, require_objects
from detector.comparing.plan import PlannedRun
from detector.comparing.progress import is_finished
from detector.data.dataset import CocoDataset
from detector.evaluation.coco import CocoEvaluator
from detector.evaluation.result_boxes import check_boxes
from detector.evaluation.result_files import read_results
from detector.exceptions import RunError
from detector.profiling.latency import Latency
from detector.quoting import advised
from detector.reports.gallery import ReadPicture
from detector.reports.study import Curve, ModelSize
from detector.run_folder import RunFolder
from detector.runs.curves import read_curve
from detector.runs.model_size import model_size
from detector.runs.parts import validated_truth
from detector.runs.resume import flattened
from detector.runs.validation import open_validation

Results = list[Any]
_OF_EACH_RUN = ("seed", "data.seed", "name", "output_dir", "training.resume", "evaluation.backend")
_OF_ARMS = ("model.",)  # arms may differ in these without a note, the runs of one arm may not


@dataclass(frozen=True)
class Subject:
    """The results of arms that are compared with the first one.

    `results` and `curves` are by arm and seed. `notes` are for the reader of the report; `folders` has each
    arm's first run. `run_names` name runs that seeds do not identify; `is_trained` says that the runs are
    trainings of this project.
    """

    name: str
    evaluator: CocoEvaluator
    results: Mapping[str, Mapping[int, Results]]
    notes: tuple[str, ...] = ()
    curves: Mapping[str, Mapping[int, Curve]] | None = None
    sizes: Mapping[str, ModelSize] | None = None
    picture: ReadPicture | None = None
    folders: Mapping[str, Path] | None = None
    latencies: Mapping[str, Sequence[Latency]] | None = None
    run_names: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    is_trained: bool = True

    def run_name(self, arm: str, seed: int) -> str:
        """Return the name of a run; empty if it is the only one of its arm."""
        count = len(self.results[arm])
        name = self.run_names.get(arm, {}).get(seed, f"seed {seed}")
        return f"{name}, one of {count}" if count > 1 else ""


def of_planned(
    runs: Sequence[PlannedRun], failed: Mapping[Path, str], make_evaluator: Callable[..., CocoEvaluator]
) -> Subject:
    """Build a subject from the finished runs of one point, skipping arms that share no seed with the first.

    Raises:
        RunError: only the first arm is left.
    """
    arms = {arm: [r for r in runs if r.arm == arm] for arm in dict.fromkeys(run.arm for run in runs)}
    done = {arm: [run for run in of_arm if is_finished(run)] for arm, of_arm in arms.items()}
    configs = {arm: [run.config for run in of_arm] for arm, of_arm in arms.items()}
    notes = _differences(configs, named=_keys(runs))
    if len({run.data.fingerprint for run in runs}) > 1:
        notes.append("The arms were trained on different images or boxes.")
    notes += [f"{run.title} failed: {failed[run.folder]}" for run in runs if run.folder in failed]
    results = {
        arm: {run.seed: read_results(RunFolder(run.folder).predictions) for run in of_arm}
        for arm, of_arm in done.items()
    }
    results = _with_partners(results, notes)
    return Subject(
        name=runs[0].point,
        evaluator=make_evaluator(runs[0].data.ground_truth),
        results=results,
        notes=tuple(notes),
        curves={arm: {r.seed: read_curve(r.folder) for r in of_arm} for arm, of_arm in done.items()},
        sizes={arm: of_arm[0].size for arm, of_arm in arms.items()},
        picture=runs[0].data.picture,
        folders={arm: done[arm][0].folder for arm in results},
    )


def of_folders(
    arms: Sequence[str | Sequence[str]],
    make_evaluator: Callable[..., CocoEvaluator],
    *,
    generate_into: Path,
) -> Subject:
    """Build a subject from folders of detector train.

    Raises:
        ValueError: there are fewer than two arms, a folder is no finished run, or arms cannot be compared.
    """
    named = _named("runs", arms)
    configs = {arm: [_config_of(folder) for folder in folders] for arm, folders in named.items()}
    first, first_config = next((arm, of_arm[0]) for arm, of_arm in configs.items())
    val_set = _val_set(named[first][0], first_config, generate_into=generate_into)
    truth = validated_truth(val_set, first_config)
    for arm, of_arm in configs.items():
        for config, folder in zip(of_arm, named[arm], strict=True):
            if any(config[part] != first_config[part] for part in ("data", "training")) and (
                validated_truth(_val_set(folder, config, generate_into=generate_into), config) != truth
            ):
                raise ValueError(
                    f"{first} and {arm} were validated on different images or boxes: their numbers cannot be "
                    "compared. Evaluate both on one of them, and give predictions= and annotations=."
                )
    seeds, notes = _seeds(configs)
    folders = {arm: dict(zip(seeds[arm], of_arm, strict=True)) for arm, of_arm in named.items()}
    return Subject(
        name="",
        evaluator=make_evaluator(truth),
        results={
            arm: {seed: read_results(RunFolder(folder).predictions) for seed, folder in by_seed.items()}
            for arm, by_seed in folders.items()
        },
        notes=(*notes, *_differences(configs)),
        curves={
            arm: {seed: read_curve(folder) for seed, folder in by_seed.items()}
            for arm, by_seed in folders.items()
        },
        sizes={arm: model_size(of_arm[0], len(truth["categories"])) for arm, of_arm in configs.items()},
        picture=val_set.picture,
        folders={arm: of_arm[0] for arm, of_arm in named.items()},
        run_names={
            arm: {seed: f"seed {config['seed']}" for seed, config in zip(seeds[arm], of_arm, strict=True)}
            for arm, of_arm in configs.items()
        },
    )


def of_files(
    arms: Sequence[str | Sequence[str]], annotations: str | None, make_evaluator: Callable[..., CocoEvaluator]
) -> Subject:
    """Build a subject from COCO results files and their ground truth.

    Raises:
        ValueError: a file cannot be read, or the files cannot be compared.
    """
    if annotations is None:
        raise ValueError("predictions= needs its ground truth: annotations=<COCO file>.json.")
    named = _named("predictions", arms)
    truth = read_ground_truth(Path(annotations))
    evaluator = make_evaluator(truth, source=annotations)
    require_objects(evaluator.truth, truth, source=annotations)
    results: dict[str, dict[int, Results]] = {arm: {} for arm in named}
    notes: list[str] = []
    for arm, files in named.items():
        for seed, file in enumerate(files):
            results[arm][seed] = read_results(file)
            rows, told = evaluator.read(results[arm][seed], source=str(file))
            notes += [*told, *check_boxes(rows, evaluator.truth, source=str(file))]
    return Subject(
        name="",
        evaluator=evaluator,
        results=results,
        notes=tuple(dict.fromkeys(notes)),
        run_names={arm: {n: file.name for n, file in enumerate(files)} for arm, files in named.items()},
        is_trained=False,
    )


def _named(option: str, arms: Sequence[str | Sequence[str]]) -> dict[str, list[Path]]:
    """Return the paths of each arm by a short name: the shortest distinctive end of its first path."""
    paths = [[Path(p) for p in ([arm] if isinstance(arm, str) else arm)] for arm in arms]
    if len(paths) < 2:
        raise ValueError(f"{option}=: expected at least 2 to compare, got {len(paths)}.")
    counts = {len(of_arm) for of_arm in paths}
    if len(counts) > 1 or 0 in counts:
        raise ValueError(f"{option}=: expected as many seeds of each arm, got {[len(p) for p in paths]}.")
    firsts = [of_arm[0] for of_arm in paths]
    deepest = max(len(path.parts) for path in firsts)
    for depth in range(1, deepest + 1):
        names = ["/".join(path.parts[-depth:]) for path in firsts]
        if len(set(names)) == len(names):
            return dict(zip(names, paths, strict=True))
    raise ValueError(f"{option}=: {firsts[0]} is given twice. Compare different ones.")


def _config_of(folder: Path) -> dict[str, Any]:
    files = RunFolder(folder)
    for file in (files.config, files.predictions, files.epochs):
        if not file.is_file():
            raise ValueError(f"runs=: {folder} is no finished run of detector train: it has no {file.name}.")
    config = updated(files.read_config())
    epochs, planned = read_curve(folder).epochs, config["training"]["max_epochs"]
    if epochs[-1] < planned and config["training"]["early_stopping_patience"] is None:
        raise ValueError(
            f"runs=: {folder} ended in epoch {epochs[-1]} of {planned}. "
            f"Go on with it by {advised('training.resume', folder)}"
        )
    return config


def _seeds(configs: Mapping[str, Sequence[Mapping[str, Any]]]) -> tuple[dict[str, list[int]], list[str]]:
    """Return the seed of each run, and notes. Arms with different seeds are paired in the order given."""
    seeds = {arm: [config["seed"] for config in of_arm] for arm, of_arm in configs.items()}
    if len({frozenset(of_arm) for of_arm in seeds.values()}) == 1 and all(
        len(set(of_arm)) == len(of_arm) for of_arm in seeds.values()
    ):
        return seeds, []
    shown = ", ".join(f"{arm} {of_arm}" for arm, of_arm in seeds.items())
    note = f"The arms were not trained with the same seeds ({shown}): runs are paired in the order given."
    return {arm: list(range(len(of_arm))) for arm, of_arm in seeds.items()}, [note]


def _classes_of(folder: Path) -> tuple[str, ...]:
    """Return the classes that a run was trained on; empty if its metrics are missing."""
    files = RunFolder(folder)
    return tuple(files.read_metrics()["per_class"]) if files.metrics.is_file() else ()


def _val_set(folder: Path, config: Mapping[str, Any], *, generate_into: Path) -> CocoDataset:
    opened = open_validation(
        config["data"],
        class_names=_classes_of(folder),
        source=RunFolder(folder).config,
        generate_into=generate_into,
    )
    return opened.val_set


def _keys(runs: Sequence[PlannedRun]) -> tuple[str, ...]:
    """Return the option names that the overrides of the runs set."""
    words = {word for run in runs for word in run.overrides}
    return tuple(word.lstrip("+~").partition("=")[0].replace("/", ".") for word in words)


def _differences(
    configs: Mapping[str, Sequence[Mapping[str, Any]]], *, named: tuple[str, ...] = ()
) -> list[str]:
    """Return notes on options in which the arms, or the runs of one arm, differ.

    Each may also explain a difference in results. Between arms, options of the model and `named` ones are
    expected to differ and are skipped.
    """
    flat = [[flattened(config) for config in of_arm] for of_arm in configs.values()]
    keys = sorted({key for of_arm in flat for config in of_arm for key in config})
    notes = []
    for key in keys:
        values = [list(dict.fromkeys(str(config.get(key)) for config in of_arm)) for of_arm in flat]
        shown = ", ".join(" and ".join(of_arm) for of_arm in values)
        if key.startswith(_OF_EACH_RUN):
            continue
        if any(len(of_arm) > 1 for of_arm in values):
            notes.append(f"The runs of an arm differ in {key}: {shown}.")
        elif not key.startswith((*_OF_ARMS, *named)) and values != values[:1] * len(values):
            notes.append(f"The arms differ in {key}, too: {shown}.")
    return notes


def _with_partners(results: dict[str, dict[int, Results]], notes: list[str]) -> dict[str, dict[int, Results]]:
    first, *others = results
    lonely = [arm for arm in others if not set(results[first]) & set(results[arm])]
    if lonely == others:
        raise RunError(
            "\n".join([f"There is no seed with which {first} and another arm were trained.", *notes])
        )
    notes += [f"{arm} is left out: no seed of it and of {first} was trained." for arm in lonely]
    return {arm: by_seed for arm, by_seed in results.items() if arm not in lonely}
