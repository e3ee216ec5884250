"""Runs that were planned, without what it takes to plan them."""

from __future__ import annotations

from pathlib import Path

from detector.coco.ground_truth import GroundTruth
from detector.coco.truth_reader import read_ground_truth
from detector.comparing.plan import DataFacts, PlannedRun
from detector.reports.study import ModelSize


def planned_runs(folder: Path, count: int) -> list[PlannedRun]:
    """One variant with `count` seeds."""
    return [
        PlannedRun(
            condition="",
            variant="regular",
            seed=seed,
            overrides=(),
            config={"training": {"max_epochs": 1, "devices": 1}, "model": {}},
            data=DataFacts("", _many_annotations(), read_image=None),
            size=ModelSize(1, 1, 1, 1),
            folder=folder / str(seed),
        )
        for seed in range(count)
    ]


def _many_annotations() -> GroundTruth:
    boxes = [{"id": n, "image_id": 1, "category_id": 1, "bbox": [n, n, 9, 9]} for n in range(1000)]
    return read_ground_truth(
        {"images": [{"id": 1}], "categories": [{"id": 1, "name": "a"}], "annotations": boxes}
    )
