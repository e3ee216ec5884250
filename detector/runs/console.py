"""Messages of commands to their user."""

from __future__ import annotations

import sys


def echo(text: str = "", *, error: bool = False) -> None:
    """Print a line without buffering, to stderr if it is an `error`."""
    print(text, file=sys.stderr if error else sys.stdout, flush=True)
