"""Checks of a configuration before the packages of its verb are imported, which takes seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from detector.coco.layouts import no_folder
from detector.config.check import plain_problems
from detector.config.plain import leniently_resolved
from detector.config.reference import leaves
from detector.run_folder import require_checkpoint_file


def early_problems(cfg: Any, module: str) -> list[str]:
    """Return the problems of values and paths of a configuration for the verb in `module`.

    They are those that the check of the verb finds too, which imports its parts.
    """
    plain, problems = leniently_resolved(cfg)
    values = {}
    for key, value, annotation in leaves(plain, module):
        values[key] = value
        problems += plain_problems(value, annotation, key)
    return problems or [*_path_problems(values, plain)]


def _path_problems(values: Mapping[str, Any], plain: Mapping[str, Any]) -> Iterator[str]:
    for key, require in _REQUIRED.items():
        if isinstance(value := values.get(key), str):
            try:
                require(value)
            except (OSError, ValueError) as error:
                yield str(error)
    data = plain.get("data", {})
    is_own = isinstance(data, dict) and isinstance(data.get("root"), str) and not data.get("source")
    if is_own and (reason := no_folder(data["root"])):
        yield reason


def _require_source(source: str) -> None:
    from detector.coco.image_files import find_images

    if not Path(source).is_dir():  # a large folder is searched once
        find_images(source)


def _required_file(key: str) -> Callable[[str], None]:
    def require(path: str) -> None:
        if not Path(path).exists():
            raise ValueError(f"{key}={path}: no such file (looked from {Path.cwd()}).")

    return require


_REQUIRED: Mapping[str, Callable[[str], None]] = {
    "checkpoint": lambda path: require_checkpoint_file(Path(path)),
    "training.resume": lambda path: require_checkpoint_file(Path(path)),
    "source": _require_source,
    "annotations": _required_file("annotations"),
    "predictions": _required_file("predictions"),
}
