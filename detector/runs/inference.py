"""Evaluation of a checkpoint: its detections on a dataset, scored as in its training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from detector.checkpoint import load_checkpoint
from detector.data.datamodule import DetectionDataModule
from detector.data.objects import require_objects
from detector.evaluation.coco import CocoEvaluator
from detector.evaluation.results import ResultCollector
from detector.predictor import Predictor, check_used
from detector.runs.accelerator import find_accelerator
from detector.runs.failures import explained
from detector.runs.head import data_name, model_name
from detector.runs.parts import require_same_classes
from detector.runs.report import Evaluated, evaluated_tasks
from detector.runs.validation import open_validation
from detector.training.module import Validation


def evaluate_checkpoint(
    path: str,
    *,
    data_overrides: dict[str, Any],
    evaluator: Callable[..., CocoEvaluator],
    accelerator: str,
    generate_into: Path | None = None,
) -> list[Evaluated]:
    """Evaluate a checkpoint on the validation images by each task of its model, boxes first.

    On the same device and with the same batch size the numbers equal those of the training's own validation.
    Missing generated data is generated again in `generate_into`; nothing else is written.

    Raises:
        ValueError: the accelerator, checkpoint or data does not exist, or the data has other classes.
    """
    kind = find_accelerator(accelerator)
    checkpoint = load_checkpoint(path)
    check_used(checkpoint.config, source=path)
    predictor = Predictor(checkpoint, device=kind)
    tasks = predictor.model.tasks
    data = open_validation(
        checkpoint.config["data"],
        class_names=checkpoint.class_names,
        tasks=tasks,
        source=path,
        overrides=data_overrides,
        generate_into=generate_into,
    )
    source = data.val_set.annotations.path
    require_same_classes(checkpoint, data.class_names, where=str(source))
    require_objects(data.val_set.annotations, split="val", size=data.image_size)
    validation = Validation(
        ground_truth=data.val_set.ground_truth(),
        evaluator=evaluator,
        image_id=data.val_set.image_id,
        category_ids=data.category_ids,
        tasks=tasks,
        schemas=checkpoint.keypoint_schemas,
    )
    predict(predictor, data, validation.collector)
    results, rows, metrics = validation.score()
    return evaluated_tasks(
        validation.evaluators,
        results,
        metrics,
        rows=rows,
        title=f"{path} (epoch {checkpoint.epoch}) on {source}",
        model=model_name(checkpoint.config["model"]),
        data=data_name({"root": data.root, "val": {"annotations": str(source)}}),
        facts={"checkpoint": f"{path}, epoch {checkpoint.epoch}", "data": str(source)},
        read_image=data.val_set.read_image,
    )


def predict(detector: Predictor, data: DetectionDataModule, collector: ResultCollector) -> None:
    """Add the detections of all validation images to `collector`."""
    batches = data.val_dataloader()
    console = Console(stderr=True)
    description = f"Predicting {len(data.val_set)} images on {detector.device}"
    if not console.is_terminal:
        print(description, flush=True)
    with explained(data, batch_option="val_batch_size", lower=("data.num_workers",)):
        for batch in track(
            batches, description=description, console=console, disable=not console.is_terminal
        ):
            batch = detector.prepared(batch)
            collector.add(batch, detector.detect(batch))
