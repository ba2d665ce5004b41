"""The synthetic spine: lumbar MRI of patients that never were, with a known truth, in the RSNA layout.

One 3-D body per patient (``PhantomStudy.body``) is cut by any plane (``render``); ``make_study`` plans and
annotates a whole study in memory, ``write_dataset`` writes studies as files.
"""

from data_prep.phantom.body import Body
from data_prep.phantom.files import PHANTOM_VERSION, write_dataset
from data_prep.phantom.plan import SeriesPlan
from data_prep.phantom.scanner import SCANNER_RANGES
from data_prep.phantom.study import PhantomStudy, make_study, render
from data_prep.phantom.tissue import Contrast

__all__ = [
    "PHANTOM_VERSION",
    "SCANNER_RANGES",
    "Body",
    "Contrast",
    "PhantomStudy",
    "SeriesPlan",
    "make_study",
    "render",
    "write_dataset",
]
