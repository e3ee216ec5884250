"""Images are found by as much of their path as two tools agree on."""

import pytest

from detector.coco.ids import id_key
from detector.coco.image_names import ImageNames, same_file

NAMES = ["a.jpg", "x/b.jpg", "y/b.jpg", "x/é.png", "000123.jpg", "deep/x/c.jpg", "1.5.jpg"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.jpg", ["a.jpg"]),
        ("/data/images/a.jpg", ["a.jpg"]),
        (".\\images\\a.jpg", ["a.jpg"]),
        ("x/b.jpg", ["x/b.jpg"]),
        ("images/y/b.jpg", ["y/b.jpg"]),
        ("b.jpg", ["x/b.jpg", "y/b.jpg"]),
        ("z/b.jpg", ["x/b.jpg", "y/b.jpg"]),
        ("other/c.jpg", ["deep/x/c.jpg"]),
        ("x/é.png", ["x/é.png"]),
        ("000123", ["000123.jpg"]),
        ("out/000123.png", ["000123.jpg"]),
        ("1.5", ["1.5.jpg"]),
        ("y/b", ["y/b.jpg"]),
        ("A.JPG", ["a.jpg"]),
        ("Images/X/B.jpg", ["x/b.jpg"]),
        ("X/É.tif", ["x/é.png"]),
        ("d.jpg", []),
        ("", []),
    ],
)
def test_a_name_means_the_image_with_the_longest_common_end(name: str, expected: list[str]) -> None:
    names = ImageNames({id_key(n): n for n in NAMES})
    assert [value for _, value in names.candidates(name)] == expected
    match = names.find(name)
    assert (match and match[1]) == (expected[0] if len(expected) == 1 else None)


def test_a_whole_name_wins_over_a_longer_one() -> None:
    names = ImageNames({(0, 1): "1.jpg", (0, 2): "a/1.jpg"})
    assert names.find("1.jpg") == (0, 1)
    assert names.find("/images/1.jpg") == (0, 1)
    assert names.find("/images/a/1.jpg") == (0, 2)


def test_images_without_a_name_are_never_meant() -> None:
    names = ImageNames({(0, 1): ""})
    assert not names
    assert names.candidates("") == []


def test_ends_of_paths_are_one_file() -> None:
    assert same_file("/data/a/1.jpg", "a/1.jpg")
    assert not same_file("/data/b/1.jpg", "a/1.jpg")
