"""The head of a report: what was trained or evaluated, on what, how and where, from the record of a run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from detector.evaluation.coco import CocoEvaluator
from detector.reports.run import Head
from detector.reports.study import Curve
from detector.run_folder import RunFolder

_ARCHITECTURES = {"FCOSHead": "FCOS", "FasterRCNNHead": "Faster R-CNN"}


def training_head(folder: Path, curve: Curve, *, checkpoint: str, contents: str) -> Head:
    """Build the head of the report of the training in `folder`.

    `checkpoint` says what was evaluated on which images, `contents` counts the data.
    """
    files = RunFolder(folder)
    config = files.read_config()
    return Head(
        model=model_name(config["model"]),
        data=data_name(config["data"]),
        facts={
            "checkpoint": checkpoint,
            "data": f"{config['data'].get('root') or data_name(config['data'])}: {contents}",
            "epochs": _epochs(curve, planned=config["training"]["max_epochs"]),
            "training time": _duration(sum(curve.seconds)),
            **_environment_facts(files.read_environment()),
        },
        command=_command("train", files),
        config=yaml.safe_dump(config, sort_keys=False, allow_unicode=True),
    )


def evaluation_head(folder: Path, *, model: str, data: str, facts: Mapping[str, str]) -> Head:
    """Build the head of the report of the evaluation whose record is in `folder`."""
    files = RunFolder(folder)
    return Head(
        model=model,
        data=data,
        facts={**facts, **_environment_facts(files.read_environment())},
        command=_command("evaluate", files),
        config=files.config.read_text(encoding="utf-8"),
    )


def model_name(model: Mapping[str, Any]) -> str:
    """Return a name like "FCOS, ResNet-18, deformable C4 and C5" for the `model` of a configuration."""
    head, backbone = model.get("head") or {}, model.get("backbone") or {}
    kind = _class_of(head) or _class_of(model)
    parts = [_ARCHITECTURES.get(kind, kind)]
    if backbone:
        parts.append("-".join(filter(None, [_class_of(backbone), str(backbone.get("depth") or "")])))
    stages = (backbone.get("deform") or {}).get("stages") or ()
    if stages:
        parts.append("deformable " + ", ".join(f"C{stage}" for stage in stages))
    return ", ".join(filter(None, parts)) or "model"


def data_name(data: Mapping[str, Any]) -> str:
    """Return the name of the folder, or else of the validation file, of the `data` of a configuration."""
    if data.get("root"):
        return Path(data["root"]).name
    annotations = (data.get("val") or {}).get("annotations")
    return Path(annotations).stem if annotations else "data"


def counted(evaluator: CocoEvaluator, *, training: str = "") -> str:
    """Return the numbers of classes, objects and images."""
    truth = evaluator.truth
    images = f"{int((~truth.ignored).sum()):,} objects in {truth.num_images:,} validation images"
    return "; ".join(filter(None, [f"{len(truth.class_names)} classes, {images}", training]))


def _class_of(part: Mapping[str, Any]) -> str:
    return str(part.get("_target_", "")).rpartition(".")[2]


def _epochs(curve: Curve, *, planned: int) -> str:
    last = curve.epochs[-1] if curve.epochs else 0
    steps = f", {curve.steps[-1]:,} steps" if curve.steps else ""
    best = "" if curve.best is None else f"; best: epoch {curve.epochs[curve.best]}"
    return f"{last} of {planned}{steps}{best}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "min"), (rest if not hours else 0, "s"))
    return " ".join(f"{value} {unit}" for value, unit in parts if value) or "0 s"


def _environment_facts(environment: Mapping[str, Any]) -> dict[str, str]:
    gpus, cpu = environment["gpus"], environment["cpu"]
    device = ", ".join(f"{gpus.count(name)} x {name}" for name in dict.fromkeys(gpus))
    git = environment["git"]
    version = f"detector {environment['detector']}"
    commit = f", commit {git['commit'][:10]}{', with changes' * git['changed']}" if git else ""
    packages = environment["packages"]
    return {
        "device": device or f"{cpu['name']}, {cpu['torch_threads']} threads",
        "code": f"{version}{commit}; torch {packages.get('torch', '-')}, Python {environment['python']}",
    }


def _command(verb: str, files: RunFolder) -> str:
    return shlex.join(["detector", verb, *files.overrides.read_text(encoding="utf-8").splitlines()])
