"""Anchors are a stride grid, or torchvision's."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.models.detection import anchor_utils
from torchvision.models.detection.image_list import ImageList

from detector.heads.anchors import AnchorGenerator

CPU = torch.device("cpu")


@given(rows=st.integers(1, 6), columns=st.integers(1, 6), stride=st.sampled_from([4, 8, 16]))
def test_anchors_lie_around_a_stride_grid_with_their_areas_and_ratios(
    rows: int, columns: int, stride: int
) -> None:
    generator = AnchorGenerator(scales=(4.0, 8.0), ratios=(0.5, 2.0))
    (boxes,) = generator([(rows, columns)], [stride], device=CPU)
    boxes = boxes.view(rows, columns, generator.per_cell, 4)
    centers, sizes = (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
    assert torch.allclose(centers[..., 0], stride * torch.arange(columns)[:, None].float(), atol=1e-3)
    assert torch.allclose(centers[..., 1], stride * torch.arange(rows)[:, None, None].float(), atol=1e-3)
    areas = torch.tensor([4.0, 8, 4, 8]).square() * stride**2
    assert torch.allclose(sizes.prod(-1), areas.expand(rows, columns, 4), rtol=1e-4)
    assert torch.allclose(sizes[..., 1] / sizes[..., 0], torch.tensor([0.5, 0.5, 2, 2]), rtol=1e-4)


@pytest.mark.parametrize("size", [(96, 128), (800, 1088), (32, 32)])
def test_torchvisions_grid(size: tuple[int, int]) -> None:
    strides = [4, 8, 16, 32, 64]
    shapes = [(-(-size[0] // s), -(-size[1] // s)) for s in strides]
    theirs = anchor_utils.AnchorGenerator(tuple((8 * s,) for s in strides), ((0.5, 1.0, 2.0),) * 5)
    images = ImageList(torch.zeros(1, 3, *size), [size])
    (expected,) = theirs(images, [torch.zeros(1, 1, *shape) for shape in shapes])
    actual = AnchorGenerator(grid="torchvision")(shapes, strides, device=CPU)
    assert torch.equal(torch.cat(actual), expected)
