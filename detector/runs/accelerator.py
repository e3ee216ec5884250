"""The accelerator of this machine."""

from __future__ import annotations

from typing import Literal

import torch


def find_accelerator(name: str) -> Literal["cuda", "mps", "cpu"]:
    """Return the accelerator that `name` (auto, gpu, mps or cpu) means on this machine.

    Raises:
        ValueError: this machine has none.
    """
    kinds: dict[str, tuple[Literal["cuda", "mps", "cpu"], ...]] = {
        "auto": ("cuda", "mps", "cpu"),
        "gpu": ("cuda", "mps"),
        "mps": ("mps",),
        "cpu": ("cpu",),
    }
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    for kind in kinds[name]:
        if present[kind]:
            return kind
    raise ValueError(f"accelerator={name}: this machine has none that torch can use. Choose auto or cpu.")
