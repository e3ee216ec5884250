"""The head of Faster R-CNN: proposals of the first stage, classes and boxes of the second."""

# B images

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from detector.factory import accepted
from detector.heads.head import Head
from detector.heads.roi import RoIHead
from detector.heads.rpn import RPN, RPNOutputs
from detector.ops.nms import suppressed
from detector.option_types import PositiveInt, TaskName
from detector.structures import Candidates, Detections, FeatureSpec, Targets


@dataclass(frozen=True)
class FasterRCNNOutputs:
    """The pyramid and the outputs of the first stage."""

    features: list[Float[Tensor, "B _C _H _W"]]
    rpn: RPNOutputs
    image_sizes: Int64[Tensor, "B 2"]


class FasterRCNNHead(Head[FasterRCNNOutputs]):
    """An RPN and an RoI head, which pools from all levels but the coarsest; that one has anchors only.

    A `RoIBranch` of the RoI head may predict `num_keypoints`, which a run takes from its data.

    Raises:
        ValueError: if there are fewer than two levels; the neck needs `extra_levels`.
    """

    def __init__(
        self,
        features: Sequence[FeatureSpec],
        num_classes: PositiveInt,
        *,
        rpn: Callable[[Sequence[FeatureSpec]], RPN] = RPN,
        roi: Callable[..., RoIHead] = RoIHead,
        num_keypoints: PositiveInt | None = None,
    ) -> None:
        super().__init__()
        if len(features) < 2:
            raise ValueError(
                "model.head: expected at least 2 levels of features, of which the coarsest has anchors only, "
                f"got {len(features)}. Set model.neck.extra_levels=maxpool, or more model.backbone.out_stages"
            )
        self.num_classes = num_classes
        self.rpn = rpn(features)
        keywords = accepted(roi, num_keypoints=num_keypoints) if num_keypoints else {}
        self.roi_heads = roi(features[:-1], num_classes, **keywords)

    @property
    def tasks(self) -> tuple[TaskName, ...]:
        branches = (branch.task for branch in self.roi_heads.branches.values())
        return tuple(dict.fromkeys([*super().tasks, *(task for task in branches if task)]))

    def forward(
        self, features: list[Float[Tensor, "B _C _H _W"]], image_sizes: Int64[Tensor, "B 2"]
    ) -> FasterRCNNOutputs:
        return FasterRCNNOutputs(features, self.rpn(features), image_sizes)

    def loss(self, outputs: FasterRCNNOutputs, targets: Targets) -> dict[str, Float[Tensor, ""]]:
        proposals = self.rpn.proposals(outputs.rpn, outputs.image_sizes, training=True)
        return {
            **self.rpn.loss(outputs.rpn, targets),
            **self.roi_heads.loss(outputs.features[:-1], proposals, targets),
        }

    @torch.no_grad()
    def predict(self, outputs: FasterRCNNOutputs) -> list[Detections]:
        detections = suppressed(self.candidates(outputs))
        return self.roi_heads.completed(outputs.features[:-1], detections)

    def add_to(
        self, outputs: FasterRCNNOutputs, detections: Detections, image: Int64[Tensor, "N"]
    ) -> Detections:
        return self.roi_heads.add_to(outputs.features[:-1], detections, image)

    def candidates(self, outputs: FasterRCNNOutputs) -> Candidates:
        proposals = self.rpn.proposals(outputs.rpn, outputs.image_sizes, training=False)
        return self.roi_heads.candidates(outputs.features[:-1], proposals, outputs.image_sizes)
