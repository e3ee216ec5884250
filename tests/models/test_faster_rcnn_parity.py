"""With the same weights and sampler draws, losses and detections equal torchvision's Faster R-CNN."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torchvision
from torch import Tensor
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection import _utils as their_utils
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor

from detector.backbones import ResNet
from detector.heads import RPN, Anchors, FasterRCNNHead
from detector.heads.matching import BalancedSampler
from detector.models import Detector, assemble
from detector.necks import FPN
from detector.structures import Batch, Detections
from tests.samples import make_batch

SIZES = [(96, 128), (91, 117), (64, 33)]
BOXES = [[[10.0, 12, 50, 60], [0, 0, 127, 95], [30, 30, 33, 34]], [], [[2.0, 3, 30, 60]]]
LABELS = [[0, 4, 2], [], [1]]


def first(sampler: BalancedSampler, like: Tensor) -> Tensor:
    """Instead of random priorities: the first in order are drawn."""
    return torch.linspace(1, 0, like.shape[1]).expand(like.shape)


def their_first(sampler: their_utils.BalancedPositiveNegativeSampler, labels: list[Tensor]) -> object:
    positives, negatives = [], []
    for matched in labels:
        positive, negative = torch.where(matched >= 1)[0], torch.where(matched == 0)[0]
        positive = positive[: int(sampler.batch_size_per_image * sampler.positive_fraction)]
        negative = negative[: sampler.batch_size_per_image - len(positive)]
        for masks, chosen in ((positives, positive), (negatives, negative)):
            masks.append(torch.zeros_like(matched, dtype=torch.uint8).index_fill(0, chosen, 1))
    return positives, negatives


@pytest.fixture(autouse=True)
def same_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BalancedSampler, "_priorities", first)
    monkeypatch.setattr(their_utils.BalancedPositiveNegativeSampler, "__call__", their_first)


@pytest.fixture(scope="module")
def pair() -> tuple[Detector, FasterRCNN]:
    torch.manual_seed(1)
    body = torchvision.models.resnet18(norm_layer=torchvision.ops.FrozenBatchNorm2d)
    backbone = _resnet_fpn_extractor(body, 5)
    theirs = FasterRCNN(backbone, num_classes=6, box_score_thresh=0.001)
    for parameter in (*theirs.rpn.parameters(), *theirs.roi_heads.box_predictor.parameters()):
        parameter.data += 0.02 * torch.randn_like(parameter)  # the initial heads predict almost nothing
    ours = assemble(
        backbone=ResNet(18, out_stages=(2, 3, 4, 5)),
        neck=partial(FPN, extra_levels="maxpool"),
        head=partial(FasterRCNNHead, rpn=partial(RPN, anchors=Anchors(grid="torchvision"))),
        num_classes=5,
    )
    ours.load_state_dict({_our_name(k): v for k, v in theirs.state_dict().items()}, strict=True)
    # What comes before the network is ours and not compared: images go in at their own size, already scaled.
    theirs.transform.resize = lambda image, target: (image, target)  # type: ignore[method-assign]
    return ours.eval(), theirs.eval()


def _our_name(name: str) -> str:
    prefixes = {
        "backbone.body.": "backbone.",
        "backbone.fpn.": "neck.",
        "rpn.": "head.rpn.",
        "roi_heads.": "head.roi_heads.",
    }
    return next(ours + name[len(theirs) :] for theirs, ours in prefixes.items() if name.startswith(theirs))


def _batch(images: list[int]) -> Batch:
    return make_batch(*([x[i] for i in images] for x in (BOXES, LABELS)), sizes=[SIZES[i] for i in images])


def _their_images(batch: Batch) -> list[Tensor]:
    sizes = batch.image_sizes.tolist()
    return [image[:, :h, :w].float() / 255 for image, (h, w) in zip(batch.images, sizes, strict=True)]


CASES = [[0], [1], [2], [0, 1, 2]]


@pytest.mark.parametrize("images", CASES)
def test_losses_are_equal(pair: tuple[Detector, FasterRCNN], images: list[int]) -> None:
    ours, theirs = pair
    batch = _batch(images)
    targets = [
        {
            "boxes": torch.tensor(BOXES[i]).reshape(-1, 4),
            "labels": torch.tensor(LABELS[i], dtype=torch.int64) + 1,
        }
        for i in images
    ]
    expected = theirs.train()(_their_images(batch), targets)
    theirs.eval()
    found = ours.loss(batch)
    names = {
        "loss_objectness": "loss_objectness",
        "loss_rpn_box_reg": "loss_rpn_box",
        "loss_classifier": "loss_cls",
        "loss_box_reg": "loss_box",
    }
    assert found.keys() == set(names.values())
    for theirs_name, name in names.items():
        torch.testing.assert_close(found[name], expected[theirs_name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("images", CASES)
def test_detections_are_equal(pair: tuple[Detector, FasterRCNN], images: list[int]) -> None:
    ours, theirs = pair
    batch = _batch(images)
    with torch.no_grad():
        expected, found = theirs(_their_images(batch)), ours.predict(batch)
    for wanted, got in zip(expected, found, strict=True):
        assert len(got) == len(wanted["scores"]) > 0
        torch.testing.assert_close(got.scores, wanted["scores"], rtol=1e-4, atol=1e-5)
        distance = torch.cdist(_as_points(got), _as_points(_theirs(wanted)), p=torch.inf)
        assert distance.amin(dim=1).max() < 1e-2  # each has its partner, whatever the order of equal scores
        assert distance.amin(dim=0).max() < 1e-2


def _theirs(found: dict[str, Tensor]) -> Detections:
    return Detections(found["boxes"], found["scores"], found["labels"] - 1)


def _as_points(found: Detections) -> Tensor:
    """Boxes in pixels, scores and labels in units that tell them apart."""
    return torch.cat([found.boxes, 100 * found.scores[:, None], 1000 * found.labels[:, None]], dim=1)
