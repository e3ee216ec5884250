"""One subject compared."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from detector.comparing.compared import changed_images, compared
from detector.comparing.subjects import Subject
from detector.evaluation import coco
from detector.evaluation.coco import CocoEvaluator
from tests.evaluation.worlds import run_of, world


def test_each_run_is_matched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two variants with two seeds: metrics, errors and galleries share the matches of a run."""
    random = np.random.default_rng(0)
    truth = world(10, random)
    results = {variant: {seed: run_of(truth, random, skill=0.7) for seed in (0, 1)} for variant in ("a", "b")}
    calls: list[Any] = []
    match = coco.match
    monkeypatch.setattr(
        coco,
        "match",
        lambda *arguments: (
            calls.append(arguments)  # type: ignore[func-returns-value]  # None, so that the call follows
            or match(*arguments)
        ),
    )

    def white(image_id: Any) -> np.ndarray:
        return np.zeros((8, 8, 3), dtype=np.uint8)

    condition, models = compared(
        Subject("", CocoEvaluator(truth), results, read_image=white), num_resamples=5
    )
    (changes,) = changed_images(models, pairs=1)
    assert len(calls) == 4
    assert condition.errors.keys() == {"a", "b"}
    assert changes.gallery is not None
    assert [model["name"] for model in changes.gallery["models"]] == ["a", "b"]
