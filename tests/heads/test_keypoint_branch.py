"""The keypoint branch by itself; tests/models/test_torchvision_parity.py compares its numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from detector.heads.keypoint_branch import KeypointBranch
from detector.layers.deform import DeformConv2d
from detector.layers.roi_pooling import DeformRoIPool
from detector.structures import Detections, Keypoints, Targets
from tests.heads.branches import BOXES, FEATURES, maps, regions, targets

POINTS = torch.tensor([[[[12.0, 30], [35, 12]], [[55, 25], [40, 50]]]])
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "deformable": {"deformable_convs": "all"},
    "deformable pooling": {"pooling": DeformRoIPool},
}


def branch(num_keypoints: int = 2, **options: Any) -> KeypointBranch:
    torch.manual_seed(0)
    return KeypointBranch(FEATURES, 3, num_keypoints, num_convs=2, width=16, **options)


def posed(visibility: list[list[int]] | None = None) -> Targets:
    labeled = torch.tensor([visibility or [[2, 1], [2, 2]]])
    return replace(targets(), keypoints=Keypoints(POINTS.clone(), labeled))


def loss(model: KeypointBranch, matched: list[int], wanted: Targets) -> Tensor:
    return model.loss(maps(), regions(matched), wanted)["loss_keypoint"]


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())
@pytest.mark.parametrize("matched", [[0, 1], []], ids=["objects", "none"])
def test_all_parameters_get_gradients(options: dict[str, Any], matched: list[int]) -> None:
    model = branch(**options).train()
    value = loss(model, matched, posed())
    value.backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    assert bool(value > 0) == bool(matched)


def test_unlabeled_keypoints_are_left_out() -> None:
    model = branch()
    torch.testing.assert_close(loss(model, [0, 1], posed([[2, 2], [0, 0]])), loss(model, [0], posed()))
    assert loss(model, [0, 1], posed([[0, 0], [0, 0]])) == 0
    moved = posed([[2, 0], [0, 2]])
    assert moved.keypoints is not None
    before = loss(model, [0, 1], moved)
    moved.keypoints.xy[0, 0, 1] = torch.nan  # the place of an unlabeled one has no effect
    assert loss(model, [0, 1], moved) == before


def test_it_learns_the_keypoints_of_its_regions() -> None:
    model, features, data = branch(), maps(), posed()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(40):
        value = model.loss(features, regions([0, 1]), data)["loss_keypoint"]
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    detections = Detections(BOXES[0], torch.ones(2), torch.tensor([0, 2]))
    with torch.no_grad():
        actual = model.add_to(features, detections, torch.zeros(2, dtype=torch.int64))
    assert actual.keypoints is not None
    assert actual.keypoint_scores is not None
    assert (actual.keypoints.xy - POINTS[0]).abs().max() < 2.5
    assert actual.keypoints.visibility.tolist() == [[2, 2], [2, 2]]
    assert actual.keypoint_scores.shape == (2, 2)


def test_options_reach_the_layers() -> None:
    head = branch(deformable_convs="last").keypoint_head
    assert [type(layer).__name__ for layer in head] == ["Conv3x3", "ReLU", "DeformConv2d", "ReLU"]
    assert isinstance(head[2], DeformConv2d)
    assert branch(sampling_ratio=0).pooling.sampling_ratio == 0


@pytest.mark.parametrize(("wanted", "got"), [(targets(), "none"), (posed(), "2")])
def test_targets_with_other_keypoints_are_an_error(wanted: Targets, got: str) -> None:
    with pytest.raises(ValueError, match=rf"expected targets with 5 keypoints of each object, got {got}\."):
        loss(branch(5), [0], wanted)
