"""Regions, features and targets for the branches of the second stage."""

from __future__ import annotations

import torch
from torch import Tensor

from detector.heads.roi_branch import Regions
from detector.structures import FeatureSpec, Targets

CHANNELS = 8
FEATURES = [FeatureSpec("p2", CHANNELS, 4), FeatureSpec("p3", CHANNELS, 8)]
BOXES = torch.tensor([[[8.0, 8, 40, 40], [30, 20, 60, 62]]])


def maps() -> list[Tensor]:
    random = torch.Generator().manual_seed(0)
    return [torch.randn(1, CHANNELS, side, side, generator=random) for side in (16, 8)]


def targets() -> Targets:
    return Targets(BOXES, torch.tensor([[0, 2]]), torch.ones(1, 2, dtype=torch.bool))


def regions(matched: list[int]) -> Regions:
    """Regions a little off their objects, of the one image."""
    index = torch.tensor(matched, dtype=torch.int64)
    boxes = BOXES[0, index].reshape(-1, 4)
    shift = torch.arange(len(matched))[:, None] * 0.7
    return Regions(boxes + shift, torch.zeros_like(index), targets().labels[0, index], boxes, index)
