"""Recording of a detector as one graph."""

# B images, at most K detections per image, S cells of a mask's side, P keypoints

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule

from detector.exporting.pasting import pasted_probabilities
from detector.heads.roi_branch import RoIBranch
from detector.layers.roi_pooling import DeformRoIPool
from detector.models.detector import Detector
from detector.ops.nms import padded_class_nms, recording_torchvision_nms
from detector.structures import Detections

INPUTS, OUTPUTS = ("images", "image_sizes"), ("boxes", "scores", "labels")
MaskFrame = Literal["boxes", "image"]
MULTIPLE_PX = 32  # sides of a batch are multiples of it
_NOTES = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node", "custom")
_OUTPUT_OF_TASK = {"segm": "masks", "keypoints": "keypoints"}


def output_names(model: Detector) -> tuple[str, ...]:
    """Return the names of the graph's outputs: those of boxes, and those of the branches."""
    return (*OUTPUTS, *(name for task, name in _OUTPUT_OF_TASK.items() if task in model.tasks))


class ExportableDetector(nn.Module):
    """The module that is recorded as a graph, from batches to a tensor for each of `output_names`.

    Images are uint8 RGB, at the upper left of a batch whose sides are multiples of 32; `image_sizes` are
    their heights and widths. Boxes are xyxy in pixels of the batch, best first; if an image has fewer than K
    detections, the other boxes and scores are 0 and labels -1, and masks and keypoints are 0, too. Masks are
    probabilities in the frames of boxes (B, K, S, S) or, with masks="image", the pixels of the batch that an
    object covers (B, K, H, W). Keypoints are x, y in pixels of the batch, and the logit (B, K, P, 3).
    """

    def __init__(self, model: Detector, *, masks: MaskFrame = "boxes") -> None:
        super().__init__()
        assert masks in get_args(MaskFrame)
        self.model, self.masks = model, masks

    def forward(
        self, images: UInt8[Tensor, "B 3 H W"], image_sizes: Int64[Tensor, "B 2"]
    ) -> tuple[Tensor, ...]:
        outputs = self.model(images, image_sizes)
        candidates = self.model.head.candidates(outputs)
        index = padded_class_nms(candidates)
        kept, index = index >= 0, index.clamp(min=0)
        boxes = candidates.boxes.gather(1, index[..., None].expand(-1, -1, 4))
        boxes = torch.where(kept[..., None], boxes, 0.0)
        scores = torch.where(kept, candidates.scores.gather(1, index), 0.0)
        labels = torch.where(kept, candidates.labels.gather(1, index), -1)
        if len(output_names(self.model)) == len(OUTPUTS):
            return boxes, scores, labels
        image = torch.arange(kept.shape[0], device=kept.device)[:, None].expand_as(kept).flatten()
        flat = Detections(boxes.flatten(0, 1), scores.flatten(), labels.flatten().clamp(min=0))
        detections = self.model.head.add_to(outputs, flat, image)
        more = [self._masks(detections, kept, images), _keypoints(detections, kept)]
        return boxes, scores, labels, *(output for output in more if output is not None)

    def _masks(
        self, detections: Detections, kept: Bool[Tensor, "B K"], images: UInt8[Tensor, "B 3 H W"]
    ) -> Float[Tensor, "B K S S"] | Bool[Tensor, "B K H W"] | None:
        if detections.masks is None:
            return None
        masks = detections.masks.coverage
        if self.masks == "image":
            height, width = images.shape[2:]
            masks = pasted_probabilities(masks, detections.boxes, (height, width)) > 0.5
            return masks.unflatten(0, kept.shape) & kept[..., None, None]
        return torch.where(kept[..., None, None], masks.unflatten(0, kept.shape), 0.0)


def _keypoints(detections: Detections, kept: Bool[Tensor, "B K"]) -> Float[Tensor, "B K P 3"] | None:
    if detections.keypoints is None or detections.keypoint_scores is None:
        return None
    rows = torch.cat([detections.keypoints.xy, detections.keypoint_scores[..., None]], dim=-1)
    return torch.where(kept[..., None, None], rows.unflatten(0, kept.shape), 0.0)


def recorded(model: Detector, *, masks: MaskFrame = "boxes") -> ExportedProgram:
    """Return the graph of `ExportableDetector`, for any number of images of any size.

    It is recorded on the CPU in evaluation mode, and shares the model's parameters, which it freezes, so that
    no result carries a gradient history.

    Raises:
        ValueError: the number of samples in deformable RoI pooling depends on the cells that a bin covers, a
            `RoIBranch` has no `task`, hence no output, or there are no masks for masks="image".
        RuntimeError: torch cannot record a part of the model.
    """
    for name, part in model.named_modules():
        if isinstance(part, DeformRoIPool) and part.regular.sampling_ratio == 0:
            raise ValueError(
                f"{name} is deformable RoI pooling with sampling_ratio=0, whose samples no graph can count. "
                "Train with model.head.roi.sampling_ratio=2 for a model that can be exported."
            )
        if isinstance(part, RoIBranch) and part.task not in _OUTPUT_OF_TASK:
            raise ValueError(
                f"{name} is a branch with task={part.task!r}, and graphs have outputs of segm (masks) and "
                "keypoints. Set the task of the branch, or export a model without it."
            )
    if masks == "image" and "segm" not in model.tasks:
        raise ValueError(
            f"masks=image needs a model that predicts masks, and this one has the tasks "
            f"{', '.join(model.tasks)}. Leave it out, or train with model=mask_rcnn."
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
    module = ExportableDetector(model.eval(), masks=masks).requires_grad_(False)
    with torch.no_grad():
        return _without_origin(torch.export.export(module, example, dynamic_shapes=shapes))


def recorded_by_torchvision(model: Detector, *, masks: MaskFrame = "boxes") -> ExportedProgram:
    """Return the same graph with torchvision's NMS, which runs without this package."""
    with recording_torchvision_nms():
        return recorded(model, masks=masks)


def _without_origin(graph: ExportedProgram) -> ExportedProgram:
    """Remove stack traces, which hold paths of the recording machine, and return the graph."""
    for module in graph.graph_module.modules():
        if isinstance(module, GraphModule):
            for node in module.graph.nodes:
                for note in _NOTES:
                    node.meta.pop(note, None)
    return graph
