"""Every command that README.md and docs/ show works as shown."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torchvision.models import detection

from detector.cli import main as cli
from detector.commands import compare
from detector.comparing.plan import PlannedRun
from detector.comparing.training import TrainRuns
from detector.profiling import latency
from detector.weights import detectors
from tests import echo_command
from tests.evaluation.shapes import random_masks, random_poses
from tests.shown import ROOT, Command, all_commands, blocks, commands, pages, write_files
from tests.weights.foreign_states import hollow

README = ROOT / "README.md"
COMMANDS = all_commands()
# What makes a run of minutes one of seconds.
TINY = [
    "training.max_epochs=1",
    "training.limit_train_batches=2",
    "training.limit_val_batches=1",
    "data.batch_size=4",
    "data.val_batch_size=4",
    "data.num_workers=0",
    "data.image_size.min_size=64",
    "data.image_size.max_size=64",
    "model.neck.out_channels=32",
]
SMALL_SOURCE = ["data.source.num_train=32", "data.source.num_val=8"]
# Long ones; others show the same verb.
SLOW = {
    "detector info model=faster_rcnn model/head/roi/pooling=deform_v2",
    "detector info model=faster_rcnn 'image_size=[480,800]'",
    "detector info 'image_size=[240,320]'",
    "detector compare 'predictions=[a.json,b.json]' annotations=gt.json",
    "detector compare compare=deform data=coco data.root=path/to/dataset 'seeds=[0,1,2]'",
    "detector compare data=coco data.root=path/to/dataset model=fcos_coco 'seeds=[0,1,2]'",
    "detector compare compare=stages model/backbone=resnet50",
    "detector compare compare=warp training.max_epochs=3 data.source.num_train=3000 parallel=2 "
    '\'+compare.variants.fast_offsets=["model/backbone/deform=v2","model.backbone.deform.stages=[3,4]",'
    '"optimizer.offset_lr_multiplier=1.0"]\'',
    "detector train -m 'model.backbone.deform.stages=[],[4],[3,4]' seed=0,1",
}
SLOW |= {c.line for c in COMMANDS if "compare.variants.tenth" in c.line}
SUBMITTED = "hydra/launcher=submitit"  # to a cluster
KINDS = (*(f"detector {verb}" for verb in cli.VERBS), "python scripts/", "pip install", "eval")


def shown(start: str) -> list[object]:
    """The shown commands that start like this, as parameters of a test."""
    chosen = [c for c in COMMANDS if " ".join(c.words).startswith(start)]
    return [pytest.param(c, marks=pytest.mark.slow if c.line in SLOW else (), id=c.line) for c in chosen]


def run(command: Command, monkeypatch: pytest.MonkeyPatch, *more: str) -> int:
    monkeypatch.setattr(sys, "argv", [*command.words, *more])
    return cli.main()


def once_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latencies are measured in one round: their numbers do not count here."""
    monkeypatch.setattr(latency, "SECONDS", 0.0)
    monkeypatch.setattr(latency, "FEWEST_ROUNDS", 1)


def only_once(command: Command, words: Sequence[str]) -> list[str]:
    """The words whose options the command does not set itself, and that its data have."""
    keys = {word.partition("=")[0] for word in command.words}
    is_coco = "data=coco" in command.words
    return [w for w in words if w.partition("=")[0] not in keys and not (is_coco and ".source." in w)]


@pytest.fixture(scope="module")
def printed() -> list[str]:
    """What `detector train` printed, from the fixture `trained`."""
    return []


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, printed: list[str]) -> Path:
    """A folder in which `detector train` ran, small, with all that commands name."""
    folder = tmp_path_factory.mktemp("readme")
    longer = ["training.max_epochs=1", "data.source.num_train=64", "data.source.num_val=16"]  # AP is above 0
    words = ["train", *longer, "data.num_workers=0", "output_dir=path/to"]
    done = subprocess.run(
        [sys.executable, "-m", "detector", *words], cwd=folder, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    printed.append(done.stdout)
    best = folder / "path/to/checkpoints/best.ckpt"
    for checkpoint in ("path/to/best.ckpt", "runs/first/checkpoints/best.ckpt"):
        (folder / checkpoint).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(best, folder / checkpoint)
    (folder / "photos").mkdir()
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / "photos" / "0.png"), image)
    (truth,) = folder.rglob("val.json")
    for dataset in ("path/to/dataset", "bccd"):
        shutil.copytree(truth.parent, folder / dataset)
    shutil.copy(truth, folder / "gt.json")
    for name in "ab":
        shutil.copytree(folder / "path/to", folder / f"runs/{name}", ignore=shutil.ignore_patterns("dataset"))
        shutil.copy(folder / "path/to/predictions.json", folder / f"{name}.json")
    shutil.copy(folder / "path/to/predictions.json", folder / "dt.json")
    for name, problem in (("masks", random_masks(0)), ("poses", random_poses(0, keypoints=3))):
        for kind, content in zip(("gt", "dt"), problem, strict=True):
            (folder / f"{kind}_{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_first_commands_are_the_two_set_ups() -> None:
    assert [c.line for c in commands(README)[:2]] == ["pip install -e .", "detector train"]
    assert {'pip install -e ".[dev]"', "pytest"} <= {c.line for c in commands(README)}


def test_every_command_is_tested() -> None:
    untested = [c.line for c in COMMANDS if not " ".join(c.words).startswith(KINDS)]
    assert untested == ["pytest"]  # by CI
    assert set(SLOW) <= {c.line for c in COMMANDS}


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_are_in_blocks_of_bash(page: Path) -> None:
    """Other blocks are output, files and Python, and each says what it is."""
    assert {block.language for block in blocks(page)} <= {"bash", "text", "yaml", "python"}
    others = [block.text for block in blocks(page) if block.language != "bash"]
    assert not [t for t in others if re.search(r"^(detector [a-z]+ |python |pip )", t, flags=re.MULTILINE)]


def test_commands_are_quoted_for_every_shell() -> None:
    """In zsh, an unquoted pattern that matches no file is an error."""
    bare = {c.line: re.sub(r"'[^']*'|\"[^\"]*\"", "", c.line) for c in COMMANDS}
    assert [line for line, rest in bare.items() if re.search(r"[][*?{}()<>~!]", rest)] == []


@pytest.mark.parametrize("command", shown("pip install"))
def test_installed_extra_is_there(command: Command) -> None:
    """CI installs what the README says for development."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extra = re.fullmatch(r"\.(?:\[(\w+)\])?", command.words[-1])
    assert extra is not None
    assert extra[1] is None or extra[1] in project["optional-dependencies"]


@pytest.mark.parametrize("command", shown("eval"))
def test_completion_is_printed(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    inner = re.fullmatch(r"\$\(detector (.*)\)", command.words[1])
    assert inner is not None
    assert cli.completion(inner[1].split()[1:]) == 0
    assert "detector" in capsys.readouterr().out


@pytest.mark.parametrize("command", shown("python scripts/"))
def test_script_takes_what_is_shown(command: Command) -> None:
    """What it does then is tested in test_scripts.py."""
    _, script, *words = command.words
    tree = ast.parse((ROOT / script).read_text(encoding="utf-8"))
    options = {
        node.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument"
        if isinstance(node.args[0], ast.Constant)
    }
    assert {word for word in words if word.startswith("--")} <= options


@pytest.mark.parametrize("command", shown("detector train"))
def test_train_command_composes_and_is_checked(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(cli.VERBS, "train", replace(cli.VERBS["train"], module="tests.echo_command"))
    write_files(command.page, tmp_path)
    echo_command.runs.clear()
    shows = "--help" in command.words or "--cfg" in command.words
    more = [w for w in command.words if w.startswith(SUBMITTED)]
    if more:  # here instead
        command = replace(command, line=re.sub(r"hydra[/.]launcher\S*", "", command.line))
    try:
        code = run(command, monkeypatch)
    except SystemExit as exit:  # how Hydra ends --help
        code = int(exit.code or 0)
    assert code == 0
    assert bool(echo_command.runs) != shows


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in COMMANDS if c.has_own_files], ids=str)
def test_command_with_files_of_its_page_runs(command: Command, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "path/to/dataset", tmp_path / "path/to/dataset")
    write_files(command.page, tmp_path)
    _, verb, *words = command.words
    is_mine = any(word.startswith(("model/neck=", "data=")) for word in words)
    tiny = [word for word in TINY if not (is_mine and word.startswith("model.neck"))]
    more = {
        "train": [*tiny, *SMALL_SOURCE, "output_dir=out"],
        "compare": [*tiny, *SMALL_SOURCE, "output_dir=out", "num_resamples=10", "latency=false"],
        "info": ["image_size=[64,64]", "latency=false"],
    }[verb]
    if "experiment=cells" in words or any(word.startswith("data=") for word in words):
        more = [word for word in more if ".source." not in word]
    assignments = dict(w.split("=", 1) for w in shlex.split(command.line) if w.startswith("PYTHONPATH="))
    path = os.pathsep.join([*assignments.values(), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "detector", verb, *words, *more],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", shown("detector info"))
def test_info_command_runs(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    once_timed(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    write_files(command.page, tmp_path)
    assert run(command, monkeypatch, *only_once(command, ["image_size=[64,64]"])) == 0


@pytest.mark.parametrize("command", shown("detector evaluate"))
def test_evaluate_command_runs(command: Command, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)
    assert run(command, monkeypatch, "output_dir=evaluation") == 0
    metrics = json.loads(Path("evaluation/metrics.json").read_text(encoding="utf-8"))
    assert next(value for name, value in metrics.items() if name.rpartition("/")[2] == "AP") >= 0


@pytest.mark.parametrize("command", shown("detector predict"))
def test_predict_command_runs(command: Command, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)
    assert run(command, monkeypatch, "output_dir=predicted") == 0
    assert Path("predicted/pictures/0.png.jpg").exists()


@pytest.fixture(scope="module")
def exported(trained: Path) -> Path:
    """The folder `trained` with the files that the shown commands export."""
    for command in (c for c in COMMANDS if c.line.startswith("detector export")):
        # In a process of its own: the tests' checks of shapes are no part of what is recorded.
        again = [sys.executable, "-m", "detector", *command.words[1:], "output_dir=exported"]
        done = subprocess.run(again, cwd=trained, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, (command.line, done.stderr)
    for file in ("detector.onnx", "detector.pt2"):
        shutil.copy(trained / "exported" / file, trained / file)
    return trained


@pytest.mark.slow
def test_export_commands_run(exported: Path) -> None:
    assert (exported / "detector.onnx").exists()


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server with weights of torchvision's FCOS, without values, and an empty folder for downloads."""
    with torch.device("meta"):
        model = detection.fcos_resnet50_fpn(weights=None, weights_backbone=None)
    torch.save(hollow(model.state_dict()), tmp_path / "x.pth")
    digest = hashlib.sha256((tmp_path / "x.pth").read_bytes()).hexdigest()
    url = (tmp_path / "x.pth").rename(tmp_path / f"fcos-{digest[:8]}.pth").as_uri()
    monkeypatch.setitem(detectors._PUBLISHED, "fcos_resnet50_fpn.COCO_V1", url)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.mark.parametrize("command", shown("detector compare"))
@pytest.mark.usefixtures("published")
def test_compare_command_plans_and_compares(
    command: Command, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With runs that are there: training is tested in commands/test_compare.py."""
    monkeypatch.chdir(trained)
    write_files(command.page, trained)

    def train_all(runs: list[PlannedRun], *, train: TrainRuns) -> dict[Path, str]:
        for planned in runs:
            shutil.copytree("path/to", planned.folder, dirs_exist_ok=True)
            (planned.folder / "finished.txt").touch()
        return {}

    monkeypatch.setattr(compare, "train_all", train_all)
    once_timed(monkeypatch)
    trains = not any(word.startswith(("runs=", "predictions=")) for word in command.words)
    more = only_once(command, [*TINY, "data.source.num_train=64", "data.source.num_val=16"] if trains else [])
    more = [word for word in more if not word.startswith(("model.neck", "training.limit_val_batches"))]
    assert run(command, monkeypatch, *more, "output_dir=compared", "num_resamples=10") == 0
    assert "identical predictions" in Path("compared/report.md").read_text(encoding="utf-8")


def test_shown_output_is_what_the_command_prints(trained: Path, printed: list[str]) -> None:
    """Other numbers and paths, the same words."""

    def words(line: str) -> str:
        return re.sub(r"[\d.]+", "#", re.sub(r"\S*/", "", line)).replace(" ", "")

    lines = {words(line) for line in printed[0].splitlines()}
    text = next(block.text for block in blocks(README) if block.language == "text")
    assert [line for line in text.splitlines() if words(line) not in lines] == []


def test_listed_files_of_a_run_are_there(trained: Path) -> None:
    text = (
        (ROOT / "docs" / "reference" / "files.md")
        .read_text(encoding="utf-8")
        .partition("## Files of predict")[0]
    )
    rows = re.findall(r"^\| (`[^|]*`) \|", text, flags=re.MULTILINE)
    names = [name for row in rows for name in re.findall(r"`([^`]+)`", row)]
    assert names
    assert [name for name in names if not (trained / "path/to" / name).exists()] == []


EXAMPLES = [
    (page, block.text)
    for page in pages()
    for block in blocks(page)
    if block.language == "python" and not block.title
]


def execute(code: str, namespace: dict[str, object]) -> None:
    """Execute an example; if it ends with an expression and a comment, that is the value's repr."""
    last = code.strip().splitlines()[-1]
    expression, _, expected = last.partition("  # ")
    ends = ast.parse(code).body[-1]
    if expected and isinstance(ends, ast.Expr) and ends.lineno == ends.end_lineno:
        exec(code.strip().removesuffix(last), namespace)
        assert repr(eval(expression, namespace)) == expected
    else:
        exec(code, namespace)


@pytest.mark.parametrize("code", [code for page, code in EXAMPLES if page.name != "deploy.md"])
def test_python_example_gives_what_it_says(code: str, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)
    execute(code, {})


@pytest.mark.slow
@pytest.mark.parametrize("code", [code for page, code in EXAMPLES if page.name == "deploy.md"])
def test_python_example_runs_an_exported_file(
    code: str, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(exported)
    inputs = {"images": torch.zeros(1, 3, 64, 64, dtype=torch.uint8), "image_sizes": torch.tensor([[48, 64]])}
    batches = [{name: value.numpy() for name, value in inputs.items()}]
    namespace: dict[str, object] = {**inputs}
    if "calibration" in code:
        from onnxruntime.quantization import CalibrationDataReader

        class Reader(CalibrationDataReader):
            def get_next(self) -> dict[str, np.ndarray] | None:
                return batches.pop() if batches else None

        namespace["calibration"] = Reader()
    execute(code, namespace)


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "data" / "README.md"])
def test_linked_files_exist(page: Path) -> None:
    """The build of the site checks the links in docs/."""
    links = re.findall(r"\]\(([^)#:]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []
