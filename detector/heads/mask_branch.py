"""The mask branch of Mask R-CNN (He et al. 2017). Parameter names are torchvision's."""

# R regions, N detections, C channels, W width, S cells of a mask's side

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from detector.heads.roi_branch import Regions, RoIBranch
from detector.layers.deform import DeformConv2d
from detector.layers.roi_pooling import RoIAlign
from detector.layers.towers import DeformableConvs, TowerNorm, conv_blocks, require_unset
from detector.ops.cpu import linear
from detector.ops.masks import cropped
from detector.ops.ranks import normalizer
from detector.option_types import NonNegativeInt, PositiveInt, TaskName
from detector.structures import BoxMasks, Detections, FeatureSpec, Targets

_POOLED = 14
_SIZE = 2 * _POOLED


class MaskBranch(RoIBranch):
    """A branch that predicts a mask of 28 x 28 cells for the class of each object.

    It pools 14 x 14 bins, applies `num_convs` convolutions of `width` channels with an optional `norm`, and
    doubles their size. `deform` builds the last `deformable_convs` of them, `pooling` the `RoIAlign` or
    `DeformRoIPool`. `class_agnostic` predicts one mask for all classes. Objects without a mask teach none.

    Raises:
        ValueError: a loss is asked for, and the targets have no masks.
    """

    task: ClassVar[TaskName | None] = "segm"

    def __init__(
        self,
        features: Sequence[FeatureSpec],
        num_classes: PositiveInt,
        *,
        num_convs: PositiveInt = 4,
        width: PositiveInt = 256,
        norm: TowerNorm = "none",
        deformable_convs: DeformableConvs = 0,
        deform: Callable[..., DeformConv2d] = DeformConv2d,
        class_agnostic: bool = False,
        pooling: Callable[..., nn.Module] = RoIAlign,
        aligned: bool = False,
        sampling_ratio: NonNegativeInt = 2,
    ) -> None:
        super().__init__()
        option = "head.roi.branches.mask"
        decided = ("features", "output_size", "sampling_ratio", "aligned")
        require_unset(pooling, decided, option=f"{option}.pooling", why=f"others of {option} set them")
        self.mask_head = nn.Sequential(
            *conv_blocks(
                features[0].channels,
                [width] * num_convs,
                norm=norm,
                deformable_convs=deformable_convs,
                deform=deform,
                option=f"{option}.deform",
            )
        )
        self.mask_predictor = _Predictor(width, 1 if class_agnostic else num_classes + 1)
        self.aligned, self.sampling_ratio = aligned, sampling_ratio
        self.pooling = pooling(features, output_size=_POOLED, sampling_ratio=sampling_ratio, aligned=aligned)

    def forward(
        self,
        features: Sequence[Tensor],
        boxes: Float[Tensor, "R 4"],
        image: Int64[Tensor, "R"],
        labels: Int64[Tensor, "R"],
    ) -> Float[Tensor, "R 28 28"]:
        """Return the logits of the masks of these classes."""
        return self.mask_predictor(self.mask_head(self.pooling(features, boxes, image)), labels)

    def loss(
        self, features: Sequence[Tensor], foreground: Regions, targets: Targets
    ) -> dict[str, Float[Tensor, ""]]:
        """Return the binary cross entropy of the cells of each region in the mask of its class."""
        if targets.masks is None:
            raise ValueError(
                "MaskBranch: expected targets with masks, got boxes alone. Read the data for the model's "
                "tasks: DetectionDataModule.use_tasks(model.tasks)."
            )
        coverage = targets.masks.coverage[foreground.image, foreground.matched]
        with_mask = (coverage > 0).flatten(1).any(dim=1)
        regions, coverage = foreground.select(with_mask), coverage[with_mask]
        logits = self(features, regions.boxes, regions.image, regions.labels).float()
        wanted = cropped(coverage, regions.targets, regions.boxes, size=_SIZE).to(logits)
        count = normalizer(
            logits.new_tensor(logits.numel(), dtype=torch.float32), at_least=1.0, all_ranks=self.training
        )
        return {"loss_mask": F.binary_cross_entropy_with_logits(logits, wanted, reduction="sum") / count}

    def add_to(
        self, features: Sequence[Tensor], detections: Detections, image: Int64[Tensor, "N"]
    ) -> Detections:
        logits = self(features, detections.boxes, image, detections.labels)
        return replace(detections, masks=BoxMasks(logits.float().sigmoid()))


class _Predictor(nn.Module):
    """The doubling of the size and a mask for each class, background first, of which one is computed."""

    def __init__(self, width: int, num_masks: int) -> None:
        super().__init__()
        self.conv5_mask = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.mask_fcn_logits = nn.Conv2d(width, num_masks, 1)
        for layer in (self.conv5_mask, self.mask_fcn_logits):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Float[Tensor, "R W S S"], labels: Int64[Tensor, "R"]) -> Float[Tensor, "R _S _S"]:
        """Return the logits for these classes.

        The four cells that a cell becomes are features of its own: the few logits change places, not they.
        """
        regions, width, size, _ = x.shape
        rows = x.permute(0, 2, 3, 1).flatten(0, 2)
        kernel = self.conv5_mask.weight.permute(2, 3, 1, 0).flatten(0, 2)
        assert self.conv5_mask.bias is not None
        cells = F.relu(linear(rows, kernel, self.conv5_mask.bias.repeat(4)), inplace=True)
        channel = (labels + 1).clamp(max=self.mask_fcn_logits.out_channels - 1)
        weight, bias = self.mask_fcn_logits.weight[channel].flatten(1), self.mask_fcn_logits.bias
        assert bias is not None
        logits = torch.bmm(cells.view(regions, 4 * size**2, width), weight[..., None])
        logits = logits.view(regions, size, size, 2, 2).transpose(2, 3)
        return logits.reshape(regions, 2 * size, 2 * size) + bias[channel][:, None, None]
