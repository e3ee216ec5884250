"""Where optional real data lies: beside the checkout, in `../shared`. Absent elsewhere; tests then skip."""

from pathlib import Path

import pytest

_SHARED = Path(__file__).resolve().parents[2] / "shared"


def shared_path(relative: str) -> Path:
    """The path of a shared file or folder; skips the calling test where it is absent."""
    path = _SHARED / relative
    if not path.exists():
        pytest.skip(f"needs {relative} in {_SHARED}, which is not there")
    return path
