"""Annotation files nobody here wrote, each with something tricky in it. The images are made to fit."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from detector.coco.annotations import CocoAnnotations
from detector.coco.categories import drop_root_category
from detector.coco.reader import read_coco
from tests.coco.small_coco import write_image
from tests.shared import shared_path


def read(tmp_path: Path, name: str, *, images: bool = True, **options: Any) -> CocoAnnotations:
    """The file as it is, with images of the sizes it declares (64 x 64 where it does not)."""
    source = shared_path("fixtures/annotations") / name
    path = tmp_path / source.name
    shutil.copyfile(source, path)
    entries = json.loads(path.read_text())["images"]
    template: dict[tuple[int, int], bytes] = {}
    for entry in entries if images else []:
        size = (entry.get("height") or 64, entry.get("width") or 64)
        target = tmp_path / "images" / entry["file_name"]
        if size not in template:
            write_image(target, height=size[0], width=size[1])
            template[size] = target.read_bytes()
        target.write_bytes(template[size])
    (tmp_path / "images").mkdir(exist_ok=True)
    return read_coco(path, images_dir=tmp_path / "images", **options)


def test_roboflow_with_annotation_id_0_and_a_dummy_root(tmp_path: Path) -> None:
    (annotations,) = drop_root_category([read(tmp_path, "roboflow_rbc_mini/_annotations.coco.json")])
    assert annotations.class_names == ("rbc", "wbc")
    assert annotations.category_ids == (1, 2)
    assert 0 in annotations.annotation_ids
    assert len(annotations.labels) == 221


def test_bccd_zero_size_boxes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 annotation problems") as error:
        read(tmp_path, "bccd_zero_size_boxes.json")
    assert str(error.value).count("zero or negative width") == 2
    assert len(read(tmp_path, "bccd_zero_size_boxes.json", on_bad_box="drop").labels) == 24


def test_cocos_own_zero_height_box(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"annotation 2206849: box \[9.98, 188.56, 5.54, 0\] has zero"):
        read(tmp_path, "coco_ann_2206849_zero_height.json")


def test_text_and_integer_ids_of_the_same_image_are_one(tmp_path: Path) -> None:
    annotations = read(tmp_path, "fce_string_image_ids_ignore.json")
    assert annotations.image_id(0) == "2299"
    assert len(annotations.labels) == 14


def test_mmdetections_sample(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="annotation problems") as error:
        read(tmp_path, "mmdet_coco_sample.json")
    assert "annotation 5: box [0, 0, 0, 10] has zero or negative width" in str(error.value)
    assert "annotation 6: no category has the id 3" in str(error.value)
    kept = read(tmp_path, "mmdet_coco_sample.json", on_bad_box="drop")
    assert kept.image_id(0) == 0
    assert sorted(kept.annotation_ids.tolist()) == [1, 2, 3, 4, 7, 9]
    assert kept.crowd.sum() == 1


def test_hotcocos_bad_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="3 image problems") as error:
        read(tmp_path, "hotcoco_healthcheck_bad.json")
    for part in ("another image has the same id", "height 0, width 100", "no image has this image_id"):
        assert part in str(error.value)


def test_uncompressed_rle_and_gaps_in_ids(tmp_path: Path) -> None:
    annotations = read(tmp_path, "datumaro_uncompressed_rle_gap_ids.json")
    assert annotations.category_ids == (1, 2, 4)
    assert annotations.image_id(0) == 40
    assert annotations.crowd.tolist() == [False, True]


def test_lvis_without_iscrowd(tmp_path: Path) -> None:
    annotations = read(tmp_path, "lvis_val_100_no_iscrowd.json")
    assert len(annotations.categories) == 1230
    assert len(annotations.labels) == 977
    assert not annotations.crowd.any()
