"""Conversion of OmegaConf containers to plain Python data."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

MISSING = "???"


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """Return the configuration as dicts, lists and scalars, with every interpolation resolved.

    Raises:
        omegaconf.MissingMandatoryValue: a mandatory value is not set.
    """
    plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def leniently_resolved(cfg: Any, path: str = "") -> tuple[Any, list[str]]:
    """Do the same, but leave a missing value as "???", and return each failed interpolation as a problem."""
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
