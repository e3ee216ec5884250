"""What a person reads: tables, and later plots and pages."""

from detector.reports.tables import print_coco_metrics, print_table

__all__ = ["print_coco_metrics", "print_table"]
