"""A checkpoint at work: its detections on a dataset, scored as its training scored them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning import Fabric
from rich.console import Console
from rich.progress import track

from detector.commands.parts import (
    build_data,
    find_accelerator,
    require_same_classes,
)
from detector.commands.report import Evaluated
from detector.data import DetectionDataModule
from detector.evaluation import CocoEvaluator, ResultCollector
from detector.inference import restore_model
from detector.structures import Batch, Detections
from detector.training import Checkpoint, Validation, load_checkpoint


def evaluate_checkpoint(
    path: str,
    *,
    data_overrides: dict[str, Any],
    evaluator: Callable[..., CocoEvaluator],
    accelerator: str,
) -> Evaluated:
    """The checkpoint on the validation images.

    On the same device and with the same batch size these are the numbers of the training's own validation.

    Raises:
        ValueError: no such accelerator, checkpoint or data, or data with other classes.
    """
    kind = find_accelerator(accelerator)
    checkpoint = load_checkpoint(path)
    data = build_data({"data": data_config(checkpoint.config["data"], data_overrides)})
    data.prepare_data()
    data.know_classes(checkpoint.class_names)
    data.setup("validate")
    source = data.val_set.annotations.path
    require_same_classes(checkpoint, data.class_names, where=str(source))
    validation = Validation(
        ground_truth=data.val_set.ground_truth(),
        evaluator=evaluator,
        image_id=data.val_set.image_id,
        category_ids=data.category_ids,
    )
    predict(checkpoint, data, validation.collector, kind)
    results, metrics = validation.score()
    title = f"{path} (epoch {checkpoint.epoch}) on {source}"
    return Evaluated(results, metrics, title, validation.evaluator, data.val_set.picture)


def data_config(trained: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """The data of the training with other values where `overrides` (nested) has some."""
    merged = {**trained, **overrides}
    paths = trained.get("val") or {"_target_": "detector.data.SplitPaths"}
    if "root" in overrides:  # absolute paths of the training would not follow it
        paths = {
            k: None if k in ("annotations", "images") and _is_absolute(v) else v for k, v in paths.items()
        }
    merged["val"] = {**paths, **overrides.get("val", {})}
    if "root" in overrides or "val" in overrides:
        merged["source"] = None  # other data is named: nothing has to be generated
    return merged


def _is_absolute(path: str | None) -> bool:
    return path is not None and Path(path).is_absolute()


def predict(
    checkpoint: Checkpoint, data: DetectionDataModule, collector: ResultCollector, accelerator: str
) -> None:
    """Add the detections of all validation images."""
    predictor = Predictor(checkpoint, accelerator)
    batches = data.val_dataloader()
    console = Console(stderr=True)
    say = f"Predicting {len(data.val_set)} images on {predictor.device}"
    if not console.is_terminal:
        print(say, flush=True)
    for batch in track(batches, description=say, console=console, disable=not console.is_terminal):
        batch = predictor.prepared(batch)
        collector.add(batch, predictor(batch))


class Predictor:
    """The model of a checkpoint on a device, in the precision and memory layout of its training."""

    def __init__(self, checkpoint: Checkpoint, accelerator: str) -> None:
        training = checkpoint.config["training"]
        precision = training["precision"]
        if precision == "16-mixed" and accelerator == "cpu":
            precision = "32-true"  # the nearest that a CPU has
        self._fabric = Fabric(accelerator=accelerator, devices=1, precision=precision)
        self._layout = torch.channels_last if training["channels_last"] else torch.contiguous_format
        self._model = restore_model(checkpoint, device=self.device).to(memory_format=self._layout)

    @property
    def device(self) -> torch.device:
        return self._fabric.device

    def prepared(self, batch: Batch) -> Batch:
        """On the device, laid out as the model takes it."""
        batch = batch.to(self.device)
        return replace(batch, images=batch.images.contiguous(memory_format=self._layout))

    def __call__(self, batch: Batch) -> list[Detections]:
        """Detections of each image, in pixels of the resized image."""
        with torch.inference_mode(), self._fabric.autocast():
            return self._model.predict(batch)
