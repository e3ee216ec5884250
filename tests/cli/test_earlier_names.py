"""Options by their names of earlier versions: on the command line and in files of one's own."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hydra import initialize_config_dir

from detector.cli import main as cli
from detector.config.overrides import composed
from detector.config.paths import config_dir
from detector.earlier import tell
from tests import echo_command, light_command

MINE = """# @package _global_
defaults:
  - override /schedule: multistep
schedule: {milestones: [2]}
training: {accumulate_batches: 3, max_epochs: 4}
model: {_target_: detector.models.assemble}
"""


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for verb, module in (("train", echo_command), ("compare", light_command)):
        monkeypatch.setitem(cli.VERBS, verb, replace(cli.VERBS[verb], module=module.__name__))
        module.runs.clear()
    tell.cache_clear()


def detector(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["detector", *words])
    return cli.main()


def test_words(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("schedule=multistep", "schedule.milestones=[3]", "training.accumulate_batches=2")
    assert detector(monkeypatch, "train", *words, "data.image_size.shorter=32") == 0
    (config,) = echo_command.runs
    assert config["lr_scheduler"]["milestones"] == [3]
    assert config["training"]["accumulate_grad_batches"] == 2
    assert config["data"]["image_size"]["min_size"] == 32
    message = capsys.readouterr().err
    assert message.count("warning: ") == len(words) + 1
    assert "training.accumulate_batches is now called training.accumulate_grad_batches" in message


def test_words_of_a_sweep(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert detector(monkeypatch, "train", "-m", "schedule=cosine,multistep", "schedule.warmup_steps=1") == 0
    chosen = [run["lr_scheduler"] for run in echo_command.runs]
    schedulers = [(scheduler["_target_"], scheduler["warmup_steps"]) for scheduler in chosen]
    assert schedulers == [("detector.training.Cosine", 1), ("detector.training.MultiStep", 1)]
    assert capsys.readouterr().err.count("schedule is now called lr_scheduler;") == 1


def test_words_of_a_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("+compare.arms.mine=[seed=1]", "~compare.arms.regular", "compare.points={a:[]}", "replicates=7")
    assert detector(monkeypatch, "compare", *words) == 0
    (config,) = light_command.runs
    assert [*config["compare"]["variants"]] == ["deformable", "mine"]
    assert (config["compare"]["conditions"], config["num_resamples"]) == ({"a": []}, 7)
    with initialize_config_dir(str(config_dir()), version_base="1.3"):  # as the words of a variant
        assert composed("train", ["schedule=multistep"]).lr_scheduler.milestones == [8, 11]


def test_a_mistake_beside_an_earlier_name_is_explained(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert detector(monkeypatch, "train", "training.gradient_clip_norm=1", "sed=1") == 2
    assert "detector: sed: there is no such option. Did you mean seed=1?" in capsys.readouterr().err


def test_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The command line counts more than the file, whichever name each has."""
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(MINE)
    for present in ("training.accumulate_grad_batches=5", "training.max_epochs=5"):
        words = ("train", "--config-dir", str(tmp_path), "experiment=mine", present)
        assert detector(monkeypatch, *words) == 0
    for config, batches in zip(echo_command.runs, (5, 3), strict=True):
        assert config["training"]["accumulate_grad_batches"] == batches
        assert (config["lr_scheduler"]["milestones"], config["lr_scheduler"]["gamma"]) == ([2], 0.1)
        assert config["model"]["_target_"] == "detector.models.build_detector"
    message = capsys.readouterr().err
    assert message.count("warning: experiment/mine.yaml: ") == 3
    assert "detector.models.assemble is now called detector.models.build_detector" in message


def test_an_option_of_ones_own_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model" / "head").mkdir(parents=True)
    mine = "{_target_: tests.cli.test_earlier_names.Head, _partial_: true, candidates_per_level: 1}"
    (tmp_path / "model" / "head" / "mine.yaml").write_text(mine)
    words = ("data=coco", "model/head=mine", "+allow_targets=[tests.cli.]", "--config-dir", str(tmp_path))
    assert detector(monkeypatch, "train", *words, "model.head.candidates_per_level=2") == 0
    assert echo_command.runs[0]["model"]["head"]["candidates_per_level"] == 2


class Head:
    def __init__(self, features: Any, num_classes: int, *, candidates_per_level: int = 1) -> None: ...
