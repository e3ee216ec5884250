"""The plan of a training says what it is trained on."""

from pathlib import Path

from detector.coco.reader import read_coco
from detector.commands.train import contents
from detector.data.dataset import CocoDataset
from detector.data.transforms import ImageSize
from tests.coco.small_coco import write_dataset


def test_objects_and_crowds_stand_beside_the_images(tmp_path: Path) -> None:
    root = write_dataset(tmp_path)
    annotations = read_coco(root / "train.json", images_dir=root / "images")
    dataset = CocoDataset(annotations, image_size=ImageSize(48, 64))
    assert contents(dataset, "training") == "3 training images with 3 objects and 1 crowd"
