"""The plan of a training says what it is trained on."""

from pathlib import Path
from typing import Any

import pytest

from detector.coco.reader import read_coco
from detector.commands.train import contents
from detector.data.datamodule import DetectionDataModule
from detector.data.dataset import CocoDataset
from detector.data.transforms import ImageSize
from detector.data.warped_shapes.source import WarpedShapes
from detector.factory import Factory
from detector.models.detector import build_detector
from detector.runs.parts import weights_note
from tests.coco.small_coco import write_dataset


def test_objects_and_crowds_stand_beside_the_images(tmp_path: Path) -> None:
    root = write_dataset(tmp_path)
    annotations = read_coco(root / "train.json", images_dir=root / "images")
    dataset = CocoDataset(annotations, image_size=ImageSize(48, 64))
    assert contents(dataset, "training") == "3 training images with 3 objects and 1 crowd"


def model(**arguments: Any) -> Factory:
    return Factory(build_detector, arguments, dict)


def data(**options: Any) -> DetectionDataModule:
    sizes: dict[str, Any] = {"batch_size": 1, "val_batch_size": 1, "num_workers": 0, "seed": 0}
    return DetectionDataModule(root="x", image_size=ImageSize(8, 8), **sizes, **options)


@pytest.mark.parametrize(
    ("backbone", "weights", "is_told"),
    [(None, None, True), (None, "x.pth", False), ("IMAGENET1K_V1", None, False)],
)
def test_random_weights_are_told_with_the_models_that_have_others(
    backbone: str | None, weights: str | None, is_told: bool
) -> None:
    make = model(weights=weights, backbone={"_target_": "detector.backbones.ResNet", "weights": backbone})
    note = weights_note(make, data())
    assert ("model=fcos_coco" in note) == is_told
    assert bool(note) == is_told


def test_random_weights_are_right_for_drawn_images() -> None:
    assert weights_note(model(weights=None), data(source=WarpedShapes())) == ""
