"""The signal handling of loader processes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

_OF_A_GROUP = ("SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")


def leave_signals_to_parent() -> None:
    """Make a worker ignore the signals that a job gets as a whole, as the main process ends its workers.

    timeout(1), a terminal or a scheduler sends them to all processes of the job. A SIGTERM from the parent,
    or one after its end, still ends the worker. A worker that died of the job's signal would be reported as
    an error of the run, before the run itself ends.
    """
    if not hasattr(signal, "sigwaitinfo"):  # it gives the sender; macOS and Windows lack it
        return
    for name in _OF_A_GROUP:
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    arguments = (os.getppid(), lambda: os._exit(0))
    threading.Thread(target=end_with_parent, args=arguments, daemon=True).start()


def end_with_parent(parent: int, end: Callable[[], object]) -> None:
    """Call `end` on a SIGTERM (blocked in all threads) that `parent` sent or that came after its end."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent and os.getppid() == parent:
        pass
    end()
