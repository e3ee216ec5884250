"""`detector compare` as its user calls it, and what it writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from detector.cli.main import main
from tests.training.tiny import tiny_overrides


def detector(*arguments: object) -> int:
    """`detector compare` with these arguments; its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["detector", "compare", *map(str, arguments)])
        return main()


def comparison(folder: Path) -> dict[str, Any]:
    content = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def command_words(dataset: Path, tmp_path: Path, *, out: str) -> list[str]:
    overrides = tiny_overrides(dataset, tmp_path / out)
    kept = [w for w in overrides if not w.startswith(("name=", "training.max"))]
    return [
        *kept,
        "training.max_epochs=1",
        f"runs_dir={tmp_path / 'runs'}",
        "num_resamples=20",
        "compare.stages=[5]",
    ]


def variants(dataset: Path, tmp_path: Path, *words: str, out: str = "out") -> int:
    return detector(*command_words(dataset, tmp_path, out=out), *words)
