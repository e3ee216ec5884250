"""Every test runs with the shapes in signatures checked, and leaves logging as it was."""

import logging
import os
import signal
from collections.abc import Iterator

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch is loaded; more threads than cores wait
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# Before triton is loaded, by torch or by us: its kernels run on a CPU. With 0, those tests need a GPU.
os.environ.setdefault("TRITON_INTERPRET", "1")

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # of a job in the background; processes would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest
from jaxtyping import install_import_hook

install_import_hook("detector", "beartype.beartype")


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Hydra sets handlers, on the streams of the test that called it, and levels, with hydra.verbose for one.

    At the level of debugging, it composes each configuration of the tests that follow once more, to print it.
    """
    loggers = (logging.root, logging.getLogger("hydra"))
    handlers, levels = list(logging.root.handlers), [logger.level for logger in loggers]
    yield
    logging.root.handlers = handlers
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
