"""A checkpoint at work: its detections on a dataset, scored as its training scored them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from detector.checkpoint import Checkpoint, load_checkpoint
from detector.config.build import build
from detector.config.recorded import with_environment
from detector.data.datamodule import DetectionDataModule
from detector.data.objects import require_objects
from detector.data.warped_shapes.source import WarpedShapes
from detector.evaluation.coco import CocoEvaluator
from detector.evaluation.results import ResultCollector
from detector.predictor import Predictor, check_stored
from detector.runs.failures import explained
from detector.runs.parts import build_data, find_accelerator, require_same_classes
from detector.runs.report import Evaluated
from detector.training.module import Validation

_log = logging.getLogger(__name__)


def evaluate_checkpoint(
    path: str,
    *,
    data_overrides: dict[str, Any],
    evaluator: Callable[..., CocoEvaluator],
    accelerator: str,
    generate_into: Path | None = None,
) -> Evaluated:
    """The checkpoint on the validation images.

    On the same device and with the same batch size these are the numbers of the training's own validation.
    Generated data that is gone is generated anew in `generate_into`; nothing else is written.

    Raises:
        ValueError: no such accelerator, checkpoint or data, or data with other classes.
    """
    kind = find_accelerator(accelerator)
    checkpoint = load_checkpoint(path)
    check_stored(checkpoint.config, source=path)
    data = build_data(
        {"data": stored_data(checkpoint.config["data"], data_overrides, generate_into=generate_into)}
    )
    data.prepare_data()
    data.know_classes(checkpoint.class_names)
    data.setup("validate")
    source = data.val_set.annotations.path
    require_same_classes(checkpoint, data.class_names, where=str(source))
    require_objects(data.val_set.annotations, split="val", size=data.image_size)
    validation = Validation(
        ground_truth=data.val_set.ground_truth(),
        evaluator=evaluator,
        image_id=data.val_set.image_id,
        category_ids=data.category_ids,
    )
    predict(checkpoint, data, validation.collector, kind)
    results, metrics = validation.score()
    title = f"{path} (epoch {checkpoint.epoch}) on {source}"
    scorer = validation.evaluator
    return Evaluated(scorer.rows(results), metrics, title, scorer, data.val_set.picture, results)


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


def stored_data(
    trained: dict[str, Any], overrides: dict[str, Any], *, generate_into: Path | None
) -> dict[str, Any]:
    """`data_config` such that building and reading it writes nowhere but into `generate_into`.

    A checkpoint may be of somebody else, and where its training generated its data may be anywhere. Paths
    that it took from the environment are those of today's.
    """
    merged = data_config(trained, overrides)
    if (root := merged.get("root")) is not None:
        merged["root"] = with_environment(root, option="data.root")
    merged["val"] = {
        key: with_environment(value, option=f"data.val.{key}") if isinstance(value, str) else value
        for key, value in merged["val"].items()
    }
    if merged.get("source") is None or merged.get("root") is None:
        return merged
    source = build(merged["source"])
    if isinstance(source, WarpedShapes) and (folder := source.existing(merged["root"])):
        return {**merged, "root": str(folder), "source": None}
    if generate_into is None:
        raise ValueError(f"data.root={merged['root']}: the generated data is not there. Give data.root=...")
    _log.warning(
        "%s does not hold the generated data of the training: generated anew in %s",
        merged["root"],
        generate_into,
    )
    return {**merged, "root": str(generate_into)}


def _is_absolute(path: str | None) -> bool:
    return path is not None and Path(path).is_absolute()


def predict(
    checkpoint: Checkpoint, data: DetectionDataModule, collector: ResultCollector, accelerator: str
) -> None:
    """Add the detections of all validation images."""
    detector = Predictor(checkpoint, device=accelerator)
    batches = data.val_dataloader()
    console = Console(stderr=True)
    say = f"Predicting {len(data.val_set)} images on {detector.device}"
    if not console.is_terminal:
        print(say, flush=True)
    with explained(data, batch_option="val_batch_size", lower=("data.num_workers",)):
        for batch in track(batches, description=say, console=console, disable=not console.is_terminal):
            batch = detector.prepared(batch)
            collector.add(batch, detector.detect(batch))
