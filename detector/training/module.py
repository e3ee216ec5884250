"""The Lightning module: losses, metrics and weights of one training run, for any detector."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from detector.checkpoint import ModelRecord, describe_checkpoint
from detector.coco.ground_truth import GroundTruth
from detector.evaluation.coco import CocoEvaluator
from detector.evaluation.f1 import best_f1_threshold
from detector.evaluation.matching import Rows, match
from detector.evaluation.metrics import Metrics
from detector.evaluation.results import ResultCollector
from detector.evaluation.several import TaskEvaluators
from detector.exceptions import SharedError
from detector.models.detector import Detector
from detector.ops.ranks import all_gathered, mean_over_ranks, num_ranks
from detector.option_types import Fraction, NonNegativeInt, PositiveInt, TaskName
from detector.structures import Batch, KeypointSchema
from detector.training.averaging import WeightAverage
from detector.training.batch_norms import batch_norms_explained
from detector.training.loss_sums import LossSums
from detector.training.optimization import Optimization
from detector.training.schedules import LRScheduler

_log = logging.getLogger(__name__)


class NonFiniteLossError(SharedError):
    """A loss is infinite or not a number. The message names the term, the step and the images."""


@dataclass(frozen=True, kw_only=True)
class RunLength:
    """The length of a run. `images_per_step` counts all devices and all accumulated batches of a step."""

    epochs: PositiveInt
    steps_per_epoch: PositiveInt
    images_per_step: PositiveInt

    @property
    def total_steps(self) -> int:
        return self.epochs * self.steps_per_epoch


class Validation:
    """The parts of a validation besides the model: original ids, result collector and evaluators.

    `evaluator` builds the evaluator of a task of the model from a ground truth. A validation over part of the
    images is scored against those images only. `schemas` are the keypoints of each class, () without any.
    """

    def __init__(
        self,
        *,
        ground_truth: GroundTruth,
        evaluator: Callable[[GroundTruth], CocoEvaluator],
        image_id: Callable[[int], Any],
        category_ids: Iterable[Any],
        tasks: Sequence[TaskName] = ("bbox",),
        schemas: Sequence[KeypointSchema | None] = (),
    ) -> None:
        self._ground_truth, self._make_evaluator, self._tasks = ground_truth, evaluator, tasks
        self.image_id = image_id
        # Of the images of the last validation; at first, of all.
        self.evaluators = self._evaluators(ground_truth)
        self._num_images = ground_truth.num_images
        self.collector = ResultCollector(
            image_id=image_id,
            category_ids=tuple(category_ids),
            num_keypoints=[0 if schema is None else len(schema.names) for schema in schemas],
        )

    def score(self) -> tuple[list[dict[str, Any]], dict[TaskName, Rows], Metrics]:
        """Return the collected results, as they are and as each evaluator's rows, and their metrics."""
        indices = self.collector.state()
        if self._num_images != len(indices):
            self._num_images = len(indices)
            self.evaluators = self._evaluators(self._ground_truth_of([*indices]))
        results = self.collector.results()
        return results, *self.evaluators.score(results)

    def _evaluators(self, truth: GroundTruth) -> TaskEvaluators:
        return TaskEvaluators.of(self._make_evaluator, truth, self._tasks)

    def _ground_truth_of(self, indices: list[int]) -> GroundTruth:
        if len(indices) == self._ground_truth.num_images:
            return self._ground_truth
        return self._ground_truth.of_images([self.image_id(index) for index in indices])


class DetectionModule(LightningModule):
    """A Lightning module that trains a detector and validates it, or its weight average with `ema_decay`.

    Logs `train/loss`, each term as `train/<name>`, `train/lr`; after a validation `val/loss`, `val/<name>`
    and the metrics as `val/AP`, `val/AP50`, `val/segm/AP`, ... . `results`, `metrics` and `best_f1_threshold`
    hold those of the last validation.

    Args:
        train_image_id: maps an index of the training set to its original id, for error messages.
        length: the number of optimizer steps and of images per step; the learning rate depends on both.
        record: is stored in every checkpoint.
        seed: seeds the random sampling inside losses.
    """

    def __init__(
        self,
        model: Detector,
        *,
        optimization: Optimization,
        lr_scheduler: LRScheduler,
        validation: Validation,
        train_image_id: Callable[[int], Any],
        length: RunLength,
        record: ModelRecord,
        seed: NonNegativeInt = 0,
        ema_decay: Fraction | None = None,
        channels_last: bool = False,
        compile: bool = False,
    ) -> None:
        super().__init__()
        self._layout = torch.channels_last if channels_last else torch.contiguous_format
        self.model = model.to(memory_format=torch.channels_last) if channels_last else model
        self.averaged = None if ema_decay is None else WeightAverage(model, decay=ema_decay)
        if compile:
            self.model.compile()  # one graph; runs eagerly after more shapes than the compiler allows
        self.optimization = optimization
        self.lr_scheduler = lr_scheduler
        self.validation = validation
        self.train_image_id = train_image_id
        self.length = length
        self.record = record
        self.seed = seed
        self.results: list[dict[str, Any]] = []
        self.metrics: Metrics | None = None
        self.best_f1_threshold: float | None = None
        self.validated_epoch = -1
        self.validation_is_finite = True
        self._averaged_step = 0
        self._val_losses = LossSums()

    @property
    def evaluated(self) -> Detector:
        """The model that validation scores: the weight average if there is one."""
        return self.model if self.averaged is None else self.averaged.model

    # Data

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        batch = batch.to(device, non_blocking=device.type == "cuda")
        return replace(batch, images=batch.images.contiguous(memory_format=self._layout))

    # Training

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        if batch_idx == 0:  # a run resumed at this epoch draws the same numbers
            torch.manual_seed(hash((self.seed, self.current_epoch, self.global_rank)))

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        with batch_norms_explained(self.model, batch):
            losses = self.model.loss(batch)
        total = torch.stack([*losses.values()]).sum()
        # Lightning divides its "loss" by the number of accumulated batches.
        with_total = {"loss": total, **losses}
        means = mean_over_ranks(torch.stack([*with_total.values()]).detach())  # `normalizer`: over all images
        if not math.isfinite(means[0].item()):
            raise self._non_finite_on_any_rank(losses, batch, is_own=not math.isfinite(total.item()))
        logged = dict(zip(with_total, means.unbind(), strict=True))
        self.log_dict({f"train/{name}": v for name, v in logged.items()}, batch_size=len(batch.indices))
        lr = float(self.trainer.optimizers[0].param_groups[0]["lr"])
        self.log("train/lr", lr, batch_size=len(batch.indices))
        return {"loss": total, "losses": logged, "lr": lr}

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        if self.averaged is not None and self.global_step > self._averaged_step:
            self.averaged.update(self.model)
            self._averaged_step = self.global_step

    def _non_finite_on_any_rank(
        self, losses: dict[str, Tensor], batch: Batch, *, is_own: bool
    ) -> NonFiniteLossError:
        """Return the error of the first rank with non-finite losses, which every rank then raises."""
        ids = [self.train_image_id(index) for index in batch.indices.tolist()]
        error = self._non_finite("Training stopped", losses, ids)
        texts = all_gathered(str(error) if is_own else None)
        return NonFiniteLossError(next((text for text in texts if text is not None), str(error)))

    def _non_finite(self, event: str, losses: dict[str, Tensor], ids: list[Any]) -> NonFiniteLossError:
        clip = self.trainer.gradient_clip_val
        bound = "set training.gradient_clip_val=10"
        if clip is not None and clip <= 10:  # advise a bound only if it changes something
            bound = f"lower training.gradient_clip_val (it is {clip:g})"
        terms = [f"{name} is {value.item()}" for name, value in losses.items() if not value.isfinite()]
        return NonFiniteLossError(
            f"{event} at epoch {self.current_epoch + 1}, step {self.global_step + 1}: "
            f"{', '.join(terms) or 'the sum of the losses is not finite'}, for the images with the ids {ids}."
            " Most often the learning rate is too high: lower optimizer.lr, lengthen "
            f"lr_scheduler.warmup_steps or {bound}. If the same images come up again, look at them and their "
            "boxes."
        )

    # Validation

    def on_validation_epoch_start(self) -> None:
        self.validation.collector.clear()
        self.validation_is_finite = True
        self._val_losses.clear()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        if len(batch.indices) == 0:  # see EvaluationBatchSampler
            return
        # Losses over random samples then use the same samples each time, on any number of ranks.
        torch.manual_seed(hash((self.seed, int(batch.indices[0]))))
        losses, detections = self.evaluated.loss_and_predict(batch)
        total = torch.stack([*losses.values()]).sum()
        if not math.isfinite(total.item()):
            ids = [self.validation.image_id(index) for index in batch.indices.tolist()]
            # `Checkpoints` stops the run if the weights are broken; early batch norms may recover.
            self.validation_is_finite = False
            _log.warning("%s", self._non_finite("A loss of the validation is not finite", losses, ids))
        self._val_losses.add({"loss": total, **losses}, images=len(batch.indices))
        self.validation.collector.add(batch, detections)

    def on_validation_epoch_end(self) -> None:
        self._gather()
        self.log_dict({f"val/{name}": value for name, value in self._val_losses.means().items()})
        self.results, rows, self.metrics = self.validation.score()
        self.best_f1_threshold = best_f1_threshold(
            match(rows["bbox"], self.validation.evaluators.boxes.truth)
        )
        self.validated_epoch = self.current_epoch
        self.log_dict({f"val/{name}": value for name, value in self.metrics.values.items()})

    def _gather(self) -> None:
        """Gather the results and losses of all ranks on every rank."""
        if num_ranks() == 1:
            return
        states = all_gathered((self.validation.collector.state(), self._val_losses))
        self._val_losses = LossSums.of_all(losses for _, losses in states)
        for results, _ in states:
            self.validation.collector.merge(results)

    # Optimization

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.optimization.build(self.model, global_batch_size=self.length.images_per_step)

        def factor(step: int) -> float:
            return self.lr_scheduler.factor(
                step, total_steps=self.length.total_steps, steps_per_epoch=self.length.steps_per_epoch
            )

        scheduler = LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        evaluated = "model." if self.averaged is None else "averaged.model."
        if "optimizer_states" not in checkpoint:  # nothing resumes from it
            state = checkpoint["state_dict"]
            checkpoint["state_dict"] = {k: v for k, v in state.items() if k.startswith(evaluated)}
        checkpoint["detector"] = describe_checkpoint(
            self.record,
            weights=evaluated,
            metrics=self.validation_metrics(),
            best_f1_threshold=self.best_f1_threshold if self._is_validated else None,
            epoch=self.current_epoch + 1,
            step=self.global_step,
        )
        # Checkpoints are written at the end of an epoch, which Lightning counts as completed only afterwards.
        # Uncorrected, a resumed run would start the loader's workers with the images of the previous epoch.
        for progress in checkpoint["loops"]["fit_loop"]["epoch_progress"].values():
            progress["completed"] = progress["processed"]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        from detector.training.resumable import require_fitting  # needed only to resume

        optimization: Any = self.configure_optimizers()
        require_fitting(
            checkpoint,
            module=self,
            optimizer=optimization["optimizer"],
            scheduler=optimization["lr_scheduler"]["scheduler"].state_dict(),
            loops={"fit_loop": self.trainer.fit_loop.state_dict()},
        )
        self._averaged_step = checkpoint["global_step"]

    @property
    def _is_validated(self) -> bool:
        return self.validated_epoch == self.current_epoch

    def validation_metrics(self) -> dict[str, float]:
        """Return the values that the validation of this epoch logged; empty if there was none."""
        if not self._is_validated:
            return {}
        logged = self.trainer.callback_metrics
        return {name: float(value) for name, value in logged.items() if name.startswith("val/")}
