"""The context of a command: the command line beyond its options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Launcher:
    """The chosen hydra/launcher: its name, its `_target_`, and the rest of hydra.launcher."""

    choice: str
    target: str
    parameters: Callable[[], Mapping[str, Any]]


@dataclass(frozen=True)
class Context:
    """The command line behind a run.

    `config` is the resolved configuration, as plain containers. `recorded` is the same without values from
    the environment; checkpoints store it. `overrides` are those of the command line, in order, and
    `config_dir_flags` its `--config-dir`, for commands that are printed or started. `launcher` is None for a
    job of a sweep, because the launcher belongs to the sweep.
    """

    config: dict[str, Any]
    recorded: dict[str, Any] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    config_dir_flags: tuple[str, ...] = ()
    launcher: Launcher | None = None


def overridden_key(override: str) -> str:
    """Return `model.backbone` for `model/backbone=resnet50`."""
    return override.lstrip("+~").partition("=")[0].replace("/", ".")
