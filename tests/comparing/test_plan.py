"""What decides whether a run of a comparison is one that was trained before."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from detector.cli.jobs import context_of
from detector.comparing.plan import _identity
from tests.training.tiny import tiny_config


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return dict(context_of(tiny_config(Path("/data"), Path("/run"))).config)


@pytest.mark.parametrize(
    ("option", "default", "other"),
    [
        ("boxes_from_masks", False, True),
        ("keypoint_flip_pairs", None, [["left", "right"]]),
        ("keypoint_sigmas", None, [0.1]),
    ],
)
def test_an_option_that_came_later_changes_no_run_at_its_default(
    config: dict[str, Any], option: str, default: object, other: object
) -> None:
    def identity(**data: object) -> dict[str, Any]:
        changed = copy.deepcopy(config)
        changed["data"] = {key: value for key, value in changed["data"].items() if key != option} | data
        return _identity(changed)

    assert identity() == identity(**{option: default}) != identity(**{option: other})
