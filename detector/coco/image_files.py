"""The image files of a source: a file, a folder, a glob or a text file with paths."""

from __future__ import annotations

import glob
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from detector.coco.image_headers import is_surely_image, readable_endings

_MAX_NAMED = 5  # files listed for each kind in a message


@dataclass(frozen=True)
class SourceFiles:
    """The files to read, sorted, and those of a folder that are skipped: hidden files and other formats."""

    files: list[Path]
    hidden: tuple[Path, ...] = ()
    others: tuple[Path, ...] = ()

    @property
    def num_skipped(self) -> int:
        return len(self.hidden) + len(self.others)

    def note(self) -> str:
        """Return the numbers of skipped files by file extension, with the names of the first ones."""
        kinds: dict[str, list[str]] = defaultdict(list)
        for file in self.others:
            kinds[file.suffix.lower() or "without an ending"].append(file.name)
        if self.hidden:
            kinds["hidden"] = [file.name for file in self.hidden]
        return "; ".join(f"{len(names)} {kind} ({_listed(names)})" for kind, names in sorted(kinds.items()))


def find_images(source: str) -> SourceFiles:
    """Return the files that `source` names.

    In a folder and its subfolders these are the files with the extension of a readable format, in upper or
    lower case, and those whose first bytes are an image's.

    Raises:
        ValueError: there are no such files.
    """
    path = Path(source)
    if path.is_dir():
        source_files = _files_in(path)
        expected = f"a folder with images ({', '.join(sorted(readable_endings()))})"
    elif path.suffix.lower() == ".txt" and path.is_file():
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
        source_files = SourceFiles([path.parent / line.strip() for line in lines if line.strip()])
        if source_files.files and not any(file.exists() for file in source_files.files):
            raise ValueError(
                f"source={source}: expected the path of an image in each line, relative to "
                f"{path.parent.absolute()}; no line is one, such as "
                f"{_shortened(source_files.files[0].name)!r}."
            )
        expected = "a text file with a path a line"
    elif path.exists() and not path.is_file():
        raise ValueError(f"source={source}: is a pipe, socket or device. Expected an image file or a folder.")
    else:
        files = [path] if path.is_file() else [Path(p) for p in sorted(glob.glob(source, recursive=True))]
        source_files = SourceFiles([p for p in files if p.is_file()])
        expected = "an image, a folder, a glob or a text file with paths"
    if not source_files.files:
        others = f" that is read; there are {source_files.note()}" if source_files.num_skipped else ""
        raise ValueError(f"source={source}: found no file{others}. Expected {expected}.")
    return source_files


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def _files_in(folder: Path) -> SourceFiles:
    files, hidden, others = [], [], []
    for path in sorted(_walk(folder)):
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            hidden.append(path)
        elif path.suffix.lower() in readable_endings() or is_surely_image(path):
            files.append(path)
        else:
            others.append(path)
    return SourceFiles(files, tuple(hidden), tuple(others))


def _walk(folder: Path) -> Iterator[Path]:
    """Yield all files below a folder; links to folders are followed, and each folder is visited once."""
    visited: set[tuple[int, int]] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in visited:
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        yield from (Path(parent, name) for name in names)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_MAX_NAMED]) + (
        f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    )
