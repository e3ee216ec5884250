"""The second stage of Faster R-CNN: classes and refined boxes of proposals.

Parameter names are torchvision's.
"""

# B images, P proposals, G ground-truth boxes, K sampled proposals, R regions of all images, C classes

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor, nn

from detector.factory import accepted
from detector.heads.matching import BACKGROUND, BalancedSampler, match_boxes
from detector.heads.roi_branch import BranchFactory, Regions, RoIBranch
from detector.heads.rpn import Proposals, gather_rows
from detector.layers.deform import DeformConv2d
from detector.layers.linear import Linear
from detector.layers.roi_pooling import RoIAlign
from detector.layers.towers import DeformableConvs, conv_blocks, require_unset
from detector.ops.boxes import CoderWeights, clip_boxes, decode_boxes
from detector.ops.cpu import regions_linear
from detector.ops.losses import BoxLoss, DeltaCoder, SmoothL1
from detector.ops.ranks import normalizer
from detector.ops.recording import is_recorded
from detector.option_types import Fraction, NonNegativeInt, PositiveInt
from detector.structures import Candidates, Detections, FeatureSpec, Targets

_WEIGHTS: CoderWeights = (10.0, 10.0, 5.0, 5.0)
_POOLED = 7
_SMALLEST_PX = 1e-2

_NO_BRANCHES: Mapping[str, BranchFactory] = MappingProxyType({})


class RoIHead(nn.Module):
    """A head that pools each region from the pyramid level of its size, classifies it and refines its box.

    A region is foreground if its IoU with some box is at least `foreground_iou`. Training uses
    `batch_size_per_image` regions, at most `positive_fraction` of them foreground. `deform`, called like
    `nn.Conv2d`, builds the `deformable_convs`: the last, all, or this number of the last convolutions.
    `class_agnostic` predicts one box for all classes. `pooling` builds the `RoIAlign` or `DeformRoIPool`,
    which samples according to `aligned` and `sampling_ratio`. Each of `branches` builds a `RoIBranch`, which
    predicts more of the objects, such as their `num_keypoints`.
    """

    def __init__(
        self,
        features: Sequence[FeatureSpec],
        num_classes: PositiveInt,
        *,
        num_convs: NonNegativeInt = 0,
        num_linear: PositiveInt = 2,
        width: PositiveInt = 1024,
        norm: Literal["batch", "group", "none"] = "none",
        deformable_convs: DeformableConvs = 0,
        deform: Callable[..., DeformConv2d] = DeformConv2d,
        foreground_iou: Fraction = 0.5,
        batch_size_per_image: PositiveInt = 512,
        positive_fraction: Fraction = 0.25,
        box_loss: BoxLoss = SmoothL1(),  # noqa: B008 (frozen)
        class_agnostic: bool = False,
        pooling: Callable[..., nn.Module] = RoIAlign,
        aligned: bool = False,
        sampling_ratio: NonNegativeInt = 2,
        score_threshold: Fraction = 0.001,
        nms_iou_threshold: Fraction = 0.5,
        detections_per_image: PositiveInt = 100,
        branches: Mapping[str, BranchFactory] = _NO_BRANCHES,
        num_keypoints: PositiveInt = 17,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.foreground_iou = foreground_iou
        self.sampler = BalancedSampler(
            batch_size_per_image=batch_size_per_image, positive_fraction=positive_fraction
        )
        self.box_loss = box_loss
        self.aligned, self.sampling_ratio = aligned, sampling_ratio
        self.score_threshold = score_threshold
        self.nms_iou_threshold = nms_iou_threshold
        self.detections_per_image = detections_per_image
        channels = features[0].channels
        decided = ("features", "output_size", "sampling_ratio", "aligned")
        why = (
            f"regions are {_POOLED} x {_POOLED} bins, and the other options of pooling are those of head.roi"
        )
        require_unset(pooling, decided, option="head.roi.pooling", why=why)
        convs = conv_blocks(
            channels,
            [channels] * num_convs,
            norm=norm,
            deformable_convs=deformable_convs,
            deform=deform,
            option="head.roi.deform",
        )
        head = partial(_ConvHead, convs) if num_convs else _LinearHead
        self.box_head: nn.Module = head(channels * _POOLED**2, num_linear, width)
        self.box_predictor = _Predictor(width, num_classes, 1 if class_agnostic else num_classes + 1)
        # Built last, so that the initial weights of all other layers depend on neither pooling nor branches.
        self.pooling = pooling(features, output_size=_POOLED, sampling_ratio=sampling_ratio, aligned=aligned)
        modules = {
            name: make(features, num_classes, **accepted(make, num_keypoints=num_keypoints))
            for name, make in branches.items()
        }
        self.branches = cast("Mapping[str, RoIBranch]", nn.ModuleDict(modules))

    def forward(
        self, features: Sequence[Tensor], boxes: Float[Tensor, "R 4"], image: Int64[Tensor, "R"]
    ) -> tuple[Float[Tensor, "R _C"], Float[Tensor, "R _D 4"]]:
        """Return the logits (background first) and the box deltas, of each class (likewise) or of all."""
        return self.box_predictor(self.box_head(self.pooling(features, boxes, image)))

    def loss(
        self, features: Sequence[Tensor], proposals: Proposals, targets: Targets
    ) -> dict[str, Float[Tensor, ""]]:
        regions = self._sample(proposals, targets)
        logits, deltas = self(features, regions.boxes, regions.image)
        sampled = logits.new_tensor(len(regions.labels), dtype=torch.float32)
        count = normalizer(sampled, at_least=1.0, all_ranks=self.training)
        losses = {
            "loss_cls": F.cross_entropy(logits, regions.labels + 1, reduction="sum") / count,
            "loss_box_reg": self._box_losses(deltas, regions).sum() / count,
        }
        if not self.branches:
            return losses
        foreground = regions.select(regions.labels >= 0)
        for name, branch in self.branches.items():
            branch_losses = branch.loss(features, foreground, targets)
            assert not losses.keys() & branch_losses.keys(), (
                f"branch {name} gives losses that another part has"
            )
            losses |= branch_losses
        return losses

    def _box_losses(self, deltas: Float[Tensor, "R _D 4"], regions: Regions) -> Float[Tensor, "R"]:
        """Return the box loss of each region, zero for background."""
        channel = (regions.labels + 1).clamp(max=deltas.shape[1] - 1)
        predicted = deltas[torch.arange(len(deltas), device=deltas.device), channel]
        foreground = regions.labels >= 0
        target = torch.where(foreground[:, None], regions.targets, regions.boxes)
        losses = self.box_loss.of_encoded(predicted, target, coder=DeltaCoder(regions.boxes, _WEIGHTS))
        return losses.masked_fill(~foreground, 0)

    @torch.no_grad()
    def _sample(self, proposals: Proposals, targets: Targets) -> Regions:
        """Sample regions of each image from its proposals and its ground truth."""
        boxes = torch.cat([proposals.boxes, targets.boxes], dim=1)
        valid = torch.cat([proposals.valid, targets.valid], dim=1)
        matched = match_boxes(
            boxes,
            targets,
            background_iou=self.foreground_iou,
            foreground_iou=self.foreground_iou,
            allow_low_quality_matches=False,
        )
        sample = self.sampler((matched >= 0) & valid, (matched == BACKGROUND) & valid)
        image = torch.arange(len(boxes), device=boxes.device)[:, None].expand_as(sample.index)
        return Regions(
            boxes=gather_rows(boxes, sample.index)[sample.valid],
            image=image[sample.valid],
            labels=_labels(targets, matched).gather(1, sample.index)[sample.valid],
            targets=gather_rows(_boxes(targets, matched, like=boxes), sample.index)[sample.valid],
            matched=matched.gather(1, sample.index)[sample.valid],
        )

    def candidates(
        self, features: Sequence[Tensor], proposals: Proposals, image_sizes: Int64[Tensor, "B 2"]
    ) -> Candidates:
        """Return a box for each proposal and class, clipped to its image (height, width in pixels)."""
        batch, places = proposals.valid.shape
        image = torch.arange(batch, device=proposals.boxes.device)[:, None].expand(batch, places)
        logits, deltas = self(
            features, _rows(proposals.boxes, proposals.valid), _rows(image, proposals.valid)
        )
        scores = _padded(logits.float().softmax(dim=-1)[:, 1:], proposals.valid)
        deltas = deltas[:, -self.num_classes :].float() if deltas.shape[1] > 1 else deltas.float()
        boxes = decode_boxes(
            _padded(deltas, proposals.valid), proposals.boxes[:, :, None], weights=_WEIGHTS
        ).expand(-1, -1, self.num_classes, -1)
        boxes = clip_boxes(boxes.flatten(1, 2), image_sizes)
        scores = scores.flatten(1)
        large = ((boxes[..., 2:] - boxes[..., :2]) >= _SMALLEST_PX).all(dim=-1)
        classes = torch.arange(self.num_classes, device=boxes.device).repeat(places).expand_as(scores)
        valid = proposals.valid[:, :, None].expand(-1, -1, self.num_classes).flatten(1)
        return Candidates(
            boxes,
            scores,
            classes,
            allowed=valid & large & (scores > self.score_threshold),
            num_labels=self.num_classes,
            iou_threshold=self.nms_iou_threshold,
            limit=self.detections_per_image,
            labels_alternate=True,
        )

    def completed(self, features: Sequence[Tensor], detections: list[Detections]) -> list[Detections]:
        """Return the detections of each image with what the branches predict, computed for all at once."""
        if not self.branches:
            return detections
        counts = torch.tensor([len(image_detections) for image_detections in detections])
        image = torch.arange(len(counts)).repeat_interleave(counts).to(detections[0].boxes.device)
        combined = self.add_to(features, Detections.cat(detections), image)
        return [combined.select(image == number) for number in range(len(detections))]

    def add_to(
        self, features: Sequence[Tensor], detections: Detections, image: Int64[Tensor, "N"]
    ) -> Detections:
        """Return the detections of the whole batch with what the branches predict; see `RoIBranch`."""
        for branch in self.branches.values():
            detections = branch.add_to(features, detections, image)
        return detections


def _labels(targets: Targets, matched: Int64[Tensor, "B A"]) -> Int64[Tensor, "B A"]:
    if targets.labels.shape[1] == 0:
        return matched
    return targets.labels.gather(1, matched.clamp(min=0)).masked_fill(matched < 0, -1)


def _boxes(
    targets: Targets, matched: Int64[Tensor, "B A"], *, like: Float[Tensor, "B A 4"]
) -> Float[Tensor, "B A 4"]:
    return like if targets.boxes.shape[1] == 0 else gather_rows(targets.boxes, matched.clamp(min=0))


def _rows(x: Shaped[Tensor, "B P ..."], valid: Bool[Tensor, "B P"]) -> Shaped[Tensor, "R ..."]:
    """Return the valid rows, or all rows while recording, when their number must not depend on values."""
    return x.flatten(0, 1) if is_recorded() else x[valid]


def _padded(x: Float[Tensor, "R ..."], valid: Bool[Tensor, "B P"]) -> Float[Tensor, "B P ..."]:
    """Invert `_rows`: put the rows back in their places, with zeros elsewhere."""
    if is_recorded():
        return x.unflatten(0, valid.shape)
    padded = x.new_zeros(*valid.shape, *x.shape[1:])
    padded[valid] = x
    return padded


class _LinearHead(nn.Module):
    def __init__(self, features: int, num_linear: int, width: int) -> None:
        super().__init__()
        for number in range(num_linear):  # fc6 and fc7 are named after the layers of VGG
            self.add_module(f"fc{6 + number}", Linear(features if number == 0 else width, width))

    def forward(self, x: Float[Tensor, "R C S S"]) -> Float[Tensor, "R _W"]:
        first, *others = (layer for layer in self.children() if isinstance(layer, nn.Linear))
        y = F.relu(regions_linear(x, first.weight, first.bias))
        for layer in others:
            y = F.relu(layer(y))
        return y


class _ConvHead(nn.Sequential):
    """A box head with convolutions before the linear layers: torchvision's FastRCNNConvFCHead, "4conv1fc"."""

    def __init__(self, convs: Sequence[nn.Module], features: int, num_linear: int, width: int) -> None:
        layers: list[nn.Module] = [*convs, nn.Flatten()]
        for number in range(num_linear):
            layers += [Linear(features if number == 0 else width, width), nn.ReLU()]
        super().__init__(*layers)


class _Predictor(nn.Module):
    def __init__(self, width: int, num_classes: int, num_boxes: int) -> None:
        super().__init__()
        self.cls_score = Linear(width, num_classes + 1)
        self.bbox_pred = Linear(width, 4 * num_boxes)

    def forward(self, x: Float[Tensor, "R _W"]) -> tuple[Float[Tensor, "R _C"], Float[Tensor, "R _D 4"]]:
        return self.cls_score(x), self.bbox_pred(x).unflatten(1, (-1, 4))
