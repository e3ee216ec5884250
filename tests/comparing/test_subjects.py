"""What finished runs are compared by."""

from __future__ import annotations

from pathlib import Path

import yaml

from detector.comparing.subjects import _config_of
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
