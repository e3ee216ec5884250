"""Finding the splits of a dataset from its root folder."""

import os
import shutil
from pathlib import Path
from typing import cast

import pytest

from detector.coco.layouts import SplitName, SplitPaths, find_split
from tests.coco.small_coco import write_dataset

NO_PATHS = SplitPaths()


@pytest.mark.parametrize(
    ("annotations", "images"),
    [("annotations/instances_val2017.json", "images/val2017"), ("val.json", "val")],
)
def test_finds_the_images_of_a_split_where_others_have_them(
    tmp_path: Path, annotations: str, images: str
) -> None:
    plain, root = write_dataset(tmp_path / "plain"), tmp_path / "root"
    shutil.copytree(plain / "images", root / images)
    (root / annotations).parent.mkdir(exist_ok=True)
    shutil.copy(plain / "val.json", root / annotations)
    assert find_split("val", root=str(root), paths=NO_PATHS).images == root / images


def test_finds_the_plain_layout(tmp_path: Path) -> None:
    root = write_dataset(tmp_path)
    files = find_split("val", root=str(root), paths=NO_PATHS)
    assert (files.annotations, files.images) == (root / "val.json", root / "images")


def test_finds_the_official_coco_layout(tmp_path: Path) -> None:
    plain = write_dataset(tmp_path / "plain")
    root = tmp_path / "coco"
    shutil.copytree(plain / "images", root / "val2017")
    (root / "annotations").mkdir()
    shutil.copy(plain / "val.json", root / "annotations/instances_val2017.json")
    files = find_split("val", root=str(root), paths=NO_PATHS)
    assert files.images == root / "val2017"


def test_finds_the_roboflow_layout(tmp_path: Path) -> None:
    plain = write_dataset(tmp_path / "plain")
    root = tmp_path / "roboflow"
    shutil.copytree(plain / "images", root / "valid")
    shutil.copy(plain / "val.json", root / "valid/_annotations.coco.json")
    files = find_split("val", root=str(root), paths=NO_PATHS)
    assert (files.annotations.name, files.images) == ("_annotations.coco.json", root / "valid")


def test_explicit_paths_are_relative_to_the_root(tmp_path: Path) -> None:
    root = write_dataset(tmp_path)
    files = find_split("train", root=str(root), paths=SplitPaths("val.json", "images"))
    assert (files.annotations, files.images) == (root / "val.json", root / "images")


def test_explicit_paths_need_no_root(tmp_path: Path) -> None:
    root = write_dataset(tmp_path)
    paths = SplitPaths(str(root / "train.json"), str(root / "images"))
    assert find_split("train", root=None, paths=paths).images == root / "images"


def test_images_default_to_the_folder_beside_explicit_annotations(tmp_path: Path) -> None:
    root = write_dataset(tmp_path)
    paths = SplitPaths(annotations=str(root / "train.json"))
    assert find_split("train", root=None, paths=paths).images == root / "images"


def test_no_root_says_what_to_pass() -> None:
    with pytest.raises(ValueError, match=r"data\.root is not set.*data\.root=FOLDER"):
        find_split("train", root=None, paths=NO_PATHS)


def test_a_missing_root_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no such folder .*nowhere"):
        find_split("train", root=str(tmp_path / "nowhere"), paths=NO_PATHS)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("x.zip", "Unpack it"),
        ("data.yaml", "YOLO"),
        ("a.json", r"data\.train\.annotations="),
        ("a", "Give a folder"),
    ],
)
def test_a_root_that_is_a_file_is_told_with_what_to_do(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(ValueError, match=f"is a file.*{message}"):
        find_split("train", root=str(tmp_path / name), paths=NO_PATHS)


def test_a_single_file_is_to_be_split(tmp_path: Path) -> None:
    (tmp_path / "annotations.json").touch()
    with pytest.raises(ValueError, match=r"annotations\.json is one file.*split its images into two files"):
        find_split("train", root=str(tmp_path), paths=NO_PATHS)


def test_an_unknown_layout_lists_what_was_looked_for_and_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").touch()
    with pytest.raises(ValueError, match=r"labels\.txt") as error:
        find_split("train", root=str(tmp_path), paths=NO_PATHS)
    for looked_for in ("train.json", "instances_train2017.json", "train/_annotations.coco.json"):
        assert looked_for in str(error.value)


def test_two_layouts_at_once_are_refused(tmp_path: Path) -> None:
    root = write_dataset(tmp_path)
    (root / "train").mkdir()
    shutil.copy(root / "train.json", root / "train/_annotations.coco.json")
    with pytest.raises(ValueError, match="more than one train split"):
        find_split("train", root=str(root), paths=NO_PATHS)


def test_a_missing_image_folder_is_named(tmp_path: Path) -> None:
    root = write_dataset(tmp_path)
    shutil.rmtree(root / "images")
    with pytest.raises(ValueError, match=r"images.*does not exist.*data\.train\.images=FOLDER"):
        find_split("train", root=str(root), paths=NO_PATHS)


def test_images_alone_are_those_of_the_annotations_that_are_found(tmp_path: Path) -> None:
    root = write_dataset(tmp_path)
    (root / "photos").mkdir()
    files = find_split("val", root=str(root), paths=SplitPaths(images="photos"))
    assert (files.annotations, files.images) == (root / "val.json", root / "photos")


OTHER_TOOLS = {
    "datumaro": ("annotations/instances_{}.json", "images/{}", "val"),
    "cvat": ("annotations/instances_{}.json", "{}", "val"),
    "one folder": ("annotations/instances_{}.json", "images", "validation"),
    "fiftyone": ("{}/labels.json", "{}/data", "validation"),
    "label studio": ("{}/result.json", "{}/images", "val"),
    "plain": ("{}.json", "images", "valid"),
}


@pytest.mark.parametrize(("file", "folder", "val"), OTHER_TOOLS.values(), ids=OTHER_TOOLS.keys())
def test_finds_the_layouts_of_other_tools(tmp_path: Path, file: str, folder: str, val: str) -> None:
    plain = write_dataset(tmp_path / "plain")
    root = tmp_path / "other"
    for name in ("train", val):
        shutil.copytree(plain / "images", root / folder.format(name), dirs_exist_ok=True)
        (root / file.format(name)).parent.mkdir(exist_ok=True)
        shutil.copy(plain / "train.json", root / file.format(name))
    for split, name in (("train", "train"), ("val", val)):
        expected = root / file.format(name), root / folder.format(name)
        files = find_split(cast(SplitName, split), root=str(root), paths=NO_PATHS)
        assert (files.annotations, files.images) == expected
        explicit = find_split(cast(SplitName, split), root=None, paths=SplitPaths(str(expected[0])))
        assert explicit.images == expected[1] or name not in str(expected[0].name)


@pytest.mark.parametrize(("file", "folder"), [("result.json", "images"), ("labels.json", "data")])
def test_one_file_without_splits_is_named_with_its_images(tmp_path: Path, file: str, folder: str) -> None:
    plain = write_dataset(tmp_path / "plain")
    root = tmp_path / "other"
    shutil.copytree(plain / "images", root / folder)
    shutil.copy(plain / "train.json", root / file)
    with pytest.raises(ValueError, match="no val split found") as error:
        find_split("val", root=str(root), paths=NO_PATHS)
    assert f"data.val.annotations={root / file} data.val.images={root / folder}" in str(error.value)
    assert find_split("val", root=None, paths=SplitPaths(str(root / file))).images == root / folder


def test_a_pipe_in_place_of_annotations_is_refused(tmp_path: Path) -> None:
    root = write_dataset(tmp_path)
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(ValueError, match="no regular file"):
        find_split("train", root=str(root), paths=SplitPaths("pipe.json"))


def test_a_folder_that_would_do_is_named(tmp_path: Path) -> None:
    root = write_dataset(tmp_path)
    (root / "annotations").mkdir()
    (root / "train.json").rename(root / "annotations/instances_train2017.json")
    with pytest.raises(ValueError, match="train2017, which does not exist") as error:
        find_split("train", root=str(root), paths=NO_PATHS)
    assert f"data.train.images={root / 'images'}" in str(error.value)


def test_annotation_files_of_unknown_names_are_listed(tmp_path: Path) -> None:
    root = write_dataset(tmp_path)
    (root / "annotations").mkdir()
    (root / "train.json").rename(root / "annotations/instances_Train.json")
    with pytest.raises(ValueError, match=r"annotations/instances_Train\.json"):
        find_split("train", root=str(root), paths=NO_PATHS)
