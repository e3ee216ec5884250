"""How the processes of a loader end."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

_OF_A_GROUP = ("SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")


def leave_signals_to_parent() -> None:
    """In a worker: what timeout(1), a terminal or a scheduler sends to all processes of a job is for the main
    one, which ends its workers. The parent's own SIGTERM, and one after its end, still ends the worker.

    A worker that died of the signal of a job would be an error of the run there, told before its own end.
    """
    if not hasattr(signal, "sigwaitinfo"):  # it tells who sent the signal; macOS and Windows lack it
        return
    for name in _OF_A_GROUP:
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    arguments = (os.getppid(), lambda: os._exit(0))
    threading.Thread(target=end_with_parent, args=arguments, daemon=True).start()


def end_with_parent(parent: int, end: Callable[[], object]) -> None:
    """Wait for a SIGTERM, blocked in all threads, that `parent` sent or that came after its end."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent and os.getppid() == parent:
        pass
    end()
