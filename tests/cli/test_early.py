"""Values and paths are checked before anything heavy is imported."""

from __future__ import annotations

from pathlib import Path
from subprocess import CompletedProcess

import pytest
from omegaconf import OmegaConf

from detector.cli.early import early_problems
from detector.cli.main import VERBS
from tests.forks import forked

PREDICT = VERBS["predict"].module


MISTAKES = [
    (["predict", "checkpoint=missing.ckpt", "source=x"], ["missing.ckpt: no such file", "source=x: found"]),
    (["predict", "score_threshold=3"], ["score_threshold = 3: expected a number >= 0 and <= 1"]),
    (["train", "epochs=3", "seed=-1"], ["Write training.max_epochs=3", "seed = -1"]),
    (["train", "data=coco", "data.root=nowhere"], ["data.root=nowhere: no such folder"]),
    (["export", "checkpoint=missing.ckpt"], ["missing.ckpt: no such file"]),
]


@pytest.fixture(scope="module")
def answers() -> list[CompletedProcess[str]]:
    """What each mistake is answered with."""
    scripts = [
        f"""
import sys
sys.argv = ["detector", *{words}]
from detector.cli.main import main
code = main()
print([m for m in ("torch", "numpy", "lightning") if m in sys.modules])
sys.exit(code)
"""
        for words, _ in MISTAKES
    ]
    return forked(scripts, loaded="import detector.cli.jobs")


@pytest.mark.parametrize("number", range(len(MISTAKES)), ids=lambda number: " ".join(MISTAKES[number][0]))
def test_mistake_is_told_without_importing_torch(number: int, answers: list[CompletedProcess[str]]) -> None:
    answer = answers[number]
    assert answer.returncode == 2
    assert answer.stdout == "[]\n"
    assert all(text in answer.stderr for text in MISTAKES[number][1]), answer.stderr


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
