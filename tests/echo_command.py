"""A command that records what it was run with, for the tests of the command line."""

from __future__ import annotations

import sys
from typing import Any

from detector.commands.train import Options
from detector.exceptions import RunError
from detector.runs.context import Context

__all__ = ["Options", "argv", "runs"]

runs: list[dict[str, Any]] = []
argv: list[list[str]] = []


def run(options: Options, context: Context) -> None:
    """Record; seeds from 900 up are accidents."""
    runs.append(context.config)
    argv.append(list(sys.argv))
    if options.seed == 900:
        raise KeyboardInterrupt
    if options.seed == 901:
        raise RuntimeError("a bug")
    if options.seed == 902:
        int("not a number")
    if options.seed == 903:
        raise RunError("the loss is nan")
    if options.seed == 904:
        raise OSError(28, "No space left on device", "last.ckpt")
