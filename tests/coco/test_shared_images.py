"""Images that come twice are told, by name and by content."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from detector.coco.reader import read_coco
from detector.coco.shared_images import note_shared_images
from tests.coco.small_coco import valid, write_dataset, write_image


def log_of(
    root: Path,
    caplog: pytest.LogCaptureFixture,
    *,
    train: dict[str, Any] | None = None,
    val: dict[str, Any] | None = None,
    val_images: str = "images",
) -> str:
    """What is said of the two splits; validation has other images unless it is given some."""
    write_dataset(root, train=train)
    content = val
    if content is None:
        content = valid()
        for seed, image in enumerate(content["images"]):
            image["file_name"] = f"val{seed}.jpg"
            path = root / val_images / image["file_name"]
            write_image(path, height=image["height"], width=image["width"], seed=50 + seed)
    (root / "val.json").write_text(json.dumps(content))
    splits = [
        read_coco(root / f"{name}.json", images_dir=root / folder)
        for name, folder in (("train", "images"), ("val", val_images))
    ]
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        note_shared_images(*splits)
    return caplog.text


def test_different_images_are_nothing_to_tell(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert log_of(tmp_path, caplog) == ""


def test_validation_on_the_training_images_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    words = log_of(tmp_path, caplog, val=valid())
    assert "all 3 validation images are training images" in words
    assert '"a.jpg"' in words


def test_a_part_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = valid()
    content["images"][0]["file_name"] = "other.jpg"
    write_image(tmp_path / "images/other.jpg", height=48, width=64, seed=77)
    assert "2 of 3 validation images are training images" in log_of(tmp_path, caplog, val=content)


def test_copies_in_another_folder_under_other_names_are_seen_by_their_content(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_dataset(tmp_path)
    content = valid()
    for image in content["images"]:
        copy = tmp_path / "val" / f"copy-{image['file_name']}"
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(tmp_path / "images" / image["file_name"], copy)
        image["file_name"] = copy.name
    words = log_of(tmp_path, caplog, val=content, val_images="val")
    assert "all 3 validation images are training images" in words


@pytest.mark.parametrize("name", ["a.jpg", "./a.jpg"])
def test_two_ids_of_one_file_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str) -> None:
    content = valid()
    content["images"].append({**content["images"][0], "id": 99, "file_name": name})
    words = log_of(tmp_path, caplog, train=content)
    assert "1 image file is listed more than once, under 2 ids" in words
    assert '"a.jpg"' in words


def test_every_object_as_an_image_of_its_own_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = valid()
    content["images"] = []
    for annotation in content["annotations"]:
        image = next(i for i in valid()["images"] if i["id"] == annotation["image_id"])
        content["images"].append({**image, "id": 100 + annotation["id"]})
        annotation["image_id"] = 100 + annotation["id"]
    assert "1 image file is listed more than once, under 3 ids" in log_of(tmp_path, caplog, train=content)


def test_copies_in_one_split_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_dataset(tmp_path)
    shutil.copyfile(tmp_path / "images/a.jpg", tmp_path / "images/d.jpg")
    content = valid()
    content["images"].append({**content["images"][0], "id": 99, "file_name": "d.jpg"})
    words = log_of(tmp_path, caplog, train=content)
    assert "2 of 4 image files are 1 images under several names" in words
    assert '"a.jpg" = "d.jpg"' in words
