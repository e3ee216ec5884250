"""How a training ends that something ended: what is kept, and what the same or the printed command does."""

from __future__ import annotations

import csv
import errno
from pathlib import Path

import pytest

from detector.checkpoint import load_checkpoint
from detector.commands import train
from detector.exceptions import RunError, Terminated
from detector.run_folder import RunFolder
from detector.runs.context import Context
from detector.runs.resume import lacks_report, remove_curves, require_free, resume_hint
from detector.training.callbacks import Checkpoints
from detector.training.module import DetectionModule
from tests.training.tiny import run_training, write_dataset

MEASURED = {"seconds", "images_per_second", "peak_memory_mb"}  # differ from run to run


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def straight(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_training(dataset, tmp_path_factory.mktemp("runs") / "straight")


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in MEASURED} for row in csv.DictReader(file)]


class _Killed(BaseException):
    pass


def _kill(*args: object, **kwargs: object) -> None:
    raise _Killed


def test_metrics_csv_of_a_run_killed_behind_its_checkpoint_lacks_no_epoch(
    dataset: Path, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as context:
        context.setattr(RunFolder, "write_epochs", _kill)
        with pytest.raises(_Killed):
            run_training(dataset, run)
    assert not (run / "metrics.csv").exists()
    run_training(dataset, run, f"training.resume={run}/checkpoints/last.ckpt")
    assert rows(run) == rows(straight)


def test_an_interrupted_report_is_finished_by_the_printed_command(
    dataset: Path,
    straight: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def terminate(*args: object, **kwargs: object) -> None:
        raise Terminated

    run = tmp_path / "run"
    last = run / "checkpoints" / "last.ckpt"
    with monkeypatch.context() as context:
        context.setattr("detector.runs.training_report.write_run_report", terminate)
        with pytest.raises(SystemExit) as caught:
            run_training(dataset, run)
    assert caught.value.code == 143
    message = capsys.readouterr().err
    assert f"Reading {run / 'predictions.json'} ..." in message
    assert "while the report was written" in message
    assert f"training.resume={last}" in message
    (run / "metrics.csv").unlink()  # as a kill in the last epoch leaves it
    monkeypatch.setattr(train, "fit", _kill)  # nothing is trained
    run_training(dataset, run, f"training.resume={last}")
    assert (run / "report.html").is_file()
    assert "data-gallery" in (run / "report.html").read_text(encoding="utf-8")
    assert rows(run) == rows(straight)
    assert not lacks_report(load_checkpoint(last), run, max_epochs=2)


def event_files(run: Path) -> list[Path]:
    return list((run / "tensorboard").iterdir())


def test_where_nothing_was_drawn_there_are_no_curves_to_remove(tmp_path: Path) -> None:
    remove_curves(tmp_path)
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "config.yaml").touch()
    remove_curves(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize("error", [ValueError("damaged"), OSError(errno.EIO, "Input/output error")])
def test_a_checkpoint_that_cannot_be_read_is_named_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(path: Path) -> None:
        raise error

    last = tmp_path / "checkpoints" / "last.ckpt"
    last.parent.mkdir()
    last.touch()
    monkeypatch.setattr("detector.runs.resume.load_checkpoint", fail)
    message = resume_hint(Checkpoints(tmp_path), Context({}))
    assert str(last) in message
    assert str(error) in message
    assert "after epoch" not in message


def test_a_run_killed_in_its_first_checkpoint_starts_anew(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as context:
        context.setattr("lightning.Trainer.save_checkpoint", _kill)
        with pytest.raises(_Killed):
            run_training(dataset, run)
    assert (run / "metrics.json").is_file()
    assert len(event_files(run)) == 1
    run_training(dataset, run, "training.max_epochs=1")
    assert len(event_files(run)) == 1, "no curves of the killed run"
    assert "ended before its first checkpoint" in capsys.readouterr().out
    assert load_checkpoint(run / "checkpoints" / "last.ckpt").epoch == 1


def test_a_run_killed_between_its_first_checkpoints_may_be_started_again(tmp_path: Path) -> None:
    """The best has no state of the optimizer to go on from. A best of another origin is kept."""
    best = tmp_path / "checkpoints" / "best.ckpt"
    best.parent.mkdir()
    best.write_text("whole")
    with pytest.raises(ValueError, match="already holds a run"):
        require_free(tmp_path, resume=None)
    (tmp_path / "overrides.txt").touch()
    assert "started anew" in require_free(tmp_path, resume=None)
    (tmp_path / "metrics.csv").touch()
    with pytest.raises(ValueError, match="already holds a run"):
        require_free(tmp_path, resume=None)


@pytest.mark.parametrize("name", ["metrics.csv", "report.html", "metrics.json", "checkpoints/own.ckpt"])
def test_files_of_others_are_not_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("")
    with pytest.raises(ValueError, match="already holds a run"):
        require_free(tmp_path, resume=None)


def test_a_full_disk_says_what_is_kept_and_how_to_go_on(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(module: DetectionModule) -> None:
        if module.current_epoch == 1:
            monkeypatch.setattr("detector.files.os.fsync", _full)

    run = tmp_path / "run"
    last = run / "checkpoints" / "last.ckpt"
    monkeypatch.setattr(DetectionModule, "on_train_epoch_start", fill)
    with pytest.raises(RunError) as caught:
        run_training(dataset, run)
    message = str(caught.value)
    assert f"{run}/" in message
    assert "No space left on device" in message
    assert "needed" in message
    assert f"Kept: {last}, after epoch 1." in message
    assert f"training.resume={last}" in message
    assert not [*run.rglob("*.tmp")]


def _full(*args: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_logs_and_a_report_that_cannot_be_written_end_no_training(
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "tensorboard").write_text("in the way")
    monkeypatch.setattr(RunFolder, "write_epochs", _full)
    monkeypatch.setattr("detector.runs.training_report.write_run_report", _full_report)
    monkeypatch.setattr("detector.training.displays.LineDisplay.epoch", _full)
    run_training(dataset, run)
    assert load_checkpoint(Checkpoints(run).last).epoch == 2
    warnings = [record.getMessage() for record in caplog.records if "is not complete" in record.getMessage()]
    assert len(warnings) == len(set(warnings)) == 3
    assert "the report is not complete" in capsys.readouterr().err


def _full_report(*args: object, **kwargs: object) -> None:
    _full()
