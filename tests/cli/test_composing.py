"""How often a command composes its configuration, and in which mode of Hydra it runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl

from detector.cli import main as cli
from tests import light_command


@pytest.fixture
def compositions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs `detector predict` with some words, and counts its compositions."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(cli.VERBS, "predict", replace(cli.VERBS["predict"], module="tests.light_command"))
    light_command.runs.clear()
    compose = ConfigLoaderImpl.load_configuration
    composed: list[Any] = []

    def counted(*arguments: Any, **options: Any) -> Any:
        composed.append(arguments)
        return compose(*arguments, **options)

    monkeypatch.setattr(ConfigLoaderImpl, "load_configuration", counted)

    def run(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["detector", "predict", *words])
        assert cli.main() == 0
        return len(composed)

    return run


def test_shipped_files_are_composed_once(compositions: Callable[..., int]) -> None:
    assert compositions("score_threshold=0.1") == 1


def test_mode_that_is_typed_counts(compositions: Callable[..., int]) -> None:
    compositions("hydra.mode=MULTIRUN", "output_dir=a,b")
    assert [run["output_dir"] for run in light_command.runs] == ["a/0", "b/1"]


def test_mode_in_a_mapping_that_is_typed_counts(compositions: Callable[..., int]) -> None:
    compositions("hydra={mode: MULTIRUN}", "output_dir=a,b")
    assert [run["output_dir"] for run in light_command.runs] == ["a/0", "b/1"]


def test_mode_of_ones_own_file_counts(compositions: Callable[..., int]) -> None:
    Path("mine/experiment").mkdir(parents=True)
    Path("mine/experiment/both.yaml").write_text("# @package _global_\nhydra: {mode: MULTIRUN}\n")
    compositions("--config-dir", "mine", "experiment=both", "output_dir=a,b")
    assert [run["output_dir"] for run in light_command.runs] == ["a/0", "b/1"]
