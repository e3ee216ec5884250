"""The keypoint branch of Mask R-CNN (He et al. 2017, section 5). Parameter names are torchvision's."""

# R regions, N detections, K keypoints, S cells of a heat map's side

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
from detector.layers.towers import DeformableConvs, conv_blocks, require_unset
from detector.ops.keypoints import decoded_heatmaps, heatmap_cells
from detector.ops.ranks import normalizer
from detector.option_types import NonNegativeInt, PositiveInt, TaskName
from detector.structures import Detections, FeatureSpec, Keypoints, Targets

_POOLED = 14
_SIZE = 4 * _POOLED


class KeypointBranch(RoIBranch):
    """A branch that predicts `num_keypoints` of each object, each by a heat map of 56 x 56 cells.

    It pools 14 x 14 bins, applies `num_convs` convolutions of `width` channels, doubles their size, and
    doubles that of the heat maps. `deform` builds the last `deformable_convs` of the convolutions, `pooling`
    the `RoIAlign` or `DeformRoIPool`. Keypoints that are unlabeled or outside their region teach nothing.

    Raises:
        ValueError: a loss is asked for, and the targets have no keypoints, or of another number.
    """

    task: ClassVar[TaskName | None] = "keypoints"

    def __init__(
        self,
        features: Sequence[FeatureSpec],
        num_classes: PositiveInt,
        num_keypoints: PositiveInt,
        *,
        num_convs: PositiveInt = 8,
        width: PositiveInt = 512,
        deformable_convs: DeformableConvs = 0,
        deform: Callable[..., DeformConv2d] = DeformConv2d,
        pooling: Callable[..., nn.Module] = RoIAlign,
        aligned: bool = False,
        sampling_ratio: NonNegativeInt = 2,
    ) -> None:
        super().__init__()
        option = "head.roi.branches.keypoint"
        decided = ("features", "output_size", "sampling_ratio", "aligned")
        require_unset(pooling, decided, option=f"{option}.pooling", why=f"others of {option} set them")
        self.num_keypoints = num_keypoints
        blocks = conv_blocks(
            features[0].channels,
            [width] * num_convs,
            norm="none",
            deformable_convs=deformable_convs,
            deform=deform,
            option=f"{option}.deform",
        )
        self.keypoint_head = nn.Sequential(*(layer for block in blocks for layer in block))
        self.keypoint_predictor = _Predictor(width, num_keypoints)
        self.aligned, self.sampling_ratio = aligned, sampling_ratio
        self.pooling = pooling(features, output_size=_POOLED, sampling_ratio=sampling_ratio, aligned=aligned)

    def forward(
        self, features: Sequence[Tensor], boxes: Float[Tensor, "R 4"], image: Int64[Tensor, "R"]
    ) -> Float[Tensor, "R K 28 28"]:
        """Return the logits of the heat maps, before the last doubling of their size."""
        return self.keypoint_predictor(self.keypoint_head(self.pooling(features, boxes, image)))

    def loss(
        self, features: Sequence[Tensor], foreground: Regions, targets: Targets
    ) -> dict[str, Float[Tensor, ""]]:
        """Return the cross entropy of the cells of each keypoint in its heat map."""
        cells, valid = heatmap_cells(self._keypoints(foreground, targets), foreground.boxes, size=_SIZE)
        some = valid.any(dim=1)
        regions, cells, valid = foreground.select(some), cells[some], valid[some]
        heatmaps = _doubled(self(features, regions.boxes, regions.image)[valid][:, None].float())
        count = normalizer(valid.sum().float(), at_least=1.0, all_ranks=self.training)
        losses = F.cross_entropy(heatmaps.flatten(1), cells[valid], reduction="sum")
        return {"loss_keypoint": losses / count}

    def _keypoints(self, foreground: Regions, targets: Targets) -> Keypoints:
        """Return those of the object of each region."""
        keypoints = targets.keypoints
        if keypoints is None or keypoints.visibility.shape[-1] != self.num_keypoints:
            got = "none" if keypoints is None else keypoints.visibility.shape[-1]
            raise ValueError(
                f"KeypointBranch: expected targets with {self.num_keypoints} keypoints of each object, got "
                f"{got}. Read the data for the model's tasks, DetectionDataModule.use_tasks(model.tasks), "
                "and build the model with the data's keypoint_schemas."
            )
        place = foreground.image, foreground.matched
        return Keypoints(keypoints.xy[place], keypoints.visibility[place])

    def add_to(
        self, features: Sequence[Tensor], detections: Detections, image: Int64[Tensor, "N"]
    ) -> Detections:
        heatmaps = _doubled(self(features, detections.boxes, image).float())
        xy, scores = decoded_heatmaps(heatmaps, detections.boxes)
        visibility = torch.full_like(scores, 2, dtype=torch.int64)
        return replace(detections, keypoints=Keypoints(xy, visibility), keypoint_scores=scores)


def _doubled(heatmaps: Float[Tensor, "R K S S"]) -> Float[Tensor, "R K _S _S"]:
    return F.interpolate(heatmaps, scale_factor=2.0, mode="bilinear", align_corners=False)


class _Predictor(nn.Module):
    def __init__(self, width: int, num_keypoints: int) -> None:
        super().__init__()
        self.kps_score_lowres = nn.ConvTranspose2d(width, num_keypoints, 4, stride=2, padding=1)
        nn.init.kaiming_normal_(self.kps_score_lowres.weight, mode="fan_out", nonlinearity="relu")
        assert self.kps_score_lowres.bias is not None
        nn.init.zeros_(self.kps_score_lowres.bias)

    def forward(self, x: Float[Tensor, "R _W S S"]) -> Float[Tensor, "R K _S _S"]:
        return self.kps_score_lowres(x)
