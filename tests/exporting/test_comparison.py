"""How far masks and keypoints of a graph are from the model's."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from detector.exporting.comparison import branch_difference
from detector.ops.masks import paste
from detector.structures import BoxMasks, Detections, Keypoints

BOXES = torch.tensor([[2.0, 3, 30, 31], [10, 5, 40, 45]])
LABELS = torch.tensor([[0, -1], [1, -1]])  # of two images


def expected() -> Detections:
    """Two masks of the same gradient from 0 to 1, and 200 keypoints of each."""
    mask = torch.linspace(0, 1, 28).expand(2, 28, 28)
    keypoints = Keypoints(torch.zeros(2, 200, 2), torch.full((2, 200), 2))
    plain = Detections(BOXES, torch.ones(2), torch.tensor([0, 1]))
    scores = torch.full((2, 200), 4.0)
    return replace(plain, masks=BoxMasks(mask), keypoints=keypoints, keypoint_scores=scores)


def padded(rows: torch.Tensor) -> torch.Tensor:
    """One detection for each image, and one of padding, which must not count."""
    return torch.stack([rows, torch.full_like(rows, 7) if rows.dtype != torch.bool else ~rows], dim=1)


@pytest.mark.parametrize(("change", "difference"), [(0.0, 0.0), (0.25, 0.25), (torch.nan, torch.inf)])
def test_masks_differ_by_their_probabilities(change: float, difference: float) -> None:
    masks = padded(torch.linspace(0, 1, 28).repeat(2, 28, 1))
    masks[1, 0, 5, 5] += change
    assert branch_difference([{"labels": LABELS, "masks": masks}], [expected()]).mask == difference


def test_pasted_masks_differ_by_the_probability_of_the_wrong_pixels() -> None:
    detected = expected()
    assert detected.masks is not None
    masks = padded(paste(detected.masks.coverage, BOXES, (50, 60)))
    outputs = {"labels": LABELS, "masks": masks}
    assert branch_difference([outputs], [detected]).mask == 0
    column = int(masks[0, 0, 15].nonzero()[0])  # the first covered: just above 0.5
    masks[0, 0, 15, column] = False
    assert 0 < branch_difference([outputs], [detected]).mask < 0.04
    masks[1, 0, 25, 39] = False  # nearly 1
    assert branch_difference([outputs], [detected]).mask > 0.4


def test_one_of_a_hundred_keypoints_may_be_elsewhere() -> None:
    rows = torch.cat([torch.zeros(2, 200, 2), torch.full((2, 200, 1), 4.0)], dim=-1)
    keypoints = padded(rows)
    keypoints[..., 0, 1] += 1.25
    keypoints[0, 0, 1:4, 0] = 50
    keypoints[..., 10:, 2] += 0.5
    result = branch_difference([{"labels": LABELS, "keypoints": keypoints}], [expected()])
    assert (result.keypoint_px, result.keypoint_score) == (1.25, 0.125)  # relative to 4
    keypoints[0, 0, 4:9, 0] = torch.nan
    result = branch_difference([{"labels": LABELS, "keypoints": keypoints}], [expected()])
    assert result.keypoint_px == torch.inf
