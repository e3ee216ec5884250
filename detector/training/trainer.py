"""The options of a run, and the Lightning trainer built from them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from lightning import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping

from detector.evaluation.metrics import MONITORED, MetricSpec
from detector.option_types import Fraction, PositiveFloat, PositiveInt, TaskName
from detector.run_folder import RunFolder
from detector.training.checkpoint_io import AtomicCheckpointIO
from detector.training.event_log import TensorBoard


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """The options of a training: its length, hardware, precision, validation and logging.

    `devices` are those of this machine: losses and gradients equal those of one device with all their images
    (except for batch norms, which see their own images; `sync_batch` sees all). `accumulate_grad_batches`
    batches make one optimizer step with the mean of their gradients; each batch is normalized by its own
    boxes, so the step is close but not equal to one large batch. `gradient_clip_val` bounds the 2-norm of all
    gradients. `compile` compiles backbone, neck and dense head (torch.compile). With `ema_decay` the moving
    average of the weights is validated and kept. The last epoch is always validated. The metric `monitor`
    decides which epoch is the best; `early_stopping_patience` counts validations without a better one.
    `log_offsets_every_n_steps` is for deformable layers, see `OffsetLog`. `limit_*_batches` shorten each
    epoch (for trials). `resume` is a checkpoint to resume from.
    """

    max_epochs: PositiveInt
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    devices: PositiveInt | Literal["auto"] = "auto"
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    accumulate_grad_batches: PositiveInt = 1
    gradient_clip_val: PositiveFloat | None = None
    ema_decay: Fraction | None = None
    channels_last: bool = True
    compile: bool = False
    check_val_every_n_epoch: PositiveInt = 1
    monitor: str = MONITORED.name
    early_stopping_patience: PositiveInt | None = None
    log_every_n_steps: PositiveInt = 10
    log_offsets_every_n_steps: PositiveInt = 50
    limit_train_batches: PositiveInt | None = None
    limit_val_batches: PositiveInt | None = None
    deterministic: bool | Literal["warn"] = False
    resume: str | None = None

    def require_monitor_of(self, tasks: Sequence[TaskName]) -> None:
        """Raise ValueError if the monitor is a metric of a task that is none of the model's."""
        task = self.monitor.partition("/")[0] if "/" in self.monitor else "bbox"
        if task in get_args(TaskName) and task not in tasks:
            raise ValueError(
                f"training.monitor={self.monitor}: the model predicts {', '.join(tasks)}, no {task}. "
                f"Choose a model that does, or a metric of these, such as training.monitor={MONITORED.name}."
            )

    def monitored(self, specs: Sequence[MetricSpec]) -> MetricSpec:
        """Return the spec of the monitor; raise ValueError if none has its name."""
        by_name = {spec.name: spec for spec in specs}
        if self.monitor not in by_name:
            raise ValueError(f"training.monitor={self.monitor}: expected one of {', '.join(by_name)}.")
        return by_name[self.monitor]


def build_trainer(
    options: TrainingOptions, *, monitored: MetricSpec, output_dir: Path, callbacks: Sequence[Callback]
) -> Trainer:
    """Build a trainer that writes only into `output_dir`: `tensorboard/`, and what the callbacks write."""
    quiet_lightning()
    return Trainer(
        max_epochs=options.max_epochs,
        accelerator=options.accelerator,
        devices=options.devices,
        precision=options.precision,
        accumulate_grad_batches=options.accumulate_grad_batches,
        gradient_clip_val=options.gradient_clip_val,
        log_every_n_steps=options.log_every_n_steps,
        limit_train_batches=options.limit_train_batches,
        limit_val_batches=options.limit_val_batches,
        deterministic=options.deterministic,
        callbacks=[
            ValidateLastEpoch(options.check_val_every_n_epoch),
            *callbacks,
            *_early_stopping(options, monitored),
        ],
        plugins=[AtomicCheckpointIO()],
        logger=TensorBoard(RunFolder(output_dir).tensorboard),
        default_root_dir=output_dir,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # our batch sampler handles ranks without padding
        enable_checkpointing=False,  # the `Checkpoints` callback does it
        enable_progress_bar=False,
        enable_model_summary=False,
    )


class ValidateLastEpoch(Callback):
    """A callback that validates every n epochs and after the last one."""

    def __init__(self, every_n_epochs: PositiveInt) -> None:
        self._every = every_n_epochs

    def on_train_epoch_start(self, trainer: Trainer, pl_module: object) -> None:
        assert trainer.max_epochs is not None
        is_last = trainer.current_epoch + 1 == trainer.max_epochs
        trainer.check_val_every_n_epoch = 1 if is_last else self._every


def quiet_lightning() -> None:
    """Silence Lightning's general messages. Its errors, and warnings about this run, stay."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",  # a choice of the config, printed with it
        ".*smaller than the logging interval.*",  # every epoch is printed and stored in any case
        ".*exists and is not empty.*",
        ".*overridden `transfer_batch_to_device` in `LightningModule`.*",  # intended
        ".*sync_dist=True.*",  # every rank computes the metrics of all images
        ".*treespec, LeafSpec.*is deprecated.*",  # between Lightning and torch
        ".*lr_scheduler.step.*before.*optimizer.step.*",  # fp16 skips steps while it searches for its scale
        ".*in eval mode at the start of training.*",  # the moving average is, on purpose
    ):
        warnings.filterwarnings("ignore", message=message)


def _early_stopping(options: TrainingOptions, monitored: MetricSpec) -> list[Callback]:
    if options.early_stopping_patience is None:
        return []
    return [
        EarlyStopping(
            f"val/{monitored.name}",
            mode="max" if monitored.higher_is_better else "min",
            patience=options.early_stopping_patience,
            check_on_train_epoch_end=False,
        )
    ]
