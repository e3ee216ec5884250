"""What a command tells its user without a traceback, besides a ValueError."""

from __future__ import annotations

import signal


class Terminated(KeyboardInterrupt):
    """A signal that ends a command as Ctrl-C does: what was trained is kept, and said to be."""

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__(number)
        self.number = number


def exit_code(interrupt: BaseException | None) -> int:
    """What shells call the end by a signal: 128 and its number."""
    return 128 + (interrupt.number if isinstance(interrupt, Terminated) else signal.SIGINT)


def interrupted(interrupt: BaseException | None) -> str:
    """The words for it; a signal that nobody types is named."""
    number = interrupt.number if isinstance(interrupt, Terminated) else signal.SIGINT
    named = number not in (signal.SIGINT, signal.SIGTERM)
    return f"Interrupted by {signal.Signals(number).name}" if named else "Interrupted"


class RunError(RuntimeError):
    """A run that was asked for correctly and cannot go on. The message says why, and what to do."""
