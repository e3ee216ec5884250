"""What it takes to know, and to repeat, a run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from detector.environment import environment
from detector.run_folder import RunFolder


def require_writable(output_dir: Path) -> None:
    """Raise ValueError where no file could be written into `output_dir`, which need not be there yet."""
    folder = next(p for p in (output_dir.absolute(), *output_dir.absolute().parents) if p.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        what = "cannot be written to" if folder.is_dir() else "is no folder"
        raise ValueError(f"output_dir={output_dir}: {folder} {what}. Choose another output_dir.")


def require_no_training_run(output_dir: Path) -> None:
    """Raise ValueError where the files of a training run would be lost."""
    if RunFolder(output_dir).checkpoints.exists():
        raise ValueError(
            f"output_dir={output_dir} is a training run, whose files would be lost. Choose another."
        )


def write_record(output_dir: Path, *, config: dict[str, Any], **facts: Any) -> None:
    """Write the configuration, the overrides, and the environment with `facts` about this run."""
    RunFolder(output_dir).write_record(
        config=config, overrides=task_overrides(), environment={**environment(), **facts}
    )


def overridden_key(override: str) -> str:
    """`model.backbone` of `model/backbone=resnet50`."""
    return override.lstrip("+~").partition("=")[0].replace("/", ".")


def config_dir_flags() -> list[str]:
    """`--config-dir` of the command line and its folder, for commands that start others."""
    if not HydraConfig.initialized():
        return []
    sources = HydraConfig.get().runtime.config_sources
    return [w for s in sources if s.provider == "command-line" for w in ("--config-dir", s.path)]


def task_overrides() -> list[str]:
    """The overrides of the command line, in order; none where the command was called from Python."""
    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
