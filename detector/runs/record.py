"""The record of a run: what is needed to understand and repeat it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from detector.environment import environment
from detector.run_folder import RunFolder
from detector.runs.context import Context


def require_writable(output_dir: Path) -> None:
    """Raise ValueError if no file can be written into `output_dir`, which need not exist yet."""
    folder = next(p for p in (output_dir.absolute(), *output_dir.absolute().parents) if p.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        reason = "cannot be written to" if folder.is_dir() else "is no folder"
        raise ValueError(f"output_dir={output_dir}: {folder} {reason}. Choose another output_dir.")


def require_no_training_run(output_dir: Path) -> None:
    """Raise ValueError if the files of a training run would be lost."""
    if RunFolder(output_dir).checkpoints.exists():
        raise ValueError(
            f"output_dir={output_dir} is a training run, whose files would be lost. Choose another."
        )


def write_record(output_dir: Path, context: Context, **facts: Any) -> None:
    """Write the configuration, the overrides, and the environment with `facts` about this run."""
    RunFolder(output_dir).write_record(
        config=context.config, overrides=context.overrides, environment={**environment(), **facts}
    )
