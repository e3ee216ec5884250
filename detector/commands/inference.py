"""A checkpoint at work: its detections on a dataset, scored as its training scored them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from detector.commands.failures import explained
from detector.commands.parts import (
    build_data,
    find_accelerator,
    require_same_classes,
)
from detector.commands.report import Evaluated
from detector.data import DetectionDataModule
from detector.evaluation import CocoEvaluator, ResultCollector
from detector.inference import Detector
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
    detector = Detector(checkpoint, device=accelerator)
    batches = data.val_dataloader()
    console = Console(stderr=True)
    say = f"Predicting {len(data.val_set)} images on {detector.device}"
    if not console.is_terminal:
        print(say, flush=True)
    with explained(data, batch_option="val_batch_size", lower=("data.num_workers",)):
        for batch in track(batches, description=say, console=console, disable=not console.is_terminal):
            batch = detector.prepared(batch)
            collector.add(batch, detector.detect(batch))
