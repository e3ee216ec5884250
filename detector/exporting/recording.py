"""Recording of a detector as one graph, and comparison of its detections with the model's."""

# B images, at most K detections per image

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule

from detector.heads.roi_branch import RoIBranch
from detector.layers.roi_pooling import DeformRoIPool
from detector.models.detector import Detector
from detector.ops.nms import padded_class_nms, recording_torchvision_nms
from detector.structures import Detections

INPUTS, OUTPUTS = ("images", "image_sizes"), ("boxes", "scores", "labels")
MULTIPLE_PX = 32  # sides of a batch are multiples of it
_SAME_PX = 8.0  # detections farther apart are different ones
_NOTES = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node", "custom")
_FAINT = 0.05  # score thresholds may be this high


class ExportableDetector(nn.Module):
    """The module that is recorded as a graph, from batches to tensors.

    Images are uint8 RGB, at the upper left of a batch whose sides are multiples of 32; `image_sizes` are
    their heights and widths. Boxes are xyxy in pixels of the batch, best first; if an image has fewer than K
    detections, the other boxes and scores are 0 and labels -1.
    """

    def __init__(self, model: Detector) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, images: UInt8[Tensor, "B 3 H W"], image_sizes: Int64[Tensor, "B 2"]
    ) -> tuple[Float[Tensor, "B K 4"], Float[Tensor, "B K"], Int64[Tensor, "B K"]]:
        candidates = self.model.head.candidates(self.model(images, image_sizes))
        index = padded_class_nms(candidates)
        kept, index = index >= 0, index.clamp(min=0)
        boxes = candidates.boxes.gather(1, index[..., None].expand(-1, -1, 4))
        return (
            torch.where(kept[..., None], boxes, 0.0),
            torch.where(kept, candidates.scores.gather(1, index), 0.0),
            torch.where(kept, candidates.labels.gather(1, index), -1),
        )


def recorded(model: Detector) -> ExportedProgram:
    """Return the graph of `ExportableDetector`, for any number of images of any size.

    It is recorded on the CPU in evaluation mode, and shares the model's parameters, which it freezes, so that
    no result carries a gradient history.

    Raises:
        ValueError: the number of samples in deformable RoI pooling depends on the cells that a bin covers, or
            the model has a `RoIBranch`.
        RuntimeError: torch cannot record a part of the model.
    """
    for name, part in model.named_modules():
        if isinstance(part, DeformRoIPool) and part.regular.sampling_ratio == 0:
            raise ValueError(
                f"{name} is deformable RoI pooling with sampling_ratio=0, whose samples no graph can count. "
                "Train with model.head.roi.sampling_ratio=2 for a model that can be exported."
            )
        if isinstance(part, RoIBranch):
            raise ValueError(
                f"{name} is a branch that adds to detections, and a graph puts out boxes, scores and labels "
                "alone. Export a model without model.head.roi.branches."
            )
    batch, rows, columns = Dim("batch"), Dim("rows"), Dim("columns")
    # Several, unequal numbers of cells on the coarsest level: no size must be taken for a constant
    coarsest = max(MULTIPLE_PX, *(level.stride_px for level in model.feature_levels))
    sides = [3 * coarsest, 4 * coarsest]
    example = (torch.zeros(2, 3, *sides, dtype=torch.uint8), torch.tensor([sides, sides]))
    shapes = {
        "images": {0: batch, 2: MULTIPLE_PX * rows, 3: MULTIPLE_PX * columns},
        "image_sizes": {0: batch},
    }
    module = ExportableDetector(model.eval()).requires_grad_(False)
    with torch.no_grad():
        return _without_origin(torch.export.export(module, example, dynamic_shapes=shapes))


def recorded_by_torchvision(model: Detector) -> ExportedProgram:
    """Return the same graph with torchvision's NMS, which runs without this package."""
    with recording_torchvision_nms():
        return recorded(model)


def _without_origin(graph: ExportedProgram) -> ExportedProgram:
    """Remove stack traces, which hold paths of the recording machine, and return the graph."""
    for module in graph.graph_module.modules():
        if isinstance(module, GraphModule):
            for node in module.graph.nodes:
                for note in _NOTES:
                    node.meta.pop(note, None)
    return graph


def detections(boxes: Tensor, scores: Tensor, labels: Tensor) -> list[Detections]:
    """Convert a graph's outputs to one `Detections` per image, without padding."""
    kept = labels >= 0
    return [Detections(boxes[i, k], scores[i, k], labels[i, k]) for i, k in enumerate(kept)]


@dataclass(frozen=True)
class ExportDifference:
    """The largest differences of a graph's detections from the model's, and the number unmatched."""

    count: int
    box_px: float
    score: float
    missing: int


def difference(
    actual: Sequence[Detections], expected: Sequence[Detections], *, score_tolerance: float, limit: int
) -> ExportDifference:
    """Compare detections of the same images, each with the nearest free one of its label in a few pixels.

    A detection without counterpart is missing, unless rounding may decide whether it is kept: its score is
    within `score_tolerance` of the lowest in an image with `limit` detections, or of the lowest of all (at
    most `_FAINT`).
    """
    pairs, missing = [], 0
    faintest = min([_FAINT, *(float(d.scores.min()) for d in (*actual, *expected) if len(d))])
    for a, b in zip(actual, expected, strict=True):
        matched = _matched(a, b)
        pairs += [(_distance_px(a, i, b, j), float((a.scores[i] - b.scores[j]).abs())) for i, j in matched]
        threshold = (
            max([faintest, *(float(d.scores.min()) for d in (a, b) if len(d) >= limit)]) + score_tolerance
        )
        for detected, used in ((a, [i for i, _ in matched]), (b, [j for _, j in matched])):
            unmatched = torch.ones(len(detected), dtype=torch.bool)
            unmatched[used] = False
            missing += int((detected.scores[unmatched] > threshold).sum())
    return ExportDifference(
        count=sum(len(b) for b in expected),
        box_px=max((box for box, _ in pairs), default=0.0),
        score=max((score for _, score in pairs), default=0.0),
        missing=missing,
    )


def _distance_px(a: Detections, i: int, b: Detections, j: int) -> float:
    return float((a.boxes[i] - b.boxes[j]).abs().max())


def _matched(actual: Detections, expected: Detections) -> list[tuple[int, int]]:
    """Return the index pairs of matching detections, best first."""
    distance = (actual.boxes[:, None] - expected.boxes).abs().amax(-1)
    distance = distance.masked_fill(actual.labels[:, None] != expected.labels, torch.inf)
    distance = distance.masked_fill(distance > _SAME_PX, torch.inf)
    distance += (actual.scores[:, None] - expected.scores).abs()  # at one place, the closest score wins
    pairs = []
    for j in range(len(expected) if len(actual) else 0):
        i = int(distance[:, j].argmin())
        if distance[i, j].isfinite():
            pairs.append((i, j))
            distance[i] = torch.inf
    return pairs
