"""What only watches a training."""

from __future__ import annotations

import pytest

from detector.training.steady import Steady


def _full() -> None:
    raise OSError("No space left on device")


@pytest.mark.parametrize("then", ["Training goes on.", "The training is complete."])
def test_warning_says_what_is_true_then(then: str, caplog: pytest.LogCaptureFixture) -> None:
    steady = Steady("stopped.txt", then=then)
    steady(_full)
    steady(_full)
    assert [record.getMessage() for record in caplog.records] == [
        f"stopped.txt is not complete: No space left on device. {then}"
    ]
