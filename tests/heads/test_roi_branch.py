"""A branch of the second stage from outside the package: it trains, and adds a field to the detections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detector.exporting.recording import recorded
from detector.heads.roi_branch import Regions, RoIBranch
from detector.layers.roi_pooling import RoIAlign
from detector.structures import Batch, Detections, FeatureSpec, Keypoints, Targets
from tests.samples import make_batch, small_faster_rcnn, total

BOXES: list[list[list[float]]] = [[[8.0, 8, 40, 40], [30, 20, 60, 62]], [[0, 0, 50, 64]]]
LABELS = [[0, 2], [1]]
SIZES = [(64, 64), (64, 50)]
POINTS = torch.tensor([[[[12.0, 30]], [[55, 25]]], [[[10, 60]], [[0, 0]]]])


class Point(RoIBranch):
    """Predicts one keypoint of each object, in parts of its box."""

    def __init__(self, features: Sequence[FeatureSpec], num_classes: int) -> None:
        super().__init__()
        self.pooling = RoIAlign(features, output_size=3, sampling_ratio=2, aligned=True)
        self.linear = nn.Linear(features[0].channels * 9, 2)

    def loss(self, features: Sequence[Tensor], foreground: Regions, targets: Targets) -> dict[str, Tensor]:
        assert targets.keypoints is not None
        xy = targets.keypoints.xy[foreground.image, foreground.matched, 0]
        size = foreground.boxes[:, 2:] - foreground.boxes[:, :2]
        wanted = (xy - foreground.boxes[:, :2]) / size
        actual = self._parts(features, foreground.boxes, foreground.image)
        return {"loss_point": F.l1_loss(actual, wanted, reduction="sum") / max(1, len(wanted))}

    def add_to(self, features: Sequence[Tensor], detections: Detections, image: Tensor) -> Detections:
        boxes = detections.boxes
        xy = boxes[:, :2] + self._parts(features, boxes, image) * (boxes[:, 2:] - boxes[:, :2])
        visibility = torch.full((len(boxes), 1), 2)
        return replace(detections, keypoints=Keypoints(xy[:, None], visibility))

    def _parts(self, features: Sequence[Tensor], boxes: Tensor, image: Tensor) -> Tensor:
        return self.linear(self.pooling(features, boxes, image).flatten(1))


def batch() -> Batch:
    plain = make_batch(BOXES, LABELS, sizes=SIZES)
    visibility = plain.targets.valid[..., None].long() * 2
    return replace(plain, targets=replace(plain.targets, keypoints=Keypoints(POINTS, visibility)))


def model(**roi: Any) -> Any:
    torch.manual_seed(0)
    return small_faster_rcnn(**roi)


def seeded_loss(some: Any) -> dict[str, Tensor]:
    torch.manual_seed(1)  # of the order in which regions are drawn, hence summed
    return some.loss(batch())


def test_without_branches_the_head_has_no_parameter_more() -> None:
    assert not [name for name in model().state_dict() if "branches" in name]
    names = model(branches={"point": Point}).state_dict().keys() - model().state_dict().keys()
    assert names == {f"head.roi_heads.branches.point.linear.{name}" for name in ("weight", "bias")}


def test_a_branch_changes_no_other_loss_and_no_box() -> None:
    plain, branched = model().eval(), model(branches={"point": Point}).eval()
    losses = seeded_loss(branched)
    assert losses.pop("loss_point").item() > 0
    assert losses == seeded_loss(plain)
    for expected, actual in zip(plain.predict(batch()), branched.predict(batch()), strict=True):
        assert expected.keypoints is None
        assert torch.equal(actual.boxes, expected.boxes)
        assert torch.equal(actual.scores, expected.scores)


def test_a_branch_learns_what_its_regions_are_matched_with() -> None:
    branched, data = model(branches={"point": Point}).train(), batch()
    branched.backbone.eval()
    optimizer = torch.optim.Adam(branched.parameters(), lr=1e-3)
    history = []
    for _ in range(25):
        losses = branched.loss(data)
        optimizer.zero_grad()
        total(losses).backward()
        optimizer.step()
        history.append(losses["loss_point"].item())
    assert branched.head.roi_heads.branches["point"].linear.weight.grad.abs().sum() > 0
    assert history[-1] < history[0] / 2


def test_detections_get_the_field_each_in_its_own_image() -> None:
    branched = model(branches={"point": Point}).eval()
    together = branched.predict(batch())
    for i, actual in enumerate(together):
        assert actual.keypoints is not None
        assert actual.keypoints.xy.shape == (len(actual), 1, 2)
        (alone,) = branched.predict(batch().select(slice(i, i + 1)))
        torch.testing.assert_close(alone.keypoints.xy, actual.keypoints.xy, rtol=1e-3, atol=1e-2)


def test_images_without_objects_or_detections_pass() -> None:
    branched = model(branches={"point": Point}, score_threshold=1.0)
    empty = make_batch([[], []], [[], []], sizes=SIZES)
    points = Keypoints(torch.zeros(2, 0, 1, 2), torch.zeros(2, 0, 1, dtype=torch.int64))
    empty = replace(empty, targets=replace(empty.targets, keypoints=points))
    total(branched.train().loss(empty)).backward()
    assert branched.head.roi_heads.branches["point"].linear.weight.grad is not None
    assert [len(actual) for actual in branched.eval().predict(batch())] == [0, 0]


def test_a_loss_that_another_part_has_is_not_overwritten() -> None:
    with pytest.raises(AssertionError, match="branch second gives losses that another part has"):
        model(branches={"first": Point, "second": Point}).loss(batch())


def test_a_graph_does_not_leave_branches_out() -> None:
    with pytest.raises(ValueError, match=r"branches\.point is a branch with task=None, and graphs have"):
        recorded(model(branches={"point": Point}))
