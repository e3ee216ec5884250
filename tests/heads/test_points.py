"""Which box a point learns."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.heads.points import Points, assign_points, make_points
from detector.structures import Targets
from tests.samples import pad_targets

SHAPES, STRIDES = [(16, 16), (8, 8), (4, 4)], [8, 16, 32]


def _points(offset: float = 0.5) -> Points:
    return make_points(SHAPES, STRIDES, offset=offset, device=torch.device("cpu"))


def test_points_are_the_middles_of_the_stride_grid() -> None:
    points = _points()
    assert points.xy[:2].tolist() == [[4.0, 4.0], [12.0, 4.0]]
    assert points.xy[16].tolist() == [4.0, 12.0]
    assert points.xy[256].tolist() == [8.0, 8.0]


def test_corner_offset_is_torchvisions_grid() -> None:
    assert _points(offset=0.0).xy[:2].tolist() == [[0.0, 0.0], [8.0, 0.0]]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 100), st.floats(0, 100), st.floats(1, 60), st.floats(1, 60)),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from([0.0, 1.5]),
)
def test_assignment_equals_the_rule_spelled_out(raw: list[tuple[float, ...]], radius: float) -> None:
    boxes = [[x, y, x + w, y + h] for x, y, w, h in raw]
    points = _points()
    matched = assign_points(points, pad_targets([boxes], [[0] * len(boxes)]), center_radius=radius)[0]
    for i in range(0, len(points.xy), 7):
        assert matched[i].item() in _allowed(points, i, torch.tensor(boxes), radius)


def _allowed(points: Points, i: int, boxes: torch.Tensor, radius: float) -> set[int]:
    """The indices of the smallest boxes that qualify for a point, -1 if none does; ties allow several."""
    (x, y), stride, (low, high) = (
        points.xy[i].tolist(),
        points.strides[i].item(),
        points.size_range[i].tolist(),
    )
    qualifying = {}
    for j, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        sides = [x - x1, y - y1, x2 - x, y2 - y]
        near = radius == 0 or max(abs(x - (x1 + x2) / 2), abs(y - (y1 + y2) / 2)) < radius * stride
        if min(sides) > 1e-4 and near and low + 1e-4 < max(sides) < high - 1e-4:
            qualifying[j] = (x2 - x1) * (y2 - y1)
        elif min(sides) > -1e-4 and low - 1e-4 < max(sides) < high + 1e-4 and near:
            return {-1, *range(len(boxes))}  # on a border within rounding: nothing to claim
        elif radius and abs(max(abs(x - (x1 + x2) / 2), abs(y - (y1 + y2) / 2)) - radius * stride) < 1e-4:
            return {-1, *range(len(boxes))}
    if not qualifying:
        return {-1}
    smallest = min(qualifying.values())
    return {j for j, area in qualifying.items() if area <= smallest * (1 + 1e-5)}


def test_order_of_boxes_and_padding_change_nothing() -> None:
    boxes: list[list[float]] = [[10.0, 10, 60, 50], [20, 20, 40, 40], [70, 5, 120, 90]]
    points = _points()
    one = assign_points(points, pad_targets([boxes], [[0, 1, 2]]), center_radius=1.5)[0]
    two = assign_points(
        points, pad_targets([boxes[::-1], [boxes[0]] * 5], [[2, 1, 0], [0] * 5]), center_radius=1.5
    )[0]
    swapped = torch.where(two >= 0, 2 - two, two)
    assert torch.equal(one, swapped)
    assert (one >= 0).sum() > 5


def test_images_without_boxes_match_nothing() -> None:
    assert assign_points(_points(), pad_targets([[]], [[]]), center_radius=1.5).eq(-1).all()
    padding = Targets(
        torch.tensor([[[0.0, 0, 60, 60]]]), torch.zeros(1, 1, dtype=torch.int64), torch.tensor([[False]])
    )
    assert assign_points(_points(), padding, center_radius=1.5).eq(-1).all()
