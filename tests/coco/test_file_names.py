"""Which file a file_name means, and what is said where it means none."""

from __future__ import annotations

import json
import logging
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from detector.coco.annotations import CocoAnnotations
from detector.coco.file_names import FolderIndex, address_kind, base_name, name_inside
from detector.coco.reader import read_coco
from tests.coco.small_coco import valid, write_dataset, write_image

Rename = Callable[[str], str]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "lab")


def read(root: Path, rename: Rename, **options: object) -> CocoAnnotations:
    content = valid()
    for image in content["images"]:
        image["file_name"] = rename(image["file_name"])
    write_dataset(root, content)
    options = {"images_dir": root / "images", "folder_option": "data.val.images", **options}
    return read_coco(root / "train.json", **options)  # type: ignore[arg-type]


def problems(root: Path, rename: Rename, **options: object) -> str:
    with pytest.raises(ValueError, match="3 image problems") as error:
        read(root, rename, **options)
    return str(error.value)


def names(annotations: CocoAnnotations) -> list[str]:
    return [annotations.file_names[i] for i in range(len(annotations))]


FILES = ["a.jpg", "b.jpg", "c.jpg"]

# --- the same file, however it is written


@pytest.mark.parametrize(
    "start",
    ["{root}/images/", "../images/", "images/", "images\\", "lab/images/", "x/../", "{root}/x/../images/"],
)
def test_a_name_that_leads_into_the_folder_is_that_file(root: Path, start: str) -> None:
    assert names(read(root, lambda name: start.format(root=root) + name)) == FILES


def test_an_absolute_name_by_the_folder_or_by_the_link_to_it(root: Path) -> None:
    link = root.parent / "link"
    link.symlink_to(root / "images", target_is_directory=True)
    for start in (link, root / "images"):
        assert names(read(root, cast(Rename, lambda name, s=start: f"{s}/{name}"), images_dir=link)) == FILES


def test_links_are_followed_wherever_they_lead(root: Path, tmp_path: Path) -> None:
    write_dataset(root)
    outside = tmp_path / "elsewhere.jpg"
    (root / "images/a.jpg").rename(outside)
    (root / "images/a.jpg").symlink_to(outside)
    assert names(read_coco(root / "train.json", images_dir=root / "images")) == FILES


def test_a_name_as_it_stands_comes_first(root: Path) -> None:
    write_image(root / "images/images/a.jpg", height=48, width=64)
    content = valid()
    content["images"][0]["file_name"] = "images/a.jpg"
    write_dataset(root, content)
    assert names(read_coco(root / "train.json", images_dir=root / "images"))[0] == "images/a.jpg"


# --- names that lead elsewhere

ELSEWHERE = {
    "absolute": "/data/lab7/",
    "climbing": "../../base/images7/",
    "windows": "C:\\lab\\",
    "local": "/data/local-files/?d=lab%2F",
    "s3": "s3://bucket/a%20b/",
    "gs": "gs://bucket/",
    "http": "https://host/x/",
}


@pytest.mark.parametrize("start", ELSEWHERE.values(), ids=ELSEWHERE.keys())
def test_a_name_that_leads_elsewhere_has_a_way_through(root: Path, start: str) -> None:
    text = problems(root, lambda name: start + name)
    assert "3 of 3 files are in" in text
    assert "data.file_names=base" in text
    assert "data.root" not in text
    assert names(read(root, lambda name: start + name, file_names="base")) == FILES


@pytest.mark.parametrize(
    ("kind", "word"),
    [("local", "/data/local-files/"), ("s3", "s3://"), ("gs", "gs://"), ("http", "https://")],
)
def test_an_address_is_called_one(root: Path, kind: str, word: str) -> None:
    text = problems(root, lambda name: f"{ELSEWHERE[kind]}gone-{name}")
    assert f"is an address ({word}" in text
    assert "3 of 3 file names are addresses" in text
    assert "Export with the images" in text
    assert "data.val.images=FOLDER data.file_names=base" in text


def test_names_of_addresses() -> None:
    assert base_name("https://h/x/a%20b.jpg?X-Amz-Signature=1/2") == "a b.jpg"
    assert base_name("/data/local-files/?d=x/y/a.jpg") == "a.jpg"
    assert base_name("x\\a.jpg") == "a.jpg"
    assert address_kind("images/a:b.jpg") is None
    assert name_inside("a..b.jpg", Path("f")) == "a..b.jpg"
    assert name_inside("..\\a.jpg", Path("f")) is None


def test_base_names_that_two_files_have_are_no_match(root: Path) -> None:
    write_image(root / "images/x/a.jpg", height=48, width=64)
    with pytest.raises(ValueError, match=r"2 files may be meant: .*\"a\.jpg\".*x/a\.jpg"):
        read(root, lambda name: f"/data/{name}", file_names="base")


# --- names that are nearly those of files


def _rename_files(root: Path, rename: Rename) -> None:
    for file in FILES:
        (root / "images" / file).rename(root / "images" / rename(file))


@pytest.mark.parametrize(
    ("to_file", "to_name", "difference"),
    [
        (lambda n: n.upper(), lambda n: n, "letter case"),
        (lambda n: n.replace("jpg", "JPG"), lambda n: n, "letter case"),
        (lambda n: n.replace("jpg", "jpeg"), lambda n: n, "the ending"),
        (lambda n: n, lambda n: n.replace("jpg", "png"), "the ending"),
        (lambda n: unicodedata.normalize("NFD", f"é{n}"), lambda n: f"é{n}", "the Unicode form"),
    ],
)
def test_a_name_that_differs_from_a_file_names_it(
    root: Path, caplog: pytest.LogCaptureFixture, to_file: Rename, to_name: Rename, difference: str
) -> None:
    content = valid()
    for image in content["images"]:
        image["file_name"] = to_name(image["file_name"])
    write_dataset(root, content)
    _rename_files(root, to_file)
    with pytest.raises(ValueError, match="3 image problems") as error:
        read_coco(root / "train.json", images_dir=root / "images")
    text = str(error.value)
    assert f'There is "{to_file("a.jpg")}", which differs by {difference}' in text
    assert f"3 of 3 file names differ by {difference} only" in text
    with caplog.at_level(logging.WARNING):
        dataset = read_coco(root / "train.json", images_dir=root / "images", file_names="base")
    assert names(dataset) == [to_file(file) for file in FILES]
    assert f"3 files are taken for names that differ by {difference}" in caplog.text


# --- files in another folder


@pytest.mark.parametrize("place", ["images/train", "images/x/y"])
def test_the_folder_below_that_would_do_is_named(root: Path, place: str) -> None:
    (root / place).mkdir(parents=True)
    _rename_files(root, lambda name: f"../{place}/{name}")
    write = valid()
    (root / "train.json").write_text(json.dumps(write))
    with pytest.raises(ValueError, match="3 image problems") as error:
        read_coco(root / "train.json", images_dir=root / "images", folder_option="data.val.images")
    assert f"pass data.val.images={root / place}" in str(error.value)


def test_the_folder_that_names_count_from_is_named(root: Path, tmp_path: Path) -> None:
    (root / "other").mkdir()
    text = problems(root, lambda name: f"images/{name}", images_dir=root / "other")
    assert f"3 of 3 files are below {root}: pass data.val.images={root}\n" in text


def test_absolute_files_elsewhere_name_their_folder(root: Path, tmp_path: Path) -> None:
    (root / "other").mkdir()
    text = problems(root, lambda name: f"{root}/images/{name}", images_dir=root / "other")
    assert f"pass data.val.images={root / 'images'}\n" in text


def test_a_folder_of_odd_letters_is_quoted(root: Path) -> None:
    (root / "other").mkdir()
    (root / "images").rename(root / "im ages")
    content = valid()
    for image in content["images"]:
        image["file_name"] = f"im ages/{image['file_name']}"
    (root / "train.json").write_text(json.dumps(content))
    (root / "im ages/sub").mkdir()
    with pytest.raises(ValueError, match="3 image problems") as error:
        read_coco(root / "train.json", images_dir=root / "other")
    assert f"are below {root}" in str(error.value)


def test_the_index_ends_in_circles_of_links(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    (tmp_path / "again").symlink_to(tmp_path, target_is_directory=True)
    assert FolderIndex(tmp_path).files == ("a.jpg",)
    assert os.path.lexists(tmp_path / "again")


def test_two_names_are_not_given_one_file(root: Path) -> None:
    """Cameras count alike: the image of one is not the other's."""
    for name in ("b.jpg", "c.jpg"):
        (root / "images" / name).unlink()
    places = {"a.jpg": "cam0/a.jpg", "b.jpg": "cam1/a.jpg", "c.jpg": "cam2/a.jpg"}
    message = problems(root, lambda name: places[name], file_names="base")
    assert (
        message.count('another file_name means "a.jpg" too (data.file_names=base). Write the folders.') == 3
    )


def test_an_absolute_name_by_a_link_to_the_folder(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    assert names(read(root, lambda name: f"{tmp_path}/link/images/{name}")) == FILES
