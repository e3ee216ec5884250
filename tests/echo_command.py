"""A command that records what it was run with, for the tests of the command line."""

from __future__ import annotations

import sys
from typing import Any

from omegaconf import DictConfig

from detector.commands.train import Options
from detector.config.plain import resolved
from detector.exceptions import RunError

__all__ = ["Options", "argv", "runs"]

runs: list[dict[str, Any]] = []
argv: list[list[str]] = []


def run(cfg: DictConfig) -> None:
    """Record; seeds from 900 up are accidents."""
    runs.append(resolved(cfg))
    argv.append(list(sys.argv))
    if cfg.seed == 900:
        raise KeyboardInterrupt
    if cfg.seed == 901:
        raise RuntimeError("a bug")
    if cfg.seed == 902:
        int("not a number")
    if cfg.seed == 903:
        raise RunError("the loss is nan")
    if cfg.seed == 904:
        raise OSError(28, "No space left on device", "last.ckpt")
