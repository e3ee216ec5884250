"""What a person reads: tables, and later plots and pages."""

from detector.reports.drawings import draw_detections
from detector.reports.tables import print_coco_metrics, print_table

__all__ = ["draw_detections", "print_coco_metrics", "print_table"]
