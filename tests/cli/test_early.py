"""Values and paths are checked before anything heavy is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from detector.cli.early import early_problems
from detector.cli.main import VERBS

ROOT = Path(__file__).resolve().parents[2]
PREDICT = VERBS["predict"].module


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["predict", "checkpoint=missing.ckpt", "source=x"],
            ["missing.ckpt: no such file", "source=x: found"],
        ),
        (["predict", "score_threshold=3"], ["score_threshold = 3: expected a number >= 0 and <= 1"]),
        (["train", "epochs=3", "seed=-1"], ["Write training.max_epochs=3", "seed = -1"]),
        (["train", "data=coco", "data.root=nowhere"], ["data.root=nowhere: no such folder"]),
        (["export", "checkpoint=missing.ckpt"], ["missing.ckpt: no such file"]),
    ],
)
def test_mistake_is_told_without_importing_torch(words: list[str], message: list[str]) -> None:
    code = """
import sys
from detector.cli.main import main
code = main()
print([m for m in ("torch", "numpy", "lightning") if m in sys.modules])
sys.exit(code)
"""
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, check=False)
    assert done.returncode == 2
    assert done.stdout == "[]\n"
    assert all(text in done.stderr for text in message), done.stderr


def test_paths_that_exist_are_no_problem(tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").touch()
    cfg = OmegaConf.create({"checkpoint": f"{tmp_path}/a.ckpt", "source": str(tmp_path), "annotations": None})
    assert early_problems(cfg, PREDICT) == []


@pytest.mark.parametrize("key", ["checkpoint", "source", "annotations"])
def test_missing_path_is_a_problem(key: str, tmp_path: Path) -> None:
    (problem,) = early_problems(OmegaConf.create({key: f"{tmp_path}/missing"}), PREDICT)
    assert f"{tmp_path}/missing" in problem


def test_generated_data_need_not_exist(tmp_path: Path) -> None:
    data = {"_target_": "detector.data.DetectionDataModule", "root": f"{tmp_path}/new", "source": {"seed": 0}}
    assert early_problems(OmegaConf.create({"data": data}), VERBS["train"].module) == []


@pytest.mark.parametrize(
    "module", ["detector.commands.predict", "detector.commands.export", "detector.layers.deform"]
)
def test_module_imports_no_framework_of_training(module: str) -> None:
    code = (
        f"import {module}, sys; print([m for m in ('lightning', 'scipy', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300
    )
    assert done.stdout == "[]\n"
