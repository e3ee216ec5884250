"""With the same weights and sampler draws, losses and detections equal torchvision's models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection import _utils as their_utils
from torchvision.models.detection import roi_heads
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from detector.backbones.resnet import ResNet
from detector.heads.anchors import AnchorGenerator
from detector.heads.faster_rcnn import FasterRCNNHead
from detector.heads.fcos import FCOSHead
from detector.heads.keypoint_branch import KeypointBranch
from detector.heads.mask_branch import MaskBranch
from detector.heads.matching import BalancedSampler
from detector.heads.roi import RoIHead
from detector.heads.rpn import RPN, ProposalLimits
from detector.models.detector import Detector, build_detector
from detector.necks.fpn import FPN
from detector.ops.cpu import winograd
from detector.structures import Batch, Detections
from detector.weights.foreign import from_torchvision
from tests.models.branch_targets import (
    KEYPOINTS,
    their_cropped,
    their_masks_and_keypoints,
    with_masks_and_keypoints,
)
from tests.samples import make_batch

CLASSES = 5
# Not multiples of a stride; a box as large as its image and a tiny one; an image without boxes.
SIZES = [(139, 168), (91, 117), (64, 33)]
BOXES: list[list[list[float]]] = [
    [[10.0, 12, 50, 60], [0, 0, 168, 139], [30, 30, 33, 34], [60, 50, 160, 130]],
    [],
    [[2.0, 3, 30, 60]],
]
LABELS = [[0, 4, 2, 1], [], [1]]
NARROW = 16  # channels of the branches that are shown in a fraction of the time
SCORE = 0.01
SIZE = {"min_size": 8, "max_size": 4096}
FCOS = {**SIZE, "score_thresh": SCORE, "num_classes": CLASSES}
PROPOSALS = 40
RCNN = {
    **SIZE,
    "box_score_thresh": SCORE,
    "num_classes": CLASSES + 1,
    "rpn_pre_nms_top_n_train": 2 * PROPOSALS,
    "rpn_pre_nms_top_n_test": 2 * PROPOSALS,
    "rpn_post_nms_top_n_train": PROPOSALS,
    "rpn_post_nms_top_n_test": PROPOSALS,
}
UNTRAINED = {"weights": None, "weights_backbone": None}


@dataclass(frozen=True)
class Pair:
    """The same model twice; `first_label` is the number of torchvision's first class."""

    ours: Detector
    theirs: nn.Module
    loss_names: dict[str, str]
    first_label: int


def fcos(make: Callable[[], nn.Module], depth: Literal[18, 50]) -> Pair:
    theirs = make()
    ours = build_detector(
        backbone=ResNet(depth, norm="batch"),
        neck=FPN,
        head=partial(FCOSHead, grid="torchvision", score_threshold=SCORE),
        num_classes=CLASSES,
    )
    names = {
        "classification": "loss_cls",
        "bbox_regression": "loss_box_reg",
        "bbox_ctrness": "loss_centerness",
    }
    return _same(Pair(ours, theirs, names, first_label=0))


def faster_rcnn(
    make: Callable[[], nn.Module], depth: Literal[18, 50], *, version: int = 1, branch: str = ""
) -> Pair:
    theirs = make()
    of_version: dict[int, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
        1: ({}, {}, {}),
        2: ({"norm": "batch"}, {"num_convs": 2}, {"num_convs": 4, "num_linear": 1, "norm": "batch"}),
    }
    neck, rpn, roi = of_version[version]
    narrow: dict[str, Any] = {"width": NARROW} if depth == 18 else {}
    mask = partial(MaskBranch, norm="batch" if version == 2 else "none", **narrow)
    keypoint = partial(KeypointBranch, **narrow)
    makers: dict[str, Any] = {"mask": mask, "keypoint": keypoint}
    branches = {name: make for name, make in makers.items() if name == branch}
    limits = ProposalLimits(
        pre_nms_top_n_train=2 * PROPOSALS,
        post_nms_top_n_train=PROPOSALS,
        pre_nms_top_n_test=2 * PROPOSALS,
        post_nms_top_n_test=PROPOSALS,
    )
    ours = build_detector(
        backbone=ResNet(depth, norm="batch", out_stages=(2, 3, 4, 5)),
        neck=partial(FPN, extra_levels="maxpool", **neck),
        head=partial(
            FasterRCNNHead,
            rpn=partial(RPN, anchor_generator=AnchorGenerator(grid="torchvision"), limits=limits, **rpn),
            roi=partial(RoIHead, score_threshold=SCORE, branches=branches, **roi),
            num_keypoints=KEYPOINTS,
        ),
        num_classes=CLASSES,
    )
    names = {
        "loss_objectness": "loss_objectness",
        "loss_rpn_box_reg": "loss_rpn_box_reg",
        "loss_classifier": "loss_cls",
        "loss_box_reg": "loss_box_reg",
        **({f"loss_{branch}": f"loss_{branch}"} if branch else {}),
    }
    return _same(Pair(ours, theirs, names, first_label=1))


def _same(pair: Pair) -> Pair:
    """Weights as after some training: statistics of real activations, heads that find something."""
    theirs: Any = pair.theirs.double()  # what differs then is no rounding
    # What comes before the network is ours and not compared: images go in at their own size, already scaled.
    theirs.transform.resize = lambda image, target: (image, target)
    theirs.transform.postprocess = lambda results, *sizes: results  # masks stay in the frames of their boxes
    norms = [m for m in theirs.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    batch = _batch([0, 1])
    with torch.no_grad():
        theirs.train()(_their_images(batch), _their_targets(pair, [0, 1]))
        for norm in norms:
            norm.momentum = 0.1
        heads = theirs.head if hasattr(theirs, "head") else theirs.rpn
        for parameter in heads.parameters():  # the initial heads predict almost nothing
            parameter += 0.02 * torch.randn_like(parameter)
    pair.ours.double().load_state_dict(from_torchvision(theirs.state_dict()), strict=True)
    # Ours are float32 otherwise: random weights would make 1e-3 pixels of their rounding.
    for constant, values in ((pair.ours.mean, [0.485, 0.456, 0.406]), (pair.ours.std, [0.229, 0.224, 0.225])):
        constant.copy_(255 * torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1))
    return pair


def _resnet18(**options: object) -> nn.Module:
    return _resnet_fpn_extractor(torchvision.models.resnet18(), 5, **options)


def _narrow_mask_rcnn() -> nn.Module:
    model = detection.MaskRCNN(_resnet18(), mask_head=MaskRCNNHeads(256, [NARROW] * 4, 1), **RCNN)
    model.roi_heads.mask_predictor = MaskRCNNPredictor(NARROW, NARROW, CLASSES + 1)
    return model


def _narrow_keypoint_rcnn() -> nn.Module:
    head = KeypointRCNNHeads(256, [NARROW] * 8)
    model = detection.KeypointRCNN(_resnet18(), keypoint_head=head, **RCNN)
    model.roi_heads.keypoint_predictor = KeypointRCNNPredictor(NARROW, KEYPOINTS)
    return model


MODELS: dict[str, Callable[[], Pair]] = {
    "fcos_resnet18": lambda: fcos(
        lambda: detection.FCOS(
            _resnet18(returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(256, 256)), **FCOS
        ),
        18,
    ),
    "fcos_resnet50_fpn": lambda: fcos(lambda: detection.fcos_resnet50_fpn(**UNTRAINED, **FCOS), 50),
    "fasterrcnn_resnet18": lambda: faster_rcnn(lambda: detection.FasterRCNN(_resnet18(), **RCNN), 18),
    "fasterrcnn_resnet50_fpn": lambda: faster_rcnn(
        lambda: detection.fasterrcnn_resnet50_fpn(**UNTRAINED, **RCNN), 50
    ),
    "fasterrcnn_resnet50_fpn_v2": lambda: faster_rcnn(
        lambda: detection.fasterrcnn_resnet50_fpn_v2(**UNTRAINED, **RCNN), 50, version=2
    ),
    "maskrcnn_resnet18": lambda: faster_rcnn(_narrow_mask_rcnn, 18, branch="mask"),
    "maskrcnn_resnet50_fpn": lambda: faster_rcnn(
        lambda: detection.maskrcnn_resnet50_fpn(**UNTRAINED, **RCNN), 50, branch="mask"
    ),
    "maskrcnn_resnet50_fpn_v2": lambda: faster_rcnn(
        lambda: detection.maskrcnn_resnet50_fpn_v2(**UNTRAINED, **RCNN), 50, version=2, branch="mask"
    ),
    "keypointrcnn_resnet18": lambda: faster_rcnn(_narrow_keypoint_rcnn, 18, branch="keypoint"),
    "keypointrcnn_resnet50_fpn": lambda: faster_rcnn(
        lambda: detection.keypointrcnn_resnet50_fpn(num_keypoints=KEYPOINTS, **UNTRAINED, **RCNN),
        50,
        branch="keypoint",
    ),
}
CASES = [[0], [1], [2], [0, 1, 2]]


def _tier(name: str, *, alone: bool = False) -> list[pytest.MarkDecorator]:
    """ResNet-18 shows most of it in a fraction of the time: of ResNet-50, all images at once."""
    is_wide = "50" in name
    return [pytest.mark.nightly] if "v2" in name or (is_wide and alone) else [pytest.mark.slow] * is_wide


EACH_PAIR = pytest.mark.parametrize(
    "pair", [pytest.param(name, marks=_tier(name)) for name in MODELS], indirect=True
)
EACH_CASE = pytest.mark.parametrize(
    ("pair", "images"),
    [
        pytest.param(name, images, marks=_tier(name, alone=len(images) == 1), id=f"{name}-{images}")
        for name in MODELS
        for images in CASES
    ],
    indirect=["pair"],
)


@pytest.fixture(scope="module")
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    torch.manual_seed(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BalancedSampler, "_priorities", _first)
        patch.setattr(their_utils.BalancedPositiveNegativeSampler, "__call__", _their_first)
        patch.setattr(roi_heads, "project_masks_on_boxes", their_cropped)
        yield MODELS[request.param]()


def _first(sampler: BalancedSampler, like: Tensor) -> Tensor:
    """Instead of random priorities: the first in order are drawn."""
    return torch.linspace(1, 0, like.shape[1]).expand(like.shape)


def _their_first(sampler: their_utils.BalancedPositiveNegativeSampler, labels: list[Tensor]) -> object:
    positives: list[Tensor]
    negatives: list[Tensor]
    positives, negatives = [], []
    for matched in labels:
        positive, negative = torch.where(matched >= 1)[0], torch.where(matched == 0)[0]
        positive = positive[: int(sampler.batch_size_per_image * sampler.positive_fraction)]
        negative = negative[: sampler.batch_size_per_image - len(positive)]
        for masks, chosen in ((positives, positive), (negatives, negative)):
            masks.append(torch.zeros_like(matched, dtype=torch.uint8).index_fill(0, chosen, 1))
    return positives, negatives


def _batch(images: list[int]) -> Batch:
    boxes = [BOXES[i] for i in images]
    batch = make_batch(boxes, [LABELS[i] for i in images], sizes=[SIZES[i] for i in images])
    return replace(batch, targets=with_masks_and_keypoints(batch.targets, boxes))


def _their_images(batch: Batch) -> list[Tensor]:
    sizes = batch.image_sizes.tolist()
    return [image[:, :h, :w].double() / 255 for image, (h, w) in zip(batch.images, sizes, strict=True)]


def _their_targets(pair: Pair, images: list[int]) -> list[dict[str, Tensor]]:
    return [
        {
            "boxes": torch.tensor(BOXES[i], dtype=torch.float64).reshape(-1, 4),
            "labels": torch.tensor(LABELS[i], dtype=torch.int64) + pair.first_label,
            **their_masks_and_keypoints(BOXES[i]),
        }
        for i in images
    ]


def _losses(pair: Pair, images: list[int]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Ours and torchvision's, both under our names. Nothing learns: statistics stay as they are."""
    batch = _batch(images)
    with torch.no_grad():
        losses = pair.ours.eval().loss(batch)
        pair.theirs.train()
        for module in pair.theirs.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        expected = pair.theirs(_their_images(batch), _their_targets(pair, images))
    return losses, {pair.loss_names[name]: value for name, value in expected.items()}


@EACH_CASE
def test_losses_are_equal(pair: Pair, images: list[int]) -> None:
    losses, expected = _losses(pair, images)
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, rtol=1e-5, atol=1e-6, check_dtype=False)


@EACH_CASE
def test_detections_are_equal(pair: Pair, images: list[int]) -> None:
    batch = _batch(images)
    with torch.no_grad():
        expected, detections = pair.theirs.eval()(_their_images(batch)), pair.ours.eval().predict(batch)
    for wanted, got in zip(expected, detections, strict=True):
        assert len(got) == len(wanted["scores"]) > 0
        torch.testing.assert_close(got.scores, wanted["scores"], rtol=1e-4, atol=1e-5, check_dtype=False)
        theirs = Detections(wanted["boxes"], wanted["scores"], wanted["labels"] - pair.first_label)
        distance = torch.cdist(_as_points(got), _as_points(theirs), p=torch.inf)
        nearest, partner = distance.min(dim=1)
        assert nearest.max() < 1e-4  # each has its partner, whatever the order of equal scores
        assert distance.amin(dim=0).max() < 1e-4
        if got.masks is not None:
            torch.testing.assert_close(
                got.masks.coverage, wanted["masks"][partner, 0], rtol=0, atol=1e-4, check_dtype=False
            )
        if got.keypoints is not None and got.keypoint_scores is not None:
            torch.testing.assert_close(
                got.keypoint_scores, wanted["keypoints_scores"][partner], rtol=0, atol=1e-4, check_dtype=False
            )
            places = wanted["keypoints"][partner][..., :2]
            torch.testing.assert_close(got.keypoints.xy, places, rtol=0, atol=1e-4, check_dtype=False)


@EACH_PAIR
def test_detections_by_winograds_convolution_are_those_by_torchs(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float32, as users detect; the others are in float64, which is always torch's."""
    model, batch, calls = deepcopy(pair.ours).float().eval(), _batch([0, 1, 2]), []

    def counted(*arguments: Any) -> list[Tensor]:
        calls.append(arguments)
        return by_winograd(*arguments)

    by_winograd = winograd.winograd_conv3x3
    monkeypatch.setattr(winograd, "winograd_conv3x3", counted)
    detections = {}
    for name, least in {"direct": 10**12, "winograd": 0}.items():
        monkeypatch.setattr(winograd, "_LEAST_WITHOUT", least)
        with torch.no_grad():
            detections[name] = model.predict(batch)
        assert bool(calls) == (name == "winograd")
    for expected, got in zip(detections["direct"], detections["winograd"], strict=True):
        assert len(got) == len(expected) > 0
        distance = torch.cdist(_as_points(got), _as_points(expected), p=torch.inf)
        assert distance.amin(dim=1).max() < 1e-2
        assert distance.amin(dim=0).max() < 1e-2


@EACH_PAIR
def test_an_image_without_boxes_has_no_box_loss(pair: Pair) -> None:
    """torchvision's test_models_detection_negative_samples, for both projects."""
    parts = ("box", "centerness", "mask", "keypoint")
    boxes = {name for name in pair.loss_names.values() if any(part in name for part in parts)}
    for losses in _losses(pair, [1]):
        assert {name for name, value in losses.items() if value == 0} == boxes


@pytest.mark.slow
@EACH_PAIR
def test_training_losses_and_gradients_are_equal(pair: Pair) -> None:
    """In training mode, with statistics of the batch."""
    images, batch = [0, 1], _batch([0, 1])
    losses = pair.ours.train().loss(batch)
    expected = pair.theirs.train()(_their_images(batch), _their_targets(pair, images))
    for name, value in expected.items():
        torch.testing.assert_close(
            losses[pair.loss_names[name]], value, rtol=1e-5, atol=1e-6, check_dtype=False
        )
    torch.stack(list(losses.values())).sum().backward()
    torch.stack(list(expected.values())).sum().backward()
    named: dict[str, Any] = {name: p.grad for name, p in pair.theirs.named_parameters() if p.requires_grad}
    ours: dict[str, Any] = {name: p.grad for name, p in pair.ours.named_parameters()}
    for name, gradient in from_torchvision(named).items():
        # As a whole: what rounding moves across ReLU's corner or a region's cell changes a few entries.
        # torchvision's own gradient changes by 0.4 % if its images do by a billionth.
        # That of a softmax's bias is 0, so that only rounding is left of it.
        rounding = 1e-6 if name.endswith("kps_score_lowres.bias") else 0
        assert (ours[name] - gradient).norm() <= 1e-2 * gradient.norm() + rounding, name


def _as_points(detections: Detections) -> Tensor:
    """Boxes in pixels, scores and labels in units that tell them apart."""
    points = [detections.boxes, 100 * detections.scores[:, None], 1000 * detections.labels[:, None]]
    return torch.cat(points, dim=1).double()
