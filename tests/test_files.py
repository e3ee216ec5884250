"""Files that are complete or not there, also where the system refuses to write."""

from __future__ import annotations

import errno
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from detector.checkpoint import save_atomically
from detector.files import (
    GrowingFile,
    NotWrittenError,
    remove_temporaries,
    write_atomically,
    write_text_atomically,
    write_whole,
)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Inside, the system lets no file of this process grow further: as a full disk, by another number."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_lack_of_space_is_told_with_path_needed_and_free(tmp_path: Path, number: int) -> None:
    file = tmp_path / "last.ckpt"
    file.write_text("of before")

    def write(temporary: Path) -> None:
        temporary.write_bytes(b"part")
        raise OSError(number, "of the system")

    with pytest.raises(NotWrittenError) as caught:
        write_atomically(file, write, needed_bytes=20_039_488)
    message = str(caught.value)
    assert str(file) in message
    assert "20.0 MB needed" in message
    assert "free" in message
    assert "The previous file is kept" in message
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]
    assert file.read_text() == "of before"


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EIO])
def test_another_refusal_needs_no_sizes(tmp_path: Path, number: int) -> None:
    def write(temporary: Path) -> None:
        raise OSError(number, "of the system")

    with pytest.raises(NotWrittenError) as caught:
        write_atomically(tmp_path / "a.json", write)
    assert "a.json cannot be written" in str(caught.value)
    assert "free" not in str(caught.value)


def test_an_error_of_the_writer_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        write_atomically(tmp_path / "a.json", lambda temporary: 1 / 0)


def test_a_checkpoint_that_does_not_fit_is_told_in_one_sentence(tmp_path: Path) -> None:
    """torch speaks of unexpected positions."""
    file = tmp_path / "last.ckpt"
    with files_of_at_most(100_000), pytest.raises(NotWrittenError) as caught:
        save_atomically({"state_dict": {"weight": torch.zeros(1_000_000)}}, file)
    message = str(caught.value)
    assert f"{file} cannot be written: File too large (4.0 MB needed" in message
    assert "unexpected pos" not in message
    assert [*tmp_path.iterdir()] == []


def test_a_long_name_has_a_temporary_file_too(tmp_path: Path) -> None:
    file = tmp_path / ("é" * 125 + ".txt")
    write_text_atomically(file, "text")
    assert [p.name for p in tmp_path.iterdir()] == [file.name]


def test_only_temporary_files_of_ours_are_removed(tmp_path: Path) -> None:
    for name in (".last.ckpt.123.tmp", ".mine.tmp", "a.tmp", ".lock"):
        (tmp_path / name).write_text("")
    remove_temporaries(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {".mine.tmp", "a.tmp", ".lock"}


def test_a_growing_file_holds_whole_pieces(tmp_path: Path) -> None:
    file = tmp_path / "list.json"
    growing = GrowingFile(file)
    growing.append("", end="[]\n")
    growing.append("[\n1", end="\n]\n")
    assert not file.exists()
    with files_of_at_most(10_000), pytest.raises(NotWrittenError, match="All earlier content is kept"):
        growing.append(",\n" + "2" * 20_000, end="\n]\n")
    growing.close()
    assert file.read_text() == "[\n1\n]\n"
    assert [p.name for p in tmp_path.iterdir()] == ["list.json"]


def test_nothing_of_a_record_that_does_not_fit_stays(tmp_path: Path) -> None:
    with (tmp_path / "events").open("ab", buffering=0) as file:
        write_whole(file, b"a" * 1000)
        with files_of_at_most(2000), pytest.raises(OSError, match="File too large"):
            write_whole(file, b"b" * 5000)
        write_whole(file, b"c")
    assert (tmp_path / "events").read_bytes() == b"a" * 1000 + b"c"
