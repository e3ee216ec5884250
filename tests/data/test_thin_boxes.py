"""No box that the reader accepts ends training in an augmentation, which computes in float32."""

from pathlib import Path
from typing import Any

import albumentations
import numpy as np
import pytest
import yaml

from detector.coco.rules import MIN_BOX_SIDE_PX, odd_boxes
from detector.config.paths import config_dir
from detector.data.transforms import Augmentation

AUGMENTATIONS = sorted((config_dir() / "data/augmentation").glob("*.yaml"))


def shipped(path: Path) -> dict[str, Any]:
    """The transforms of a configuration, each applied always."""
    transforms = {}
    for name, options in (yaml.safe_load(path.read_text()) or {}).items():
        options = {key: tuple(v) if isinstance(v, list) else v for key, v in options.items()}
        kind = getattr(albumentations, options.pop("_target_").rpartition(".")[2])
        transforms[name] = kind(**options | {"p": 1})
    return transforms


def boxes_at_the_limit(height: int, width: int) -> np.ndarray:
    """xywh boxes of the least accepted side, and of sides around it, at both ends and inside."""
    sides = MIN_BOX_SIDE_PX * np.array([1, 1.001, 2, 0.1, 1e-3, 1e-6])
    boxes = []
    for side in sides:
        for x in (0, 1 / 3, width / 3, width - 1 / 3, width - side, width - 1e-10, width - 0.5 * side):
            boxes.append([x, 1, side, height / 2])
            boxes.append([width / 4, x * height / width, width / 2, side])
    return np.array(boxes, dtype=np.float64)


@pytest.mark.parametrize("path", AUGMENTATIONS, ids=lambda p: p.stem)
@pytest.mark.parametrize(("height", "width"), [(96, 128), (97, 131), (3, 20_011), (2, 65_535)])
def test_accepted_boxes_pass_every_shipped_augmentation(path: Path, height: int, width: int) -> None:
    boxes = boxes_at_the_limit(height, width)
    sizes = np.tile([height, width], (len(boxes), 1))
    bad = np.any([which for which, _ in odd_boxes(boxes, image_sizes=sizes)], axis=0)
    overlaps = (boxes[:, :2] < [width, height]).all(axis=1)
    accepted = boxes[~bad & overlaps]
    assert len(accepted) > 10
    assert bad.any()
    corners = np.concatenate([accepted[:, :2], accepted[:, :2] + accepted[:, 2:]], axis=1)
    corners = np.clip(corners, 0, [width, height, width, height])
    image = np.zeros((height, width, 3), np.uint8)
    transforms = shipped(path)
    if width > 30_000:  # OpenCV warps no larger images
        transforms.pop("affine", None)
    augment = Augmentation(transforms)
    for seed in range(3):
        _, moved, rows = augment(image, corners, np.arange(len(corners)), seed=seed)
        assert len(moved) == len(rows)


def test_a_refused_box_would_end_training() -> None:
    """Or the rule would be for nothing."""
    flip = Augmentation({"flip": albumentations.HorizontalFlip(p=1)})
    box = np.array([[127.9999999999, 10, 128, 15]])
    with pytest.raises(ValueError, match="x_max is less than or equal to x_min"):
        flip(np.zeros((96, 128, 3), np.uint8), box, np.zeros(1, np.int64), seed=0)
