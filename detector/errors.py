"""What a command tells its user without a traceback, besides a ValueError."""

from __future__ import annotations


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does: what was trained is kept, and said to be."""


class RunError(RuntimeError):
    """A run that was asked for correctly and cannot go on. The message says why, and what to do."""
