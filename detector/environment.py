"""The environment of this process: versions, hardware and memory."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from detector.version import __version__

_PACKAGES = (
    "torch",
    "torchvision",
    "lightning",
    "hydra-core",
    "albumentations",
    "pycocotools",
    "hotcoco",
    "numpy",
)


def environment() -> dict[str, Any]:
    """Return versions, code state, devices and command of this process, as plain containers."""
    return {
        "detector": __version__,
        "git": _git_state(Path(__file__).parent),
        "python": platform.python_version(),
        "packages": {name: installed for name in _PACKAGES if (installed := _version(name))},
        "platform": platform.platform(),
        "cpu": {"name": processor_name(), "count": os.cpu_count(), "torch_threads": torch.get_num_threads()},
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "command": sys.argv,
    }


def processor_name() -> str:
    """Return the processor's model where the system reports it, else its architecture."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def has_intel_cpu() -> bool:
    """Return whether Intel made the processor; False where the system does not report it."""
    return "intel" in processor_name().lower()


def peak_memory_mb() -> float | None:
    """Return the peak memory of this process, in 10^6 bytes; None where the system does not report it."""
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.exists() else []
    for line in lines:  # first: on Linux getrusage includes the peak of the parent process
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    try:
        import resource  # not on Windows
    except ImportError:
        return None
    unit_bytes = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit_bytes / 1e6


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_state(folder: Path) -> dict[str, Any] | None:
    """Return the commit of the checkout with this code; None if it is installed, or git is missing."""
    try:
        top = _git(folder, "rev-parse", "--show-toplevel")
        if Path(top).resolve() != folder.parent.resolve():
            return None
        return {
            "commit": _git(folder, "rev-parse", "HEAD"),
            "changed": bool(_git(folder, "status", "--porcelain")),
        }
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    result = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=10
    )
    return result.stdout.strip()
