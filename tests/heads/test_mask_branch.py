"""The mask branch by itself; its numbers are compared in tests/models/test_torchvision_parity.py."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from detector.heads.mask_branch import MaskBranch
from detector.layers.deform import DeformConv2d
from detector.layers.roi_pooling import DeformRoIPool
from detector.structures import BoxMasks, Detections, Targets
from tests.heads.branches import BOXES, FEATURES, maps, regions, targets

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "agnostic": {"class_agnostic": True},
    "batch norm": {"norm": "batch"},
    "group norm": {"norm": "group"},
    "deformable": {"deformable_convs": "all"},
    "deformable pooling": {"pooling": DeformRoIPool},
}


def branch(**options: Any) -> MaskBranch:
    torch.manual_seed(0)
    return MaskBranch(FEATURES, 3, num_convs=2, width=8, **options)


def masked(*, without: int | None = None) -> Targets:
    """Objects that fill the left half of their boxes; one may have no mask."""
    coverage = torch.zeros(1, 2, 56, 56, dtype=torch.uint8)
    coverage[..., :28] = 255
    if without is not None:
        coverage[:, without] = 0
    return replace(targets(), masks=BoxMasks(coverage))


def loss(model: MaskBranch, matched: list[int], wanted: Targets) -> Tensor:
    return model.loss(maps(), regions(matched), wanted)["loss_mask"]


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())
@pytest.mark.parametrize("matched", [[0, 1], []], ids=["objects", "none"])
def test_all_parameters_get_gradients(options: dict[str, Any], matched: list[int]) -> None:
    model = branch(**options).train()
    value = loss(model, matched, masked())
    value.backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    assert bool(value > 0) == bool(matched)
    assert all(buffer.isfinite().all() for buffer in model.buffers())  # also of norms that saw nothing


def test_the_logits_are_those_of_the_layers_for_the_class() -> None:
    """Computed for one class, and before the cells are in their places."""
    model, labels = branch(), torch.tensor([2, 0])
    layers: Any = model.mask_predictor
    x = torch.randn(2, 8, 14, 14)
    every = layers.mask_fcn_logits(F.relu(layers.conv5_mask(x)))
    torch.testing.assert_close(layers(x, labels), every[[0, 1], labels + 1], rtol=1e-5, atol=1e-5)


def test_objects_without_a_mask_are_left_out() -> None:
    model = branch()
    torch.testing.assert_close(loss(model, [0, 1], masked(without=1)), loss(model, [0], masked()))
    assert loss(model, [1], masked(without=1)) == 0


def test_only_the_mask_of_the_class_learns() -> None:
    model = branch()
    loss(model, [1], masked()).backward()
    layers: Any = model.mask_predictor
    gradient = layers.mask_fcn_logits.bias.grad
    assert [int(row) for row in gradient.nonzero()] == [3]  # label 2, after background


def test_it_learns_the_masks_of_its_regions() -> None:
    model, features, data = branch(), maps(), masked()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(40):
        value = model.loss(features, regions([0, 1]), data)["loss_mask"]
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    detections = Detections(BOXES[0], torch.ones(2), torch.tensor([0, 2]))
    with torch.no_grad():
        actual = model.add_to(features, detections, torch.zeros(2, dtype=torch.int64))
    assert actual.masks is not None
    left, right = actual.masks.coverage.split(14, dim=-1)
    assert left.mean() > 0.9
    assert right.mean() < 0.1


def test_options_reach_the_layers() -> None:
    deformable = branch(deformable_convs="last", deform=DeformConv2d)
    blocks: Any = deformable.mask_head
    assert [isinstance(block[0], DeformConv2d) for block in blocks] == [False, True]
    assert branch(class_agnostic=True).mask_predictor.mask_fcn_logits.out_channels == 1
    assert branch(aligned=True).pooling.aligned
    with pytest.raises(ValueError, match=r"branches\.mask\.pooling: .*output_size cannot be chosen"):
        branch(pooling=partial(DeformRoIPool, output_size=7))


def test_targets_without_masks_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"expected targets with masks, got boxes alone.*use_tasks"):
        loss(branch(), [0], targets())
