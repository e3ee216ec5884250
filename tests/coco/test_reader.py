"""The strict reader: what it accepts, and what it says about what it does not."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detector.coco.annotations import CocoAnnotations
from detector.coco.reader import read_coco
from tests.coco.small_coco import as_coco, valid, write_dataset, write_image


def read(root: Path, content: dict[str, Any] | str | None = None, **options: Any) -> CocoAnnotations:
    if content is not None:
        text = content if isinstance(content, str) else json.dumps(content)
        (root / "train.json").write_text(text, "utf-8")
    return read_coco(root / "train.json", images_dir=root / "images", **options)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_dataset(tmp_path)


# --- accepted


def test_classes_are_sorted_by_id_whatever_their_order_and_gaps(root: Path) -> None:
    annotations = read(root)
    assert annotations.class_names == ("blood", "cell")
    assert annotations.category_ids == (0, 20)


def test_annotations_lie_with_their_image(root: Path) -> None:
    annotations = read(root)
    assert [annotations.image_id(i) for i in range(3)] == [7, 3, 5]
    assert [annotations.annotation_ids[annotations.rows(i)].tolist() for i in range(3)] == [
        [4, 2, 9],
        [0],
        [],
    ]
    assert annotations.labels[annotations.rows(0)].tolist() == [0, 1, 1]


def test_training_boxes_are_clipped_and_without_crowds(root: Path) -> None:
    boxes, labels = read(root).training_boxes(0)
    assert boxes.tolist() == [[5.25, 6.5, 25.25, 16.5], [50, 30, 64, 48]]
    assert labels.tolist() == [0, 1]


def test_ground_truth_keeps_the_original_boxes_ids_and_crowds(root: Path) -> None:
    truth = as_coco(read(root))
    expected = sorted(valid()["annotations"], key=lambda a: a["id"])
    assert sorted(truth["annotations"], key=lambda a: a["id"]) == expected
    assert truth["images"] == valid()["images"]
    assert [c["id"] for c in truth["categories"]] == [0, 20]


def test_missing_iscrowd_and_area_are_filled(root: Path) -> None:
    content = valid()
    for annotation in content["annotations"]:
        del annotation["iscrowd"], annotation["area"]
    truth = as_coco(read(root, content))["annotations"]
    assert {a["iscrowd"] for a in truth} == {0}
    assert {a["id"]: a["area"] for a in truth} == {0: 120, 4: 200, 2: 900, 9: 1600}


@pytest.mark.parametrize("value", ["1", True, 2])
def test_a_crowd_is_one_however_it_is_written(root: Path, value: object) -> None:
    content = valid()
    content["annotations"][0]["iscrowd"] = value
    ids = {a["id"] for a in as_coco(read(root, content))["annotations"] if a["iscrowd"]}
    assert ids == {content["annotations"][0]["id"], 2}


def test_polygons_change_nothing(root: Path) -> None:
    plain = as_coco(read(root))
    content = valid()
    content["annotations"][0]["segmentation"] = [[1, 2, 3.5, -4e1, 5, 6], [1, 2, 3, 4, 5, 6]]
    content["annotations"][1] = {"segmentation": [], **content["annotations"][1]}
    content["annotations"][2]["segmentation"] = {"counts": [1, 2], "size": [48, 64]}
    content["info"] = {"description": 'a "segmentation": [1] in a text', "segmentation": [[1]]}
    assert as_coco(read(root, content)) == plain


def test_sections_may_come_in_any_order_and_layout(root: Path) -> None:
    plain = as_coco(read(root))
    content = valid()
    turned = {k: content[k] for k in ("annotations", "categories", "images")}
    assert as_coco(read(root, json.dumps(turned, indent=3))) == plain
    assert as_coco(read(root, "\ufeff" + json.dumps(turned, separators=(",", ":")))) == plain


@pytest.mark.parametrize("name", ["фото 日本.jpg", "deep/er/a.jpg", "emoji 🦠.jpg"])
def test_unicode_names_and_sub_folders(root: Path, name: str) -> None:
    write_image(root / "images" / name, height=48, width=64)
    content = valid()
    content["images"][0]["file_name"] = name
    annotations = read(root, content)
    assert annotations.image_path(0) == root / "images" / name


def test_text_image_ids_stay_text(root: Path) -> None:
    content = valid()
    for entry in content["images"]:
        entry["id"] = f"im-{entry['id']}"
    for entry in content["annotations"]:
        entry["image_id"] = f"im-{entry['image_id']}"
    annotations = read(root, content)
    assert annotations.image_id(0) == "im-7"
    assert as_coco(annotations)["annotations"][0]["image_id"] == "im-7"


def test_a_missing_size_is_read_from_the_file(root: Path) -> None:
    content = valid()
    del content["images"][1]["width"], content["images"][1]["height"]
    assert read(root, content).sizes.tolist() == [[48, 64], [60, 40], [48, 64]]


def test_missing_annotation_ids_are_numbered_and_said(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = valid()
    del content["annotations"][1]["id"]
    with caplog.at_level(logging.WARNING):
        ids = read(root, content).annotation_ids
    assert sorted(ids.tolist()) == [1, 2, 3, 4]
    assert "numbered from 1" in caplog.text


def test_a_file_without_annotations_is_a_dataset_without_boxes(root: Path) -> None:
    content = valid() | {"annotations": []}
    annotations = read(root, content)
    assert len(annotations) == 3
    assert annotations.boxes_xywh.shape == (0, 4)


@pytest.mark.parametrize("start", ["images/", "images\\", "{parent}/images/"])
def test_file_names_that_repeat_the_image_folder_are_files_in_it(root: Path, start: str) -> None:
    content = valid()
    for image in content["images"]:
        image["file_name"] = start.format(parent=root.name) + image["file_name"]
    annotations = read(root, content)
    assert [annotations.file_names[i] for i in range(3)] == ["a.jpg", "b.jpg", "c.jpg"]


# --- refused: (what to break, what the message must say)


def _broken(section: str, position: int, **changes: Any) -> dict[str, Any]:
    content = valid()
    for key, value in changes.items():
        content[section][position][key] = value
    return content


BAD_BOXES = {
    "zero width": (_broken("annotations", 1, bbox=[3, 4, 0, 9]), "zero or negative width"),
    "negative height": (_broken("annotations", 1, bbox=[3, 4, 9, -1]), "zero or negative height"),
    "NaN": (_broken("annotations", 1, bbox=[3, float("nan"), 9, 9]), "not four finite numbers"),
    "infinite": (_broken("annotations", 1, bbox=[3, 4, float("inf"), 9]), "not four finite numbers"),
    "three numbers": (_broken("annotations", 1, bbox=[3, 4, 9]), "not four finite numbers"),
    "no bbox": (_broken("annotations", 1, bbox=None), "bbox is missing"),
    "left of the image": (_broken("annotations", 1, bbox=[-20, 4, 20, 9]), "outside its image"),
    "below the image": (_broken("annotations", 1, bbox=[3, 48, 9, 9]), "of height 48, width 64"),
    "dangling category": (_broken("annotations", 1, category_id=99), "no category has the id 99"),
    "dangling image": (_broken("annotations", 1, image_id=99), "no image has this image_id"),
}


@pytest.mark.parametrize(("content", "message"), BAD_BOXES.values(), ids=BAD_BOXES.keys())
def test_a_bad_annotation_is_named_with_file_id_and_fix(
    root: Path, content: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as error:
        read(root, content)
    text = str(error.value)
    assert str(root / "train.json") in text
    assert "annotation 4" in text
    assert "data.on_bad_box=drop" in text


@pytest.mark.parametrize("content", [c for c, _ in BAD_BOXES.values()], ids=BAD_BOXES.keys())
def test_drop_goes_on_without_the_bad_annotation_alone_and_says_so(
    root: Path, content: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        annotations = read(root, content, on_bad_box="drop")
    assert len(annotations.annotation_ids) == 3
    assert len(annotations) == 3
    assert "1 annotation problem" in caplog.text
    assert "annotation 4" in caplog.text


BAD_IMAGES = {
    "missing file": (_broken("images", 0, file_name="nowhere.jpg"), "no such file"),
    "climbs out": (_broken("images", 0, file_name="../a.jpg"), "leaves the image folder"),
    "climbs out inside": (_broken("images", 0, file_name="x/../../a.jpg"), "leaves the image folder"),
    "absolute": (_broken("images", 0, file_name="/etc/hostname"), "leaves the image folder"),
    "drive": (_broken("images", 0, file_name="C:\\a.jpg"), "leaves the image folder"),
    "NUL": (_broken("images", 0, file_name="a\0.jpg"), "no such file"),
    "no name": (_broken("images", 0, file_name=None), "no file_name"),
    "a folder": (_broken("images", 0, file_name="."), "cannot be read"),
    "height 0": (_broken("images", 0, height=0), "height 0, width 64"),
    "half pixels": (_broken("images", 0, height=48.5), "height 48.5"),
    "size disagrees": (_broken("images", 0, width=65), "is 48 x 64 pixels .* say 48 x 65"),
    "no id": (_broken("images", 0, id=None), "no id"),
}


@pytest.mark.parametrize(("content", "message"), BAD_IMAGES.values(), ids=BAD_IMAGES.keys())
def test_a_bad_image_is_named_with_file_and_fix(root: Path, content: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        read(root, content)
    text = str(error.value)
    assert str(root / "train.json") in text
    assert repr(content["images"][0]["id"]) in text
    assert "data.on_bad_image=skip" in text


@pytest.mark.parametrize(
    "content",
    [c for n, (c, _) in BAD_IMAGES.items() if n != "no id"],
    ids=[n for n in BAD_IMAGES if n != "no id"],
)
def test_skip_goes_on_without_the_image_and_its_annotations_and_says_so(
    root: Path, content: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        annotations = read(root, content, on_bad_image="skip")
    assert [annotations.image_id(i) for i in range(len(annotations))] == [3, 5]
    assert annotations.annotation_ids.tolist() == [0]
    assert annotations.image_path(0).name == "b.jpg"
    assert "1 image problem" in caplog.text


def test_images_that_share_an_id_are_all_refused(root: Path) -> None:
    with pytest.raises(ValueError, match="2 image problems"):
        read(root, _broken("images", 1, id=7))


def test_a_truncated_image_is_refused(root: Path) -> None:
    path = root / "images/a.jpg"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r'"a.jpg"\): cannot be decoded .*truncated'):
        read(root)


@pytest.mark.parametrize(("check", "refused"), [("headers", False), ("decode", True)])
def test_damage_inside_a_png_is_found_by_decoding_alone(root: Path, check: str, refused: bool) -> None:
    content = _broken("images", 0, file_name="a.png")
    write_image(root / "images/a.png", height=48, width=64)
    path = root / "images/a.png"
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2 : len(damaged) // 2 + 20] = bytes(20)
    path.write_bytes(damaged)
    if refused:
        with pytest.raises(ValueError, match="cannot be decoded"):
            read(root, content, check=check)
    else:
        assert len(read(root, content, check=check)) == 3


def _bad_box_of_a_bad_image() -> dict[str, Any]:
    """Of image b.jpg, which is not there: a wrong category; of a.jpg, which leaves the folder: no width."""
    content = _broken("annotations", 0, category_id=99)
    content["annotations"][1]["bbox"] = [3, 4, 0, 9]
    content["images"][1]["file_name"] = "gone.jpg"
    content["images"][0]["file_name"] = "../a.jpg"
    return content


def test_annotations_of_bad_images_are_told_in_the_same_round(root: Path) -> None:
    with pytest.raises(ValueError, match="2 image problems") as error:
        read(root, _bad_box_of_a_bad_image())
    assert "2 annotation problems" in str(error.value)
    assert "no category has the id 99" in str(error.value)
    assert "zero or negative width" in str(error.value)
    assert "lies outside" not in str(error.value), "the size of such an image is not known"


def test_annotations_of_skipped_images_are_no_problem(root: Path) -> None:
    assert len(read(root, _bad_box_of_a_bad_image(), on_bad_image="skip")) == 1


def test_all_problems_come_in_one_error(root: Path) -> None:
    content = _broken("annotations", 1, bbox=[3, 4, 0, 9])
    content["images"][2]["file_name"] = "../c.jpg"
    content["categories"].append({"id": 20, "name": "again"})
    with pytest.raises(ValueError, match="zero or negative width") as error:
        read(root, content)
    assert "leaves the image folder" in str(error.value)
    assert "category id 20 is listed twice" in str(error.value)


def test_a_long_list_is_cut_and_counted(root: Path) -> None:
    content = valid()
    content["annotations"] = [
        {"id": i, "image_id": 7, "category_id": 0, "bbox": [0, 0, 0, 1]} for i in range(1000)
    ]
    with pytest.raises(ValueError, match="1000 annotation problems") as error:
        read(root, content)
    assert "... and 980 more" in str(error.value)
    assert len(str(error.value).splitlines()) < 30


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "holds a list"),
        ("", "empty"),
        ('"coco"', "expected a COCO object, got a str"),
        ('{"images": [], "categories": []}', "lacks annotations"),
        ('{"images": [{"id": 1}', "not valid JSON.*cut off"),
        ('{"images": [], "annotations": [], "categories": []', "not valid JSON"),
        ('{"images": [], "annotations": [], "categories": []} x', "Extra data"),
        ('{"images": [1], "annotations": [], "categories": []}', "must be an object"),
        ('{"images": {}, "annotations": [], "categories": []}', '"images" must be a list'),
        ("[" * 100_000, "nested too deeply"),
        ('{"info": ' + "[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_no_annotation_file_is_named(root: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        read(root, text)
    assert str(root / "train.json") in str(error.value)


def test_bytes_that_are_no_text_are_named(root: Path) -> None:
    (root / "train.json").write_bytes(b'{"images": "\xff\xfe"}')
    with pytest.raises(ValueError, match="not UTF-8"):
        read(root)


@pytest.mark.parametrize(
    "entry", [{"id": "x", "name": "a"}, {"id": 1}, {"name": "a"}, {"id": True, "name": "a"}]
)
def test_a_category_needs_an_integer_id_and_a_name(root: Path, entry: dict[str, Any]) -> None:
    content = valid()
    content["categories"].append(entry)
    with pytest.raises(ValueError, match="category at position 2"):
        read(root, content)


def test_an_annotation_is_not_blamed_for_an_unreadable_category(root: Path) -> None:
    content = valid()
    for entry in (*content["categories"], *content["annotations"]):
        key = "id" if "name" in entry else "category_id"
        entry[key] = str(entry[key])
    with pytest.raises(ValueError, match="category at position 0") as error:
        read(root, content)
    assert "annotation problem" not in str(error.value)


def test_select_images_moves_boxes_along(root: Path) -> None:
    annotations = read(root)
    turned = annotations.select_images(np.array([1, 0]))
    assert [turned.image_id(0), turned.image_id(1)] == [3, 7]
    assert turned.annotation_ids.tolist() == [0, 4, 2, 9]
    assert turned.rows(1) == slice(1, 4)
