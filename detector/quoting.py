"""Overrides and commands as text that Hydra's grammar and a shell read as they were meant."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

# What Hydra takes as a string without quotes: no number, no list, no word of YAML.
_PLAIN = re.compile(r"(?!(?:null|true|false|nan|inf)$)[A-Za-z_./][A-Za-z0-9_./-]*", re.IGNORECASE)
_LOOKS_LIKE_A_NUMBER = re.compile(r"[.0-9_eE+-]+")


def quoted(text: str) -> str:
    r"""`text` as a quoted string of Hydra's grammar, with nothing in it interpolated.

    >>> print(quoted("it's"))
    'it\'s'
    """
    # OmegaConf takes "${" for the start of an interpolation, unless a backslash precedes it.
    literal = re.sub(r"(\\*)\$\{", lambda match: f"{match[1] * 2}\\${{", text)
    # A backslash counts as one only where it precedes a quote: inside, or the closing one.
    inner = re.sub(r"(\\*)'", lambda match: f"{match[1] * 2}\\'", literal)
    return "'" + re.sub(r"\\+$", lambda match: match[0] * 2, inner) + "'"


def override(key: str, value: object) -> str:
    """`key=value` in Hydra's grammar, quoted only where it must be: a value that is read back as its text.

    >>> override("training.resume", "runs/a b/last.ckpt")
    "training.resume='runs/a b/last.ckpt'"
    """
    text = str(value)
    plain = _PLAIN.fullmatch(text) and not _LOOKS_LIKE_A_NUMBER.fullmatch(text)
    return f"{key}={text if plain else quoted(text)}"


def advised(key: str, value: object) -> str:
    """The same as a word to paste into a shell."""
    return shlex.quote(override(key, value))


def shell_command(verb: str, words: Sequence[str]) -> str:
    """`detector VERB ...` as a line to paste into bash or zsh. `words` are overrides in Hydra's grammar."""
    return shlex.join(["detector", verb, *words])
