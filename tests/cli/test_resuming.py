"""`training.resume=FOLDER`: the overrides of the run are taken, and only what is typed may differ."""

from __future__ import annotations

from pathlib import Path

import pytest

from detector.cli.resuming import with_resumed
from detector.config.errors import ConfigError


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = Path("runs/a")
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.ckpt").touch()
    words = [
        "model=faster_rcnn",
        "seed=3",
        "output_dir=runs/a",
        "hydra.launcher.setup=[rm]",
        "optimizer.lr=0.1",
    ]
    (folder / "overrides.txt").write_text("\n".join(words))
    return folder


def test_overrides_of_the_run_are_taken(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert with_resumed(["training.resume=runs/a"]) == (
        "model=faster_rcnn",
        "seed=3",
        "optimizer.lr=0.1",
        "training.resume=runs/a/checkpoints/last.ckpt",
        "output_dir=runs/a",
    )
    message = "Going on with runs/a: model=faster_rcnn seed=3 optimizer.lr=0.1\n"
    assert capsys.readouterr().err == message


def test_what_is_typed_replaces_what_the_run_had(run: Path) -> None:
    words = with_resumed(["training.resume='runs/a'", "seed=4", "training.max_epochs=9", "output_dir=b"])
    assert words == (
        "model=faster_rcnn",
        "optimizer.lr=0.1",
        "seed=4",
        "training.max_epochs=9",
        "output_dir=b",
        "training.resume=runs/a/checkpoints/last.ckpt",
    )


@pytest.mark.parametrize(
    "words", [["seed=1"], ["training.resume=runs/a/checkpoints/last.ckpt"], ["training.resume=null"]]
)
def test_other_command_lines_stay(run: Path, words: list[str]) -> None:
    assert with_resumed(words) == tuple(words)


@pytest.mark.parametrize("file", ["overrides.txt", "checkpoints/last.ckpt"])
def test_a_folder_that_is_no_run_is_told(run: Path, file: str) -> None:
    (run / file).unlink()
    with pytest.raises(ConfigError, match=f"it has no {file}"):
        with_resumed(["training.resume=runs/a"])
