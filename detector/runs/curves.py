"""The curves of a run, from the epochs in its metrics.csv."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detector.reports.study import Curve, Losses, OffsetCurve
from detector.run_folder import Row, RunFolder, columns_of


def read_curve(folder: Path, *, column: str = "val/AP") -> Curve:
    """Read validation AP, or another `column` of metrics.csv, images seen and costs of each epoch."""
    files = RunFolder(folder)
    rows = files.read_epochs()
    return Curve(
        epochs=tuple(int(row["epoch"]) for row in rows),
        images_seen=tuple(_images_seen(files, row) for row in rows),
        ap=tuple(row.get(column) for row in rows),
        seconds=tuple(row["seconds"] for row in rows),
        images_per_second=tuple(row["images_per_second"] for row in rows),
        peak_memory_mb=tuple(row.get("peak_memory_mb") for row in rows),
        steps=_steps(rows),
    )


def read_losses(folder: Path) -> Losses:
    """Read losses and learning rate of each epoch, and the training losses between."""
    from detector.training.event_log import read_events  # loads Lightning and TensorBoard

    files = RunFolder(folder)
    rows = files.read_epochs()

    def of_stage(stage: str) -> dict[str, list[float | None]]:
        columns = [column for column in columns_of(rows) if column.startswith(f"{stage}/loss")]
        return {c.removeprefix(f"{stage}/"): [row.get(c) for row in rows] for c in columns}

    return Losses(
        epochs=[int(row["epoch"]) for row in rows],
        lr=[row["lr"] for row in rows],
        train=of_stage("train"),
        val=of_stage("val"),
        steps=_steps(rows),
        by_step={
            name.removeprefix("train/"): values
            for name, values in read_events(files.tensorboard).items()
            if name.startswith("train/loss")
        },
    )


def read_offsets(folder: Path) -> dict[str, OffsetCurve]:
    """Read the offset statistics of each deformable layer; empty if there is none."""
    rows = RunFolder(folder).read_epochs()
    columns: dict[str, dict[str, str]] = {}
    for column in columns_of(rows):
        if column.startswith("offsets/"):
            _, layer, statistic = column.split("/")
            columns.setdefault(layer, {})[statistic] = column
    epochs = tuple(int(row["epoch"]) for row in rows)
    return {
        layer: OffsetCurve(
            epochs, {name: tuple(row.get(column) for row in rows) for name, column in of_layer.items()}
        )
        for layer, of_layer in columns.items()
    }


def _steps(rows: list[Row]) -> tuple[int, ...]:
    """Return the last step of each epoch; empty if one has none."""
    return tuple(int(row["step"]) for row in rows) if all("step" in row for row in rows) else ()


def _images_seen(files: RunFolder, row: Row) -> int:
    """Return the images seen, computed from the steps (all batches full) for older runs without a count."""
    if "images_seen" in row:
        return int(row["images_seen"])
    config = files.read_config()
    batches = int(row["step"]) * config["training"]["accumulate_grad_batches"]
    return batches * int(config["data"]["batch_size"]) * _devices(files, config["training"])


def _devices(files: RunFolder, training: dict[str, Any]) -> int:
    """Return the number of devices; `auto` means all GPUs, or one CPU."""
    if training["devices"] != "auto":
        return int(training["devices"])
    return 1 if training["accelerator"] == "cpu" else max(1, len(files.read_environment()["gpus"]))
