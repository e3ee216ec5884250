"""The lock that lets one command at a time write into a folder."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from detector.files import not_written, remove_temporaries
from detector.processes import is_first_process
from detector.run_folder import RunFolder
from detector.runs.record import require_writable

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl: Any = None  # type: ignore[no-redef]

_TAKEN = (errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK)

_lock_descriptors: set[int] = set()  # file descriptors of the locks of this process


def _close_in_child() -> None:
    """Close the locks, so that a worker that outlives its killed parent does not keep the folder locked."""
    for descriptor in _lock_descriptors:
        os.close(descriptor)
    _lock_descriptors.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)


@contextmanager
def sole_use(output_dir: Path, *, command: str) -> Iterator[None]:
    """Keep other commands from writing into `output_dir`, creating it if needed.

    Partial files of killed commands are removed first. The system releases the lock when the process ends,
    killed or not. The other ranks of a training belong to it and take no lock. A folder that stays empty is
    removed again.

    Raises:
        ValueError: another command is using it, or it cannot be written to.
    """
    if not is_first_process():
        yield
        return
    require_writable(output_dir)
    files = RunFolder(output_dir)
    new_folders = [folder for folder in (output_dir, *output_dir.parents) if not folder.exists()]
    lock = _take(files, command)
    try:
        for folder in (output_dir, files.checkpoints):
            remove_temporaries(folder)
        yield
    finally:
        with suppress(OSError):
            files.lock.unlink(missing_ok=True)  # while we hold the lock
        _lock_descriptors.discard(lock.fileno())
        with suppress(OSError):  # on a full disk; the file held only our name
            lock.close()
        for folder in new_folders:
            with suppress(OSError):  # it has files, as expected
                folder.rmdir()


def _take(files: RunFolder, command: str) -> TextIOWrapper:
    """Open and lock the file, again if its holder removed it in between."""
    output_dir, path = files.path, files.lock
    while True:
        try:
            output_dir.mkdir(parents=True, exist_ok=True)
            lock = path.open("a+", encoding="utf-8")
        except OSError as error:
            raise not_written(path, error) from error
        if not _locked(lock, output_dir):
            raise ValueError(
                f"output_dir={output_dir} is in use by {_holder(lock)}. Wait for its end, end it, or choose "
                "another output_dir."
            )
        if path.exists() and os.path.samestat(path.stat(), os.fstat(lock.fileno())):
            break
        lock.close()
    _lock_descriptors.add(lock.fileno())
    lock.truncate(0)
    with suppress(OSError):  # on a full disk, writing the important files will fail
        lock.write(
            f"process {os.getpid()} on {socket.gethostname()} (detector {command}), since "
            f"{datetime.now():%Y-%m-%d %H:%M:%S}"
        )
        lock.flush()
    return lock


def _locked(lock: TextIOWrapper, output_dir: Path) -> bool:
    """Lock the file; return False if another process holds it.

    Some network filesystems have no locks: a note says so, and the result is True.
    """
    if fcntl is None:
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _TAKEN:
            return False
        print(
            f"note: {output_dir} cannot be locked ({os.strerror(error.errno or 0)}): see to it that no other "
            "command writes into it.",
            file=sys.stderr,
        )
    return True


def _holder(lock: TextIOWrapper) -> str:
    lock.seek(0)
    return lock.read().strip() or f"another process (it holds {lock.name})"
