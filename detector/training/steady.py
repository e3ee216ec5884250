"""Log writing whose failures do not end a training."""

from __future__ import annotations

import logging
from collections.abc import Callable

_log = logging.getLogger(__name__)


class Steady:
    """A caller of functions that write a log, which survives their failures.

    After a system error (a full disk, a closed pipe) it warns once and keeps calling: the next write may
    succeed. `then` is the last sentence of the warning.
    """

    def __init__(self, name: str, *, then: str = "Training goes on.") -> None:
        self._name, self._then = name, then
        self._has_warned = False

    def __call__(self, write: Callable[[], object]) -> None:
        try:
            write()
        except OSError as error:
            if not self._has_warned:
                self._has_warned = True
                _log.warning("%s is not complete: %s. %s", self._name, error, self._then)
