"""COCO metrics, and the results they are made from."""

from detector.evaluation.coco import METRIC_NAMES, CocoEvaluator, CocoMetrics
from detector.evaluation.errors import ErrorAnalysis, analyse_errors, image_f1
from detector.evaluation.ground_truth import of_images
from detector.evaluation.replicates import Replicates
from detector.evaluation.result_boxes import check_boxes
from detector.evaluation.result_files import read_results
from detector.evaluation.results import (
    ResultCollector,
    detections_to_results,
    write_metrics,
    write_predictions,
)
from detector.evaluation.statistics import (
    Comparison,
    Difference,
    Interval,
    ap_interval,
    compare,
    corrected_for_arms,
    draw,
    run_metrics,
)
from detector.evaluation.truth_file import read_ground_truth, require_objects

__all__ = [
    "METRIC_NAMES",
    "CocoEvaluator",
    "CocoMetrics",
    "Comparison",
    "Difference",
    "ErrorAnalysis",
    "Interval",
    "Replicates",
    "ResultCollector",
    "analyse_errors",
    "ap_interval",
    "check_boxes",
    "compare",
    "corrected_for_arms",
    "detections_to_results",
    "draw",
    "image_f1",
    "of_images",
    "read_ground_truth",
    "read_results",
    "require_objects",
    "run_metrics",
    "write_metrics",
    "write_predictions",
]
