"""The size of a model that a report states."""

from __future__ import annotations

from pathlib import Path

from detector.cli.jobs import context_of
from detector.coco.annotations import Category
from detector.runs.model_size import model_size
from tests.training.tiny import tiny_config


def test_it_is_that_for_the_keypoints_of_the_data() -> None:
    config = context_of(tiny_config(Path("/data"), Path("/run"), "model=keypoint_rcnn_small")).config

    def parameters(num_keypoints: int) -> int:
        names = tuple(f"point {number}" for number in range(num_keypoints))
        return model_size(config, [Category(1, "shape", "", names)]).parameters

    weights_of_one = 64 * 4 * 4 + 1  # of the last layer, a transposed convolution
    assert parameters(5) - parameters(2) == 3 * weights_of_one
