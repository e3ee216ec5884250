"""Errors of a configuration: all at once, each with its place, what was expected and the fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class ConfigError(ValueError):
    """An error in a configuration or a command line; `problems` has one line for each mistake."""

    def __init__(self, problems: Sequence[str]) -> None:
        assert problems, "an error needs a reason"
        self.problems = tuple(problems)
        super().__init__(_numbered(self.problems))


def _numbered(problems: Sequence[str]) -> str:
    if len(problems) == 1:
        return problems[0]
    lines = (f"  {i}. {problem}" for i, problem in enumerate(problems, start=1))
    return "\n".join((f"{len(problems)} problems in the configuration:", *lines))


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most similar to `name`, or None if none is similar."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


def did_you_mean(name: str, known: Sequence[str], *, prefix: str = "") -> str:
    """Return a sentence that suggests the name probably meant, or lists the known ones (up to thirty)."""
    match = closest(name, known)
    if match is not None:
        return f" Did you mean {prefix}{match}?"
    if not known:
        return ""
    listed = ", ".join(sorted(known)[:30])
    return f" There are: {listed}{', ...' if len(known) > 30 else ''}."
