"""What a command tells its user without a traceback, besides a ValueError."""

from __future__ import annotations


class RunError(RuntimeError):
    """A run that was asked for correctly and cannot go on. The message says why, and what to do."""
