"""A split without anything to learn or to score is an error; what is missing in part is told."""

import logging
from pathlib import Path
from typing import Any

import pytest

from detector.data.datamodule import DetectionDataModule
from detector.data.transforms import ImageSize
from tests.coco.small_coco import valid, write_dataset

SIZE = ImageSize(48, 64)


def set_up(
    root: Path,
    *,
    train: dict[str, Any] | None = None,
    val: dict[str, Any] | None = None,
    size: ImageSize = SIZE,
    **options: Any,
) -> DetectionDataModule:
    write_dataset(root, train=train, val=val)
    module = DetectionDataModule(
        root=str(root), image_size=size, batch_size=1, val_batch_size=1, num_workers=0, seed=0, **options
    )
    module.setup("fit")
    return module


def crowds() -> dict[str, Any]:
    return valid() | {"annotations": [a | {"iscrowd": 1} for a in valid()["annotations"]]}


def no_width() -> dict[str, Any]:
    return valid() | {"annotations": [a | {"bbox": [1, 2, 0, 4]} for a in valid()["annotations"]]}


@pytest.mark.parametrize(("split", "purpose"), [("train", "train on"), ("val", "validate on")])
@pytest.mark.parametrize(
    ("content", "options", "why"),
    [
        (crowds(), {}, "all 4 annotations are crowds"),
        (valid() | {"annotations": []}, {}, "is empty"),
        (
            no_width(),
            {"on_bad_box": "drop"},
            "all 4 annotations are left out because of data.on_bad_box=drop",
        ),
    ],
)
def test_a_split_without_objects_is_an_error(
    tmp_path: Path, split: str, purpose: str, content: Any, options: dict[str, Any], why: str
) -> None:
    with pytest.raises(ValueError, match=f"no object to {purpose}: .*{why}") as error:
        set_up(tmp_path, **{split: content}, **options)
    assert str(tmp_path / f"{split}.json") in str(error.value)


def test_objects_of_skipped_images_are_none(tmp_path: Path) -> None:
    content = valid()
    for image in content["images"][:2]:
        image["file_name"] = "gone.jpg"
    with pytest.raises(ValueError, match="all 4 annotations are left out with their images"):
        set_up(tmp_path, train=content, on_bad_image="skip")


def test_problems_of_both_splits_come_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no object to train on") as error:
        set_up(tmp_path, train=crowds(), val=valid() | {"annotations": []})
    assert "no object to validate on" in str(error.value)
    with pytest.raises(ValueError, match=r"train\.json") as error:
        set_up(tmp_path, train=no_width(), val=no_width())
    assert "val.json" in str(error.value)


def test_more_crowds_than_objects_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = crowds()
    content["annotations"][0]["iscrowd"] = 0
    with caplog.at_level(logging.WARNING):
        set_up(tmp_path, train=content)
    assert "3 of 4 annotations are crowds" in caplog.text


def test_a_class_without_training_boxes_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = valid()
    content["annotations"] = [a for a in content["annotations"] if a["category_id"] != 0]
    with caplog.at_level(logging.WARNING):
        set_up(tmp_path, train=content)
    assert '1 of 2 classes have no box to train on: "blood" (1 in validation)' in caplog.text


def test_all_classes_with_boxes_are_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        set_up(tmp_path)
    assert "no box to train on" not in caplog.text
    assert "less than a pixel" not in caplog.text


def test_boxes_that_vanish_by_resizing_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """64 x 48 becomes 16 x 12: a quarter."""
    content = valid()
    content["annotations"][0]["bbox"] = [1, 2, 3, 12]  # 0.8 px
    content["annotations"][1]["bbox"] = [5, 6, 0.02, 10]  # 0.005 px
    with caplog.at_level(logging.WARNING):
        set_up(tmp_path, train=content, size=ImageSize((12, 48), 64))
    assert "of 3 boxes 2 are less than a pixel" in caplog.text
    assert "1 of them vanish" in caplog.text


def test_all_boxes_vanishing_by_resizing_is_an_error(tmp_path: Path) -> None:
    content = valid()
    content["annotations"] = [content["annotations"][1] | {"bbox": [5, 6, 0.02, 10]}]
    with pytest.raises(ValueError, match="all 1 boxes vanish"):
        set_up(tmp_path, train=content, size=ImageSize(12, 16))


def root_of_same_name(*, used: bool = False) -> dict[str, Any]:
    """Roboflow's export of a project that has the name of a class."""
    content = valid()
    content["categories"] = [
        {"id": 7, "name": "cell", "supercategory": "none"},
        {"id": 20, "name": "cell", "supercategory": "cell"},
        {"id": 0, "name": "blood", "supercategory": "cell"},
    ]
    if used:
        content["categories"][0]["name"] = "root"
        for category in content["categories"][1:]:
            category["supercategory"] = "root"
    return content


@pytest.mark.parametrize("one_class", [False, True])
def test_data_is_opened_again_as_training_decided(tmp_path: Path, one_class: bool) -> None:
    content = root_of_same_name()
    if one_class:
        del content["categories"][2]
        for annotation in content["annotations"]:
            annotation["category_id"] = 20
    trained = set_up(tmp_path, train=content, val=content)
    again = DetectionDataModule(
        root=str(tmp_path),
        image_size=ImageSize(48, 64),
        batch_size=1,
        val_batch_size=1,
        num_workers=0,
        seed=0,
    )
    again.know_classes(trained.class_names)
    again.setup("validate")
    assert again.class_names == trained.class_names
    assert again.category_ids == trained.category_ids


def test_a_root_that_training_has_boxes_of_stays_a_class_of_a_validation_without(tmp_path: Path) -> None:
    train, val = root_of_same_name(used=True), root_of_same_name(used=True)
    train["annotations"][0]["category_id"] = 7
    trained = set_up(tmp_path, train=train, val=val)
    assert "root" in trained.class_names
    again = DetectionDataModule(
        root=str(tmp_path),
        image_size=ImageSize(48, 64),
        batch_size=1,
        val_batch_size=1,
        num_workers=0,
        seed=0,
    )
    again.know_classes(trained.class_names)
    again.setup("validate")
    assert again.class_names == trained.class_names
