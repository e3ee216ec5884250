"""Tab completion: what follows a part of a command line, and the script in a real bash."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from detector.cli import main as cli
from detector.cli.completion import SCRIPTS, candidates
from detector.config.paths import config_dir


def after(line: str) -> list[str]:
    verbs = {verb.name: verb.module for verb in cli.VERBS.values()}
    return candidates(line, verbs=verbs, folder=config_dir())


@pytest.mark.parametrize(
    ("line", "there"),
    [
        ("detector ", "train"),
        ("detector pre", "predict"),
        ("detector completion z", "zsh"),
        ("detector train ", "model/backbone="),
        ("detector train --c", "--config-dir"),
        ("detector train model=f", "model=fcos"),
        ("detector train model/backbone=resnet5", "model/backbone=resnet50"),
        ("detector train training.acc", "training.accelerator="),
        ("detector train training.accelerator=", "training.accelerator=gpu"),
        ("detector train model=faster_rcnn model.head.r", "model.head.roi."),
        ("detector train data.tr", "data.train."),
        ("detector train ~mod", "~model."),
        ("detector compare see", "seeds="),
        ("detector compare training.max_e", "training.max_epochs="),
        ("detector evaluate check", "checkpoint="),
        ("detector export format=", "format=onnx"),
        ("detector train training.deterministic=", "training.deterministic=warn"),
        ("detector train data.group_by_aspect_ratio=", "data.group_by_aspect_ratio=false"),
        ("detector predict image_range=", "image_range=full"),
        ("detector train model/layers@model.neck.deform=", "model/layers@model.neck.deform=deform_conv"),
    ],
)
def test_line_goes_on(line: str, there: str) -> None:
    completions = after(line)
    assert there in completions
    last = "" if line.endswith(" ") else line.split()[-1]
    assert all(one.startswith(last) for one in completions)


@pytest.mark.parametrize(
    "line", ["detector train data.root=", "detector trian x", "detector train --config-dir x", ""]
)
def test_rest_is_left_to_the_shell(line: str) -> None:
    assert after(line) == [] or line == ""


def test_own_folder_is_searched(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("")
    assert "experiment=mine" in after(f"detector train --config-dir {tmp_path} experiment=m")


def test_every_option_of_the_configuration_is_offered() -> None:
    from tests.configurations import leaves, plain

    for path in leaves(plain("train")):
        if not any(part.startswith("_") or "." in part for part in path):
            key = ".".join(path)
            assert {f"{key}=", f"{key}."} & set(after(f"detector train {key}"))


@pytest.mark.parametrize("shell", SCRIPTS)
def test_script_is_printed(
    shell: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["detector", "completion", shell])
    assert cli.main() == 0
    assert capsys.readouterr().out == SCRIPTS[shell]


@pytest.mark.parametrize("words", [[], ["powershell"], ["bash", "x"]])
def test_wrong_shell_is_told(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["detector", "completion", *words])
    assert cli.main() == 2
    assert "bash, zsh, fish" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize("wordbreaks", ["$' \\t\\n\"\\'><=;|&(:'", "$' \\t\\n\"\\'><;|&(:'"])
def test_script_completes_in_bash(wordbreaks: str) -> None:
    """With `=` among what breaks words, as bash has it, and without."""
    script = f"""
detector() {{ {sys.executable} -m detector "$@"; }}
eval "$(detector completion bash)"
complete -p detector
COMP_WORDBREAKS={wordbreaks}
for line in "detector tra" "detector train model/backbone=resnet5"; do
    COMP_LINE="$line" COMP_POINT=${{#line}} COMP_WORDS=($line) COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
    _detector_completion detector
    printf '%s\\n' "${{COMPREPLY[@]}}"
done
"""
    done = subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    prefix = "" if "=" in wordbreaks else "model/backbone="
    assert done.stdout.splitlines() == [
        "complete -o default -F _detector_completion detector",
        "train",
        f"{prefix}resnet50",
    ]
    assert done.stderr == ""


def test_completion_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom detector.cli.main import main\n"
        "sys.argv = ['detector', 'completion', '--query', 'detector train mod']\nmain()\n"
        "print([m for m in ('torch', 'hydra', 'lightning', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.skipif(shutil.which("fish") is None, reason="needs fish")
def test_script_completes_in_fish(tmp_path: Path) -> None:
    """Files only where nothing else may follow."""
    (tmp_path / "a_file").touch()
    script = f"""
function detector; {sys.executable} -m detector $argv; end
detector completion fish | source
for line in "detector tra" "detector train optimizer=" "detector train data.root=a_f"
    complete -C $line
end
"""
    done = subprocess.run(
        ["fish", "-N", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["train", "optimizer=adamw", "optimizer=sgd", "data.root=a_file"]


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
def test_script_completes_in_zsh() -> None:
    """Its function with the words of a line, as zsh calls it; `compadd` tells what it is given."""
    script = f"""
detector() {{ {sys.executable} -m detector "$@"; }}
compdef() {{ echo "$@"; }}
compadd() {{ shift 4; echo "$@"; }}
eval "$(detector completion zsh)"
words=(detector tra and more) CURRENT=2
_detector_completion
"""
    done = subprocess.run(["zsh", "-f", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["_detector_completion", "detector", "train"]
