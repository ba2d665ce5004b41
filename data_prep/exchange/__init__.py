"""Points out to annotation tools, as COCO keypoints and YOLO pose, and corrected ones back.

One object per level on an image (its class), with five keypoints, one per condition.
"""

from data_prep.exchange.exporting import ExportReport, export_annotations, read_points
from data_prep.exchange.importing import import_annotations, write_coordinates
from data_prep.exchange.layout import AnnotationsInvalid

__all__ = [
    "AnnotationsInvalid",
    "ExportReport",
    "export_annotations",
    "import_annotations",
    "read_points",
    "write_coordinates",
]
