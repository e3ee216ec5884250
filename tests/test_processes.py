"""Which process of several is the first, before any of them is connected."""

from __future__ import annotations

import pytest

from detector.processes import is_first_process

NAMES = ("TORCHELASTIC_RUN_ID", "RANK", "LOCAL_RANK", "SLURM_NTASKS", "SLURM_PROCID")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, True),
        ({"LOCAL_RANK": "0"}, True),
        ({"LOCAL_RANK": "1"}, False),
        ({"TORCHELASTIC_RUN_ID": "x", "RANK": "2", "LOCAL_RANK": "0"}, False),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "0"}, True),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "1"}, False),
        ({"SLURM_PROCID": "1"}, True),  # a task of its own
        ({"RANK": "3"}, True),  # somebody else's variable
    ],
)
def test_first_process(environment: dict[str, str], expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_first_process() == expected
