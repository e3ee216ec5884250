"""Heads: pyramid features to losses and detections."""

from detector.heads.anchors import Anchors
from detector.heads.faster_rcnn import FasterRCNNHead
from detector.heads.fcos import FCOSHead
from detector.heads.head import Head
from detector.heads.roi import RoIHead
from detector.heads.rpn import RPN, ProposalLimits

__all__ = ["RPN", "Anchors", "FCOSHead", "FasterRCNNHead", "Head", "ProposalLimits", "RoIHead"]
