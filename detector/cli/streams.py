"""Standard output and error that survive a closed pipe or a full disk, which is reported once."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import BinaryIO, TextIO


class SteadyStream(io.TextIOWrapper):
    """A line-buffered text stream. After a failure, which is reported, further output is dropped."""

    def __init__(self, buffer: BinaryIO, *, name: str, encoding: str, errors: str | None) -> None:
        super().__init__(buffer, encoding=encoding, errors=errors, line_buffering=True)
        self._called = name
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        """Redirect the descriptor to the null device: libraries and child processes write to it too."""
        if self.failure is not None:
            return
        self.failure = error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
        if sys.stderr is not self:
            why = os.strerror(error.errno or 0)
            print(
                f"note: {self._called} cannot be written any more ({why}); what follows is not shown.",
                file=sys.stderr,
            )


def keep_writing() -> None:
    """Replace standard output and error by steady streams."""
    sys.stdout = _steady(sys.stdout, "standard output")
    sys.stderr = _steady(sys.stderr, "standard error")


def _steady(stream: TextIO, name: str) -> TextIO:
    if not isinstance(stream, io.TextIOWrapper):  # None, or a custom stream
        return stream
    with suppress(OSError):
        stream.flush()
    return SteadyStream(stream.buffer, name=name, encoding=stream.encoding, errors=stream.errors)
