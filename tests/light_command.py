"""A command that only records its configuration and imports nothing heavy."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig

from detector.config.plain import resolved

__all__ = ["run", "runs"]

runs: list[dict[str, Any]] = []


def run(cfg: DictConfig) -> None:
    runs.append(resolved(cfg))
