"""From OmegaConf to plain Python data."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

MISSING = "???"


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """The configuration as dicts, lists, strings, numbers, bools and None; every interpolation resolved.

    A mandatory value that is not set raises omegaconf's MissingMandatoryValue.
    """
    plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def leniently_resolved(cfg: Any, path: str = "") -> tuple[Any, list[str]]:
    """The same, but a missing value stays "???" and each interpolation that fails is a problem told."""
    if isinstance(cfg, DictConfig):
        items = [_item(cfg, key, _join(path, str(key))) for key in cfg]
        return {str(k): v for k, (v, _) in zip(cfg, items, strict=True)}, [p for _, ps in items for p in ps]
    if isinstance(cfg, ListConfig):
        items = [_item(cfg, i, f"{path}[{i}]") for i in range(len(cfg))]
        return [value for value, _ in items], [p for _, ps in items for p in ps]
    return cfg, []


def _item(container: Any, key: Any, path: str) -> tuple[Any, list[str]]:
    if OmegaConf.is_missing(container, key):
        return MISSING, []
    try:
        value = container[key]
    except OmegaConfBaseException as error:
        return MISSING, [f"{path}: its interpolation fails: {str(error).splitlines()[0]}"]
    return leniently_resolved(value, path)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
