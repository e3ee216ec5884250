"""The guess at the format of boxes: right boxes pass, each other format is named."""

import json
from collections.abc import Callable

import numpy as np
import pytest

from detector.coco.box_format import BoxFormatFinding, find_box_format
from tests.shared import shared_path

HEIGHT, WIDTH = 96, 128


def right_boxes(count: int = 40, *, seed: int = 0) -> np.ndarray:
    """xywh boxes in whole pixels, inside images of 96 x 128."""
    random = np.random.default_rng(seed)
    sides = random.integers(8, 60, (count, 2))
    starts = random.integers(0, [WIDTH, HEIGHT] - sides + 1)
    return np.concatenate([starts, sides], axis=1).astype(np.float64)


def corners(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def centers(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2:]], axis=1)


def find(
    boxes: np.ndarray | list[list[float]],
    areas: np.ndarray | None = None,
    size: tuple[int, int] = (HEIGHT, WIDTH),
) -> BoxFormatFinding | None:
    return find_box_format(
        np.asarray(boxes, dtype=np.float64), image_sizes=np.tile(size, (len(boxes), 1)), areas=areas
    )


def area_of(boxes: np.ndarray) -> np.ndarray:
    return boxes[:, 2] * boxes[:, 3]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("count", [1, 3, 40])
def test_right_boxes_are_no_finding(count: int, seed: int) -> None:
    boxes = right_boxes(count, seed=seed)
    assert find(boxes) is None
    assert find(boxes, area_of(boxes)) is None
    assert find(boxes, 0.6 * area_of(boxes)) is None, "the area of masks"


@pytest.mark.parametrize("with_area", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_corners_are_named_with_counts(seed: int, with_area: bool) -> None:
    boxes = right_boxes(seed=seed)
    finding = find(corners(boxes), area_of(boxes) if with_area else None)
    assert finding is not None
    assert finding.format == "xyxy"
    reach = (boxes[:, :2] * 2 + boxes[:, 2:] > np.array([WIDTH, HEIGHT])).any(axis=1)
    assert f"{reach.sum()} of 40 boxes reach beyond their image" in finding.reason
    assert "read as x1, y1, x2, y2 all would fit" in finding.reason
    assert finding.count == reach.sum()
    assert "[x1, y1, x2 - x1, y2 - y1]" in finding.fix


def test_corners_are_named_where_the_area_is_of_the_wrong_sides() -> None:
    boxes = corners(right_boxes())
    finding = find(boxes, area_of(boxes))
    assert finding is not None
    assert finding.format == "xyxy"


def test_area_alone_shows_corners_where_none_reaches_beyond() -> None:
    boxes = right_boxes()
    finding = find(corners(boxes), area_of(boxes), size=(1000, 1000))
    assert finding is not None
    assert finding.format == "xyxy"
    assert "the area of 40 of 40 boxes" in finding.reason
    unknown = find(corners(boxes), area_of(boxes), size=(0, 0))
    assert unknown is not None


def test_a_part_of_the_boxes_as_corners_is_named() -> None:
    boxes = right_boxes()
    boxes[20:] = corners(boxes[20:])
    finding = find(boxes)
    assert finding is not None
    assert finding.format == "xyxy"
    assert "these would fit" in finding.reason


def test_centers_are_named() -> None:
    finding = find(centers(right_boxes()))
    assert finding is not None
    assert finding.format == "cxcywh"
    assert "center x" in finding.reason


@pytest.mark.parametrize("form", [lambda b: b, corners, centers])
def test_fractions_are_named_in_any_order(form: Callable[[np.ndarray], np.ndarray]) -> None:
    boxes = form(right_boxes()) / [WIDTH, HEIGHT, WIDTH, HEIGHT]
    finding = find(boxes)
    assert finding is not None
    assert finding.format == "fractions"
    assert "all 40 boxes look normalized" in finding.reason
    assert find(boxes, size=(0, 0)) is not None, "sizes need not be known"


def test_whole_images_count_as_fractions_beside_others() -> None:
    boxes = right_boxes() / [WIDTH, HEIGHT, WIDTH, HEIGHT]
    boxes[0] = [0, 0, 1, 1]
    finding = find(boxes)
    assert finding is not None
    assert finding.count == 40


def test_one_pixel_in_the_corner_is_a_box() -> None:
    assert find([[0, 0, 1, 1]]) is None


@pytest.mark.parametrize("overhang", [1, 5, 9])
def test_slight_overhang_is_accepted_even_of_large_objects(overhang: int) -> None:
    boxes = np.tile([4.0, 3.0, WIDTH - 4 + overhang, HEIGHT - 3 + overhang], (40, 1))
    assert find(boxes) is None


def test_objects_cut_by_the_border_are_accepted() -> None:
    boxes = right_boxes()
    boxes[::2, 0] = WIDTH - boxes[::2, 2] / 3
    assert find(boxes) is None


def test_few_large_objects_whose_area_says_so_are_accepted() -> None:
    boxes = np.array([[10.0, 10, 120, 100]])
    assert find(boxes, area_of(boxes)) is None


def test_boxes_that_are_none_count_for_nothing() -> None:
    boxes = corners(right_boxes())
    nonsense = np.array([[np.nan] * 4, [0, 0, 0, 0], [1, 2, -3, 4], [np.inf, 0, 1, 1]])
    finding = find(np.concatenate([nonsense, boxes]))
    assert finding is not None
    assert finding.total == 40
    assert not finding.suspects[:4].any()
    assert find(nonsense) is None
    assert find(np.zeros((0, 4))) is None


@pytest.mark.parametrize(
    "file",
    [
        "data/bccd/train.json",
        "data/bccd/val.json",
        "data/coco_cc/train.json",
        "data/coco_cc/val.json",
        "fixtures/eval/coco100/gt.json",
        "fixtures/eval/lvis/lvis_val_100.json",
        "fixtures/eval/crowdpose/gt.json",
        "fixtures/eval/sahi/gt.json",
    ],
)
@pytest.mark.parametrize("form", ["right", "corners"])
def test_real_files(file: str, form: str) -> None:
    content = json.loads(shared_path(file).read_text("utf-8"))
    sizes = {i["id"]: (i["height"], i["width"]) for i in content["images"]}
    boxes = np.array([a["bbox"] for a in content["annotations"]], dtype=np.float64)
    areas = np.array([a.get("area", np.nan) for a in content["annotations"]], dtype=np.float64)
    image_sizes = np.array([sizes[a["image_id"]] for a in content["annotations"]])
    written = boxes if form == "right" else corners(boxes)
    for witness in (areas, None):
        finding = find_box_format(written, image_sizes=image_sizes, areas=witness)
        assert (finding is None) == (form == "right")


def small_boxes() -> np.ndarray:
    """Of objects a tenth of their image, some at each border."""
    random = np.random.default_rng(0)
    starts = random.integers(0, [WIDTH - 12, HEIGHT - 12], (40, 2))
    starts[:10], starts[10:20] = [WIDTH - 12, HEIGHT - 12] - starts[:10] // 40, starts[10:20] // 40
    return np.concatenate([starts, np.full((40, 2), 12)], axis=1).astype(np.float64)


def test_centers_of_small_boxes_are_named() -> None:
    boxes = small_boxes()
    assert find(boxes) is None
    finding = find(centers(boxes))
    assert finding is not None
    assert finding.format == "cxcywh"
    assert "read as center x, center y, width, height all would fit" in finding.reason


def test_exchanged_axes_are_named() -> None:
    finding = find(right_boxes(100)[:, [1, 0, 3, 2]])
    assert finding is not None
    assert finding.format == "yxhw"


@pytest.mark.parametrize("digits", [3, 12])
def test_percent_are_named_by_the_area(digits: int) -> None:
    boxes = right_boxes()
    size = (480, 640)
    percent = (boxes / [640, 480, 640, 480] * 100).round(digits)
    assert find(boxes, area_of(boxes), size) is None
    finding = find(percent, area_of(boxes), size)
    assert finding is not None
    assert finding.format == "percent"
    assert "/ 100" in finding.fix
