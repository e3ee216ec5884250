"""Names of earlier versions: each has its present one, in words, files of configurations and curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from detector.config.targets import locate
from detector.earlier import (
    LOSSES,
    OPTIONS,
    TARGETS,
    present_word,
    renamed,
    tell,
    updated,
    with_earlier_names,
)
from detector.run_folder import RunFolder
from detector.runs.curves import read_losses
from tests.configurations import plain

MODELS = ("fcos", "faster_rcnn_small")


def selected(config: Any, path: str) -> Any:
    """The value at a dotted path; KeyError if there is none."""
    for name in path.split("."):
        config = config[name]
    return config


@pytest.mark.parametrize("old", OPTIONS)
def test_an_option_by_its_earlier_name_is_the_one_by_its_present_name(old: str) -> None:
    new = OPTIONS[old]
    config = plain("compare", f"model={MODELS['.rpn.' in old or '.roi.' in old]}")
    selected(config, new)  # is an option of this version
    with pytest.raises(KeyError):
        selected(config, old)
    for sign in ("", "+", "++", "~"):
        assert present_word(f"{sign}{old}.x={old}") == f"{sign}{new}.x={old}"
    assert present_word(f"x{old}=1") == f"x{old}=1"
    earlier = with_earlier_names(config)
    assert renamed({**earlier, "kept": 1}) == ({**config, "kept": 1}, renamed(earlier)[1])
    assert renamed(earlier)[1][old] == new


@pytest.mark.parametrize("old", TARGETS)
def test_a_class_by_its_earlier_name_is_the_one_by_its_present_name(old: str) -> None:
    assert "has no" in str(locate({"_target_": old})[1])
    assert present_word(f"x._target_={old}") == f"x._target_={TARGETS[old]}"
    present, changed = renamed({"x": [{"_target_": old}], "y": old})
    assert (present, changed) == ({"x": [{"_target_": TARGETS[old]}], "y": old}, {old: TARGETS[old]})


@pytest.mark.parametrize("model", MODELS)
def test_a_stored_configuration_has_the_present_names(model: str, tmp_path: Path) -> None:
    config = plain("train", f"model={model}")
    earlier = with_earlier_names(config)
    assert earlier != config
    assert updated(earlier) == updated(config) == config
    RunFolder(tmp_path).config.write_text(yaml.safe_dump(earlier))
    assert RunFolder(tmp_path).read_config() == config


def test_an_option_of_ones_own_class_keeps_its_name() -> None:
    head = {"_target_": "mine.Head", "candidates_per_level": 5}
    assert renamed({"model": {"head": head}}) == ({"model": {"head": head}}, {})


def test_the_present_name_counts_where_a_file_has_both() -> None:
    both = {"schedule": {"gamma": 1, "milestones": [1]}, "lr_scheduler": {"gamma": 2}, "replicates": 1}
    now, _ = renamed({**both, "num_resamples": 2})
    assert now == {"lr_scheduler": {"gamma": 2, "milestones": [1]}, "num_resamples": 2}


@pytest.mark.parametrize("old", LOSSES)
def test_losses_logged_by_two_versions_are_one_curve(old: str, tmp_path: Path) -> None:
    rows = [
        {"epoch": 1, "lr": 0.1, f"train/{old}": 3.0, f"val/{old}": 4.0},
        {"epoch": 2, "lr": 0.1, f"train/{LOSSES[old]}": 1.0, f"val/{LOSSES[old]}": 2.0},
    ]
    RunFolder(tmp_path).write_epochs(rows)
    losses = read_losses(tmp_path)
    assert (losses.train, losses.val) == ({LOSSES[old]: [3.0, 1.0]}, {LOSSES[old]: [4.0, 2.0]})


def test_a_name_is_told_once(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    tell.cache_clear()
    for _ in range(2):
        tell("schedule", "lr_scheduler", where="experiment/mine.yaml")
    message = "schedule is now called lr_scheduler; the old name goes with the next version."
    assert capsys.readouterr().err == f"warning: experiment/mine.yaml: {message}\n"
    monkeypatch.setenv("LOCAL_RANK", "1")  # a process of another device
    tell("a", "b")
    assert capsys.readouterr().err == ""
