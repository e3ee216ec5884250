"""COCO metrics, and the results they are made from."""

from detector.evaluation.coco import METRIC_NAMES, CocoEvaluator, CocoMetrics
from detector.evaluation.ground_truth import read_ground_truth
from detector.evaluation.results import (
    ResultCollector,
    detections_to_results,
    read_results,
    write_metrics,
    write_predictions,
)

__all__ = [
    "METRIC_NAMES",
    "CocoEvaluator",
    "CocoMetrics",
    "ResultCollector",
    "detections_to_results",
    "read_ground_truth",
    "read_results",
    "write_metrics",
    "write_predictions",
]
