"""What a run wrote of its epochs."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import yaml

from detector.reports.comparison import Curve
from detector.reports.offsets import OffsetCurve
from detector.reports.run import Losses


def read_curve(folder: Path) -> Curve:
    """Validation AP, images and costs of each epoch of a run, from its metrics.csv."""
    rows = _rows(folder)
    return Curve(
        epochs=tuple(int(row["epoch"]) for row in rows),
        images_seen=tuple(_images_seen(folder, row) for row in rows),
        ap=tuple(_number(row, "val/AP") for row in rows),
        seconds=tuple(float(row["seconds"]) for row in rows),
        images_per_second=tuple(float(row["images_per_second"]) for row in rows),
        peak_memory_mb=tuple(_number(row, "peak_memory_mb") for row in rows),
    )


def read_losses(folder: Path) -> Losses:
    """Losses and learning rate of each epoch of a run, from its metrics.csv."""
    rows = _rows(folder)

    def of_stage(stage: str) -> dict[str, list[float | None]]:
        columns = [column for column in rows[0] if column.startswith(f"{stage}/loss")]
        return {c.removeprefix(f"{stage}/"): [_number(row, c) for row in rows] for c in columns}

    return Losses(
        epochs=[int(row["epoch"]) for row in rows],
        lr=[float(row["lr"]) for row in rows],
        train=of_stage("train"),
        val=of_stage("val"),
    )


def read_offsets(folder: Path) -> dict[str, OffsetCurve]:
    """What each deformable layer of a run did, from its metrics.csv; empty where none is."""
    rows = _rows(folder)
    columns: dict[str, dict[str, str]] = {}
    for column in rows[0]:
        if column.startswith("offsets/"):
            _, layer, statistic = column.split("/")
            columns.setdefault(layer, {})[statistic] = column
    epochs = tuple(int(row["epoch"]) for row in rows)
    return {
        layer: OffsetCurve(
            epochs, {name: tuple(_number(row, column) for row in rows) for name, column in of_layer.items()}
        )
        for layer, of_layer in columns.items()
    }


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


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
