"""Opening the validation data of an earlier training."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from detector.config.build import build
from detector.config.recorded import check_stored, with_environment
from detector.data.datamodule import DetectionDataModule
from detector.data.warped_shapes.source import WarpedShapes
from detector.option_types import TaskName

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Stored:
    """The part of a stored configuration that is built."""

    data: DetectionDataModule


def open_validation(
    trained: dict[str, Any],
    *,
    class_names: Sequence[str],
    source: str | Path,
    tasks: tuple[TaskName, ...] = ("bbox",),
    overrides: dict[str, Any] | None = None,
    generate_into: Path | None = None,
) -> DetectionDataModule:
    """Open the validation split of a training whose configuration had `trained` as its data.

    `class_names` are those of the training, which decided what a root category is; `source` is the file that
    holds the configuration, for messages; `tasks` are those of the model. `overrides` (nested) replace stored
    options. Missing generated data is generated again in `generate_into`; nothing else is written.

    Raises:
        ValueError: the data does not exist, or generated data is missing and `generate_into` is None.
    """
    check_stored({"data": trained}, _Stored, source=str(source))
    boxes_alone = tasks == ("bbox",)
    stored = stored_data(trained, overrides or {}, generate_into=generate_into, boxes_alone=boxes_alone)
    data = cast(DetectionDataModule, build(stored))
    data.use_tasks(tasks)
    data.prepare_data()
    data.know_classes(tuple(class_names))
    data.setup("validate")
    return data


def data_config(trained: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """Return the data configuration of the training, updated with `overrides` (nested)."""
    merged = {**trained, **overrides}
    paths = trained.get("val") or {"_target_": "detector.data.SplitPaths"}
    if "root" in overrides:  # absolute paths of the training would ignore it
        paths = {
            k: None if k in ("annotations", "images") and _is_absolute(v) else v for k, v in paths.items()
        }
    merged["val"] = {**paths, **overrides.get("val", {})}
    if "root" in overrides or "val" in overrides:
        merged["source"] = None  # other data is given: nothing is generated
    return merged


def stored_data(
    trained: dict[str, Any],
    overrides: dict[str, Any],
    *,
    generate_into: Path | None,
    boxes_alone: bool = True,
) -> dict[str, Any]:
    """Return `data_config` changed so that building and reading it writes only into `generate_into`.

    With `boxes_alone` generated data of an earlier version will do, which has the same images and boxes.

    A checkpoint may come from somebody else, and its training may have generated its data anywhere. Paths
    from the environment take its current values.
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
    if isinstance(source, WarpedShapes) and (
        folder := source.existing(merged["root"], boxes_alone=boxes_alone)
    ):
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
