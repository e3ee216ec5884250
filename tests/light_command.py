"""A command that only records its configuration and imports nothing heavy."""

from __future__ import annotations

from typing import Any

from detector.runs.context import Context

__all__ = ["Options", "run", "runs"]

runs: list[dict[str, Any]] = []


class Options:
    """Takes any key."""

    def __init__(self, **values: Any) -> None:
        self.values = values


def run(options: Options, context: Context) -> None:
    runs.append(context.config)
