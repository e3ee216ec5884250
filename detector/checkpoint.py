"""Checkpoint files: plain containers, written atomically, read without running code.

The file has what Lightning needs to resume, plus an entry "detector" with what is needed to use the model:
class names, category ids, the resolved config, metrics, and which weights were evaluated.
"""

from __future__ import annotations

import os
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detector.checkpoint_entries import entry_problems, listed, shown
from detector.files import write_atomically
from detector.run_folder import Row, require_checkpoint_file
from detector.structures import KeypointSchema
from detector.weights.archives import damage_of, is_whole_archive

_FORMAT = 4
EPOCH_ROWS = "epoch_rows"  # key of the metrics.csv rows up to the checkpoint


@dataclass(frozen=True, kw_only=True)
class ModelRecord:
    """The metadata that makes weights usable: the class of each label, and the config of model and data.

    `keypoint_schemas` are the keypoints of each class, None for one without; empty if the
    model predicts none.
    """

    class_names: tuple[str, ...]
    category_ids: tuple[Any, ...]
    config: dict[str, Any] = field(default_factory=dict)
    keypoint_schemas: tuple[KeypointSchema | None, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Checkpoint(ModelRecord):
    """A checkpoint read from `path`.

    `state_dict` holds the weights that were evaluated (the moving average if the run kept one), under the
    names of `Detector`. `epoch` counts finished epochs. `metrics` come from the validation at the end of that
    epoch; empty without one. `best_f1_threshold` is the score from which detections have the best F1 in it;
    None if there was none, in older files, and where no detection was right. `epoch_rows` are the rows of
    metrics.csv up to then; empty in older files.
    """

    path: Path
    state_dict: dict[str, Tensor]
    metrics: dict[str, float]
    epoch: int
    step: int
    best_f1_threshold: float | None = None
    epoch_rows: list[Row] = field(default_factory=list)


def describe_checkpoint(
    record: ModelRecord,
    *,
    weights: str,
    metrics: Mapping[str, float],
    epoch: int,
    step: int,
    best_f1_threshold: float | None = None,
) -> dict[str, Any]:
    """Return the "detector" entry of a file; arguments are as in `Checkpoint`.

    `weights` is the prefix of the evaluated weights in its "state_dict".
    """
    return {
        "format": _FORMAT,
        "class_names": list(record.class_names),
        "category_ids": list(record.category_ids),
        "config": record.config,
        "weights": weights,
        "metrics": dict(metrics),
        "epoch": epoch,
        "step": step,
        "best_f1_threshold": best_f1_threshold,
        **_schemas_entry(record),
    }


def _schemas_entry(record: ModelRecord) -> dict[str, Any]:
    if not record.keypoint_schemas:
        return {}
    from detector.checkpoint_schemas import plain_schema  # boxes do without

    return {"keypoint_schemas": [*map(plain_schema, record.keypoint_schemas)]}


def _schema_problems(entry: Mapping[str, Any]) -> list[str]:
    if "keypoint_schemas" not in entry:  # as in files of boxes alone
        return []
    from detector.checkpoint_schemas import schema_problems

    return schema_problems(entry["keypoint_schemas"], len(entry["class_names"]))


def _schemas_of(entry: Mapping[str, Any]) -> tuple[KeypointSchema | None, ...]:
    if "keypoint_schemas" not in entry:
        return ()
    from detector.checkpoint_schemas import schema_of

    return tuple(map(schema_of, entry["keypoint_schemas"]))


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint of `detector train` onto the CPU.

    Raises:
        ValueError: the path is missing, a folder, truncated, damaged, no checkpoint of this program, or has
            weights that are not finite. The message names an intact checkpoint beside it, if there is one.
    """
    from detector.earlier import present_row, updated  # needed only to read

    path = Path(path)
    content = read_content(path)
    entry = content.get("detector")
    if not isinstance(entry, dict) or "state_dict" not in content:
        raise ValueError(
            f"{path}: a torch file, but no checkpoint of `detector train`: it lacks class names and config. "
            "Weights of a detector go to model.weights=, those of a backbone to model.backbone.weights=."
        )
    _require_known_format(path, entry.get("format"))
    if problems := entry_problems(content) or _schema_problems(entry):
        raise ValueError(f"{path}: not usable as a checkpoint: {listed(problems)}. {_way_on(path)}")
    prefix = entry["weights"]
    return Checkpoint(
        path=path,
        class_names=tuple(entry["class_names"]),
        category_ids=tuple(entry["category_ids"]),
        keypoint_schemas=_schemas_of(entry),
        config=updated(entry["config"]),
        state_dict={
            name.removeprefix(prefix): value
            for name, value in content["state_dict"].items()
            if name.startswith(prefix) and isinstance(value, Tensor)
        },
        metrics=present_row(entry["metrics"]),
        epoch=entry["epoch"],
        step=entry["step"],
        best_f1_threshold=entry.get("best_f1_threshold"),
        epoch_rows=[present_row(row) for row in content.get(EPOCH_ROWS, [])],
    )


def _require_known_format(path: Path, format: object) -> None:
    if type(format) is int and 1 <= format <= _FORMAT:
        return
    if type(format) is int and format > _FORMAT:
        raise ValueError(
            f"{path}: written in checkpoint format {shown(format)}, this version reads 1 to {_FORMAT}. "
            "Use the version of detector that wrote it (environment.json of its run names it)."
        )
    raise ValueError(
        f"{path}: not usable as a checkpoint: detector.format is {shown(format)}, expected 1 to {_FORMAT}. "
        f"{_way_on(path)}"
    )


def read_content(path: Path) -> dict[str, Any]:
    require_checkpoint_file(path)
    _check_archive(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the pickle protocol
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path}: holds Python objects besides tensors and plain containers{_names_in(path)}, and is not "
            "read because that could run code. Use a checkpoint of `detector train`."
        ) from error
    except Exception as error:  # inconsistent entries may raise any exception
        raise ValueError(f"{path}: damaged, torch cannot read it. {_way_on(path)}") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ValueError(
            f"{path}: a torch file with a {type(content).__name__}, no checkpoint of `detector train`."
        )
    return content


def _names_in(path: Path) -> str:
    """Return the names of the globals that were refused, in parentheses, if torch can list them."""
    try:
        names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # another pickle protocol or a damaged file: the message omits the names
        return ""
    return f" ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})" if names else ""


def _way_on(path: Path) -> str:
    """Return advice on what to use instead: the other checkpoint of the run, if it is intact."""
    others = [path.with_name(f"{name}.ckpt") for name in ("best", "last")]
    whole = [other for other in others if other != path and is_whole_archive(other)]
    return f"Use {whole[0]}, which is whole." if whole else "Copy it again, or use another."


def _check_archive(path: Path) -> None:
    """Raise ValueError unless the file is an intact zip archive.

    A truncated file (starts as a zip, has no end) gets another message than one that never was a checkpoint.
    """
    with path.open("rb") as file:
        start = file.read(4)
    if zipfile.is_zipfile(path):
        if damage := damage_of(path):
            raise ValueError(f"{path}: damaged: {damage}. {_way_on(path)}")
        return
    if start.startswith(b"PK") or not start:
        raise ValueError(
            f"{path}: cut off ({path.stat().st_size} bytes, its end is missing), as an interrupted copy "
            f"leaves it. {_way_on(path)}"
        )
    raise ValueError(f"{path}: no checkpoint: it is not a torch file. Pass <run>/checkpoints/best.ckpt.")


def save_atomically(content: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Save with torch; `path` holds all of the old or all of the new content, even after a power cut."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:  # given a path, torch reports a full disk as a wrong position
            torch.save(content, file)

    write_atomically(path, write, needed_bytes=_tensor_bytes(content))


def _tensor_bytes(content: Any) -> int:
    if isinstance(content, Tensor):
        return content.nbytes
    if isinstance(content, Mapping):
        content = content.values()
    elif not isinstance(content, list | tuple):
        return 0
    return sum(map(_tensor_bytes, content))
