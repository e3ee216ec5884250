"""The files that a source names, and those that are left out."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detector.coco.image_files import find_images

READ = ["a.jpg", "b.JPEG", "c.jfif", "d.jpe", "e.gif", "f.jp2", "g.avif", "h.ppm", "i.pgm", "j.mpo", "k.TIF"]
READ += ["l.bmp", "m.webp", "n.png", "o.qoi", "p.tga", "q.apng", "sub/r.tiff"]


def test_every_ending_of_a_format_that_is_read_is_taken_in_any_case(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in READ:
        (tmp_path / name).touch()
    files = find_images(str(tmp_path))
    names = [p.relative_to(tmp_path).as_posix() for p in files.files]
    Image.init()
    assert names == [n for n in READ if "AVIF" in Image.OPEN or not n.endswith(".avif")]


def test_an_image_without_an_ending_is_taken_by_its_first_bytes(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "IMG_1", "JPEG")
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "a.jpg_large", "WEBP")
    (tmp_path / "notes").write_text("no image")
    files = find_images(str(tmp_path))
    assert {p.name for p in files.files} == {"IMG_1", "a.jpg_large"}
    assert [p.name for p in files.others] == ["notes"]


def test_the_rest_is_counted_and_named(tmp_path: Path) -> None:
    for name in ("a.jpg", "._a.jpg", ".DS_Store", ".cache/b.jpg", "x.json", "y.JSON", "z.eps", "readme"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    os.mkfifo(tmp_path / "pipe")
    files = find_images(str(tmp_path))
    assert [p.name for p in files.files] == ["a.jpg"]
    assert files.num_skipped == 8
    for words in (
        "2 .json (x.json, y.JSON)",
        "1 .eps (z.eps)",
        "3 hidden",
        "2 without an ending (pipe, readme)",
    ):
        assert words in files.note()


def test_nothing_to_read_names_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").touch()
    with pytest.raises(ValueError, match=r"1 \.pdf \(a\.pdf\).*\.jfif"):
        find_images(str(tmp_path))


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/a.jpg").touch()
    (tmp_path / "source/link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "source/circle").symlink_to(tmp_path / "source", target_is_directory=True)
    assert find_images(str(tmp_path / "source")).files == [tmp_path / "source/link/a.jpg"]


def test_a_pipe_is_no_source(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match="is a pipe"):
        find_images(str(tmp_path / "a.jpg"))


def test_a_text_that_is_no_list_is_told(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("Buy milk.\n" * 3)
    with pytest.raises(ValueError, match=r"expected the path of an image in each line.*'Buy milk\.'"):
        find_images(str(tmp_path / "notes.txt"))
    (tmp_path / "a.png").touch()
    (tmp_path / "some.txt").write_text("a.png\nmissing.png\n")
    assert len(find_images(str(tmp_path / "some.txt")).files) == 2  # those missing are told later
