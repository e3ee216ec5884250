"""The lookup of images by file name, with any part of the path."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from pathlib import PurePosixPath

from detector.coco.ids import Key

_Parts = tuple[str, ...]


class ImageNames:
    """A lookup of images by the end of their paths.

    Names are compared without `.` parts, with `/` for `\\` and in one Unicode form, as file systems and tools
    differ in these.
    """

    def __init__(self, names: Mapping[Key, str]) -> None:
        self._by_path: dict[_Parts, list[Key]] = {}
        self._by_base: dict[str, list[tuple[_Parts, Key]]] = {}
        self._by_stem: dict[str, list[tuple[_Parts, Key]]] = {}
        self._by_folded_stem: dict[str, list[tuple[_Parts, Key]]] = {}
        for key, name in names.items():
            if not (path := path_parts(name)):
                continue
            self._by_path.setdefault(path, []).append(key)
            self._by_base.setdefault(path[-1], []).append((path, key))
            self._by_stem.setdefault(_stem(path)[-1], []).append((_stem(path), key))
            folded = _folded(_stem(path))
            self._by_folded_stem.setdefault(folded[-1], []).append((folded, key))

    def __bool__(self) -> bool:
        return bool(self._by_path)

    def candidates(self, name: str) -> list[Key]:
        """Return the images that `name` may mean: one if it is unambiguous, none if no file has this name.

        The whole path decides; else the longest common end of the paths, at least the base name; else the
        same without the extension, so that `000123` is `images/000123.jpg`; else the same in any letter case.
        """
        path = path_parts(name)
        if not path:
            return []
        if path in self._by_path:
            return self._by_path[path]
        if path[-1] in self._by_base:
            return _nearest(path, self._by_base[path[-1]])
        for stem in (path, _stem(path)):  # a name without extension may contain a dot
            if stem[-1] in self._by_stem:
                return _nearest(stem, self._by_stem[stem[-1]])
        folded = _folded(_stem(path))
        return (
            _nearest(folded, self._by_folded_stem[folded[-1]]) if folded[-1] in self._by_folded_stem else []
        )

    def find(self, name: str) -> Key | None:
        """Return the image that `name` means, or None if it is unknown or ambiguous."""
        candidates = self.candidates(name)
        return candidates[0] if len(candidates) == 1 else None


def path_parts(name: str) -> _Parts:
    """Split a path into the parts that `ImageNames` compares."""
    parts = unicodedata.normalize("NFC", name).replace("\\", "/").split("/")
    return tuple(part for part in parts if part not in ("", "."))


def same_file(a: str, b: str) -> bool:
    """Return whether two names can mean one file: one is the end of the other."""
    shorter, longer = sorted((path_parts(a), path_parts(b)), key=len)
    return longer[len(longer) - len(shorter) :] == shorter


def _nearest(path: _Parts, entries: list[tuple[_Parts, Key]]) -> list[Key]:
    """Return the entries with the longest common end, preferring those that `path` ends with as a whole."""
    ranked = [(_rank(path, other), key) for other, key in entries]
    best = max(rank for rank, _ in ranked)
    return [key for rank, key in ranked if rank == best]


def _rank(path: _Parts, other: _Parts) -> tuple[bool, int]:
    common = 0
    while common < min(len(path), len(other)) and path[-1 - common] == other[-1 - common]:
        common += 1
    return common == len(other), common


def _folded(path: _Parts) -> _Parts:
    return tuple(part.casefold() for part in path)


def _stem(path: _Parts) -> _Parts:
    return (*path[:-1], PurePosixPath(path[-1]).stem)
