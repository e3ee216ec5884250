"""Every test runs with the shapes in signatures checked, and leaves logging as it was."""

import logging
from collections.abc import Iterator

import pytest
from jaxtyping import install_import_hook

install_import_hook("detector", "beartype.beartype")


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Hydra sets handlers, on the streams of the test that called it."""
    handlers = list(logging.root.handlers)
    yield
    logging.root.handlers = handlers
