"""Samples and batches with masks and keypoints, from files."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import albumentations as A
import pytest
import torch

from detector.data.collate import collate
from detector.data.datamodule import DetectionDataModule
from detector.data.transforms import ImageSize
from detector.option_types import TaskName
from tests.coco.small_coco import valid, write_dataset
from tests.shared import shared_path

NAMES = ["left", "right", "tip"]
BOTH: tuple[TaskName, ...] = ("bbox", "segm", "keypoints")


def shaped() -> dict[str, Any]:
    """Polygons, run lengths of a crowd, an object without a mask, keypoints of one class of two."""
    content = valid()
    first, second, crowd, third = content["annotations"]
    content["categories"][0] |= {"keypoints": NAMES, "skeleton": [[1, 2]]}
    first |= {"segmentation": [[1, 2, 11, 2, 11, 14, 1, 14]], "keypoints": [2, 3, 2, 6, 7, 1, 0, 0, 0]}
    second["segmentation"] = [[5.25, 6.5, 25.25, 6.5, 5.25, 16.5]]
    crowd["segmentation"] = {"size": [48, 64], "counts": [0, 480, 48 * 64 - 480]}
    third["keypoints"] = [52, 32, 2, 70, 40, 2, 60, 44, 2]
    return content


def set_up(root: Path, *, tasks: tuple[TaskName, ...] = BOTH, **options: Any) -> DetectionDataModule:
    defaults: dict[str, Any] = {"image_size": ImageSize(24, 32), "batch_size": 2, "val_batch_size": 3}
    module = DetectionDataModule(root=str(root), seed=0, **({"num_workers": 0} | defaults | options))
    if tasks:
        module.use_tasks(tasks)
    module.setup("fit")
    return module


def written(root: Path, **splits: Any) -> Path:
    return write_dataset(root, **({"train": shaped(), "val": shaped()} | splits))


def test_batches_carry_masks_and_keypoints(tmp_path: Path) -> None:
    (batch,) = set_up(written(tmp_path)).val_dataloader()
    targets = batch.targets
    assert targets.valid.tolist() == [[True, True], [True, False], [False, False]]
    coverage = targets.masks.coverage.float().mean(dim=(2, 3)) / 255
    torch.testing.assert_close(coverage, torch.tensor([[0.5, 0], [1, 0], [0, 0]]), atol=0.01, rtol=0)
    assert targets.masks.coverage.dtype == torch.uint8
    assert targets.keypoints.xy.shape == (3, 2, 3, 2)
    # The second point of the second object lies outside its image, which is halved.
    assert targets.keypoints.visibility[0].tolist() == [[0, 0, 0], [2, 0, 2]]
    torch.testing.assert_close(targets.keypoints.xy[0, 1], torch.tensor([[26.0, 16], [0, 0], [30, 22]]))
    assert targets.keypoints.visibility[1].tolist() == [[2, 1, 0], [0, 0, 0]]


def test_without_tasks_nothing_is_read(tmp_path: Path) -> None:
    module = set_up(written(tmp_path), tasks=())
    (batch,) = module.val_dataloader()
    assert batch.targets.masks is None
    assert batch.targets.keypoints is None
    assert module.keypoint_schemas == ()
    assert module.train_set.annotations.masks is None


def test_one_task_alone(tmp_path: Path) -> None:
    sample = set_up(written(tmp_path), tasks=("bbox", "segm")).val_set[0]
    assert sample.masks is not None
    assert sample.keypoints is None


def test_schemas_are_those_of_the_classes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        blood, cell = set_up(written(tmp_path)).keypoint_schemas
    assert blood is None
    assert cell is not None
    assert cell.names == tuple(NAMES)
    assert cell.flip_permutation() == (1, 0, 2)
    assert (
        '"cell" has 3 keypoints; flipped images swap left and right; the sigma 0.05 for each' in caplog.text
    )


def test_flipped_samples_swap_left_and_right(tmp_path: Path) -> None:
    flip = {"flip": A.HorizontalFlip(p=1)}
    module = set_up(written(tmp_path), augmentation=flip, image_size=ImageSize(40, 60))
    sample = module.train_set[0, 1]  # 60 x 40, as it is
    assert sample.keypoints is not None
    assert sample.keypoints.visibility.tolist() == [[1, 2, 0]]
    torch.testing.assert_close(sample.keypoints.xy[0], torch.tensor([[34.0, 7], [38, 3], [0, 0]]))


def test_workers_load_the_same(tmp_path: Path) -> None:
    alone, shared = (set_up(written(tmp_path), num_workers=workers) for workers in (0, 1))
    for one, other in zip(alone.val_dataloader(), shared.val_dataloader(), strict=True):
        assert [*map(torch.equal, one.tensors(), other.tensors())] == [True] * 10


def test_images_without_objects_have_shapes_too(tmp_path: Path) -> None:
    batch = collate([set_up(written(tmp_path)).val_set[2]])
    assert batch.targets.masks is not None
    assert batch.targets.masks.coverage.shape[:2] == (1, 0)


def unmasked() -> dict[str, Any]:
    content = shaped()
    for one in content["annotations"]:
        if not one["iscrowd"]:
            one.pop("segmentation", None)
    return content


def unlabeled() -> dict[str, Any]:
    content = shaped()
    for one in content["annotations"]:
        one.pop("keypoints", None)
    return content


def renamed() -> dict[str, Any]:
    content = shaped()
    content["categories"][0]["keypoints"] = [*reversed(NAMES)]
    return content


def unnamed() -> dict[str, Any]:
    content = unlabeled()
    del content["categories"][0]["keypoints"]
    return content


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (unmasked(), r"train\.json: no mask: none of its 3 objects has a segmentation"),
        (unlabeled(), r"train\.json: none of its 3 objects has a keypoint with visibility 1 or 2"),
        (unnamed(), r"train\.json: no category names its keypoints"),
        (renamed(), r'"cell" has the keypoints tip, right, left in .*train.json and left, right, tip in'),
    ],
)
def test_a_split_without_shapes_is_an_error(tmp_path: Path, train: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        set_up(written(tmp_path, train=train))


def test_bad_shapes_are_errors_or_dropped(tmp_path: Path) -> None:
    content = shaped()
    content["annotations"][0]["keypoints"] = [1, 2, 2]
    content["annotations"][1]["segmentation"] = [[1, 2, 3, 4]]
    root = written(tmp_path, train=content)
    with pytest.raises(ValueError, match="2 annotation problems") as error:
        set_up(root)
    assert 'image 3 ("b.jpg"), annotation 0: keypoints has 3 numbers' in str(error.value)
    assert 'image 7 ("a.jpg"), annotation 4: segmentation has the four numbers' in str(error.value)
    with pytest.raises(ValueError, match="no mask"):  # what is left has none
        set_up(root, on_bad_box="drop")


@pytest.mark.parametrize(
    ("keypoints", "message"),
    [
        (["a", "b", "a"], 'category id 20 "cell": its keypoints name .a. 2 times. Give each keypoint a name'),
        (["a", 7], r'category id 20 "cell": its keypoints \[.*7\] are no list of names'),
        ("a", "are no list of names"),
    ],
)
def test_odd_names_of_keypoints_are_told(tmp_path: Path, keypoints: Any, message: str) -> None:
    content = unlabeled()
    content["categories"][0]["keypoints"] = keypoints
    root = written(tmp_path, train=content, val=content)
    with pytest.raises(ValueError, match=message):
        set_up(root)
    set_up(root, tasks=("bbox", "segm"))  # which need no keypoints


def test_areas_that_are_missing_are_told_once_and_truly(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = shaped()
    for one in content["annotations"]:
        del one["area"]
    set_up(written(tmp_path, train=content))
    (note,) = [record.message for record in caplog.records if 'no "area"' in record.message]
    assert "width x height of the box is used, and 0.53 of it where keypoints are compared" in note


def test_real_masks_become_batches(tmp_path: Path) -> None:
    """Four images of COCO, its crowds left out."""
    root = shared_path("data/coco_cc")
    content = json.loads((root / "val.json").read_text())
    content["images"] = content["images"][:4]
    ids = {image["id"] for image in content["images"]}
    content["annotations"] = [one for one in content["annotations"] if one["image_id"] in ids]
    for split in ("train", "val"):
        (tmp_path / f"{split}.json").write_text(json.dumps(content))
    (tmp_path / "images").symlink_to(root / "images")
    module = set_up(tmp_path, tasks=("bbox", "segm"), val_batch_size=4, image_size=ImageSize(240, 320))
    (batch,) = module.val_dataloader()
    assert batch.targets.masks.coverage[batch.targets.valid].amax(dim=(1, 2)).min() > 100
