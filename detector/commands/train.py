"""`detector train`: data, model and recipe to a trained detector and its metrics."""

from __future__ import annotations

import json
import math
import os
import shlex
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from lightning import Trainer, seed_everything
from omegaconf import DictConfig
from rich.console import Console

from detector.commands.parts import build_data, build_model
from detector.config import build, resolved
from detector.data import DetectionDataModule
from detector.evaluation import CocoEvaluator, CocoMetrics
from detector.models import Detector
from detector.reports import print_coco_metrics
from detector.structures import NonNegativeInt
from detector.training import (
    SGD,
    AdamW,
    Checkpoints,
    Cosine,
    DetectionModule,
    LineDisplay,
    ModelRecord,
    MultiStep,
    RunLength,
    RunLog,
    TerminalDisplay,
    TrainingOptions,
    Validation,
    build_trainer,
    environment,
    load_checkpoint,
    scaled_lr,
)
from detector.training.displays import Display
from detector.training.files import write_atomically


@dataclass(frozen=True)
class Options:
    """The keys of configs/train.yaml."""

    data: DetectionDataModule
    model: Callable[..., Detector]
    optimizer: SGD | AdamW
    schedule: Cosine | MultiStep
    training: TrainingOptions
    evaluation: Callable[..., CocoEvaluator]
    seed: NonNegativeInt
    name: str
    output_dir: str


def run(cfg: DictConfig) -> None:
    """Train, validate, and print the COCO table of the best checkpoint. All files go to `cfg.output_dir`.

    Raises:
        ValueError: output_dir holds another run, the data or the checkpoint to resume does not fit, a loss is
        not
            finite.
    """
    config = resolved(cfg)
    options: TrainingOptions = build(cfg.training)
    output_dir = Path(cfg.output_dir)
    if int(os.environ.get("LOCAL_RANK", 0)) == 0:  # other devices' processes start when files are there
        require_free(output_dir, resume=options.resume)
    if options.resume is not None:
        say_differences(options.resume, config)
    seed_everything(cfg.seed, workers=True, verbose=False)

    data = build_data(cfg)
    data.prepare_data()
    data.setup("fit")
    if options.resume is not None:
        require_resumable(options, class_names=data.class_names)
    record = ModelRecord(class_names=data.class_names, category_ids=data.category_ids, config=config)
    checkpoints = Checkpoints(output_dir)
    log = RunLog(display=choose_display(options), checkpoints=checkpoints)
    trainer = build_trainer(options, output_dir=output_dir, callbacks=[checkpoints, log])
    module = build_module(cfg, options=options, data=data, trainer=trainer, record=record)

    if trainer.is_global_zero:
        write_record(output_dir, config=config, fingerprint=data.fingerprint)
        print_plan(module, data=data, output_dir=output_dir)
    fit(trainer, module, data=data, checkpoints=checkpoints, resume=options.resume)
    if trainer.is_global_zero:
        report(checkpoints)


def require_free(output_dir: Path, *, resume: str | None) -> None:
    """Raise ValueError where a run would overwrite another one, unless it goes on with it."""
    present = [
        name for name in ("checkpoints", "metrics.json", "metrics.csv") if (output_dir / name).exists()
    ]
    continues = resume is not None and output_dir.resolve() in Path(resume).resolve().parents
    if present and not continues:
        last = output_dir / "checkpoints" / "last.ckpt"
        go_on = f" or go on with it (training.resume={last})" if last.is_file() else ""
        raise ValueError(
            f"output_dir={output_dir} already holds a run ({', '.join(present)}). Choose another output_dir, "
            f"remove it{go_on}."
        )


def say_differences(resume: str, config: dict[str, Any]) -> None:
    """Print what is configured otherwise than in the checkpoint that the run goes on from.

    Raises:
        ValueError: the model or the kind of optimiser is another, so that the saved state has no place.
    """
    before = flattened(load_checkpoint(resume).config)
    now = flattened(config)
    ignored = ("output_dir", "name", "training.resume")
    changed = {
        key: f"{key}: {before.get(key)} -> {now.get(key)}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and key not in ignored
    }
    fatal = [
        text
        for key, text in changed.items()
        if (key.startswith("model.") and key != "model.backbone.weights")
        or key == "optimizer._target_"
        or (key == "training.ema_decay" and None in (before.get(key), now.get(key)))
    ]
    if fatal:
        raise ValueError(
            f"training.resume={resume} was trained with another configuration: {'; '.join(fatal)}. "
            "Repeat its overrides (overrides.txt beside its checkpoints), or start a new run."
        )
    for text in changed.values():
        say(f"changed since {resume}: {text}")


def require_resumable(options: TrainingOptions, *, class_names: tuple[str, ...]) -> None:
    assert options.resume is not None
    checkpoint = load_checkpoint(options.resume)
    if checkpoint.class_names != class_names:
        raise ValueError(
            f"training.resume={options.resume} knows the classes {', '.join(checkpoint.class_names)}, the "
            f"data has {', '.join(class_names)}. Go on with the data it was trained on."
        )
    if checkpoint.epoch >= options.max_epochs:
        raise ValueError(
            f"training.resume={options.resume} has finished {checkpoint.epoch} epochs, "
            f"training.max_epochs={options.max_epochs} leaves nothing to do. Raise training.max_epochs."
        )


def build_module(
    cfg: DictConfig,
    *,
    options: TrainingOptions,
    data: DetectionDataModule,
    trainer: Trainer,
    record: ModelRecord,
) -> DetectionModule:
    return DetectionModule(
        build_model(cfg, data.num_classes),
        optimization=build(cfg.optimizer),
        schedule=build(cfg.schedule),
        validation=Validation(
            ground_truth=data.val_set.ground_truth(),
            evaluator=build(cfg.evaluation),
            image_id=data.val_set.image_id,
            category_ids=data.category_ids,
        ),
        train_image_id=data.train_set.image_id,
        length=run_length(options, data=data, trainer=trainer),
        record=record,
        ema_decay=options.ema_decay,
        channels_last=options.channels_last,
    )


def run_length(options: TrainingOptions, *, data: DetectionDataModule, trainer: Trainer) -> RunLength:
    data.trainer = trainer  # so that its loaders know the number of devices
    batches = min(len(data.train_dataloader()), options.limit_train_batches or sys.maxsize)
    return RunLength(
        epochs=options.max_epochs,
        steps_per_epoch=math.ceil(batches / options.accumulate_batches),
        images_per_step=data.batch_size * trainer.world_size * options.accumulate_batches,
    )


def choose_display(options: TrainingOptions) -> Display:
    """Live on a terminal, lines elsewhere."""
    console = Console()
    if console.is_terminal:
        return TerminalDisplay(console)
    return LineDisplay(every_n_steps=options.log_every_n_steps)


def write_record(output_dir: Path, *, config: dict[str, Any], fingerprint: str) -> None:
    """config.yaml, overrides.txt and environment.json: what it takes to know, and to repeat, the run."""
    overrides = list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
    facts = {**environment(), "data_fingerprint": fingerprint}
    texts = {
        "config.yaml": yaml.safe_dump(config, sort_keys=False, allow_unicode=True),
        "overrides.txt": "".join(f"{override}\n" for override in overrides),
        "environment.json": json.dumps(facts, indent=2, ensure_ascii=False) + "\n",
    }
    for name, text in texts.items():
        write_atomically(output_dir / name, partial(Path.write_text, data=text, encoding="utf-8"))


def print_plan(module: DetectionModule, *, data: DetectionDataModule, output_dir: Path) -> None:
    trainable = sum(p.numel() for p in module.model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in module.model.parameters())
    length, given = module.length, module.optimization
    lr = scaled_lr(given, global_batch_size=length.images_per_step)
    names = ", ".join(data.class_names[:10]) + (", ..." if data.num_classes > 10 else "")
    say(f"data: {len(data.train_set)} training and {len(data.val_set)} validation images")
    say(f"classes: {data.num_classes} ({names})")
    say(f"model: {total / 1e6:.1f} M parameters, {trainable / 1e6:.1f} M of them trained")
    say(f"run: {length.epochs} epochs of {length.steps_per_epoch} steps of {length.images_per_step} images")
    say(
        f"learning rate: {lr:g} = optimizer.lr {given.lr:g} x {length.images_per_step} images a step / "
        f"optimizer.reference_batch_size {given.reference_batch_size}"
    )
    for note in module.schedule.notes(total_steps=length.total_steps, steps_per_epoch=length.steps_per_epoch):
        say(f"note: {note}")
    say(f"output: {output_dir}")


def fit(
    trainer: Trainer,
    module: DetectionModule,
    *,
    data: DetectionDataModule,
    checkpoints: Checkpoints,
    resume: str | None,
) -> None:
    """Train. An interrupt ends the process, after saying what is kept."""
    on_interrupt = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
    except SystemExit:  # Lightning's answer to Ctrl-C (exit code 1) and SIGTERM (exit code 0)
        if trainer.is_global_zero:
            say(f"Interrupted in epoch {trainer.current_epoch + 1}. {kept(checkpoints)}", error=True)
        sys.exit(143 if trainer.received_sigterm else 130)
    finally:
        signal.signal(signal.SIGINT, on_interrupt)


def kept(checkpoints: Checkpoints) -> str:
    """What an interrupted run leaves behind, and how to go on."""
    if not checkpoints.last.is_file():
        return "No epoch was finished: nothing is kept."
    epoch = load_checkpoint(checkpoints.last).epoch
    overrides = shlex.join(HydraConfig.get().overrides.task) if HydraConfig.initialized() else ""
    return (
        f"Kept: {checkpoints.last} (after epoch {epoch}). Go on from it with: detector train "
        f"{overrides}{' ' if overrides else ''}training.resume={checkpoints.last}"
    )


def report(checkpoints: Checkpoints) -> None:
    """Print the metrics of the best checkpoint, as its validation computed and stored them."""
    metrics_file = checkpoints.output_dir / "metrics.json"
    metrics = CocoMetrics(**json.loads(metrics_file.read_text(encoding="utf-8")))
    say()
    print_coco_metrics(
        metrics,
        title=f"{checkpoints.best} (epoch {checkpoints.best_epoch}) on the validation images",
        complete_in=str(metrics_file),
    )
    for what, name in (
        ("best checkpoint", "checkpoints/best.ckpt"),
        ("last checkpoint", "checkpoints/last.ckpt"),
        ("metrics", "metrics.json"),
        ("detections", "predictions.json"),
        ("losses and metrics of each epoch", "metrics.csv"),
        ("curves (tensorboard --logdir)", "tensorboard"),
    ):
        say(f"{what}: {checkpoints.output_dir / name}")


def say(text: str = "", *, error: bool = False) -> None:
    print(text, file=sys.stderr if error else sys.stdout, flush=True)


def flattened(config: Any, path: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    if not isinstance(config, dict) or not config:
        return {path: config}
    return {
        key: value
        for name, item in config.items()
        for key, value in flattened(item, f"{path}.{name}" if path else str(name)).items()
    }
