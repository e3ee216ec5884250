"""Every command that the README shows works as shown."""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from detector.cli import main as cli
from detector.commands import compare
from detector.comparing.plan import PlannedRun
from detector.comparing.training import TrainRuns
from detector.profiling import latency
from tests import echo_command

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [line for kind, text in BLOCKS if kind == "bash" for line in text.splitlines() if line.strip()]
# What makes a run of minutes one of seconds.
TINY = [
    "output_dir=path/to",
    "training.max_epochs=1",
    "training.limit_train_batches=2",
    "training.limit_val_batches=1",
    "data.source.num_train=32",
    "data.source.num_val=8",
    "data.batch_size=4",
    "data.val_batch_size=4",
    "data.num_workers=0",
    "data.image_size.min_size=64",
    "data.image_size.max_size=64",
    "model.neck.out_channels=32",
]
# Long ones; others show the same verb.
SLOW = {
    "detector info model=faster_rcnn model/head/roi/pooling=deform_v2",
    "detector compare 'predictions=[a.json,b.json]' annotations=gt.json",
    "detector compare compare=deform data=coco data.root=path/to/dataset 'seeds=[0,1,2]'",
    "detector compare compare=stages model/backbone=resnet50",
    "detector train -m 'model.backbone.deform.stages=[],[4],[3,4]' seed=0,1",
}
BY_CI = {"pip install -e .", 'pip install -e ".[dev]"', "pytest"}


def shown(verb: str) -> list[object]:
    """The commands of a verb that the README shows, as parameters of a test."""
    commands = [c for c in COMMANDS if c.startswith(f"detector {verb}")]
    return [pytest.param(c, marks=pytest.mark.slow) if c in SLOW else c for c in commands]


def run(command: str, monkeypatch: pytest.MonkeyPatch, *more: str) -> int:
    monkeypatch.setattr(sys, "argv", [*shlex.split(command), *more])
    return cli.main()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `detector train` ran, small."""
    folder = tmp_path_factory.mktemp("readme")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        assert run("detector train", monkeypatch, *TINY) == 0
    shutil.copy(folder / "path/to/checkpoints/best.ckpt", folder / "path/to/best.ckpt")
    (folder / "photos").mkdir()
    picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / "photos" / "0.png"), picture)
    return folder


def test_first_commands_are_the_two_set_ups() -> None:
    assert COMMANDS[:2] == ["pip install -e .", "detector train"]
    assert {'pip install -e ".[dev]"', "pytest", *SLOW} <= set(COMMANDS)


def test_every_command_is_tested() -> None:
    tested = (
        "detector train",
        "detector evaluate",
        "detector predict",
        "detector compare",
        "detector info",
        "detector export",
        "python scripts/",
    )
    assert [c for c in COMMANDS if not c.startswith(tested)] == [c for c in COMMANDS if c in BY_CI]


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("python scripts/")])
def test_script_takes_what_is_shown(command: str) -> None:
    """What it does then is tested in test_scripts.py."""
    _, script, *words = shlex.split(command)
    tree = ast.parse((ROOT / script).read_text(encoding="utf-8"))
    options = {
        node.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument"
        if isinstance(node.args[0], ast.Constant)
    }
    assert {word for word in words if word.startswith("--")} <= options


@pytest.mark.parametrize("command", shown("train"))
def test_train_command_composes_and_is_checked(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(cli.VERBS, "train", replace(cli.VERBS["train"], module="tests.echo_command"))
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "cells.yaml").write_text("# @package _global_\nseed: 1\n")
    echo_command.runs.clear()
    shows = "--help" in command or "--cfg" in command
    try:
        code = run(command, monkeypatch)
    except SystemExit as exit:  # how Hydra ends --help
        code = int(exit.code or 0)
    assert code == 0
    assert bool(echo_command.runs) != shows


@pytest.mark.parametrize("command", shown("info"))
def test_info_command_runs(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(command, monkeypatch, "image_size=[64,64]") == 0


@pytest.mark.parametrize("command", shown("evaluate"))
def test_evaluate_command_runs(command: str, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)
    (truth,) = trained.rglob("val.json")
    shutil.copy(truth, "gt.json")
    shutil.copy("path/to/predictions.json", "dt.json")
    assert run(command, monkeypatch, "output_dir=evaluation") == 0
    assert json.loads(Path("evaluation/metrics.json").read_text(encoding="utf-8"))["AP"] >= 0


@pytest.mark.parametrize("command", shown("predict"))
def test_predict_command_runs(command: str, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)
    assert run(command, monkeypatch, "output_dir=predicted") == 0
    assert Path("predicted/pictures/0.png.jpg").exists()


@pytest.mark.slow
@pytest.mark.parametrize("command", shown("export"))
def test_export_command_runs(command: str, trained: Path) -> None:
    """In a process of its own: the tests' checks of shapes are no part of what is recorded."""
    _, *words = shlex.split(command)
    again = [sys.executable, "-m", "detector", *words, "output_dir=exported"]
    done = subprocess.run(again, cwd=trained, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert (trained / "exported" / "detector.onnx").exists()


@pytest.mark.parametrize("command", shown("compare"))
def test_compare_command_plans_and_compares(
    command: str, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With runs that are there: training is tested in commands/test_compare.py."""
    monkeypatch.chdir(trained)
    (truth,) = (path for path in trained.rglob("val.json") if "dataset" not in path.parts)
    shutil.copytree(truth.parent, "path/to/dataset", dirs_exist_ok=True)
    shutil.copy(truth, "gt.json")
    for name in "ab":
        shutil.copytree("path/to", f"runs/{name}", dirs_exist_ok=True)
        shutil.copy("path/to/predictions.json", f"{name}.json")

    def train_all(runs: list[PlannedRun], *, train: TrainRuns) -> dict[Path, str]:
        for planned in runs:
            shutil.copytree("path/to", planned.folder, dirs_exist_ok=True)
            (planned.folder / "finished.txt").touch()
        return {}

    monkeypatch.setattr(compare, "train_all", train_all)
    monkeypatch.setattr(latency, "SECONDS", 0.0)
    trains = "runs=" not in command and "predictions=" not in command
    more = [word for word in TINY[1:] if trains and not ("data=coco" in command and ".source." in word)]
    assert run(command, monkeypatch, *more, "output_dir=compared", "num_resamples=10") == 0
    assert "identical predictions" in Path("compared/report.md").read_text(encoding="utf-8")


def test_listed_files_of_a_run_are_there(trained: Path) -> None:
    rows = re.findall(r"^\| (`[^|]*`) \|", README.partition("## A run's files")[2], flags=re.MULTILINE)
    names = [name for row in rows for name in re.findall(r"`([^`]+)`", row)]
    assert names
    assert [name for name in names if not (trained / "path/to" / name).exists()] == []


@pytest.mark.parametrize("code", [text for kind, text in BLOCKS if kind == "python"])
def test_python_example_gives_what_it_says(code: str, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)
    *statements, last = code.strip().splitlines()
    expression, _, said = last.partition("  # ")
    namespace: dict[str, object] = {}
    exec("\n".join(statements), namespace)
    assert repr(eval(expression, namespace)) == said


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#:]+)\)", README))
def test_linked_file_exists(link: str) -> None:
    assert (ROOT / link).exists()
