"""Errors that a command reports without a traceback, besides ValueError."""

from __future__ import annotations

import re
import signal


class Terminated(KeyboardInterrupt):
    """A signal that ends a command as Ctrl-C does: training results are kept, and the user is told so."""

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__(number)
        self.number = number


def exit_code(interrupt: BaseException | None) -> int:
    """Return the exit code that shells use for an end by a signal: 128 plus its number."""
    return 128 + (interrupt.number if isinstance(interrupt, Terminated) else signal.SIGINT)


def interrupted(interrupt: BaseException | None) -> str:
    """Describe the interrupt; signals other than SIGINT and SIGTERM are named."""
    number = interrupt.number if isinstance(interrupt, Terminated) else signal.SIGINT
    is_named = number not in (signal.SIGINT, signal.SIGTERM)
    return f"Interrupted by {signal.Signals(number).name}" if is_named else "Interrupted"


class RunError(RuntimeError):
    """A correctly requested run cannot go on. The message says why, and what to do."""


class DetectorError(Exception):
    """A message about wrong options or data, or about a run that cannot go on; raised by Python functions."""

    def _render_traceback_(self) -> list[str]:
        """Let a notebook show the message alone."""
        return [f"{type(self).__name__}: {self}"]


class SharedError(RunError):
    """An error that every process of a run raises at the same place; the first reports it for all."""


def out_of_memory_message(error: BaseException) -> str | None:
    """Describe which memory ran out and how much was requested; return None for other errors.

    torch, numpy, OpenCV and Python each word it in their own way.
    """
    text = str(error)
    is_gpu = type(error).__name__ == "OutOfMemoryError" or "out of memory" in text
    is_cpu = isinstance(error, MemoryError) or any(words in text for words in _CPU_MEMORY_ERRORS)
    if not (is_gpu or is_cpu):
        return None
    match = re.search(r"(?:allocate|alloc(?:ated?)?:?) (\d[\d.]*) ?([KMGT]i?B|bytes)?", text)
    amount = "" if match is None else f": {_shown(match[1], match[2])} more were requested"
    return f"The memory of the {'GPU' if is_gpu else 'machine'} is not enough{amount}"


_CPU_MEMORY_ERRORS = (
    "can't allocate memory",  # torch's DefaultCPUAllocator, on Linux
    "not enough memory: you tried to allocate",  # on Windows
    "Insufficient memory",  # OpenCV
    "std::bad_alloc",
)


def _shown(number: str, unit: str | None) -> str:
    if unit not in (None, "bytes"):
        return f"{number} {unit}"
    return f"{float(number) / 1e9:.3g} GB"
