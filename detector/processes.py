"""The processes of a run on several devices, before any of them is connected."""

from __future__ import annotations

import os


def is_first_process() -> bool:
    """Return whether this process is rank 0, by the environment of Lightning, torchrun or Slurm's srun."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return int(os.environ.get("RANK", 0)) == 0
    if "LOCAL_RANK" in os.environ:
        return int(os.environ["LOCAL_RANK"]) == 0
    return "SLURM_NTASKS" not in os.environ or int(os.environ.get("SLURM_PROCID", 0)) == 0
