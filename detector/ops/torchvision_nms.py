"""torchvision's suppression kernel.

Where possible it is loaded without the package, whose import takes longer than torch's.
"""

# N boxes, K of them kept

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from detector.ops.recording import is_eager_on_cpu

_MANY_NUMBERS = 4000  # on a CPU, above which classes are suppressed one by one


def nms(boxes: Float[Tensor, "N 4"], scores: Float[Tensor, "N"], iou_threshold: float) -> Int64[Tensor, "K"]:
    """Return the indices of boxes that no better one overlaps by more, best first."""
    if is_eager_on_cpu(boxes) and _loads_alone():
        return torch.ops.torchvision.nms(boxes, scores, iou_threshold)
    import torchvision  # late, see above; graphs need the shapes that the package registers

    return torchvision.ops.nms(boxes, scores, iou_threshold)


def batched_nms(
    boxes: Float[Tensor, "N 4"], scores: Float[Tensor, "N"], labels: Int64[Tensor, "N"], iou_threshold: float
) -> Int64[Tensor, "K"]:
    """Return the indices of boxes that no better one of their label overlaps by more, best first.

    The result is that of torchvision's `batched_nms` on any device, and so is its way: few boxes are shifted
    apart by label and share one suppression, many are suppressed label by label.
    """
    if not (is_eager_on_cpu(boxes) and _loads_alone()):
        import torchvision  # late, as above

        return torchvision.ops.batched_nms(boxes, scores, labels, iou_threshold)
    if boxes.numel() == 0:
        return torch.empty(0, dtype=torch.int64)
    if boxes.numel() <= _MANY_NUMBERS:
        return nms(boxes + (labels.to(boxes) * (boxes.max() + 1))[:, None], scores, iou_threshold)
    kept = torch.zeros_like(scores, dtype=torch.bool)
    for label in labels.unique():
        among = torch.where(labels == label)[0]
        kept[among[nms(boxes[among], scores[among], iou_threshold)]] = True
    index = torch.where(kept)[0]
    return index[scores[index].sort(descending=True)[1]]


@cache
def _loads_alone() -> bool:
    """Load torchvision's operators from their library; return whether it is where it is known to be."""
    spec = find_spec("torchvision")
    folder = Path(spec.origin).parent if spec and spec.origin else Path()
    for library in sorted(folder.glob("_C*.so")):
        try:
            torch.ops.load_library(str(library))
        except OSError:
            continue
        if hasattr(torch.ops.torchvision, "nms"):
            return True
    return False
