"""Tab completion: scripts for three shells, and the candidates for a partial command line.

The YAML files are read directly and nothing heavy is imported, so that a key press does not wait for Hydra.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

FLAGS = ("--help", "--cfg", "--config-dir", "--multirun", "--version")
SCRIPTS = {
    "bash": r"""# eval "$(detector completion bash)", in ~/.bashrc to keep it
_detector_completion() {
    local line="${COMP_LINE:0:$COMP_POINT}" word prefix="" IFS=$'\n'
    word="${line##*[[:space:]]}"
    [[ "$word" == *=* && "$COMP_WORDBREAKS" == *=* ]] && prefix="${word%"${word##*=}"}"
    COMPREPLY=($("${COMP_WORDS[0]}" completion --query "$line" 2>/dev/null))
    COMPREPLY=("${COMPREPLY[@]#"$prefix"}")
    if [[ "${#COMPREPLY[@]}" == 1 && "${COMPREPLY[0]}" == *[=./] ]]; then compopt -o nospace 2>/dev/null; fi
}
complete -o default -F _detector_completion detector
""",
    "zsh": r"""# eval "$(detector completion zsh)", in ~/.zshrc after compinit to keep it
_detector_completion() {
    local -a found
    found=("${(@f)$(detector completion --query "${(j: :)words[1,CURRENT]}" 2>/dev/null)}")
    if [[ -n "$found" ]]; then compadd -Q -S '' -- $found; else compset -P '*='; _files; fi
}
compdef _detector_completion detector
""",
    "fish": """# detector completion fish | source, in ~/.config/fish/config.fish to keep it
function __detector_found
    set -g __detector_words (detector completion --query (commandline -cp | string collect) 2>/dev/null)
    test -n "$__detector_words"
end
complete -c detector -f -n __detector_found -a '$__detector_words'
""",
}
_CHOICES = re.compile(r"^\s*(?P<key>[\w-]+):.*?#\s*(?P<choices>[\w.-]+(?: \| [\w.-]+)+)")


def candidates(line: str, *, verbs: Sequence[str], folder: Path) -> list[str]:
    """Return completions of the last word of a `detector ...` line; none for files, which shells complete."""
    words = line.split()[1:]
    word = "" if not words or line[-1].isspace() else words.pop()
    if not words:
        return [verb for verb in (*verbs, "completion", "--help", "--version") if verb.startswith(word)]
    if words[0] == "completion":
        return [shell for shell in SCRIPTS if shell.startswith(word)]
    if words[0] not in verbs or words[-1] in ("--config-dir", "-cd"):
        return []
    if word.startswith("-"):
        return [flag for flag in FLAGS if flag.startswith(word)]
    sign = re.match(r"[+~]*", word)
    assert sign is not None, "it may be empty"
    found = _overrides(word[sign.end() :], _Files([*_own_folders(words), folder], words))
    return [f"{sign[0]}{one}" for one in found]


def _own_folders(words: Sequence[str]) -> Iterator[Path]:
    for before, word in pairwise(words):
        if before in ("--config-dir", "-cd"):
            yield Path(word)
    yield from (Path(w.partition("=")[2]) for w in words if w.startswith("--config-dir="))


def _overrides(word: str, files: _Files) -> list[str]:
    key, equals, _ = word.partition("=")
    if equals:
        return [text for value in files.values(key) if (text := f"{key}={value}").startswith(word)]
    parent, dot, _ = word.rpartition(".")
    keys = [f"{parent}{dot}{name}" for name in _shown(files.options, parent)]
    groups = [] if dot else [f"{group}=" for group in files.groups]
    return sorted({one for one in (*keys, *groups) if one.startswith(word)})


def _shown(options: Mapping[str, Any], parent: str) -> Iterator[str]:
    for name in parent.split(".") if parent else ():
        options = options.get(name) or {}
        if not isinstance(options, Mapping):
            return
    for name, value in options.items():
        if not name.startswith("_"):
            yield f"{name}." if isinstance(value, Mapping) else f"{name}="


class _Files:
    """The YAML files of a verb: its options as nested mappings, its groups, and the choices in comments."""

    def __init__(self, folders: Sequence[Path], words: Sequence[str]) -> None:
        self._folders = folders
        self._chosen = dict(word.partition("=")[::2] for word in words if "=" in word)
        self.options: dict[str, Any] = {}
        self.groups: dict[str, None] = {}
        self._choices: dict[str, list[str]] = {}
        self._add("", words[0], [])

    def values(self, key: str) -> list[str]:
        """Return the files of a group, or the choices that a comment lists."""
        names = {file.stem for folder in self._folders for file in (folder / key).glob("*.yaml")}
        return sorted(names) if key in self.groups else self._choices.get(key, [])

    def _add(self, group: str, name: str, package: list[str]) -> None:
        files = [file for folder in self._folders if (file := folder / group / f"{name}.yaml").is_file()]
        if not files:
            return
        text = files[0].read_text(encoding="utf-8")
        body = yaml.safe_load(text)
        if not isinstance(body, dict):
            return
        if text.startswith("# @package _global_"):
            package = []
        for entry in body.pop("defaults", []):
            self._follow(entry, group, package)
        options = self.options
        for part in package:
            options = options.setdefault(part, {})
        _merge(options, body)
        self._read_comments(text, package)

    def _follow(self, entry: Any, group: str, package: list[str]) -> None:
        """Add the files that an entry of a defaults list names."""
        if isinstance(entry, str):
            if entry != "_self_":
                self._add(group, entry, package)
            return
        for key, default in entry.items():
            if key.startswith(("override ", "optional ")):
                continue
            name, _, at = key.partition("@")
            full = name[1:] if name.startswith("/") else f"{group}/{name}".lstrip("/")
            if full == "hydra":
                continue
            self.groups[f"{full}@{'.'.join([*package, at])}" if at else full] = None
            choice = self._chosen.get(full, default)
            if isinstance(choice, str) and "${" not in choice:
                inner = at or name.strip("/").replace("/", ".")
                self._add(full, choice, [*package, *inner.split(".")])

    def _read_comments(self, text: str, package: list[str]) -> None:
        path: list[tuple[int, str]] = []
        for line in text.splitlines():
            if not (start := re.match(r"(\s*)([\w-]+):", line)):
                continue
            path = [*(p for p in path if p[0] < len(start[1])), (len(start[1]), start[2])]
            if match := _CHOICES.match(line):
                key = ".".join([*package, *(name for _, name in path)])
                self._choices[key] = match["choices"].split(" | ")


def _merge(into: dict[str, Any], body: Mapping[str, Any]) -> None:
    for key, value in body.items():
        if isinstance(value, dict):
            known = into.get(str(key))
            into[str(key)] = known if isinstance(known, dict) else {}
            _merge(into[str(key)], value)
        else:
            into[str(key)] = value
