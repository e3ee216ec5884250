"""COCO metrics, and the results they are computed from."""

from detector.lazy import lazy_getattr

_MODULES = {
    "BoundaryAP": "detector.evaluation.boundary",
    "CocoEvaluator": "detector.evaluation.coco",
    "CocoMetrics": "detector.evaluation.coco",
    "CurveMetric": "detector.evaluation.metrics",
    "Matched": "detector.evaluation.matching",
    "Metric": "detector.evaluation.metrics",
    "MetricSpec": "detector.evaluation.metrics",
    "read_ground_truth": "detector.coco.truth_reader",
    "read_results": "detector.evaluation.result_files",
}
__all__ = [*_MODULES]
__getattr__ = lazy_getattr(__name__, _MODULES)
