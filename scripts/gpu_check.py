"""Correctness and speed on a device, as a report: see gpu_check.sh."""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

# What the imports below load, by name of module, and the package where its name differs
NEEDED = {
    "annotated_types": "annotated-types",
    "jaxtyping": "jaxtyping",
    "numpy": "numpy",
    "torch": "torch",
    "torchvision": "torchvision",
    "yaml": "PyYAML",
}


def require_packages() -> None:
    """Names all that are missing, where an import would name the first."""
    missing = [package for module, package in NEEDED.items() if find_spec(module) is None]
    if missing:
        sys.exit(
            f"gpu_check needs these packages, which {sys.executable} lacks: {', '.join(missing)}. Install "
            "them, or put their wheels into a folder wheels/ beside scripts/."
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small sizes: does the script run at all?")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("gpu_check.md"))
    arguments = parser.parse_args()
    require_packages()
    import torch
    from bench.device_report import write_device_report

    if arguments.device == "cuda" and not torch.cuda.is_available():
        sys.exit("gpu_check: torch finds no GPU. Without one, try --device cpu --tiny.")
    well = write_device_report(
        arguments.output, device=arguments.device, tiny=arguments.tiny, repeats=arguments.repeats
    )
    return int(not well)


if __name__ == "__main__":
    sys.exit(main())
