"""Reading of result files: COCO's list, or a COCO object whose annotations have scores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detector.coco.ids import Key, id_key, is_id
from detector.coco.json_files import load_json
from detector.evaluation.result_columns import has_text
from detector.evaluation.result_ids import NamedResults
from detector.evaluation.result_problems import RESULT_KEYS
from detector.quoting import advised

_WRAPPERS = ("annotations", "predictions", "results", "detections")


def read_results(path: Path) -> list[Any]:
    """Read the results in a file, whose entries the evaluator checks.

    A COCO object with scores in its annotations is read as well. If it has tables of images or categories,
    its ids refer to these, and a `NamedResults` is returned, whose names decide.

    Raises:
        ValueError: the file holds no results; the message says what it looks like instead.
    """
    data = load_json(path, what="a list of COCO results")
    if isinstance(data, list):
        return data
    lists = [key for key in _WRAPPERS if isinstance(data, dict) and isinstance(data.get(key), list)]
    if len(lists) != 1:
        what = "an object" if isinstance(data, dict) else f"a {type(data).__name__}"
        inside = f" with the lists {', '.join(lists)}" if lists else ""
        raise ValueError(
            f"{path}: expected a list of results with {', '.join(RESULT_KEYS)}, or an object with such a "
            f"list under one of {', '.join(_WRAPPERS)}, got {what}{inside}."
        )
    rows = data[lists[0]]
    if lists == ["annotations"] and (other := _score_elsewhere(rows)):
        raise ValueError(f'{path}: has its scores under {other}: write them as "score" into each annotation.')
    if lists == ["annotations"] and not any(isinstance(row, dict) and "score" in row for row in rows):
        raise ValueError(
            f"{path}: looks like a ground truth, for none of its {len(rows)} annotations has a score: "
            f"pass it as {advised('annotations', path)}. Results have a score each."
        )
    images, categories = _names(data.get("images"), "file_name"), _names(data.get("categories"), "name")
    return (
        NamedResults(_with_names(row, images, categories) for row in rows) if images or categories else rows
    )


def _score_elsewhere(rows: list[Any]) -> str:
    """Return the key under which annotations hold their scores instead of "score"; empty if none."""
    objects = [row for row in rows if isinstance(row, dict)]
    if not objects or any("score" in row for row in objects):
        return ""
    for key in ("confidence", "conf", "probability"):
        if all(key in row for row in objects):
            return f'"{key}"'
    attributes = [row.get("attributes") for row in objects]
    return '"attributes"' if all(isinstance(a, dict) and "score" in a for a in attributes) else ""


def _names(table: Any, name: str) -> dict[Key, str]:
    """Return the names in a table of a COCO object by id; rows without a name are skipped."""
    if not isinstance(table, list):
        return {}
    return {
        id_key(row["id"]): row[name]
        for row in table
        if isinstance(row, dict) and "id" in row and is_id(row["id"]) and has_text(row, name)
    }


def _with_names(row: Any, images: Mapping[Key, str], categories: Mapping[Key, str]) -> Any:
    """Return a copy of a row with the names that the tables of its file give to its ids."""
    if not isinstance(row, dict):
        return row
    row = dict(row)
    for table, key, name in ((images, "image_id", "file_name"), (categories, "category_id", "category_name")):
        if key in row and is_id(row[key]) and (own_name := table.get(id_key(row[key]))) is not None:
            row[name] = own_name
    return row
