"""The verbs of the command line as Python functions, with the same options, checks and files.

`overrides` takes any other option as the command line does: `overrides=["model.head.num_convs=2"]`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from importlib import import_module
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal

from detector.cli.jobs import context_of, message_of, plain_warnings, require_typed
from detector.cli.resuming import with_resumed
from detector.config.build import build_options
from detector.config.errors import ConfigError
from detector.config.guard import guarded
from detector.config.loading import composed_alone
from detector.config.overrides import (
    COMPOSITION_ERRORS,
    Arguments,
    explain,
    parse_arguments,
    with_present_names,
)
from detector.config.targets import allowing
from detector.exceptions import DetectorError, exit_code
from detector.option_types import ScoreThreshold
from detector.predictor import Predictor
from detector.quoting import override, quoted, shell_command
from detector.run_folder import Row, RunFolder

PathLike = str | os.PathLike[str]
_KEYS = {  # keywords of the functions below whose option has a longer name
    "batch_size": ("data.batch_size",),
    "data": ("data.root",),
    "device": ("training.accelerator",),
    "epochs": ("training.max_epochs",),
    "image_size": ("data.image_size.min_size", "data.image_size.max_size"),
    "lr": ("optimizer.lr",),
    "resume": ("training.resume",),
}
_SHOWN = ("AP", "AP50", "AP75")


@dataclass(frozen=True)
class _Folder:
    folder: PathLike

    @property
    def files(self) -> RunFolder:
        """The paths of all its files."""
        return RunFolder(Path(self.folder))

    @property
    def report(self) -> Path:
        """The page with figures, errors and images, for a browser."""
        return self.files.report


@dataclass(frozen=True, repr=False)
class Run(_Folder):
    """A training or an evaluation that has ended: its folder, and what is in it.

    Examples:
        >>> run = Run("runs/train/fcos/2026-01-31_12-00-00")
        >>> run.metrics["AP50"]
    """

    @property
    def metrics(self) -> dict[str, Any]:
        """The metrics of the best checkpoint on the validation images, by name, and those `per_class`."""
        return self.files.read_metrics()

    @property
    def epochs(self) -> list[Row]:
        """The rows of metrics.csv, one for each epoch of a training."""
        return self.files.read_epochs()

    @property
    def checkpoint(self) -> Path:
        """The best checkpoint of a training."""
        return self.files.best

    def predictor(self, *, device: str = "cpu") -> Predictor:
        """Return the best checkpoint of a training, ready to detect."""
        return Predictor(self.checkpoint, device=device)

    def __repr__(self) -> str:
        if not self.files.metrics.is_file():
            return f"Run({os.fspath(self.folder)}: no metrics)"
        metrics = self.metrics
        values = ", ".join(f"{name} {_cell(metrics[name])}" for name in _SHOWN)
        return f"Run({os.fspath(self.folder)}: {values})"

    def _repr_html_(self) -> str:
        if not self.files.metrics.is_file():
            return escape(repr(self))
        metrics = self.metrics
        rows = {"all": metrics, **metrics["per_class"]}
        head = "".join(f"<th>{name}</th>" for name in _SHOWN)
        body = "".join(
            f"<tr><th>{escape(name)}</th>{''.join(f'<td>{_cell(row[key])}</td>' for key in _SHOWN)}</tr>"
            for name, row in rows.items()
        )
        return f"<table><tr><th>class</th>{head}</tr>{body}</table>{_link(self.report)}"


@dataclass(frozen=True, repr=False)
class Comparison(_Folder):
    """A comparison that has ended: its folder, and what is in it. A notebook shows its summary."""

    @property
    def results(self) -> dict[str, Any]:
        """The content of comparison.json: metrics, differences and intervals of every variant."""
        return json.loads(self.files.comparison.read_text(encoding="utf-8"))

    @property
    def verdicts(self) -> list[str]:
        """What can be said of each variant under each condition, in words."""
        compared = [condition["comparisons"] for condition in self.results["conditions"]]
        return [one["verdict"] for comparisons in compared for one in comparisons.values()]

    def __repr__(self) -> str:
        verdicts = self.verdicts if self.files.comparison.is_file() else ["no results"]
        return "\n".join([f"Comparison({os.fspath(self.folder)})", *verdicts])

    def _repr_markdown_(self) -> str:
        if not self.files.summary.is_file():
            return repr(self)
        return f"{self.files.summary.read_text(encoding='utf-8')}\n\n{_link(self.report)}"


def train(
    data: PathLike | None = None,
    *,
    model: str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    image_size: int | None = None,
    lr: float | None = None,
    seed: int | None = None,
    device: Literal["auto", "cpu", "gpu", "mps"] | None = None,
    resume: Run | PathLike | None = None,
    output_dir: PathLike | None = None,
    overrides: Sequence[str] = (),
) -> Run:
    """Train a detector as `detector train` does, and return the run. What is None is as there.

    `data` is a folder of COCO-format data; None generates a small dataset. `model` is a name of
    configs/model. `image_size` is the longest side in pixels. Only one device is used.

    Examples:
        >>> run = train("path/to/dataset", model="fcos", epochs=12)
        >>> run.predictor()("image.jpg").show()

    Raises:
        DetectorError: options or data are wrong, or the training cannot go on.
    """
    words = _words(
        model=model,
        epochs=epochs,
        batch_size=batch_size,
        image_size=image_size,
        lr=lr,
        seed=seed,
        device=device,
        resume=resume.folder if isinstance(resume, Run) else resume,
        output_dir=output_dir,
    )
    return Run(_call("train", [*_of_data(data), *words, *overrides]).output_dir)


def evaluate(
    checkpoint: Run | PathLike | None = None,
    data: PathLike | None = None,
    *,
    predictions: PathLike | None = None,
    annotations: PathLike | None = None,
    device: Literal["auto", "cpu", "gpu", "mps"] | None = None,
    output_dir: PathLike | None = None,
    overrides: Sequence[str] = (),
) -> Run:
    """Evaluate a checkpoint, or `predictions` against `annotations`, as `detector evaluate` does.

    `data` is a folder with other validation images than those of the training.

    Raises:
        DetectorError: options or data are wrong, or the evaluation cannot go on.
    """
    words = _words(
        checkpoint=_checkpoint(checkpoint),
        data=data,
        predictions=predictions,
        annotations=annotations,
        accelerator=device,
        output_dir=output_dir,
    )
    return Run(_call("evaluate", [*words, *overrides]).output_dir)


def compare(
    data: PathLike | None = None,
    *,
    variants: Mapping[str, Sequence[str]] | None = None,
    seeds: Sequence[int] | None = None,
    runs: Sequence[Any] | None = None,
    predictions: Sequence[Any] | None = None,
    annotations: PathLike | None = None,
    model: str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    image_size: int | None = None,
    device: Literal["auto", "cpu", "gpu", "mps"] | None = None,
    output_dir: PathLike | None = None,
    overrides: Sequence[str] = (),
) -> Comparison:
    """Compare variants as `detector compare` does: train each with each seed, and test the difference.

    `variants` maps names to lists of overrides; each is compared with the first. Without training, `runs` are
    finished runs or their folders, and `predictions` are results files of `annotations`; several seeds of one
    variant are a list among them.

    Examples:
        >>> variants = {"sgd": ["optimizer=sgd"], "adamw": ["optimizer=adamw"]}
        >>> compare("path/to/dataset", variants=variants, seeds=[0, 1, 2])

    Raises:
        DetectorError: options or data are wrong, or a variant has no finished run.
    """
    words = _words(
        model=model,
        epochs=epochs,
        batch_size=batch_size,
        image_size=image_size,
        device=device,
        annotations=annotations,
        output_dir=output_dir,
    )
    if variants is not None:  # in place of those that the comparison's file has
        changed_variants = ",".join(f"{name}:{_list(changes)}" for name, changes in variants.items())
        words += ["~compare.variants", f"+compare.variants={{{changed_variants}}}"]
    lists = {"seeds": seeds, "runs": runs, "predictions": predictions}
    words += [f"{key}={_list(values)}" for key, values in lists.items() if values is not None]
    return Comparison(_call("compare", [*_of_data(data), *words, *overrides]).output_dir)


def predict(
    checkpoint: Run | PathLike,
    source: PathLike,
    *,
    annotations: PathLike | None = None,
    score_threshold: ScoreThreshold | None = None,
    device: Literal["auto", "cpu", "gpu", "mps"] | None = None,
    output_dir: PathLike | None = None,
    overrides: Sequence[str] = (),
) -> Path:
    """Detect in an image, folder or glob and write the files of `detector predict`; return their folder.

    `Predictor` detects without writing files.

    Raises:
        DetectorError: options are wrong, or no file is an image.
    """
    words = _words(
        checkpoint=_checkpoint(checkpoint),
        source=source,
        annotations=annotations,
        score_threshold=score_threshold,
        accelerator=device,
        output_dir=output_dir,
    )
    return Path(_call("predict", [*words, *overrides]).output_dir)


def export(
    checkpoint: Run | PathLike,
    *,
    format: Literal["onnx", "torch_export"] | None = None,
    source: PathLike | None = None,
    output_dir: PathLike | None = None,
    overrides: Sequence[str] = (),
) -> Path:
    """Write a checkpoint as one file, checked against the model, as `detector export` does; return the file.

    Raises:
        DetectorError: options are wrong, or the file does not detect what the model does.
    """
    words = _words(checkpoint=_checkpoint(checkpoint), format=format, source=source, output_dir=output_dir)
    options = _call("export", [*words, *overrides])
    ending = import_module("detector.commands.export").ENDINGS[options.format]
    return Path(options.output_dir) / f"{options.name}{ending}"


def _call(verb: str, words: Sequence[str]) -> Any:
    """Compose, check and run a verb as the command line does; return its options."""
    try:
        arguments = parse_arguments(verb, words)
        if arguments.multirun or not arguments.runs:
            raise ConfigError([f"{' '.join(arguments.flags)}: only the command line takes it"])
        arguments = replace(arguments, overrides=with_resumed(arguments.overrides))
        with guarded(arguments.overrides, arguments.allow_targets):
            return _composed_and_called(verb, with_present_names(arguments))
    except SystemExit as end:
        if end.code == exit_code(None):  # a training that was interrupted has said what it keeps
            raise KeyboardInterrupt from None
        raise
    except Exception as error:
        message = message_of(error)
        if message is None:
            raise
        raise DetectorError(message) from None


def _composed_and_called(verb: str, arguments: Arguments) -> Any:
    from detector.runs.folder import sole_use  # heavy, as are commands

    command = import_module(f"detector.commands.{verb}")
    try:
        with (
            composed_alone(arguments.primary, arguments.overrides, folder=arguments.config_dir) as cfg,
            allowing(arguments.allow_targets),
        ):
            require_typed(cfg, arguments.allow_targets)
            options, context = build_options(cfg, command.Options), context_of(cfg)
            if verb == "train":
                _require_one_device(options.training.devices, arguments.overrides)
            with sole_use(Path(options.output_dir), command=verb), plain_warnings():
                command.run(options, context)
            return options
    except COMPOSITION_ERRORS as error:
        raise ConfigError([*explain(arguments, error).values()]) from error


def _require_one_device(devices: int | str, words: Sequence[str]) -> None:
    """Raise ValueError for several devices: their processes would each run the whole program of the user."""
    if devices != 1:
        raise ValueError(
            f"training.devices={devices}: Python trains on one device. Several take the command line: "
            f"{shell_command('train', words)}"
        )


def _words(**options: object) -> list[str]:
    """Return the options that are set as overrides."""
    return [
        f"{key}={_number(value)}" if isinstance(value, Real) else override(key, value)
        for name, value in options.items()
        if value is not None
        for key in _KEYS.get(name, (name,))
    ]


def _number(value: Real) -> str:
    """Return a number, of Python or NumPy, as it is typed."""
    return str(
        value if isinstance(value, bool) else int(value) if isinstance(value, Integral) else float(value)
    )


def _of_data(data: PathLike | None) -> list[str]:
    return [] if data is None else ["data=coco", override("data.root", os.fspath(data))]


def _checkpoint(checkpoint: Run | PathLike | None) -> PathLike | None:
    """Return the file that is meant: the best checkpoint of a run or its folder, or the file itself."""
    if checkpoint is None or (not isinstance(checkpoint, Run) and not Path(checkpoint).is_dir()):
        return checkpoint
    run = checkpoint if isinstance(checkpoint, Run) else Run(checkpoint)
    return run.checkpoint if run.checkpoint.is_file() else run.folder


def _list(values: Sequence[Any]) -> str:
    """Return values, which may be lists, runs and paths, as a list in Hydra's grammar."""
    if isinstance(values, str | os.PathLike):
        raise DetectorError(f"{os.fspath(values)!r}: expected a list of at least two, [a, b].")
    parts = [
        _list(value)
        if isinstance(value, list | tuple)
        else _number(value)
        if isinstance(value, Real)
        else quoted(os.fspath(value.folder if isinstance(value, Run) else value))
        for value in values
    ]
    return f"[{','.join(parts)}]"


def _cell(value: float) -> str:
    return "-" if value < 0 else f"{value:.3f}"


def _link(report: Path) -> str:
    return f'<a href="{escape(report.as_posix())}">{escape(str(report))}</a>'
