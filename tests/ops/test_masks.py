"""Masks in the frames of boxes against torchvision's masks of whole images."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.models.detection.roi_heads import paste_masks_in_image, project_masks_on_boxes

from detector.ops.masks import cropped, paste

SIDE = 56


def near(boxes: Tensor, count: int) -> Tensor:
    """For each box regions that overlap it, at any fraction of a pixel."""
    random = torch.Generator().manual_seed(1)
    shifts = (torch.rand(len(boxes), count, 4, generator=random) - 0.5) * 0.5
    size = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    return (boxes[:, None] + shifts * size[:, None]).flatten(0, 1)


def test_regions_get_what_torchvision_projects_for_boxes_of_whole_cells() -> None:
    boxes = torch.tensor([[30.0, 40, 86, 96], [50, 35, 106, 91]])
    coverage = torch.randint(0, 2, (2, SIDE, SIDE), dtype=torch.uint8) * 255
    images = torch.zeros(2, 150, 150)
    for image, mask, (x1, y1, x2, y2) in zip(images, coverage, boxes.long().tolist(), strict=True):
        image[y1:y2, x1:x2] = mask / 255
    regions, matched = near(boxes, 20), torch.arange(2).repeat_interleave(20)
    expected = project_masks_on_boxes(images, regions, matched, 28)
    actual = cropped(coverage[matched], boxes[matched], regions, size=28)
    assert expected.mean() > 0.2
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("width", "height", "difference"), [(24.4, 31.7, 0.02), (130.2, 90.5, 0.01), (301.3, 250.9, 0.005)]
)
def test_regions_get_nearly_the_same_for_boxes_of_any_size(
    width: float, height: float, difference: float
) -> None:
    box = torch.tensor([[20.3, 30.6, 20.3 + width, 30.6 + height]])
    cells = (torch.arange(SIDE * 4) + 0.5) / (SIDE * 2) - 1
    fine = (cells[:, None].square() + cells.square() < 1).float()  # an ellipse that fills its box
    coverage = (fine.view(SIDE, 4, SIDE, 4).mean((1, 3)) * 255).round().byte()
    x = (torch.arange(360) + 0.5 - box[0, 0]) / width * 2 - 1
    y = (torch.arange(360) + 0.5 - box[0, 1]) / height * 2 - 1
    image = (y[:, None].square() + x.square() < 1).float()
    regions = near(box, 30)
    matched = torch.zeros(len(regions), dtype=torch.int64)
    expected = project_masks_on_boxes(image[None], regions, matched, 28)
    actual = cropped(coverage.expand(30, -1, -1), box.expand(30, -1), regions, size=28)
    assert (actual - expected).abs().mean() < difference
    assert (actual.mean() - expected.mean()).abs() < difference / 5  # no bias


def test_nothing_is_outside_the_box() -> None:
    box = torch.tensor([[10.0, 10, 20, 20]])
    full = torch.full((1, SIDE, SIDE), 255, dtype=torch.uint8)
    assert cropped(full, box, torch.tensor([[22.0, 10, 30, 20]]), size=28).sum() == 0


def test_no_regions() -> None:
    empty = torch.zeros(0, 4)
    assert cropped(torch.zeros(0, SIDE, SIDE, dtype=torch.uint8), empty, empty, size=28).shape == (0, 28, 28)


BOXES = torch.tensor(
    [
        [10.2, 12.7, 50.4, 60.1],
        [-3.5, -8.0, 20.3, 30.2],  # beyond the image
        [40.0, 30.0, 90.9, 75.5],
        [5.0, 5.0, 5.2, 5.1],
        [0.0, 0.0, 80.0, 70.0],
        [79.6, 20.0, 79.9, 60.0],
    ]
)


def test_pasted_pixels_are_torchvisions() -> None:
    masks = torch.rand(len(BOXES), 28, 28, generator=torch.Generator().manual_seed(0))
    expected = paste_masks_in_image(masks[:, None], BOXES, (70, 80))[:, 0] > 0.5
    actual = paste(masks, BOXES, (70, 80))
    assert actual.flatten(1).any(dim=1).sum() >= 5
    assert torch.equal(actual, expected)


def test_masks_of_integers_are_pasted_as_fractions() -> None:
    coverage = torch.randint(0, 256, (len(BOXES), 56, 56), dtype=torch.uint8)
    assert torch.equal(paste(coverage, BOXES, (70, 80)), paste(coverage / 255, BOXES, (70, 80)))


def test_no_masks_are_pasted_into_no_images() -> None:
    assert paste(torch.zeros(0, 28, 28), torch.zeros(0, 4), (7, 8)).shape == (0, 7, 8)
