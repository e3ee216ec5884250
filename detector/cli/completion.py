"""Tab completion: scripts for three shells, and the candidates for a partial command line.

The YAML files are read directly and nothing heavy is imported, so that a key press does not wait for Hydra.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from detector.config.group_files import ConfigFiles
from detector.config.reference import options_of

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
    local -a completions
    completions=("${(@f)$(detector completion --query "${(j: :)words[1,CURRENT]}" 2>/dev/null)}")
    if [[ -n "$completions" ]]; then compadd -Q -S '' -- $completions; else compset -P '*='; _files; fi
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


def candidates(line: str, *, verbs: Mapping[str, str], folder: Path) -> list[str]:
    """Return completions of the last word of a `detector ...` line; none for files, which shells complete.

    `verbs` are names with their modules.
    """
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
    files = ConfigFiles([*_own_folders(words), folder], words[0], words[1:])
    completions = _overrides(word[sign.end() :], files, verbs[words[0]])
    return [f"{sign[0]}{one}" for one in completions]


def _own_folders(words: Sequence[str]) -> Iterator[Path]:
    for before, word in pairwise(words):
        if before in ("--config-dir", "-cd"):
            yield Path(word)
    yield from (Path(w.partition("=")[2]) for w in words if w.startswith("--config-dir="))


def _overrides(word: str, files: ConfigFiles, module: str) -> list[str]:
    key, equals, _ = word.partition("=")
    if equals:
        values = files.choices(key) if key in files.groups else _values(key, files, module)
        return [text for value in values if (text := f"{key}={value}").startswith(word)]
    parent, dot, _ = word.rpartition(".")
    keys = [f"{parent}{dot}{name}" for name in _shown(files.options, parent)]
    groups = [] if dot else [f"{group}=" for group in files.groups]
    return sorted({one for one in (*keys, *groups) if one.startswith(word)})


def _values(key: str, files: ConfigFiles, module: str) -> list[str]:
    """Return the values of an option that have a name."""
    for option in options_of(files, module):
        if option.key == key:
            boolean = ["true", "false"] if option.type.startswith("true or false") else []
            values = [*boolean, *option.choices]
            return [*values, "null"] if values and option.type.endswith("or null") else values
    return []


def _shown(options: Mapping[str, Any], parent: str) -> Iterator[str]:
    for name in parent.split(".") if parent else ():
        options = options.get(name) or {}
        if not isinstance(options, Mapping):
            return
    for name, value in options.items():
        if not name.startswith("_"):
            yield f"{name}." if isinstance(value, Mapping) else f"{name}="
