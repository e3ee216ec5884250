"""One command at a time writes into a folder."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from detector.run_folder import RunFolder
from detector.runs import folder
from detector.runs.folder import sole_use


def test_a_second_command_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    with sole_use(tmp_path, command="train"):
        with (
            pytest.raises(ValueError, match="is in use by process") as caught,
            sole_use(tmp_path, command="predict"),
        ):
            pass
        message = str(caught.value)
        assert str(os.getpid()) in message
        assert "detector train" in message
        assert "since 2" in message
        with pytest.raises(ValueError, match="is in use"), sole_use(tmp_path, command="train"):
            pass  # the refused one did not let it go


def test_the_folder_is_free_again_at_the_end_and_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), sole_use(tmp_path, command="train"):
        raise ZeroDivisionError
    with sole_use(tmp_path, command="train"):
        (tmp_path / "metrics.csv").write_text("")
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.csv"]


def test_what_a_killed_process_left_is_no_hindrance_and_gone(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    RunFolder(tmp_path).lock.write_text("process 1 on elsewhere")
    (tmp_path / "checkpoints" / ".last.ckpt.1.tmp").write_text("half")
    (tmp_path / ".metrics.csv.1.tmp").write_text("half")
    with sole_use(tmp_path, command="train"):
        assert f"process {os.getpid()}" in RunFolder(tmp_path).lock.read_text()
    assert [p.name for p in tmp_path.rglob("*")] == ["checkpoints"]


def test_a_folder_that_stays_empty_is_removed_with_its_parents(tmp_path: Path) -> None:
    with sole_use(tmp_path / "runs" / "a", command="train"):
        assert (tmp_path / "runs" / "a").is_dir()
    assert [*tmp_path.iterdir()] == []


def test_other_ranks_belong_to_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with sole_use(tmp_path, command="train"):
        monkeypatch.setenv("LOCAL_RANK", "1")
        with sole_use(tmp_path, command="train"):
            pass
        assert RunFolder(tmp_path).lock.is_file()


def test_a_worker_that_outlives_its_parent_does_not_hold_the_folder(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with sole_use(tmp_path, command="train"):
        child = os.fork()
        if child == 0:
            os.read(reading, 1)  # until the test is over
            os._exit(0)
    with sole_use(tmp_path, command="train"):
        pass
    os.write(writing, b".")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    os.close(reading)
    os.close(writing)


def test_a_folder_without_locks_is_told_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*args: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(folder.fcntl, "flock", refuse)
    with sole_use(tmp_path, command="train"):
        pass
    assert "cannot be locked" in capsys.readouterr().err


def test_a_folder_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    file = tmp_path / "file" / "run"
    with pytest.raises(ValueError, match="Choose another"), sole_use(file, command="train"):
        pass
