"""Deformable RoI pooling against its definition, written as loops, and against RoIAlign."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from detector.ops.deform_roi_pool import pyramid_deform_roi_pool, roi_sampling_statistics
from detector.ops.roi_align import pyramid_level, pyramid_roi_align

STRIDES = (4, 8, 16)
BOXES = torch.tensor(
    [
        [3.3, 5.1, 60.2, 47.9],
        [-30.0, 20, 40, 90],  # over the border
        [70.0, 60, 71, 60.5],  # less than a cell
        [20.0, 10, 250, 200],
        [5.0, 0, 300, 260],
        [400.0, 400, 450, 430],  # outside
        [10.0, 10, 10, 10],
    ],
    dtype=torch.float64,
)
IMAGE = torch.tensor([0, 1, 1, 0, 1, 0, 1])


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def problem(size: int = 3) -> dict[str, Any]:
    torch.manual_seed(0)
    return {
        "features": [draw(2, 2, 96 // s, 128 // s) for s in STRIDES],
        "strides_px": STRIDES,
        "boxes": BOXES,
        "image_index": IMAGE,
        "offset": 2 * draw(len(BOXES), 2, size, size),
        "mask": draw(len(BOXES), size, size).sigmoid(),
    }


def by_definition(
    features: list[Tensor],
    strides_px: tuple[int, ...],
    boxes: Tensor,
    image_index: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """The mean of each bin's samples, one number at a time."""
    size, half = offset.shape[-1], 0.5 if aligned else 0.0
    levels = pyramid_level(boxes, num_levels=len(features), finest_stride_px=strides_px[0]).tolist()
    pooled = torch.zeros(len(boxes), features[0].shape[1], size, size, dtype=torch.float64)
    for r, level in enumerate(levels):
        left, top, right, bottom = (side / strides_px[level] - half for side in boxes[r].tolist())
        width, height = right - left, bottom - top
        if not aligned:
            width, height = max(width, 1.0), max(height, 1.0)
        across = sampling_ratio or math.ceil(width / size)
        down = sampling_ratio or math.ceil(height / size)
        for i in range(size):
            for j in range(size):
                dx, dy = (0.1 * side * offset[r, d, i, j].item() for d, side in enumerate((width, height)))
                for c in range(pooled.shape[1]):
                    plane = features[level][image_index[r], c]
                    samples = [
                        interpolated(
                            plane,
                            top + dy + (i + (a + 0.5) / down) * height / size,
                            left + dx + (j + (b + 0.5) / across) * width / size,
                        )
                        for a in range(down)
                        for b in range(across)
                    ]
                    value = sum(samples) / max(1, len(samples))
                    pooled[r, c, i, j] = value if mask is None else value * mask[r, i, j].item()
    return pooled


def interpolated(plane: Tensor, y: float, x: float) -> float:
    """RoIAlign's: the border goes on for a cell, beyond is 0."""
    height, width = plane.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0.0
    y, x = min(max(y, 0.0), height - 1), min(max(x, 0.0), width - 1)
    value = 0.0
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            weight = max(0.0, 1 - abs(y - row)) * max(0.0, 1 - abs(x - column))
            if weight:
                value += weight * plane[row, column].item()
    return value


@pytest.mark.parametrize("sampling_ratio", [0, 1, 2])
@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("modulated", [False, True])
def test_equals_its_definition(sampling_ratio: int, aligned: bool, modulated: bool) -> None:
    inputs = problem() if modulated else problem() | {"mask": None}
    actual = pyramid_deform_roi_pool(**inputs, sampling_ratio=sampling_ratio, aligned=aligned)
    expected = by_definition(**inputs, sampling_ratio=sampling_ratio, aligned=aligned)
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("sampling_ratio", [1, 2])
def test_what_is_recorded_is_the_same(sampling_ratio: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = pyramid_deform_roi_pool(**problem(), sampling_ratio=sampling_ratio)
    monkeypatch.setattr("detector.ops.deform_roi_pool.is_recorded", lambda: True)
    actual = pyramid_deform_roi_pool(**problem(), sampling_ratio=sampling_ratio)
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("sampling_ratio", [0, 1, 2])
@pytest.mark.parametrize("aligned", [False, True])
def test_without_offsets_equals_roi_align(sampling_ratio: int, aligned: bool) -> None:
    """Gradients too. With sampling_ratio=0 the reference is torchvision's, whose constants are float32."""
    inputs = problem(size=7)
    features = [x.requires_grad_() for x in inputs["features"]]
    sampling: dict[str, Any] = {"sampling_ratio": sampling_ratio, "aligned": aligned}
    regions = (features, STRIDES, BOXES, IMAGE)
    actual = pyramid_deform_roi_pool(*regions, torch.zeros_like(inputs["offset"]), **sampling)
    expected = pyramid_roi_align(*regions, output_size=7, **sampling)
    grad = torch.randn_like(expected)
    for a, b in zip(
        (actual, *torch.autograd.grad(actual, features, grad)),
        (expected, *torch.autograd.grad(expected, features, grad)),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_an_offset_of_one_is_a_tenth_of_the_region() -> None:
    columns = torch.arange(40.0).expand(1, 1, 40, 40)
    image = torch.cat([columns, columns.transpose(2, 3)], dim=1)
    offset = torch.zeros(1, 2, 1, 1)
    offset[0, 0], offset[0, 1] = 1.0, -2.0
    boxes = torch.tensor([[10.0, 12, 20, 32]])
    actual = pyramid_deform_roi_pool([image], (1,), boxes, torch.zeros(1).long(), offset)
    torch.testing.assert_close(actual.flatten(), torch.tensor([15.0 + 1, 22.0 - 4]))


@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_gradients(sampling_ratio: int) -> None:
    """Of regions inside, over the border, and outside, of two images and levels."""
    inputs = problem(size=2)
    features = [draw(2, 2, 6, 7).requires_grad_(), draw(2, 2, 3, 4).requires_grad_()]
    boxes = torch.tensor([[1.0, 2, 19.3, 16], [-9, 3, 14, 22], [20, 9, 900, 700], [90, 90, 99, 99]]).double()
    offset, mask = (inputs[name][:4].clone().requires_grad_() for name in ("offset", "mask"))

    def pooled(finest: Tensor, coarsest: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        return pyramid_deform_roi_pool(
            [finest, coarsest],
            (4, 128),
            boxes,
            torch.tensor([0, 1, 1, 0]),
            offset,
            mask,
            sampling_ratio=sampling_ratio,
        )

    assert torch.autograd.gradcheck(pooled, (*features, offset, mask))


def test_regions_that_nothing_is_sampled_in_are_zero() -> None:
    """Without samples, or with all of them outside; what they depend on has a gradient of 0."""
    inputs = problem(size=2) | {"boxes": BOXES[[5, 6]], "image_index": IMAGE[:2]}
    offset, mask = (inputs.pop(name)[:2].requires_grad_() for name in ("offset", "mask"))
    actual = pyramid_deform_roi_pool(**inputs, offset=offset, mask=mask, sampling_ratio=0, aligned=True)
    assert actual.eq(0).all()
    actual.sum().backward()
    assert offset.grad.eq(0).all()
    assert mask.grad.eq(0).all()


@pytest.mark.parametrize("recorded", [False, True])
def test_a_nan_offset_gives_nan_where_it_is_used_and_nowhere_else(
    recorded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detector.ops.deform_roi_pool.is_recorded", lambda: recorded)
    inputs = problem()
    inputs["offset"][0, 1, 2, 1] = math.nan
    wrong = pyramid_deform_roi_pool(**inputs).isnan().nonzero()
    assert {tuple(place) for place in wrong[:, [0, 2, 3]].tolist()} == {(0, 2, 1)}


def test_no_regions() -> None:
    offset = torch.zeros(0, 2, 7, 7, requires_grad=True)
    features = [torch.randn(1, 3, 8, 8, requires_grad=True)]
    actual = pyramid_deform_roi_pool(features, (4,), torch.zeros(0, 4), torch.zeros(0).long(), offset)
    assert actual.shape == (0, 3, 7, 7)
    actual.sum().backward()
    assert features[0].grad is not None
    assert features[0].grad.eq(0).all()


def test_half_precision_is_rounded_at_the_end_only() -> None:
    inputs: dict[str, Any] = {
        k: v.float() if isinstance(v, Tensor) and k != "image_index" else v for k, v in problem().items()
    }
    half = [x.bfloat16() for x in inputs.pop("features")]
    exact = pyramid_deform_roi_pool([x.float() for x in half], **inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = pyramid_deform_roi_pool(half, **inputs)
    assert actual.dtype == torch.bfloat16
    torch.testing.assert_close(actual, exact.bfloat16(), rtol=0, atol=0)


@pytest.mark.parametrize("aligned", [False, True])
def test_statistics_of_the_bins_equal_loops(aligned: bool) -> None:
    inputs = problem()
    offset, mask, size = 4 * inputs["offset"], inputs["mask"], 3
    levels = pyramid_level(BOXES, num_levels=3, finest_stride_px=4).tolist()
    lengths, left = [], []
    for r, level in enumerate(levels):
        x0, y0, x1, y1 = (side / STRIDES[level] - 0.5 * aligned for side in BOXES[r].tolist())
        width, height = (side if aligned else max(side, 1.0) for side in (x1 - x0, y1 - y0))
        rows, columns = inputs["features"][level].shape[2:]

        def inside(x: float, y: float, rows: int = rows, columns: int = columns) -> bool:
            return -1 < x < columns and -1 < y < rows

        for i in range(size):
            for j in range(size):
                dx, dy = 0.1 * width * offset[r, 0, i, j].item(), 0.1 * height * offset[r, 1, i, j].item()
                x, y = x0 + (j + 0.5) / size * width, y0 + (i + 0.5) / size * height
                lengths.append(math.hypot(dx, dy))
                if inside(x, y):
                    left.append(not inside(x + dx, y + dy))
    assert 0 < sum(left) < len(left) < len(lengths)
    actual = roi_sampling_statistics(inputs["features"], STRIDES, BOXES, offset, mask, aligned=aligned)
    assert actual["mean_px"].item() == pytest.approx(sum(lengths) / len(lengths))
    assert actual["outside"].item() == pytest.approx(sum(left) / len(left))
    assert actual["modulation_mean"].item() == pytest.approx(mask.mean().item())
    without = roi_sampling_statistics(inputs["features"], STRIDES, BOXES, offset, None, aligned=aligned)
    assert without.keys() == {"mean_px", "outside"}


@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize("plane", [0, 1])
def test_a_nan_offset_gives_nan_in_its_bin_alone_and_in_gradients(plane: int, sampling_ratio: int) -> None:
    """Zeros would hide it."""
    inputs = problem()
    inputs["offset"][3, :, 0, 0] = 0.1  # inside of the map
    inputs["offset"][3, plane, 0, 0] = math.nan
    leaves = [t.requires_grad_() for t in (*inputs["features"], inputs["offset"], inputs["mask"])]
    y = pyramid_deform_roi_pool(**inputs, sampling_ratio=sampling_ratio)
    assert {tuple(place) for place in y.isnan().nonzero().tolist()} == {(3, c, 0, 0) for c in (0, 1)}
    *of_features, of_offset, of_mask = torch.autograd.grad(y.sum(), leaves)
    assert [bool(grad.isnan().any()) for grad in of_features] == [False, True, False]
    assert of_offset[3, 1 - plane, 0, 0].isnan()
    assert of_mask.isnan().nonzero().tolist() == [[3, 0, 0]]


@pytest.mark.parametrize("value", [math.inf, -math.inf, 1e30, -1e10])
def test_a_bin_far_outside_is_zero_and_has_finite_gradients(value: float) -> None:
    inputs = problem()
    inputs["offset"][3, :, 1, 2] = value
    leaves = [t.requires_grad_() for t in (*inputs["features"], inputs["offset"], inputs["mask"])]
    y = pyramid_deform_roi_pool(**inputs)
    assert y[3, :, 1, 2].eq(0).all()
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(y.sum(), leaves))
