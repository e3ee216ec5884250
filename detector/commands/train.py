"""`detector train`: train a detector from data, model and recipe, and evaluate it."""

from __future__ import annotations

import math
import signal
import sys
from pathlib import Path

from lightning import Trainer, seed_everything
from rich.console import Console

from detector.checkpoint import ModelRecord, load_checkpoint
from detector.coco.image_values import ImageRange
from detector.data.datamodule import DetectionDataModule
from detector.exceptions import RunError, Terminated, exit_code, interrupted
from detector.files import NotWrittenError, write_text_atomically
from detector.option_types import TaskName
from detector.processes import is_first_process
from detector.run_folder import RunFolder
from detector.runs.console import echo
from detector.runs.context import Context
from detector.runs.failures import explained
from detector.runs.options import TrainOptions as Options
from detector.runs.parts import (
    build_model,
    require_buildable,
    require_hardware,
    require_same_classes,
)
from detector.runs.record import require_writable, write_record
from detector.runs.resume import (
    keep_image_range,
    lacks_report,
    remove_curves,
    require_free,
    require_same_model,
    resume_hint,
)
from detector.training.callbacks import Checkpoints, EpochLog, RunLog
from detector.training.displays import Display, LineDisplay, TerminalDisplay
from detector.training.module import DetectionModule, RunLength, Validation
from detector.training.offsets import OffsetLog
from detector.training.ranks import ending_together
from detector.training.steady import Steady
from detector.training.trainer import TrainingOptions, build_trainer

__all__ = ["Options", "run"]

_SAVE_MEMORY = ("data.val_batch_size (in a validation)", "data.num_workers")


def run(options: Options, context: Context) -> None:
    """Train, validate, and print the COCO table of the best checkpoint. All files go to `options.output_dir`.

    Raises:
        ValueError: output_dir holds another run, data or checkpoint do not fit, or a loss is not finite.
    """
    # Loaded now: files may change in the hours of a training.
    from detector.runs.training_plan import print_plan
    from detector.runs.training_report import early_stop_note, finish_report, report_training

    training, data = options.training, options.data
    require_hardware(training)
    tasks = settle_tasks(options)
    output_dir = Path(options.output_dir)
    require_writable(output_dir)
    restarted = ""
    if is_first_process():  # the processes of other devices start when files exist
        restarted = require_free(output_dir, resume=training.resume)
    resumed = None if training.resume is None else load_checkpoint(training.resume)
    changes: list[str] = []
    if resumed is not None:
        keep_image_range(resumed, data, context)
        if lacks_report(resumed, output_dir, max_epochs=training.max_epochs):
            finish_report(resumed, options, context, tasks=tasks)
            return
        changes = require_same_model(resumed, context.recorded, max_epochs=training.max_epochs)

    data.prepare_data()
    data.setup("fit")
    for config in (context.config, context.recorded):  # the range that "auto" stands for
        config["data"]["image_range"] = plain_range(data.image_range)
    if resumed is not None:
        require_same_classes(resumed, data.class_names, where=str(data.train_set.annotations.path))
    record = record_of(data, context)
    validation = build_validation(options, tasks)
    monitored = training.monitored(validation.evaluators.specs)
    checkpoints = Checkpoints(output_dir, monitored)
    offsets = OffsetLog(every_n_steps=training.log_offsets_every_n_steps)
    display = choose_display(training)
    log = RunLog(display=display, checkpoints=checkpoints, offsets=offsets)
    epoch_log = EpochLog(log, display=display, checkpoints=checkpoints)
    callbacks = [offsets, log, checkpoints, epoch_log]
    trainer = build_trainer(training, monitored=monitored, output_dir=output_dir, callbacks=callbacks)
    seed_everything(options.seed, workers=True, verbose=False)  # generating data must not change the model
    module = build_module(options, trainer=trainer, record=record, validation=validation)

    if trainer.is_global_zero:
        write_record(output_dir, context, data_fingerprint=data.fingerprint)
        print_plan(module, options=options, model=context.config["model"])
        for change in changes:
            echo(f"changed since {training.resume}: {change}")
        if restarted:
            echo(f"note: {restarted}")
            remove_curves(output_dir)
    fit(trainer, module, data=data, checkpoints=checkpoints, resume=training.resume, context=context)
    if trainer.is_global_zero:
        note = early_stop_note(training, epochs=trainer.current_epoch)
        stopped = RunFolder(output_dir).stopped
        Steady(stopped.name, then="The training is complete.")(lambda: keep_note(note, stopped))
        report_training(checkpoints, options, context, evaluators=module.validation.evaluators, note=note)


def settle_tasks(options: Options) -> tuple[TaskName, ...]:
    """Return the tasks of the model, which its data must know. Raises ValueError if it cannot be built."""
    tasks = require_buildable(options.model)
    options.training.require_monitor_of(tasks)
    options.data.use_tasks(tasks)
    return tasks


def plain_range(image_range: ImageRange) -> str | list[float]:
    """Return the range in the form that a configuration holds."""
    return image_range if isinstance(image_range, str) else [*image_range]


def record_of(data: DetectionDataModule, context: Context) -> ModelRecord:
    return ModelRecord(
        class_names=data.class_names,
        category_ids=data.category_ids,
        config=context.recorded,
        keypoint_schemas=data.keypoint_schemas,
    )


def build_validation(options: Options, tasks: tuple[TaskName, ...]) -> Validation:
    val_set = options.data.val_set
    return Validation(
        ground_truth=val_set.ground_truth(),
        evaluator=options.evaluation,
        image_id=val_set.image_id,
        category_ids=options.data.category_ids,
        tasks=tasks,
        schemas=options.data.keypoint_schemas,
    )


def build_module(
    options: Options, *, trainer: Trainer, record: ModelRecord, validation: Validation
) -> DetectionModule:
    data, training = options.data, options.training
    return DetectionModule(
        build_model(
            options.model,
            data.num_classes,
            class_names=data.class_names,
            keypoint_schemas=data.keypoint_schemas,
        ),
        optimization=options.optimizer,
        lr_scheduler=options.lr_scheduler,
        validation=validation,
        train_image_id=data.train_set.image_id,
        length=run_length(training, data=data, trainer=trainer),
        record=record,
        seed=options.seed,
        ema_decay=training.ema_decay,
        channels_last=training.channels_last,
        compile=training.compile,
    )


def run_length(options: TrainingOptions, *, data: DetectionDataModule, trainer: Trainer) -> RunLength:
    data.trainer = trainer  # tells its loaders the number of devices
    batches = min(len(data.train_dataloader()), options.limit_train_batches or sys.maxsize)
    return RunLength(
        epochs=options.max_epochs,
        steps_per_epoch=math.ceil(batches / options.accumulate_grad_batches),
        images_per_step=data.batch_size * trainer.world_size * options.accumulate_grad_batches,
    )


def choose_display(options: TrainingOptions) -> Display:
    """Return a live display on a terminal or in a notebook, and one of plain lines elsewhere."""
    console = Console()
    if console.is_terminal:
        return TerminalDisplay(console)
    if console.is_jupyter:
        from detector.training.notebook import NotebookDisplay  # needed only there

        return NotebookDisplay()
    return LineDisplay(every_n_steps=options.log_every_n_steps)


def keep_note(note: str, file: Path) -> None:
    """Write why a run ended early; an empty note removes that of an earlier end."""
    if note:
        write_text_atomically(file, f"{note}\n")
    else:
        file.unlink(missing_ok=True)


def fit(
    trainer: Trainer,
    module: DetectionModule,
    *,
    data: DetectionDataModule,
    checkpoints: Checkpoints,
    resume: str | None,
    context: Context,
) -> None:
    """Train. An interrupt ends the process after a message about what is kept."""
    on_interrupt = signal.getsignal(signal.SIGINT)
    try:
        with (
            ending_together(trainer, hint=lambda: resume_hint(checkpoints, context)),
            explained(data, batch_option="batch_size", lower=_SAVE_MEMORY),
        ):
            trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
    except (SystemExit, KeyboardInterrupt) as end:  # SystemExit: Lightning's answer to Ctrl-C and SIGTERM
        interrupt = end.__context__ if isinstance(end, SystemExit) else end
        if trainer.received_sigterm:
            interrupt = Terminated()
        if trainer.is_global_zero:
            when = f"{interrupted(interrupt)} in epoch {trainer.current_epoch + 1}"
            echo(f"{when}. {resume_hint(checkpoints, context)}", error=True)
        sys.exit(exit_code(interrupt))
    except NotWrittenError as error:
        raise RunError(f"{error} {resume_hint(checkpoints, context)}") from error
    finally:
        if signal.getsignal(signal.SIGINT) is not on_interrupt:  # only the main thread may set it
            signal.signal(signal.SIGINT, on_interrupt)
