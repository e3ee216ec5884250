"""What commands say to their user."""

from __future__ import annotations

import sys


def say(text: str = "", *, error: bool = False) -> None:
    """Print a line at once, to stderr where it tells of an `error`."""
    print(text, file=sys.stderr if error else sys.stdout, flush=True)
