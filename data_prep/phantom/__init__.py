"""The synthetic spine: lumbar MRI of patients that never were, with a known truth, in the RSNA layout.

One 3-D body per patient (``make_body``) is cut by any plane (``render``); ``make_study`` plans and annotates
a whole study in memory, ``write_dataset`` writes studies as files.
"""

from data_prep.phantom.body import Body, make_body
from data_prep.phantom.files import PHANTOM_VERSION, write_dataset
from data_prep.phantom.plan import (
    SagittalPlan,
    SeriesPlan,
    axial_stacks,
    draw_sagittal_plan,
    plan_study,
    sagittal_planes,
)
from data_prep.phantom.scanner import SCANNER_RANGES, Scanner, ScannerRange, draw_scanner
from data_prep.phantom.severity import Grading, draw_grading
from data_prep.phantom.study import PhantomDisc, PhantomStudy, make_study, render
from data_prep.phantom.tissue import Contrast, draw_contrast

__all__ = [
    "PHANTOM_VERSION",
    "SCANNER_RANGES",
    "Body",
    "Contrast",
    "Grading",
    "PhantomDisc",
    "PhantomStudy",
    "SagittalPlan",
    "Scanner",
    "ScannerRange",
    "SeriesPlan",
    "axial_stacks",
    "draw_contrast",
    "draw_grading",
    "draw_sagittal_plan",
    "draw_scanner",
    "make_body",
    "make_study",
    "plan_study",
    "render",
    "sagittal_planes",
    "write_dataset",
]
