"""With the same weights, losses and detections equal torchvision's FCOS."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torchvision
from torchvision.models.detection import FCOS
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from detector.backbones import ResNet
from detector.heads import FCOSHead
from detector.models import Detector, assemble
from detector.necks import FPN
from detector.structures import Detections
from tests.samples import make_batch

SIZES = [(96, 128), (91, 117)]
BOXES = [[[10.0, 12, 50, 60], [0, 0, 127, 95], [30, 30, 33, 34]], []]
LABELS = [[0, 4, 2], []]


@pytest.fixture(scope="module")
def pair() -> tuple[Detector, FCOS]:
    torch.manual_seed(1)
    body = torchvision.models.resnet18(norm_layer=torchvision.ops.FrozenBatchNorm2d)
    backbone = _resnet_fpn_extractor(body, 5, returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(256, 256))
    theirs = FCOS(backbone, num_classes=5, score_thresh=0.01, nms_thresh=0.6, detections_per_img=100)
    for parameter in theirs.head.parameters():  # the initial head predicts almost nothing: shake it
        parameter.data += 0.02 * torch.randn_like(parameter)
    head = partial(FCOSHead, point_offset=0.0, centerness_weighted_boxes=False, score_threshold=0.01)
    ours = assemble(backbone=ResNet(18), neck=FPN, head=head, num_classes=5)
    state = {_our_name(k): v for k, v in theirs.state_dict().items()}
    ours.load_state_dict(state, strict=True)
    # What comes before the network is ours and not compared: images go in at their own size, already scaled.
    theirs.transform.resize = lambda image, target: (image, target)  # type: ignore[method-assign]
    return ours.eval(), theirs.eval()


def _our_name(name: str) -> str:
    return (
        name.replace("backbone.body.", "backbone.")
        .replace("backbone.fpn.extra_blocks.", "neck.extra_blocks.")
        .replace("backbone.fpn.", "neck.")
    )


def _their_images() -> list[torch.Tensor]:
    batch = make_batch(BOXES, LABELS, sizes=SIZES)
    return [image[:, :h, :w].float() / 255 for image, (h, w) in zip(batch.images, SIZES, strict=True)]


def test_losses_are_equal(pair: tuple[Detector, FCOS]) -> None:
    ours, theirs = pair
    targets = [
        {"boxes": torch.tensor(b).reshape(-1, 4), "labels": torch.tensor(lab, dtype=torch.int64)}
        for b, lab in zip(BOXES, LABELS, strict=True)
    ]
    expected = theirs.train()(_their_images(), targets)
    theirs.eval()
    losses = ours.loss(make_batch(BOXES, LABELS, sizes=SIZES))
    assert losses["loss_cls"].item() == pytest.approx(expected["classification"].item(), rel=1e-5)
    assert losses["loss_box"].item() == pytest.approx(expected["bbox_regression"].item(), rel=1e-5)
    assert losses["loss_centerness"].item() == pytest.approx(expected["bbox_ctrness"].item(), rel=1e-5)


def test_detections_are_equal(pair: tuple[Detector, FCOS]) -> None:
    ours, theirs = pair
    with torch.no_grad():
        expected = theirs(_their_images())
        found = ours.predict(make_batch(BOXES, LABELS, sizes=SIZES))
    for e, f in zip(expected, found, strict=True):
        assert len(f) == len(e["scores"]) > 50
        # Near-ties may swap places: each expected detection must have its own partner.
        distance, partner = (_as_points(_named(e))[:, None] - _as_points(f)).abs().amax(-1).min(dim=1)
        assert distance.max() < 0.01
        assert len(partner.unique()) == len(partner)


def _named(d: dict[str, torch.Tensor]) -> Detections:
    return Detections(d["boxes"], d["scores"], d["labels"])


def _as_points(d: Detections) -> torch.Tensor:
    return torch.cat([d.boxes, 100 * d.scores[:, None], 1000 * d.labels[:, None]], dim=1)
