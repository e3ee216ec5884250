"""Atomic writing: a file is either complete or absent."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

_TEMPORARY = re.compile(r"\..+\.\d+\.tmp")
_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_STORAGE = (*_SPACE, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENAMETOOLONG, errno.ESTALE)


class NotWrittenError(OSError):
    """A file cannot be written. The message names it, the space needed and free, and what is kept."""


def write_atomically(
    path: str | os.PathLike[str], write: Callable[[Path], object], *, needed_bytes: int = 0
) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it: a reader never sees half a file.

    The temporary file is in the same folder, because a rename from another filesystem would be a copy. The
    folder is created if needed. `needed_bytes` is the size, if known, for the message.

    Raises:
        NotWrittenError: the disk is full, a quota or limit is reached, or a permission is missing. `path` is
            unchanged.
    """
    path = Path(path)
    temporary = temporary_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except Exception as error:  # torch raises a RuntimeError about positions of bytes
        cause = storage_error(error)
        if cause is None:
            raise
        needed_bytes = max(needed_bytes, _size(temporary))
        with suppress(OSError):  # as below
            temporary.unlink(missing_ok=True)  # its space is free again
        raise not_written(path, cause, needed_bytes=needed_bytes) from error
    finally:
        with suppress(OSError):  # the folder may be gone or read-only: that was reported above
            temporary.unlink(missing_ok=True)


def temporary_of(path: Path) -> Path:
    """Return the file beside `path` that this process writes first. A name may have at most 255 bytes."""
    name = os.fsencode(path.name)[:200].decode("utf-8", errors="ignore")
    return path.with_name(f".{name}.{os.getpid()}.tmp")


def remove_temporaries(folder: Path) -> None:
    """Remove the partial files of killed processes from `folder`. No process may be writing into it."""
    for file in folder.glob(".*.tmp"):
        if _TEMPORARY.fullmatch(file.name):
            with suppress(OSError):  # a leftover that stays does no harm
                file.unlink()


def write_text_atomically(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` as UTF-8."""
    content = text.encode("utf-8")
    write_atomically(path, lambda temporary: temporary.write_bytes(content), needed_bytes=len(content))


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` with all its digits; NaN, which JSON does not have, raises ValueError."""
    write_text_atomically(path, json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2) + "\n")


def write_whole(file: BinaryIO, content: bytes, *, kept_bytes: int = 0) -> None:
    """Write `content` to an unbuffered file.

    After an error the file is truncated to `kept_bytes` after the position where the content would start.
    """
    start, rest = file.tell(), memoryview(content)
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except BaseException:  # a full disk, an interrupt
        file.truncate(start + kept_bytes)
        file.seek(start)
        raise


class GrowingFile:
    """A file that is written piece by piece under a temporary name, and is complete after each piece.

    After a failed write its content is that of the last successful one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = temporary_of(path)
        try:
            self._file = self._temporary.open("wb", buffering=0)
        except OSError as error:
            raise not_written(path, error) from error
        self._size = 0  # without `_end`
        self._end = b""

    def append(self, text: str, *, end: str = "") -> None:
        """Write `text` over the previous `end`, then the new `end`, which the next piece replaces.

        Raises:
            NotWrittenError: for example, the disk is full. All earlier pieces are kept.
        """
        content, after = text.encode("utf-8"), end.encode("utf-8")
        self._file.seek(self._size)
        try:
            write_whole(self._file, content + after, kept_bytes=len(self._end))
        except BaseException as error:
            self._file.write(self._end)  # at its old place, which takes no space
            if not isinstance(error, OSError):
                raise
            needed_bytes = self._size + len(content) + len(after)
            note = "All earlier content is kept."
            raise not_written(self._path, error, needed_bytes=needed_bytes, note=note) from error
        self._size, self._end = self._size + len(content), after

    def close(self) -> None:
        """Rename the file to its final name."""
        try:
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(self._temporary, self._path)
        except OSError as error:
            raise not_written(self._path, error, needed_bytes=self._size) from error
        finally:
            self._file.close()
            with suppress(OSError):
                self._temporary.unlink(missing_ok=True)


def storage_error(error: BaseException) -> OSError | None:
    """Return the storage error that `error` is or was caused by; None for other errors."""
    for reason in _reasons(error):
        if isinstance(reason, NotWrittenError):
            return None  # already reported
        if isinstance(reason, OSError) and reason.errno in _STORAGE:
            return reason
    return None


def _reasons(error: BaseException) -> Iterator[BaseException]:
    reason: BaseException | None = error
    while reason is not None:
        yield reason
        reason = reason.__cause__ or reason.__context__


def not_written(
    path: Path, error: OSError, *, needed_bytes: int = 0, note: str | None = None
) -> NotWrittenError:
    """Return the user's error for a file that `error` prevented from being written."""
    if note is None:
        note = "The previous file is kept." if path.exists() else "No part of it is left behind."
    return NotWrittenError(f"{path} cannot be written: {_why(path, error, needed_bytes)}. {note}")


def _why(path: Path, error: OSError, needed_bytes: int) -> str:
    why = os.strerror(error.errno) if error.errno else str(error)
    if error.errno not in _SPACE:
        return why
    needed = f"{_megabytes(needed_bytes)} needed, " if needed_bytes else ""
    with suppress(OSError):  # the folder may be gone
        return f"{why} ({needed}{_megabytes(shutil.disk_usage(path.parent).free)} free)"
    return why


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 50_000 else f"{count / 1e3:.1f} kB"


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
