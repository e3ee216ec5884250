"""The resolution of an annotation file's file_names to files of a folder, and the search for lost ones."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from detector.option_types import FileNames
from detector.quoting import advised

_SCHEME = re.compile(
    r"([A-Za-z][A-Za-z0-9+.-]+)://|(s3|gs|https?|file|hdfs|az|abfss?):/|(data):", re.IGNORECASE
)
_DRIVE = re.compile(r"[A-Za-z]:[/\\]")
_LABEL_STUDIO = re.compile(r"/?(data/local-files/)\?|/(data/upload/)")
_UPLOAD_MARK = re.compile(r"[0-9a-f]{8}-(?=.)")  # Label Studio's prefix of a file name
_FOLDER = "the folder"
_MAX_INDEXED = 1_000_000
_MAX_SEARCHED = 50_000  # files of a folder other than the given one


def address_kind(name: str) -> str | None:
    """Return the kind of address that a name is, such as "s3://"; None if it is a file name."""
    if match := _SCHEME.match(name):
        scheme = match[1] or match[2]
        return f"{scheme}://" if scheme else "data:"
    match = _LABEL_STUDIO.match(name)
    return None if match is None else f"/{match[1]}?d=" if match[1] else f"/{match[2]}"


def base_name(name: str) -> str:
    """Return the last part of a path or address, without a query; an address is unquoted."""
    if address_kind(name):
        parts = urlsplit(name)
        inside = parse_qs(parts.query).get("d")
        name = inside[0] if inside else unquote(parts.path)
        if _LABEL_STUDIO.match(parts.path):
            folder, slash, last = name.rpartition("/")
            name = folder + slash + _UPLOAD_MARK.sub("", last, count=1)
    return name.replace("\\", "/").rstrip("/").rpartition("/")[2]


def name_inside(name: str, folder: Path) -> str | None:
    """Return the name relative to `folder`: `name` itself if it is plain, None if it leaves the folder.

    Links are not resolved: a name is inside by its text, wherever its file lies.
    """
    if ".." not in name and ":" not in name and name[:1] not in ("/", "\\"):
        return name
    if _DRIVE.match(name) or address_kind(name):
        return None
    plain = os.path.normpath(name.replace("\\", "/"))
    if plain != ".." and not plain.startswith(("../", "/")):
        return name
    above = os.path.abspath(folder)
    for root in dict.fromkeys((above, os.path.realpath(above))):
        path = os.path.normpath(os.path.join(root, plain))
        if path.startswith(root.rstrip("/") + "/"):
            return os.path.relpath(path, root)
    if plain.startswith("/"):  # by a link to the folder, or to one above
        above, last = (
            os.path.realpath(above),
            os.path.join(os.path.realpath(os.path.dirname(plain)), os.path.basename(plain)),
        )
        if last.startswith(above.rstrip("/") + "/"):
            return os.path.relpath(last, above)
    return None


def other_reading(name: str, folder: Path) -> str | None:
    """Return the name of the file in `folder` that a name without a file clearly means, or None.

    The name may have Windows separators (images\\a.jpg), and may begin with the last folders of `folder`
    itself, as tools write it that count from a folder above.
    """
    plain = name.replace("\\", "/")
    for candidate in dict.fromkeys((plain, os.path.normpath(plain), *_without_folder(plain, folder))):
        if candidate != name and os.path.isfile(folder / candidate):
            return candidate
    return None


def _without_folder(name: str, folder: Path) -> Iterator[str]:
    """Yield the rest of a name after each beginning that is the end of the folder's path."""
    parts = PurePosixPath(name).parts
    for above in dict.fromkeys((Path(os.path.abspath(folder)).parts, folder.resolve().parts)):
        for count in range(1, min(len(parts), len(above))):
            if parts[:count] == above[-count:]:
                yield "/".join(parts[count:])


# --- approximate lookup of files by name

_NEARLY: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("", lambda name: name),
    ("the Unicode form", lambda name: unicodedata.normalize("NFC", name)),
    ("letter case", lambda name: unicodedata.normalize("NFC", name).casefold()),
    ("the ending", lambda name: os.path.splitext(unicodedata.normalize("NFC", name).casefold())[0]),
)


@dataclass(frozen=True)
class Match:
    """The files that a name may mean, and how they differ from it. A single file is an unambiguous match."""

    files: tuple[str, ...]
    difference: str


class FolderIndex:
    """An index of the files below a folder by path and base name. Links to folders are followed once each."""

    def __init__(self, folder: Path, *, max_files: int = _MAX_INDEXED) -> None:
        self.folder = folder
        self._max_files = max_files

    @cached_property
    def files(self) -> tuple[str, ...]:
        """The paths relative to the folder, sorted, without hidden files."""
        paths: list[str] = []
        seen: set[tuple[int, int]] = set()
        for parent, folders, names in os.walk(self.folder, followlinks=True):
            status = os.stat(parent)
            if (status.st_dev, status.st_ino) in seen:
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            below = os.path.relpath(parent, self.folder)
            start = "" if below == "." else f"{below}/"
            paths += [start + name for name in names if not name.startswith(".")]
            if len(paths) > self._max_files:
                break
        return tuple(sorted(paths[: self._max_files]))

    def find(self, name: str) -> Match | None:
        """Return the files nearest to `name`, by its whole path first, then by its base name."""
        path = "" if address_kind(name) else os.path.normpath(name.replace("\\", "/"))
        for by_base, key in ((False, path), (True, base_name(name))):
            for level, (difference, simplify) in enumerate(_NEARLY):
                if key and (files := self._lookup(level, by_base).get(simplify(key))):
                    place = _FOLDER if by_base and files[0] != key else ""
                    return Match(tuple(files), " and ".join(filter(None, (place, difference))))
        return None

    def _lookup(self, level: int, by_base: bool) -> dict[str, list[str]]:
        if (level, by_base) not in self._lookups:
            self._lookups[level, by_base] = self._new_lookup(level, by_base)
        return self._lookups[level, by_base]

    @cached_property
    def _lookups(self) -> dict[tuple[int, bool], dict[str, list[str]]]:
        return {}

    def _new_lookup(self, level: int, by_base: bool) -> dict[str, list[str]]:
        table: dict[str, list[str]] = {}
        for file in self.files:
            key = file.rpartition("/")[2] if by_base else file
            table.setdefault(_NEARLY[level][1](key), []).append(file)
        return table


# --- the names of an annotation file


@dataclass(frozen=True)
class LocatedFiles:
    """The result of locating files by name, before any file is opened.

    `lost` names lead to no file; its values tell whether they leave the folder. `shared` are files that
    another name means too, so both are ambiguous. `differences` tell how the names of matched files differ
    (file_names=base).
    """

    lost: dict[int, bool]
    shared: dict[int, str]
    differences: tuple[str, ...]
    index: FolderIndex


def locate_files(names: list[Any], *, folder: Path, indices: np.ndarray, how: FileNames) -> LocatedFiles:
    """Replace each of the `names` by the path of its file relative to `folder`, as far as names tell.

    "paths": a name inside the folder becomes relative to it, even if it was absolute or had `..`. "base": a
    name without a file is replaced by that of the only file below the folder with the nearest name.
    """
    index = FolderIndex(folder)
    lost: dict[int, bool] = {}
    differences: list[str] = []
    written = list(names)
    for i in indices.tolist():
        inside = name_inside(names[i], folder)
        if how == "base" and (inside is None or not os.path.lexists(_joined(folder, inside))):
            match = index.find(names[i])
            if match is None or len(match.files) > 1:
                lost[i] = inside is None
                continue
            inside = match.files[0]
            differences.append(match.difference or _FOLDER)
        if inside is None:
            lost[i] = True
        else:
            names[i] = inside
    shared = _shared(names, written, [i for i in indices.tolist() if i not in lost]) if how == "base" else {}
    return LocatedFiles(lost, shared, tuple(differences), index)


def _shared(names: Sequence[Any], written: Sequence[Any], indices: Sequence[int]) -> dict[int, str]:
    """Return the files that several different names were matched to, by the images of these names."""
    names_by_file: dict[str, set[str]] = {}
    for i in indices:
        names_by_file.setdefault(names[i], set()).add(written[i])
    return {i: names[i] for i in indices if len(names_by_file[names[i]]) > 1 and written[i] != names[i]}


def _joined(folder: Path, name: str) -> str:
    return f"{folder}/{name}".replace("\0", "")


# --- messages on names without a file


@dataclass(frozen=True)
class ExplainedNames:
    """The reasons why each name has no file, and the remedies for all of them."""

    texts: dict[int, str]
    remedies: list[str]


def explain_lost(
    names: Mapping[int, str],
    *,
    leaving: Collection[int],
    total: int,
    index: FolderIndex,
    option: str,
    near: Sequence[Path],
) -> ExplainedNames:
    """Explain where the files of `names` are, in the folder of `index` or elsewhere.

    `leaving` are the names that leave the folder, `total` counts all names. `option` is the override of the
    image folder (data.train.images), and `near` are other folders that names may be relative to.
    """
    matches = {i: index.find(name) for i, name in names.items()}
    texts = {
        i: _problem_text(name, folder=index.folder, match=matches[i], leaves=i in leaving)
        for i, name in names.items()
    }
    remedies = _remedies(names, matches, total=total, folder=index.folder, option=option, near=near)
    return ExplainedNames(texts, list(remedies))


def _problem_text(name: str, *, folder: Path, match: Match | None, leaves: bool) -> str:
    """Describe why a name has no file in `folder`, and which file may be meant."""
    kind = address_kind(name)
    if kind is not None:
        text = f"its file_name is an address ({kind}), not the name of a file in {folder}."
    elif leaves:
        windows = " (a path of Windows)" if _DRIVE.match(name) else ""
        text = f"its file_name{windows} leaves the image folder {folder}."
    else:
        text = f"no such file in {folder}."
    if match is None:
        return text + ("" if kind else " Add it, or correct the file_name.")
    if len(match.files) > 1:
        some = ", ".join(f'"{file}"' for file in match.files[:3])
        return f"{text} {len(match.files)} files may be meant: {some}."
    differs = f", which differs by {match.difference}" if match.difference else ""
    return f'{text} There is "{match.files[0]}"{differs}.'


def _remedies(
    names: Mapping[int, str],
    matches: Mapping[int, Match | None],
    *,
    total: int,
    folder: Path,
    option: str,
    near: Sequence[Path],
) -> Iterator[str]:
    """Yield remedies for names without a file, with counts: `names` and their `matches` by image."""
    sure = {i: match for i, match in matches.items() if match is not None and len(match.files) == 1}
    for difference, count in Counter(match.difference for match in sure.values()).most_common():
        i = next(i for i, match in sure.items() if match.difference == difference)
        start = _common_start({names[j]: m.files[0] for j, m in sure.items() if m.difference == difference})
        if start is not None:
            yield f"{count} of {total} files are in {folder / start}: pass {advised(option, folder / start)}"
            continue
        example = f'as "{sure[i].files[0]}" for "{names[i]}"'
        if difference in ("", _FOLDER):
            yield (
                f"{count} of {total} files are in {folder} by their base names, {example}: take them with "
                "data.file_names=base, or correct the file names."
            )
        else:
            yield (
                f"{count} of {total} file names differ by {difference} only from files in {folder}, "
                f"{example}: correct the file names, or take such files with data.file_names=base."
            )
    lost = {i: name for i, name in names.items() if matches.get(i) is None}
    if elsewhere := _folder_of_most(list(lost.values()), folder=folder, near=near):
        place, count, needs_base = elsewhere
        base = " data.file_names=base" if needs_base else ""
        yield f"{count} of {total} files are below {place}: pass {advised(option, place)}{base}"
    kinds = Counter(kind for name in names.values() if (kind := address_kind(name)))
    for kind, count in kinds.items():
        yield (
            f"{count} of {total} file names are addresses ({kind}). Export with the images in a folder and "
            "their names as file_name (Label Studio: COCO with images; label-studio-converter), or download "
            f"them into a folder and pass {option}=FOLDER data.file_names=base."
        )


def _common_start(files: Mapping[str, str]) -> str | None:
    """Return the folder below which all files lie by their whole names, or None."""
    starts = {
        file.removesuffix(f"/{name}") if file.endswith(f"/{name}") else None for name, file in files.items()
    }
    return starts.pop() if len(starts) == 1 else None


def _folder_of_most(
    names: Sequence[str], *, folder: Path, near: Sequence[Path]
) -> tuple[Path, int, bool] | None:
    """Return the folder that holds most of the names, how many, and whether only by their base names."""
    if not names:
        return None
    best: tuple[Path, int, bool] | None = None
    for place in dict.fromkeys(Path(os.path.abspath(p)) for p in (folder.parent, *near)):
        count = sum(os.path.isfile(place / name) for name in names if _is_below(name))
        if count > (best[1] if best else 0):
            best = place, count, False
    absolute = [name for name in names if name.startswith("/") and _is_file(name)]
    if len(absolute) > (best[1] if best else 0):
        best = Path(os.path.commonpath([os.path.dirname(name) for name in absolute])), len(absolute), False
    if best is not None:
        return best
    for place in dict.fromkeys(Path(os.path.abspath(p)) for p in near):
        if place == place.parent:
            continue
        index = FolderIndex(place, max_files=_MAX_SEARCHED)
        files = [m.files[0] for n in names if (m := index.find(n)) and m.difference in ("", _FOLDER)]
        if files:
            inner = os.path.commonpath([os.path.dirname(file) or "." for file in files])
            return place / inner, len(files), True
    return None


def _is_below(name: str) -> bool:
    return not address_kind(name) and "\0" not in name and not os.path.normpath(name).startswith(("..", "/"))


def _is_file(name: str) -> bool:
    return "\0" not in name and os.path.isfile(name)
