"""Completion of a configuration with the defaults of its targets."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from detector.config.check import is_node
from detector.config.signatures import schema_of
from detector.config.targets import locate


def with_defaults(value: Any) -> Any:
    """Return a plain configuration with all defaults of its targets, named by where they are defined.

    Configurations that build the same are then equal, such as those before and after an option was added.
    Nodes whose target is not allowed or missing stay unchanged.
    """
    if isinstance(value, list):
        return [with_defaults(item) for item in value]
    if not isinstance(value, dict):
        return value
    explicit = {key: with_defaults(item) for key, item in value.items()}
    target = locate(value)[0] if is_node(value) else None
    if target is None:
        return explicit
    defaults = {k: _as_config(v) for k, v in schema_of(target).defaults.items() if k not in explicit}
    return {**defaults, **explicit, "_target_": _name(target)}


def _as_config(default: Any) -> Any:
    """Return a default in the form that a configuration has it."""
    if inspect.isclass(default):
        return with_defaults({"_target_": _name(default), "_partial_": True})
    if is_dataclass(default):
        values = {field.name: getattr(default, field.name) for field in fields(default)}
        return {"_target_": _name(type(default)), **{k: _as_config(v) for k, v in values.items()}}
    if isinstance(default, Mapping):
        return {key: _as_config(value) for key, value in default.items()}
    return [*default] if isinstance(default, tuple) else default


def _name(target: Any) -> str:
    return f"{target.__module__}.{target.__qualname__}"
