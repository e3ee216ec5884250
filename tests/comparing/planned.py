"""Runs that were planned, without what it takes to plan them."""

from __future__ import annotations

from pathlib import Path

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
            config={"training": {"max_epochs": 1, "devices": 1}},
            data=DataFacts("", 1, {"annotations": [{"id": 0}] * 1000}, read_image=None),
            size=ModelSize(1, 1, 1, 1),
            folder=folder / str(seed),
        )
        for seed in range(count)
    ]
