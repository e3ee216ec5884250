"""The plan of a training says what it is trained on."""

from pathlib import Path
from typing import Any

import pytest

from detector.coco.reader import read_coco
from detector.data.datamodule import DetectionDataModule
from detector.data.dataset import CocoDataset
from detector.data.transforms import ImageSize
from detector.data.warped_shapes.source import WarpedShapes
from detector.runs.parts import weights_note
from detector.runs.training_plan import contents
from tests.coco.small_coco import write_dataset


def test_objects_and_crowds_stand_beside_the_images(tmp_path: Path) -> None:
    root = write_dataset(tmp_path)
    annotations = read_coco(root / "train.json", images_dir=root / "images")
    dataset = CocoDataset(annotations, image_size=ImageSize(48, 64))
    assert contents(dataset, "training") == "3 training images with 3 objects and 1 crowd"


def data(**options: Any) -> DetectionDataModule:
    sizes: dict[str, Any] = {"batch_size": 1, "val_batch_size": 1, "num_workers": 0, "seed": 0}
    return DetectionDataModule(root="x", image_size=ImageSize(8, 8), **sizes, **options)


RANDOM: dict[str, Any] = {"weights": None, "backbone": {"weights": None, "frozen_stages": 0}}


@pytest.mark.parametrize("weights", [{"weights": "x.pth"}, {"backbone": {"weights": "IMAGENET1K_V1"}}])
def test_weights_of_a_model_or_of_its_backbone_need_no_note(weights: dict[str, Any]) -> None:
    assert weights_note([{**RANDOM, **weights}], data()) == ""
    assert weights_note([RANDOM, {**RANDOM, **weights}], data()) == ""


def test_random_weights_are_noted_with_the_models_that_have_others() -> None:
    assert "model=fcos_coco" in weights_note([RANDOM], data())


def test_frozen_random_stages_are_noted() -> None:
    note = weights_note([{**RANDOM, "backbone": {"weights": None, "frozen_stages": 2}}], data())
    assert "model.backbone.frozen_stages" in note
    assert "model=fcos_coco" not in note


def test_random_weights_are_right_for_drawn_images() -> None:
    assert weights_note([RANDOM], data(source=WarpedShapes())) == ""
