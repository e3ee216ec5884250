"""Training callbacks: checkpoints, progress and logs."""

from __future__ import annotations

import logging
import time
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from detector.checkpoint import EPOCH_ROWS
from detector.environment import peak_memory_mb
from detector.evaluation.metrics import MONITORED, Metrics, MetricSpec
from detector.evaluation.results import write_predictions
from detector.exceptions import SharedError
from detector.files import write_json
from detector.run_folder import Row, RunFolder
from detector.structures import Batch
from detector.training.displays import Display, EpochReport, StepReport
from detector.training.module import DetectionModule
from detector.training.offsets import OffsetLog
from detector.training.steady import Steady
from detector.weights.fit import describe_unusable, unusable

_log = logging.getLogger(__name__)

_LOWER_RATE = (
    "Most often the learning rate is too high: lower optimizer.lr, lengthen lr_scheduler.warmup_steps or set "
    "training.gradient_clip_val=10."
)


class Checkpoints(Callback):
    """A callback that writes `checkpoints/last.ckpt` after every epoch and keeps the best epoch.

    The weights of the epoch with the best value of `monitored` are `checkpoints/best.ckpt`, without the state
    of the optimizer, from which only the last epoch is resumed. Its `predictions.json` and `metrics.json`
    are exactly those of its validation, so nothing has to be evaluated again, even in an interrupted run.

    Good weights are never replaced by broken ones: non-finite weights or optimizer states at the end of an
    epoch end the run, and an epoch whose validation had a non-finite loss is not kept.
    """

    def __init__(self, output_dir: Path, monitored: MetricSpec = MONITORED) -> None:
        self.output_dir, self.monitored = output_dir, monitored
        self.files = RunFolder(output_dir)
        self.last, self.best = self.files.last, self.files.best
        self.best_value: float | None = None
        self.best_epoch: int | None = None

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, DetectionModule)
        self._require_finite(trainer, pl_module)
        if not self._is_worth_keeping(trainer, pl_module):
            return
        metrics, epoch = pl_module.metrics, pl_module.current_epoch
        is_validated = pl_module.validated_epoch == epoch
        is_best = metrics is not None and is_validated and self.take_best(metrics, epoch=epoch + 1)
        # The best is saved first: a run killed in between resumes from the older last one and finds the best
        # again. Its results are written before it, so that a best checkpoint never lacks them.
        if is_best:
            if trainer.is_global_zero:
                self._write_results(pl_module)
            trainer.save_checkpoint(self.best, weights_only=True)
        trainer.save_checkpoint(self.last, weights_only=False)

    def _require_finite(self, trainer: Trainer, module: DetectionModule) -> None:
        """Raise SharedError on all devices if the last steps broke the weights on one of them."""
        problems = not_finite(trainer, module)
        if trainer.strategy.reduce_boolean_decision(not problems):
            return
        where = f": {describe_unusable(problems)}" if problems else " on another device"
        raise SharedError(
            f"Training stopped after epoch {module.current_epoch + 1}: its last steps broke the model{where}."
            f" {self._checkpoint_note()} {_LOWER_RATE}"
        )

    def _is_worth_keeping(self, trainer: Trainer, module: DetectionModule) -> bool:
        """Return whether the validation of this epoch, if any, had finite losses on all devices."""
        broken = module.validated_epoch == module.current_epoch and not module.validation_is_finite
        if trainer.strategy.reduce_boolean_decision(not broken):
            return True
        if trainer.is_global_zero:
            _log.warning(
                "Epoch %d is not saved, as a loss of its validation is not finite. %s",
                module.current_epoch + 1,
                self._checkpoint_note(),
            )
        return False

    def _checkpoint_note(self) -> str:
        return f"{self.last} is unchanged." if self.last.is_file() else "There is no checkpoint yet."

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.best.is_file():
            raise SharedError(
                "There is no best checkpoint: in every validation a loss was not finite. "
                f"{self._checkpoint_note()} {_LOWER_RATE}"
            )

    def take_best(self, metrics: Metrics, *, epoch: int) -> bool:
        """Return whether no epoch was better so far; if so, keep it as the best."""
        value, rank = metrics.values[self.monitored.name], self.monitored.rank
        if self.best_value is not None and rank(value) > rank(self.best_value):
            return False
        self.best_value, self.best_epoch = value, epoch
        return True

    def _write_results(self, module: DetectionModule) -> None:
        assert module.metrics is not None
        write_predictions(self.files.predictions, module.results)
        write_json(self.files.metrics, module.metrics.to_dict())

    def state_dict(self) -> dict[str, Any]:
        return {"best_ap": self.best_value, "best_epoch": self.best_epoch, "monitor": self.monitored.name}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if not {"best_ap", "best_epoch"} <= state.keys():
            raise ValueError(f"its callbacks.Checkpoints has {', '.join(state)}, not best_ap and best_epoch")
        is_same = state.get("monitor", MONITORED.name) == self.monitored.name
        if is_same and self.best.is_file():  # resumed into another folder, the old best file is not here
            self.best_value, self.best_epoch = state["best_ap"], state["best_epoch"]


def not_finite(trainer: Trainer, module: DetectionModule) -> dict[str, str]:
    """Return the problems of non-finite weights, batch statistics and optimizer states, by name."""
    model = {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
    problems = unusable(model)
    for optimizer in trainer.optimizers:
        for state in optimizer.state.values():
            tensors = {f"optimizer's {name}": v for name, v in state.items() if isinstance(v, Tensor)}
            problems |= unusable(tensors)
    return problems


class RunLog(Callback):
    """A callback that measures a run, shows its steps, and keeps a row per epoch.

    A row has all losses and metrics and the latest values of `OffsetLog`. Rows are stored in the checkpoints,
    so that a killed run loses none; `EpochLog` writes them to a file.

    Put it after `OffsetLog` and before `Checkpoints`. Training losses are means over the epoch's batches on
    all devices. `images_seen` counts all epochs and devices so far; `peak_memory_mb` is the peak memory so
    far that torch allocated on the first GPU, or of the process without a GPU.
    """

    def __init__(self, *, display: Display, checkpoints: Checkpoints, offsets: OffsetLog) -> None:
        self._display = display
        self._offsets = offsets
        self.files = checkpoints.files
        self.rows: list[Row] = []
        self.epoch: EpochReport | None = None
        self.steady = Steady("what a run shows")
        self._pace = Pace()
        self._sums: dict[str, Tensor] = {}
        self._batches = 0
        self._images = 0
        self._lr = 0.0
        self._epoch_start = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.current_epoch > 0 and not self.rows and self.files.epochs.is_file():  # by an older version
            self.rows = [row for row in self.files.read_epochs() if row["epoch"] <= trainer.current_epoch]

    def on_save_checkpoint(self, trainer: Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        checkpoint[EPOCH_ROWS] = [dict(row) for row in self.rows]

    def on_load_checkpoint(self, trainer: Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        if self.files.last.is_file():  # otherwise the run was resumed into another folder
            from detector.earlier import present_row  # needed only to resume

            self.rows = [present_row(row) for row in checkpoint.get(EPOCH_ROWS, [])]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._sums, self._batches, self._images = {}, 0, 0
        self._epoch_start = time.perf_counter()

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Batch, batch_idx: int) -> None:
        if batch_idx == 0:
            self._pace.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        losses: dict[str, Tensor] = outputs["losses"]
        for name, value in losses.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
        self._batches += 1
        self._lr = outputs["lr"]
        images = len(batch.indices) * trainer.world_size
        self._images += images
        self._pace.batch(images=images)
        if trainer.is_global_zero:
            number, steps = batch_idx + 1, int(trainer.num_training_batches)
            self.steady(
                lambda: self._display.step(number, steps, lambda: self._step_report(trainer, losses, number))
            )

    def on_validation_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._pace.start()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: Any,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if trainer.is_global_zero:
            batches = int(trainer.num_val_batches[0])
            self.steady(lambda: self._display.validating(batch_idx + 1, batches))

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        self._pace.validation()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, DetectionModule)
        means = {f"train/{name}": value.item() / self._batches for name, value in self._sums.items()}
        self.epoch = report = EpochReport(
            epoch=trainer.current_epoch + 1,
            epochs=_max_epochs(trainer),
            values={**means, **pl_module.validation_metrics()},
            seconds=time.perf_counter() - self._epoch_start,
            eta_seconds=self._eta(trainer, batches_done=int(trainer.num_training_batches)),
            in_log=[spec for spec in pl_module.validation.evaluators.specs if spec.in_log],
        )
        self.rows.append(
            {
                "epoch": report.epoch,
                "step": trainer.global_step,
                "images_seen": self._images_seen(trainer),
                "lr": self._lr,
                "seconds": round(report.seconds, 3),
                "images_per_second": round(self._pace.images_per_second, 3),
                **_peak_memory(pl_module),
                **report.values,
                **self._offsets.latest,
            }
        )

    def teardown(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        self.steady(self._display.close)

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        self.steady(self._display.close)

    def _images_seen(self, trainer: Trainer) -> int:
        if not self.rows or "images_seen" not in self.rows[-1]:  # e.g. resumed in another folder
            return (trainer.current_epoch + 1) * self._images
        return int(self.rows[-1]["images_seen"]) + self._images

    def _step_report(self, trainer: Trainer, losses: dict[str, Tensor], step: int) -> StepReport:
        return StepReport(
            epoch=trainer.current_epoch + 1,
            epochs=_max_epochs(trainer),
            step=step,
            steps=int(trainer.num_training_batches),
            losses={name: value.item() for name, value in losses.items()},
            lr=self._lr,
            images_per_second=self._pace.images_per_second,
            eta_seconds=self._eta(trainer, batches_done=step),
        )

    def _eta(self, trainer: Trainer, *, batches_done: int) -> float:
        epochs_left = _max_epochs(trainer) - trainer.current_epoch - 1
        steps = int(trainer.num_training_batches)
        validations = epochs_left / (trainer.check_val_every_n_epoch or 1) + (batches_done < steps)
        batches = epochs_left * steps + steps - batches_done
        return batches * self._pace.seconds_per_batch + validations * self._pace.seconds_per_validation


class EpochLog(Callback):
    """A callback that writes `metrics.csv` and shows each finished epoch.

    Put it after `Checkpoints`: an epoch is reported once its checkpoint is saved.
    """

    def __init__(self, log: RunLog, *, display: Display, checkpoints: Checkpoints) -> None:
        self._log = log
        self._display = display
        self._checkpoints = checkpoints
        self._steady_csv = Steady(str(log.files.epochs))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        if not trainer.is_global_zero:
            return
        report = self._log.epoch
        assert report is not None
        is_best = self._checkpoints.best_epoch == report.epoch
        self._steady_csv(lambda: self._log.files.write_epochs(self._log.rows))
        self._log.steady(lambda: self._display.epoch(replace(report, is_best=is_best)))


class Pace:
    """The speed of training and validation, from the last fifty batches and the last validation."""

    def __init__(self) -> None:
        self._recent: deque[tuple[float, int]] = deque(maxlen=50)  # seconds, images
        self._since = 0.0
        self.seconds_per_validation = 0.0

    def start(self) -> None:
        """Restart the clock: the time since the last batch was not spent on training."""
        self._since = time.perf_counter()

    def batch(self, *, images: int) -> None:
        now = time.perf_counter()
        self._recent.append((now - self._since, images))
        self._since = now

    def validation(self) -> None:
        self.seconds_per_validation = time.perf_counter() - self._since

    @property
    def seconds_per_batch(self) -> float:
        return sum(seconds for seconds, _ in self._recent) / max(1, len(self._recent))

    @property
    def images_per_second(self) -> float:
        return sum(images for _, images in self._recent) / max(
            1e-9, sum(seconds for seconds, _ in self._recent)
        )


def _peak_memory(module: LightningModule) -> dict[str, float]:
    """Return the memory column of a row, or nothing if the system does not report it."""
    on_gpu = module.device.type == "cuda"
    peak = torch.cuda.max_memory_allocated(module.device) / 1e6 if on_gpu else peak_memory_mb()
    return {} if peak is None else {"peak_memory_mb": round(peak, 1)}


def _max_epochs(trainer: Trainer) -> int:
    assert trainer.max_epochs is not None
    return trainer.max_epochs
