"""`detector compare` with more metrics than COCO's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from detector.cli.main import main
from detector.commands import compare
from detector.comparing.plan import PlannedRun
from detector.exceptions import RunError
from tests.evaluation.worlds import run_of, world
from tests.training.tiny import tiny_overrides, write_dataset

MISSED = "+evaluation.metrics.missed={_target_: tests.extensions.metric.Missed}"


def detector(*arguments: object) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["detector", "compare", *map(str, arguments)])
        return main()


def test_a_metric_of_ones_own_has_an_interval(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    truth = world(30, random)
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    for name, skill in (("a", 0.5), ("b", 0.9)):
        (tmp_path / f"{name}.json").write_text(json.dumps(run_of(truth, random, skill=skill)))
    words = (f"predictions=[{tmp_path}/a.json,{tmp_path}/b.json]", f"annotations={tmp_path}/gt.json")
    allowed = "+allow_targets=[tests.extensions.]"
    assert detector(*words, f"output_dir={tmp_path}/out", "num_resamples=50", MISSED, allowed) == 0
    (condition,) = json.loads((tmp_path / "out" / "comparison.json").read_text())["conditions"]
    difference = condition["comparisons"]["b.json"]["metrics"]["Missed50"]
    assert difference["low"] < difference["delta"] < difference["high"] < 0
    assert difference["a"] == condition["metrics"]["a.json"]["0"]["Missed50"]


def test_only_the_monitor_makes_another_run_of_a_metric(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The values of others are computed from the predictions, which they do not change."""
    planned: list[PlannedRun] = []

    def stop(runs: list[PlannedRun], **_: object) -> dict[Path, str]:
        planned.extend(runs)
        raise RunError("planned")

    monkeypatch.setattr(compare, "train_all", stop)
    words = (
        *(w for w in tiny_overrides(write_dataset(tmp_path / "data"), tmp_path / "out") if "name=" not in w),
        f"runs_dir={tmp_path / 'runs'}",
        "compare.stages=[5]",
        "+allow_targets=[tests.extensions.]",
    )
    assert detector(*words, "training.monitor=Missed50") == 2
    assert "training.monitor=Missed50: expected one of AP, AP50," in capsys.readouterr().err
    for more in ((), (MISSED,), (MISSED, "training.monitor=Missed50")):
        assert detector(*words, *more) == 1
    folders = [run.folder for run in planned]
    assert folders[:2] == folders[2:4]
    assert not {*folders[:2]} & {*folders[4:]}
