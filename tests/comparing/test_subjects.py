"""What finished runs are compared by."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from detector.comparing.subjects import _config_of, _named, _without_times
from detector.run_folder import RunFolder


def test_a_run_of_an_earlier_version_keeps_its_box_loss(tmp_path: Path) -> None:
    files = RunFolder(tmp_path)
    roi = {"_target_": "detector.heads.RoIHead", "box_loss": "smooth_l1", "smooth_l1_beta": 0.5}
    training = {"max_epochs": 1, "early_stopping_patience": None}
    files.config.write_text(yaml.safe_dump({"model": {"head": {"roi": roi}}, "training": training}))
    files.predictions.write_text("[]")
    files.write_epochs([{"epoch": 1, "images_seen": 8, "seconds": 1.0, "images_per_second": 8.0}])
    now = _config_of(tmp_path)["model"]["head"]["roi"]
    assert now["box_loss"] == {"_target_": "detector.ops.SmoothL1", "beta": 0.5}
    assert "smooth_l1_beta" not in now


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["runs/fcos/2026-12-01_10-00-00", "runs/rcnn/2026-12-01_11-00-00"], ["fcos", "rcnn"]),
        (["a/fcos/2026-12-01_10-00-00", "b/fcos/2026-12-01_10-00-00"], ["a/fcos", "b/fcos"]),
        (["runs/one", "runs/two"], ["one", "two"]),
        (["runs/2026-12-01_10-00-00", "runs/2026-12-02"], ["2026-12-01_10-00-00", "2026-12-02"]),
    ],
)
def test_runs_are_named_without_times_where_that_tells_them_apart(paths: list[str], names: list[str]) -> None:
    assert [*_named("runs", paths)] == names


def test_runs_that_only_their_time_tells_apart_are_named_by_their_options() -> None:
    named = {"2026-12-01_10-00-00": [Path("a")], "2026-12-01_11-00-00": [Path("b")]}
    configs = {
        name: [{"name": "fcos", "seed": seed, "optimizer": {"lr": lr}}]
        for seed, (name, lr) in enumerate(zip(named, (0.1, 0.2), strict=True))
    }
    renamed, by_name = _without_times(named, configs)
    assert renamed == {"fcos, lr=0.1": [Path("a")], "fcos, lr=0.2": [Path("b")]}
    assert by_name["fcos, lr=0.2"][0]["seed"] == 1
    alike = {name: [{"name": "fcos", "seed": 0}] for name in named}
    assert _without_times(named, alike)[0] == named
