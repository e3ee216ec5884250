"""A checkpoint in the names of an earlier version is the same model on the same data."""

from __future__ import annotations

from pathlib import Path

import torch

from detector.checkpoint import ModelRecord, describe_checkpoint, load_checkpoint, save_atomically
from detector.config.build import build
from detector.config.plain import resolved
from detector.earlier import with_earlier_names
from detector.evaluation.coco import CocoEvaluator
from detector.runs.inference import evaluate_checkpoint
from tests.training.tiny import CLASSES, tiny_config, write_dataset


def test_it_evaluates_as_one_with_present_names(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "data", train_images=1, val_images=2)
    cfg = tiny_config(root, tmp_path, "model=faster_rcnn_small", "data.image_size.min_size=48")
    config = resolved(cfg)
    torch.manual_seed(0)
    state = build(cfg.model)(num_classes=2).state_dict()
    results = []
    for number, stored in ((3, with_earlier_names(config)), (4, config)):
        record = ModelRecord(
            class_names=("disc", "square"), category_ids=tuple(sorted(CLASSES)), config=stored
        )
        metrics = {"val/loss_box" if number == 3 else "val/loss_box_reg": 1.0}
        entry = describe_checkpoint(record, weights="", metrics=metrics, epoch=1, step=1)
        entry["format"] = number
        rows = [{"epoch": 1, **metrics}]
        path = tmp_path / f"{number}.ckpt"
        save_atomically({"state_dict": state, "detector": entry, "epoch_rows": rows}, path)
        read = load_checkpoint(path)
        assert (read.config, read.metrics) == (config, {"val/loss_box_reg": 1.0})
        assert read.epoch_rows == [{"epoch": 1, "val/loss_box_reg": 1.0}]
        (evaluated,) = evaluate_checkpoint(
            str(path), data_overrides={}, evaluator=CocoEvaluator, accelerator="cpu"
        )
        results.append(evaluated.results)
    assert results[0]
    assert results[0] == results[1]
