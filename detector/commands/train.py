"""`detector train`: data, model and recipe to a trained detector and its metrics."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from lightning import Trainer, seed_everything
from omegaconf import DictConfig
from rich.console import Console

from detector.checkpoint import Checkpoint, ModelRecord, load_checkpoint
from detector.coco.image_values import ImageRange
from detector.config.build import build
from detector.config.plain import resolved
from detector.config.recorded import without_environment
from detector.data.datamodule import DetectionDataModule
from detector.data.dataset import CocoDataset
from detector.evaluation.coco import CocoEvaluator, CocoMetrics
from detector.evaluation.result_files import read_results
from detector.evaluation.statistics import Interval
from detector.exceptions import RunError, Terminated, exit_code, interrupted
from detector.files import NotWrittenError, write_text_atomically
from detector.reports.tables import print_coco_metrics
from detector.runs.curves import read_curve, read_losses, read_offsets
from detector.runs.failures import explained
from detector.runs.options import TrainOptions as Options
from detector.runs.parts import (
    build_data,
    build_model,
    require_buildable,
    require_hardware,
    require_same_classes,
    validated_truth,
)
from detector.runs.record import require_writable, write_record
from detector.runs.report import Evaluated, write_run_report
from detector.runs.resume import (
    keep_image_range,
    lacks_report,
    remove_curves,
    require_free,
    require_same_model,
    what_is_kept,
)
from detector.training.callbacks import Checkpoints, EpochLog, RunLog, write_rows
from detector.training.displays import Display, LineDisplay, TerminalDisplay
from detector.training.module import DetectionModule, RunLength, Validation
from detector.training.offsets import OffsetLog
from detector.training.optimization import scaled_lr
from detector.training.ranks import ending_together
from detector.training.steady import Steady
from detector.training.trainer import TrainingOptions, build_trainer

__all__ = ["Options", "run"]

_SAVE_MEMORY = ("data.val_batch_size (in a validation)", "data.num_workers")


def run(cfg: DictConfig) -> None:
    """Train, validate, and print the COCO table of the best checkpoint. All files go to `cfg.output_dir`.

    Raises:
        ValueError: output_dir holds another run, data or checkpoint do not fit, a loss is not finite.
    """
    config = resolved(cfg)
    options: TrainingOptions = build(cfg.training)
    require_hardware(options)
    require_buildable(cfg)
    output_dir = Path(cfg.output_dir)
    require_writable(output_dir)
    restarted = ""
    if int(os.environ.get("LOCAL_RANK", 0)) == 0:  # other devices' processes start when files are there
        restarted = require_free(output_dir, resume=options.resume)
    resumed = None if options.resume is None else load_checkpoint(options.resume)
    if resumed is not None:
        keep_image_range(resumed, cfg, config)
        if lacks_report(resumed, output_dir, max_epochs=options.max_epochs):
            finish_report(cfg, resumed, output_dir=output_dir, options=options)
            return
    changes = (
        []
        if resumed is None
        else require_same_model(resumed, without_environment(cfg), max_epochs=options.max_epochs)
    )

    data = build_data(cfg)
    data.prepare_data()
    data.setup("fit")
    kept = without_environment(cfg)
    for known in (config, kept):  # the range that auto stands for, for those who go by it
        known["data"]["image_range"] = plain_range(data.image_range)
    if resumed is not None:
        require_same_classes(resumed, data.class_names, where=str(data.train_set.annotations.path))
    record = ModelRecord(class_names=data.class_names, category_ids=data.category_ids, config=kept)
    checkpoints = Checkpoints(output_dir)
    offsets = OffsetLog(every_n_steps=options.log_offsets_every_n_steps)
    display = choose_display(options)
    log = RunLog(display=display, checkpoints=checkpoints, offsets=offsets)
    told = EpochLog(log, display=display, checkpoints=checkpoints)
    trainer = build_trainer(options, output_dir=output_dir, callbacks=[offsets, log, checkpoints, told])
    seed_everything(cfg.seed, workers=True, verbose=False)  # here: generating data must not change the model
    module = build_module(cfg, options=options, data=data, trainer=trainer, record=record)

    if trainer.is_global_zero:
        write_record(output_dir, config=config, data_fingerprint=data.fingerprint)
        print_plan(module, options=options, data=data, output_dir=output_dir)
        for change in changes:
            say(f"changed since {options.resume}: {change}")
        if restarted:
            say(f"note: {restarted}")
            remove_curves(output_dir)
    fit(trainer, module, data=data, checkpoints=checkpoints, resume=options.resume)
    if trainer.is_global_zero:
        note = why_it_ended_early(options, epochs=trainer.current_epoch)
        Steady("stopped.txt", then="The training is complete.")(lambda: keep_note(note, output_dir))
        evaluator = module.validation.evaluator
        report(checkpoints, evaluator=evaluator, data=data, options=options, note=note)


def finish_report(
    cfg: DictConfig, resumed: Checkpoint, *, output_dir: Path, options: TrainingOptions
) -> None:
    """Write what a run that was trained to its end still lacks: nothing is trained."""
    say(f"{resumed.path} has all its epochs: its report is written")
    data = build_data(cfg)
    data.prepare_data()
    data.setup("fit")
    require_same_classes(resumed, data.class_names, where=str(data.val_set.annotations.path))
    if resumed.epoch_rows:
        write_rows(output_dir / "metrics.csv", resumed.epoch_rows)
    checkpoints = Checkpoints(output_dir)
    checkpoints.best_epoch = load_checkpoint(checkpoints.best).epoch
    evaluator = build(cfg.evaluation)(validated_truth(data.val_set, resolved(cfg)))
    note = why_it_ended_early(options, epochs=resumed.epoch)
    report(checkpoints, evaluator=evaluator, data=data, options=options, note=note)


def plain_range(image_range: ImageRange) -> str | list[float]:
    """As a configuration holds it."""
    return image_range if isinstance(image_range, str) else [*image_range]


def build_module(
    cfg: DictConfig,
    *,
    options: TrainingOptions,
    data: DetectionDataModule,
    trainer: Trainer,
    record: ModelRecord,
) -> DetectionModule:
    return DetectionModule(
        build_model(cfg, data.num_classes, class_names=data.class_names),
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
        seed=cfg.seed,
        ema_decay=options.ema_decay,
        channels_last=options.channels_last,
        compile=options.compile,
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


def print_plan(
    module: DetectionModule, *, options: TrainingOptions, data: DetectionDataModule, output_dir: Path
) -> None:
    trainable = sum(p.numel() for p in module.model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in module.model.parameters())
    length, given = module.length, module.optimization
    lr = scaled_lr(given, global_batch_size=length.images_per_step)
    names = ", ".join(data.class_names[:10]) + (", ..." if data.num_classes > 10 else "")
    say(f"data: {contents(data.train_set, 'training')}, {contents(data.val_set, 'validation')}")
    say(f"classes: {data.num_classes} ({names})")
    say(f"model: {total / 1e6:.1f} M parameters, {trainable / 1e6:.1f} M of them trained")
    say(f"run: {length.epochs} epochs of {length.steps_per_epoch} steps of {length.images_per_step} images")
    say(
        f"learning rate: {lr:g} = optimizer.lr {given.lr:g} x {length.images_per_step} images a step / "
        f"optimizer.reference_batch_size {given.reference_batch_size}"
    )
    for note in module.schedule.notes(total_steps=length.total_steps, steps_per_epoch=length.steps_per_epoch):
        say(f"note: {note}")
    if limits := limits_of(options, data):
        say(f"note: epochs are shortened, for trials: {limits}")
    say(f"output: {output_dir}")


def contents(dataset: CocoDataset, split: str) -> str:
    """The number of images, objects and crowds of a split, in words."""
    objects, crowds = dataset.annotations.object_count, dataset.annotations.crowd_count
    counted = [
        f"{count} {noun}{'s' * (count != 1)}" for count, noun in ((objects, "object"), (crowds, "crowd"))
    ]
    return f"{len(dataset)} {split} images with {' and '.join(counted)}"


def limits_of(options: TrainingOptions, data: DetectionDataModule) -> str:
    """The limits that leave out batches; empty where none does."""
    limits = {
        "limit_train_batches": (options.limit_train_batches, len(data.train_dataloader())),
        "limit_val_batches": (options.limit_val_batches, len(data.val_dataloader())),
    }
    return ", ".join(
        f"training.{name}={limit} of {batches} batches"
        for name, (limit, batches) in limits.items()
        if limit is not None and limit < batches
    )


def why_it_ended_early(options: TrainingOptions, *, epochs: int) -> str:
    """What stopped a run after so many epochs; empty where it is all of them."""
    if epochs >= options.max_epochs:
        return ""
    patience, planned = options.early_stopping_patience, options.max_epochs
    validations = "1 validation" if patience == 1 else f"{patience} validations"
    return (
        f"stopped after epoch {epochs} of {planned}: no better val/AP in {validations} "
        f"(training.early_stopping_patience={patience}); the schedule was planned for {planned} epochs"
    )


def keep_note(note: str, folder: Path) -> None:
    """In stopped.txt; without one, that of an earlier end is gone."""
    if note:
        write_text_atomically(folder / "stopped.txt", f"{note}\n")
    else:
        (folder / "stopped.txt").unlink(missing_ok=True)


def validated_images(options: TrainingOptions, *, of: int, evaluator: CocoEvaluator) -> str:
    """In words: all, or how many."""
    count = len(evaluator.truth.image_numbers)
    if count == of:
        return "the validation images"
    limit = f"training.limit_val_batches={options.limit_val_batches}"
    return f"the first {count} of {of} validation images ({limit})"


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
        with (
            ending_together(trainer, kept=lambda: what_is_kept(checkpoints)),
            explained(data, batch_option="batch_size", lower=_SAVE_MEMORY),
        ):
            trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
    except (SystemExit, KeyboardInterrupt) as end:  # SystemExit: Lightning's answer to Ctrl-C and SIGTERM
        interrupt = end.__context__ if isinstance(end, SystemExit) else end
        if trainer.received_sigterm:
            interrupt = Terminated()
        if trainer.is_global_zero:
            when = f"{interrupted(interrupt)} in epoch {trainer.current_epoch + 1}"
            say(f"{when}. {what_is_kept(checkpoints)}", error=True)
        sys.exit(exit_code(interrupt))
    except NotWrittenError as error:
        raise RunError(f"{error} {what_is_kept(checkpoints)}") from error
    finally:
        signal.signal(signal.SIGINT, on_interrupt)


def report(
    checkpoints: Checkpoints,
    *,
    evaluator: CocoEvaluator,
    data: DetectionDataModule,
    options: TrainingOptions,
    note: str,
) -> None:
    """Print the metrics of the best checkpoint, as its validation computed and stored them, and write
    report.html. An interrupt ends the process, after saying how to finish."""
    try:
        folder = checkpoints.output_dir
        metrics = CocoMetrics(**json.loads((folder / "metrics.json").read_text(encoding="utf-8")))
        subject = validated_images(options, of=len(data.val_set), evaluator=evaluator)
        title = f"{checkpoints.best} (epoch {checkpoints.best_epoch}) on {subject}"
        rows = evaluator.rows(read_results(folder / "predictions.json"))
        found = Evaluated(rows, metrics, title, evaluator, data.val_set.picture)
        interval = _write_report(checkpoints, found, notes=[note] if note else [])
        if note:
            say(f"note: {note}")
        say()
        complete_in = str(folder / "metrics.json")
        print_coco_metrics(metrics, title=title, interval=interval, trained=True, complete_in=complete_in)
    except KeyboardInterrupt as interrupt:
        when = f"{interrupted(interrupt)} while the report was written"
        say(f"{when}. {what_is_kept(checkpoints)}", error=True)
        sys.exit(exit_code(interrupt))
    for what, name in (
        ("report", "report.html"),
        ("best checkpoint", "checkpoints/best.ckpt"),
        ("last checkpoint", "checkpoints/last.ckpt"),
        ("metrics", "metrics.json"),
        ("detections", "predictions.json"),
        ("losses and metrics of each epoch", "metrics.csv"),
        ("curves (tensorboard --logdir)", "tensorboard"),
    ):
        if (folder / name).exists():
            say(f"{what}: {folder / name}")


def _write_report(checkpoints: Checkpoints, found: Evaluated, *, notes: Sequence[str]) -> Interval | None:
    """The interval of AP. A report that cannot be written is no failure of the training."""
    folder = checkpoints.output_dir
    try:
        return write_run_report(
            folder,
            found,
            notes=notes,
            curve=read_curve(folder),
            losses=read_losses(folder),
            offsets=read_offsets(folder),
        )
    except OSError as error:
        say(f"warning: the report is not complete. {error} {what_is_kept(checkpoints)}", error=True)
        return None


def say(text: str = "", *, error: bool = False) -> None:
    print(text, file=sys.stderr if error else sys.stdout, flush=True)
