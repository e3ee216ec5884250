"""What a run wrote of its epochs."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import yaml

from detector.reports.comparison import Curve


def read_curve(folder: Path) -> Curve:
    """Validation AP, images and costs of each epoch of a run, from its metrics.csv."""
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return Curve(
        epochs=tuple(int(row["epoch"]) for row in rows),
        images_seen=tuple(_images_seen(folder, row) for row in rows),
        ap=tuple(_number(row, "val/AP") for row in rows),
        seconds=tuple(float(row["seconds"]) for row in rows),
        images_per_second=tuple(float(row["images_per_second"]) for row in rows),
        peak_memory_mb=tuple(_number(row, "peak_memory_mb") for row in rows),
    )


def _number(row: dict[str, str], column: str) -> float | None:
    """None where the epoch, or the version that wrote it, has none."""
    return float(row[column]) if row.get(column) else None


def _images_seen(folder: Path, row: dict[str, str]) -> int:
    """Until they were counted, runs had the steps alone; every batch is full."""
    if row.get("images_seen"):
        return int(row["images_seen"])
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    batches = int(row["step"]) * config["training"]["accumulate_batches"]
    return batches * int(config["data"]["batch_size"]) * _devices(folder, config["training"])


def _devices(folder: Path, training: dict[str, Any]) -> int:
    """Of a run whose `training.devices` may be auto: all GPUs, one CPU."""
    if training["devices"] != "auto":
        return int(training["devices"])
    if training["accelerator"] == "cpu":
        return 1
    facts = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    return max(1, len(facts["gpus"]))
