"""Regions and their levels against torchvision's MultiScaleRoIAlign."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import MultiScaleRoIAlign

from detector.ops import roi_align
from detector.ops.roi_align import pyramid_level, pyramid_roi_align

STRIDES = (4, 8, 16, 32)


def test_pooled_features_equal_torchvisions() -> None:
    torch.manual_seed(0)
    size = (256, 320)
    features = [torch.randn(2, 3, size[0] // s, size[1] // s) for s in STRIDES]
    xy = torch.rand(40, 2) * 100
    boxes = torch.cat([xy, xy + torch.rand(40, 2).square() * 150 + 1], dim=1)
    image = torch.arange(40) % 2
    theirs = MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2)
    expected = theirs(
        {str(i): x for i, x in enumerate(features)}, [boxes[image == 0], boxes[image == 1]], [size] * 2
    )
    actual = pyramid_roi_align(features, STRIDES, boxes, image, output_size=7)
    torch.testing.assert_close(actual, torch.cat([expected[:20], expected[20:]])[_interleaved()])


def _interleaved() -> torch.Tensor:
    return torch.stack([torch.arange(20), torch.arange(20, 40)], dim=1).flatten()


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gather_equals_torchvisions_kernel(
    aligned: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regions of all sizes, some partly or wholly outside, and their gradients."""
    torch.manual_seed(0)
    features = [torch.randn(2, 5, 64 // s, 96 // s, dtype=dtype).requires_grad_() for s in (1, 2, 4, 8)]
    corner = torch.rand(60, 2, dtype=dtype) * 500 - 80
    boxes = torch.cat([corner, corner + torch.rand(60, 2, dtype=dtype).square() * 400], dim=1)
    boxes[0] = torch.tensor([-50.0, -50, -40, -40])
    boxes[1] = torch.tensor([10.0, 10, 10, 10])
    image = torch.randint(0, 2, (60,))
    grad = torch.randn(60, 5, 7, 7, dtype=dtype)

    def both() -> list[torch.Tensor]:
        y = pyramid_roi_align(features, STRIDES, boxes, image, output_size=7, aligned=aligned)
        return [y, *torch.autograd.grad(y, features, grad)]

    actual = both()
    monkeypatch.setattr(roi_align, "_gather_pays", lambda *arguments: False)
    for a, b in zip(actual, both(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_levels_double_with_the_side() -> None:
    sides = torch.tensor([0.0, 10, 111, 112, 223, 224, 447, 448, 9999])
    boxes = torch.stack([torch.zeros(9), torch.zeros(9), sides, sides], dim=1)
    level = pyramid_level(boxes, num_levels=4, finest_stride_px=4)
    assert level.tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3]


def test_no_regions() -> None:
    features = [torch.randn(1, 3, 8, 8) for _ in STRIDES]
    actual = pyramid_roi_align(features, STRIDES, torch.zeros(0, 4), torch.zeros(0).long(), output_size=7)
    assert actual.shape == (0, 3, 7, 7)
