"""Quoting of overrides for Hydra's grammar and of commands for a shell."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

# Hydra reads these as a string without quotes: no number, no list, no YAML keyword.
_PLAIN = re.compile(r"(?!(?:null|true|false|nan|inf)$)[A-Za-z_./][A-Za-z0-9_./-]*", re.IGNORECASE)
_LOOKS_LIKE_A_NUMBER = re.compile(r"[.0-9_eE+-]+")


def quoted(text: str) -> str:
    r"""Return `text` as a quoted string of Hydra's grammar, with no interpolation inside it.

    The text ??? cannot be written: OmegaConf takes it for a missing value, in quotes too.

    >>> print(quoted("it's"))
    'it\'s'
    """
    # OmegaConf takes "${" for the start of an interpolation, unless a backslash precedes it.
    literal = re.sub(r"(\\*)\$\{", lambda match: f"{match[1] * 2}\\${{", text)
    # A backslash counts as one only where it precedes a quote: inside, or the closing one.
    inner = re.sub(r"(\\*)'", lambda match: f"{match[1] * 2}\\'", literal)
    return "'" + re.sub(r"\\+$", lambda match: match[0] * 2, inner) + "'"


def override(key: str, value: object) -> str:
    """Return `key=value` in Hydra's grammar, quoted only if needed for the value to be read as text.

    >>> override("training.resume", "runs/a b/last.ckpt")
    "training.resume='runs/a b/last.ckpt'"
    """
    text = str(value)
    plain = _PLAIN.fullmatch(text) and not _LOOKS_LIKE_A_NUMBER.fullmatch(text)
    return f"{key}={text if plain else quoted(text)}"


def advised(key: str, value: object) -> str:
    """Return `override(key, value)` as a word to paste into a shell."""
    return shlex.quote(override(key, value))


def shell_command(verb: str, words: Sequence[str]) -> str:
    """Return `detector VERB ...` as a line for bash or zsh. `words` are overrides in Hydra's grammar."""
    return shlex.join(["detector", verb, *words])
