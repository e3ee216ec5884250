"""Cells of heat maps and their decoding against torchvision's."""

from __future__ import annotations

import torch
from torchvision.models.detection.roi_heads import heatmaps_to_keypoints, keypoints_to_heatmap

from detector.ops.keypoints import decoded_heatmaps, heatmap_cells
from detector.structures import Keypoints

REGIONS = torch.tensor([[10.0, 20, 40, 70], [0.5, 0.25, 100.5, 33], [30, 30, 30.4, 30.3]])


def test_cells_are_torchvisions() -> None:
    random = torch.Generator().manual_seed(0)
    corner, size = REGIONS[:, None, :2], (REGIONS[:, 2:] - REGIONS[:, :2])[:, None]
    xy = corner + (torch.rand(3, 40, 2, generator=random) * 1.4 - 0.2) * size
    xy[:, 0], xy[:, 1] = REGIONS[:, 2:], REGIONS[:, :2]  # both corners belong to their region
    visibility = torch.randint(0, 3, (3, 40), generator=random)
    visibility[:, :2] = 2
    theirs = torch.cat([xy, visibility[..., None]], dim=-1)
    expected, expected_valid = keypoints_to_heatmap(theirs, REGIONS, 56)
    cells, valid = heatmap_cells(Keypoints(xy, visibility), REGIONS, size=56)
    assert valid[:, :2].all()
    assert 0 < valid.sum() < valid.numel()
    assert torch.equal(valid, expected_valid.bool())
    assert torch.equal(cells[valid], expected[valid])
    assert cells[0, 0] == 56 * 56 - 1


def test_decoding_is_torchvisions() -> None:
    heatmaps = torch.randn(3, 5, 56, 56, generator=torch.Generator().manual_seed(0))
    expected, expected_scores = heatmaps_to_keypoints(heatmaps, REGIONS)
    xy, scores = decoded_heatmaps(heatmaps, REGIONS)
    torch.testing.assert_close(xy, expected[..., :2], rtol=0, atol=1e-4)
    torch.testing.assert_close(scores, expected_scores, rtol=0, atol=1e-4)


def test_decoding_is_finer_than_a_cell() -> None:
    region = torch.tensor([[0.0, 0, 560, 560]])  # a cell is 10 pixels
    cells = torch.arange(56) + 0.5
    bump = -((cells - 20.3)[:, None].square() + (cells - 31.8).square()) / 20
    xy, _ = decoded_heatmaps(bump[None, None], region)
    torch.testing.assert_close(xy[0, 0], torch.tensor([318.0, 203.0]), rtol=0, atol=2.0)


def test_no_detections() -> None:
    xy, scores = decoded_heatmaps(torch.zeros(0, 5, 56, 56), torch.zeros(0, 4))
    assert (xy.shape, scores.shape) == ((0, 5, 2), (0, 5))
