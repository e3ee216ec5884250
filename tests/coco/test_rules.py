"""The rules that decide whether an annotation can be used, each alone."""

import math

import numpy as np
import pytest

from detector.coco.rules import (
    fill_areas,
    is_finite_number,
    is_odd_crowd,
    no_objects,
    odd_boxes,
    oversized_areas_note,
    read_crowd,
    repeated_objects,
    shown,
)

HEIGHT, WIDTH = 96, 128


@pytest.mark.parametrize(
    ("value", "meaning", "odd"),
    [
        (None, False, False),
        (0, False, False),
        (1, True, False),
        (False, False, False),
        (True, True, False),
        (0.0, False, False),
        (2, True, True),
        ("0", False, True),
        ("1", True, True),
        ("false", False, True),
        ("False", False, True),
        (" true ", True, True),
        ("", False, True),
    ],
)
def test_crowds_are_read_as_they_say(value: object, meaning: bool, odd: bool) -> None:
    assert read_crowd(value) is meaning
    assert is_odd_crowd(value) is odd


@pytest.mark.parametrize("value", ["yes", "no", "null", [], [0], {}, {"a": 1}, math.nan, math.inf, 10**400])
def test_other_crowds_have_no_meaning(value: object) -> None:
    assert read_crowd(value) is None


@pytest.mark.parametrize("value", [10**400, -(10**400), math.inf, math.nan, True, "1", None, [1]])
def test_what_is_no_finite_number(value: object) -> None:
    assert not is_finite_number(value)


def test_areas_that_are_none_are_those_of_the_box() -> None:
    areas = np.array([5.0, -1, 0, math.nan, math.inf, 1e-9])
    filled, wrong = fill_areas(areas, np.tile([0.0, 0, 3, 4], (6, 1)))
    assert filled.tolist() == [5, 12, 12, 12, 12, 1e-9]
    assert wrong.tolist() == [False, True, True, True, True, False]


def faults(box: list[float], size: tuple[int, int] = (HEIGHT, WIDTH)) -> list[str]:
    actual = odd_boxes(np.array([box], dtype=np.float64), image_sizes=np.array([size]))
    return [words for which, words in actual if which[0]]


@pytest.mark.parametrize(
    "box",
    [
        [0, 0, WIDTH, HEIGHT],
        [-1, -1, WIDTH + 2, HEIGHT + 2],
        [100, 80, 60, 60],
        [-40, 10, 60, 20],
        [127.5, 95.5, 1, 1],
        [10, 10, 0.01, 20],
        [300.5 % 100, 10, 0.01, 0.01],
        [-5, 20, WIDTH + 100, 30],
        [0, 0, 1, 1],
        [0, 0, 1, 0.1],
    ],
)
def test_boxes_that_are_right(box: list[float]) -> None:
    assert faults(box) == []


@pytest.mark.parametrize(
    "box", [[127.9999999999, 10, 5, 5], [10, 95.9999999999, 5, 5], [100, 10, 1e-6, 20], [9, 9, 20, 1e-6]]
)
def test_thin_boxes(box: list[float]) -> None:
    assert "below 0.01 pixels" in faults(box)[0]


@pytest.mark.parametrize("box", [[1e-9 - 5, 10, 5, 5], [10, 1e-9 - 5, 5, 5]])
def test_boxes_that_the_left_and_upper_border_leave_thin(box: list[float]) -> None:
    assert "below 0.01 pixels" in faults(box)[0]


def test_a_thin_box_is_one_whatever_its_image() -> None:
    assert "below 0.01 pixels" in faults([100, 10, 1e-6, 20], size=(0, 0))[0]
    assert faults([127.9999999999, 10, 5, 5], size=(0, 0)) == []


@pytest.mark.parametrize(
    ("box", "size"),
    [
        ([13, 14, 5000, 5000], (96, 128)),
        ([500, 500, 5000, 5000], (3000, 4000)),
        ([13, 14, 5000, 20], (96, 128)),
        ([-5000, 14, 5050, 20], (96, 128)),
        ([5, 5, 160, 120], (96, 128)),
    ],
)
def test_boxes_far_beyond_their_image(box: list[float], size: tuple[int, int]) -> None:
    assert any("far beyond" in words for words in faults(box, size))


def test_fractions_beside_pixels() -> None:
    assert "fractions" in faults([0.2, 0.3, 0.4, 0.1])[0]


def columns(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    return (
        np.arange(count),
        np.zeros(count),
        np.tile([1.0, 2, 3, 4], (count, 1)),
        np.ones(count),
        np.zeros(count),
    )


def test_only_what_is_equal_in_everything_repeats() -> None:
    images, categories, boxes, areas, flags = columns(6)
    images[:] = 0
    categories[1], boxes[2, 3], areas[3], flags[4] = 9, 4.000001, 2, 1
    assert repeated_objects(images, categories, boxes, areas, flags).tolist() == [False] * 5 + [True]


def test_minus_zero_is_zero() -> None:
    images, categories, boxes, areas, flags = columns(2)
    images[:] = 0
    boxes[:, 0] = [0.0, -0.0]
    assert repeated_objects(images, categories, boxes, areas, flags).tolist() == [False, True]


def test_repeats_of_many_are_found_and_nothing_else() -> None:
    random = np.random.default_rng(0)
    boxes = random.integers(0, 50, (5000, 4)).astype(np.float64)
    images, categories = random.integers(0, 20, 5000), random.integers(0, 3, 5000)
    again = random.permutation(5000)
    both = [np.concatenate([part, part[again]]) for part in (images, categories, boxes)]
    actual = repeated_objects(*both, np.ones(10_000), np.zeros(10_000))  # type: ignore[call-arg]  # 3 parts
    rows = list(zip(both[0].tolist(), both[1].tolist(), map(tuple, both[2].tolist()), strict=True))
    assert int((~actual).sum()) == len(set(rows))
    assert actual[5000:].all()


def test_none_of_none() -> None:
    empty = np.zeros(0)
    assert repeated_objects(empty, empty, np.zeros((0, 4)), empty, empty).tolist() == []


def test_why_there_is_no_object() -> None:
    assert "is empty" in no_objects(listed=0, crowds=0, dropped=0, option="x=drop")
    all_crowds = no_objects(listed=16, crowds=16, dropped=0, option="x=drop")
    assert "all 16 annotations are crowds" in all_crowds
    assert "datumaro" in all_crowds
    assert '"iscrowd": 0' in all_crowds
    assert "all 3 annotations are left out because of x=drop" in no_objects(
        listed=3, crowds=0, dropped=3, option="x=drop"
    )
    mixed = no_objects(listed=9, crowds=4, dropped=3, skipped=2, option="x=drop")
    assert "4 are crowds" in mixed
    assert "3 are left out because of x=drop" in mixed
    assert "2 are left out with their images" in mixed


def test_any_value_can_be_shown() -> None:
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    assert "too large to show" in shown(deep)
    assert "too large to show" in shown(10**5000)
    assert len(shown("x" * 1000)) == 80
    while deep:  # what is nested so deeply must be taken apart by hand
        deep = deep.pop()


def test_areas_larger_than_their_boxes_are_told_with_the_factor() -> None:
    boxes = np.tile([0.0, 0, 10, 20], (20, 1))
    assert oversized_areas_note(np.full(20, 200.0), boxes) is None
    assert oversized_areas_note(np.full(20, 120.0), boxes) is None
    few = np.full(20, 200.0)
    few[:5] = 900.0
    assert oversized_areas_note(few, boxes) is None
    note = str(oversized_areas_note(np.full(20, 800.0), boxes))
    assert note.startswith('20 of 20 annotations have an "area" that is larger than their box, 4 times')
