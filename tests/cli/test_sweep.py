"""What is told at the end of a sweep."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from detector.cli import main as cli
from detector.cli.sweep import SweepJob, print_sweep
from tests.training.tiny import tiny_overrides, write_dataset


def job(folder: Path, *overrides: str, ap: float | None = 0.5) -> SweepJob:
    (folder / "checkpoints").mkdir(parents=True)
    if ap is not None:
        (folder / "metrics.json").write_text(json.dumps({"AP": ap, "AP50": 0.75}))
    return SweepJob(("data=coco", *overrides), folder)


def test_jobs_are_told_apart_by_what_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_sweep([job(tmp_path / "0", "lr=1"), job(tmp_path / "1", "lr=2", ap=None)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["job", "overrides", "AP", "AP50", "folder"]
    assert lines[2].split() == ["0", "lr=1", "0.500", "0.750", str(tmp_path / "0")]
    assert lines[3].split() == ["1", "lr=2", "-", "-", str(tmp_path / "1")]
    assert "compare" not in "".join(lines), "one run alone cannot be compared"


def test_seeds_of_a_variant_are_compared_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    variants = [(lr, seed) for lr in (1, 2) for seed in (0, 1)]
    print_sweep([job(tmp_path / f"{lr}{seed}", f"lr={lr}", f"seed={seed}") for lr, seed in variants])
    command = capsys.readouterr().out.splitlines()[-1].partition(": ")[2]
    folders = [f"'{tmp_path / name}'" for name in ("10", "11", "20", "21")]
    expected = f"runs=[[{folders[0]},{folders[1]}],[{folders[2]},{folders[3]}]]"
    assert shlex.split(command) == ["detector", "compare", expected]


def test_folders_of_any_name_are_compared_by_the_pasted_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [tmp_path / name for name in ("it's ü", "a=b,[c];$d")]
    print_sweep([job(folder, f"lr={number}") for number, folder in enumerate(folders)])
    *_, word = shlex.split(capsys.readouterr().out.splitlines()[-1].partition(": ")[2])
    assert OverridesParser.create().parse_override(word).value() == [str(folder) for folder in folders]


def test_jobs_without_metrics_have_no_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_sweep([SweepJob((), tmp_path)])
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_a_sweep_of_training_ends_with_the_command_that_compares_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = tiny_overrides(write_dataset(tmp_path / "data"), tmp_path / "out")
    monkeypatch.setattr("sys.argv", ["detector", "train", "-m", *words, "optimizer.lr=0.01,0.02"])
    monkeypatch.chdir(tmp_path)
    assert cli.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[-3:-1]] == [["1", "optimizer.lr=0.02"], []]
    command = shlex.split(lines[-1].partition(": ")[2])
    assert command == ["detector", "compare", f"runs=['{tmp_path}/out/0','{tmp_path}/out/1']"]
    monkeypatch.setattr("sys.argv", [*command, "latency=false", "num_resamples=5", "output_dir=compared"])
    assert cli.main() == 0
