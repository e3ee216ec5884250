"""Heads, which turn pyramid features into losses and detections."""

from detector.lazy import lazy_getattr

_MODULES = {
    "AnchorGenerator": "detector.heads.anchors",
    "FCOSHead": "detector.heads.fcos",
    "FasterRCNNHead": "detector.heads.faster_rcnn",
    "Head": "detector.heads.head",
    "KeypointBranch": "detector.heads.keypoint_branch",
    "MaskBranch": "detector.heads.mask_branch",
    "ProposalLimits": "detector.heads.rpn",
    "RPN": "detector.heads.rpn",
    "RoIBranch": "detector.heads.roi_branch",
    "RoIHead": "detector.heads.roi",
}
__all__ = [*_MODULES]
__getattr__ = lazy_getattr(__name__, _MODULES)
