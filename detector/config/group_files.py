"""The YAML files of a verb, read without Hydra: its options, its groups, and the comments beside them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml

_KEY = re.compile(r"(\s*)([\w-]+):(?:\s|$)")
_COMMENT = re.compile(r"(?:^|\s)#\s*(.*)$")


@dataclass
class ConfigFiles:
    """The files that a verb composes, with the groups that `words` choose (`group=choice`).

    `options` are nested mappings as in the files, without settings that depend on several choices (recipes).
    `groups` has each group with its place, as typed (`model/layers@model.neck.deform`), and its choice.
    `comments` and `origins` are by dotted key: what stands beside an option, and the file that has it first.
    """

    folders: Sequence[Path]
    verb: str
    words: Sequence[str] = ()
    options: dict[str, Any] = field(default_factory=dict)
    groups: dict[str, str | None] = field(default_factory=dict)
    comments: dict[str, str] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._chosen = dict(word.lstrip("+").partition("=")[::2] for word in self.words if "=" in word)
        self._add("", self.verb, [])

    def choices(self, group: str) -> list[str]:
        """Return the names of the files of a group."""
        folder = group.partition("@")[0]
        return sorted({file.stem for root in self.folders for file in (root / folder).glob("*.yaml")})

    def _add(self, group: str, name: str, package: list[str]) -> None:
        files = [file for folder in self.folders if (file := folder / group / f"{name}.yaml").is_file()]
        if not files:
            return
        text = files[0].read_text(encoding="utf-8")
        body = _body(text)
        if text.startswith("# @package _global_"):
            package = []
        entries = body.get("defaults") or []
        own = entries.index("_self_") if "_self_" in entries else len(entries)
        for key, choice in (pair for entry in entries if isinstance(entry, dict) for pair in entry.items()):
            if key.startswith("override "):
                inner = key.removeprefix("override ").lstrip("/")
                self._chosen.setdefault(f"{group}/{inner}".lstrip("/"), choice)
        for entry in entries[:own]:
            self._follow(entry, group, package)
        self._merge({key: value for key, value in body.items() if key not in ("defaults", "hydra")}, package)
        for key in (".".join([*package, *path]) for path in _paths(body)):
            self.origins.setdefault(key, f"{group}={name}" if group else name)
        self.comments |= {
            ".".join([*package, *path]): comment for path, comment in _comments(text) if comment
        }
        for entry in entries[own + 1 :]:
            self._follow(entry, group, package)

    def _follow(self, entry: Any, group: str, package: list[str]) -> None:
        """Add the files that an entry of a defaults list names."""
        if isinstance(entry, str):
            self._add(group, entry, package)
            return
        for key, default in entry.items():
            if key.startswith(("override ", "optional ")):
                continue
            name, _, at = key.partition("@")
            full = name[1:] if name.startswith("/") else f"{group}/{name}".lstrip("/")
            if full == "hydra":
                continue
            typed = f"{full}@{'.'.join([*package, at])}" if at else full
            choice = self._chosen.get(typed, default)
            self.groups[typed] = choice
            if isinstance(choice, str):
                inner = at or name.strip("/").replace("/", ".")
                self._add(full, choice, [*package, *inner.split(".")])

    def _merge(self, body: Mapping[str, Any], package: Sequence[str]) -> None:
        options = self.options
        for part in package:
            options = options.setdefault(part, {})
        _merge(options, body)


def header(folders: Sequence[Path], group: str, choice: str) -> str:
    """Return the first sentence of the comment at the top of a group's file."""
    folder = group.partition("@")[0]
    files = (file for root in folders if (file := root / folder / f"{choice}.yaml").is_file())
    lines = next((file.read_text(encoding="utf-8").splitlines() for file in files), [])
    top = takewhile(lambda line: line.startswith("#") and "@package" not in line, lines)
    return " ".join(line.lstrip("# ") for line in top).partition(". ")[0]


@cache
def _body(text: str) -> dict[str, Any]:
    body = yaml.safe_load(text)
    return body if isinstance(body, dict) else {}


def _paths(body: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in body.items():
        yield (*path, str(key))
        if isinstance(value, dict):
            yield from _paths(value, (*path, str(key)))


@cache
def _comments(text: str) -> list[tuple[tuple[str, ...], str]]:
    """Return the path of each key with the comment lines directly above it, and the comment beside it."""
    comments: list[tuple[tuple[str, ...], str]] = []
    indents: list[tuple[int, str]] = []
    above: list[str] = []
    for line in text.splitlines():
        match, comment = _KEY.match(line), _COMMENT.search(line)
        if match:
            if not comments:  # they are about the file
                above = []
            indents = [*(pair for pair in indents if pair[0] < len(match[1])), (len(match[1]), match[2])]
            beside = [comment[1]] if comment else []
            comments.append((tuple(name for _, name in indents), " ".join([*above, *beside])))
        above = [*above, comment[1]] if comment and not match and line.lstrip().startswith("#") else []
    return comments


def _merge(into: dict[str, Any], body: Mapping[str, Any]) -> None:
    for key, value in body.items():
        if isinstance(value, dict):
            known = into.get(str(key))
            into[str(key)] = known if isinstance(known, dict) else {}
            _merge(into[str(key)], value)
        else:
            into[str(key)] = value
