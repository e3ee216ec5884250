"""Masks in images and places in heat maps by recordable operations: equal to those of eager code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from detector.exporting.pasting import pasted_probabilities
from detector.ops import keypoints
from detector.ops.keypoints import decoded_heatmaps
from detector.ops.masks import paste

PAGE = Path(__file__).resolve().parents[2] / "docs" / "deploy.md"
HEIGHT, WIDTH = 60, 90


def boxes_up_to(side: tuple[float, float], *, count: int) -> torch.Tensor:
    """Boxes with sides in this range, in float pixels."""
    generator = torch.Generator().manual_seed(0)
    lowest, highest = side
    sides = lowest + torch.rand(count, 2, generator=generator) * (highest - lowest)
    corner = torch.rand(count, 2, generator=generator) * 20
    return torch.cat([corner, corner + sides], dim=1)


def test_pasted_masks_are_those_of_the_reference() -> None:
    """Also of boxes of a part of a pixel, of none, and at the borders of the image."""
    some = [[0.0, 0, WIDTH, HEIGHT], [5.5, 7.25, 5.75, 7.5], [0, 0, 0, 0], [80, 50, 90, 60], [0, 3, 2, 60]]
    boxes = torch.cat([torch.tensor(some), boxes_up_to((1, 70), count=20)])
    masks = torch.rand(len(boxes), 28, 28, generator=torch.Generator().manual_seed(1))
    masks[0] = 1.0  # whole
    actual = pasted_probabilities(masks, boxes, (HEIGHT, WIDTH))
    expected = paste(masks, boxes, (HEIGHT, WIDTH))
    wrong = (actual > 0.5) != expected
    assert ((actual[wrong] - 0.5).abs() < 1e-6).all()
    assert wrong.sum() <= 2
    assert expected[5:].any(dim=(1, 2)).all()


def test_the_pasting_of_the_documentation_is_that_of_the_reference() -> None:
    (code,) = (
        code
        for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
        if "def pasted" in code
    )
    namespace: dict[str, Any] = {}
    exec(code, namespace)
    boxes = torch.cat([torch.tensor([[0.0, 0, WIDTH, HEIGHT], [5, 5, 5, 5]]), boxes_up_to((1, 70), count=10)])
    boxes = boxes.minimum(torch.tensor([WIDTH, HEIGHT] * 2))  # as the outputs are
    masks = torch.rand(len(boxes), 28, 28, generator=torch.Generator().manual_seed(1))
    expected = paste(masks, boxes, (HEIGHT, WIDTH))
    for mask, box, pixels in zip(masks.numpy(), boxes.numpy(), expected.numpy(), strict=True):
        actual = namespace["pasted"](mask, box, HEIGHT, WIDTH)
        assert actual.shape == pixels.shape
        assert (actual != pixels).sum() <= 1  # where rounding decides


def heat_maps(count: int, *, points: int = 3) -> torch.Tensor:
    """Noise smoothed over a few cells, doubled as the branch doubles it."""
    noise = torch.randn(count, points, 32, 32, generator=torch.Generator().manual_seed(2))
    return F.interpolate(F.avg_pool2d(noise, 5, stride=1) * 5, scale_factor=2.0, mode="bilinear")


def searched(heatmaps: torch.Tensor, boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What a recorded graph decodes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keypoints, "is_recorded", lambda: True)
        return decoded_heatmaps(heatmaps, boxes)


@pytest.mark.parametrize("side", [(0.0, 56.0), (56.0, 112.0), (113.0, 600.0)])
def test_searched_heat_maps_have_their_peaks_where_resized_ones_have(side: tuple[float, float]) -> None:
    """In small boxes, whose maps shrink, in larger ones, and where only a part of the pixels is looked at."""
    boxes = boxes_up_to(side, count=8)
    xy, scores = searched(heat_maps(8), boxes)
    expected_xy, expected_scores = decoded_heatmaps(heat_maps(8), boxes)
    torch.testing.assert_close(scores, expected_scores, atol=1e-4, rtol=0)
    torch.testing.assert_close(xy, expected_xy, atol=1e-3 if side[0] < 100 else 1.001, rtol=0)


def test_narrow_peaks_in_large_boxes_are_seldom_missed() -> None:
    """Of white noise, the hardest: a missed one is hardly lower."""
    noise = torch.randn(8, 17, 28, 28, generator=torch.Generator().manual_seed(3))
    heatmaps = F.interpolate(noise, scale_factor=2.0, mode="bilinear")
    boxes = boxes_up_to((200, 400), count=8)
    xy, scores = searched(heatmaps, boxes)
    expected_xy, expected_scores = decoded_heatmaps(heatmaps, boxes)
    near = (xy - expected_xy).abs().amax(dim=-1) < 1.001
    assert near.float().mean() > 0.99
    assert (expected_scores - scores).max() < 0.02
