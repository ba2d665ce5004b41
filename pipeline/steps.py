"""What the commands that grade studies have in common; a step that fails says why and ends the program."""

from __future__ import annotations

from pathlib import Path

from data_prep import console
from data_prep.files import atomic_write
from data_prep.manifest import WeightsRejected
from data_prep.studies import StudyEntry, find_studies
from data_prep.study_types import DicomRejected
from pipeline.batch import BatchReport, run_batch
from pipeline.predict import Pipeline
from pipeline.study_figures import draw_montage


def find_entries(path: Path, series_table: Path | None) -> tuple[StudyEntry, ...]:
    """The studies under a path."""
    with console.err.status("looking for studies"):
        try:
            return find_studies(path, series_table=series_table)
        except DicomRejected as rejected:
            console.list_rejections(rejected.rejections)
            console.fail(str(rejected.rejection))


def make_writable(folder: Path) -> None:
    """Make the folder and write to it now: a batch takes hours. Raises OSError."""
    probe = folder / ".writable"
    with atomic_write(probe):
        pass
    probe.unlink()


def load_pipeline(detector_weights: Path | None = None, classifier_weights: Path | None = None) -> Pipeline:
    """The models, bundled ones if not given; see ``Pipeline.load``."""
    with console.err.status("loading models"):
        try:
            return Pipeline.load(detector_weights=detector_weights, classifier_weights=classifier_weights)
        except WeightsRejected as rejected:
            console.fail(str(rejected))


def grade_all(
    path: Path,
    output: Path,
    *,
    series_table: Path | None = None,
    pictures: bool = True,
    detector_weights: Path | None = None,
    classifier_weights: Path | None = None,
    report_objects: bool = False,
    capture_objects: bool = False,
) -> BatchReport:
    """Grade every study under a path into a folder; what was rejected is printed.

    ``report_objects`` and ``capture_objects`` ask for DICOM SR and SC files.
    """
    entries = find_entries(path, series_table)
    make_writable(output)
    pipeline = load_pipeline(detector_weights, classifier_weights)
    draw = draw_montage if pictures else None
    dicom = None
    if report_objects or capture_objects:
        # Here, because few runs need the library behind it.
        from pipeline.dicom_results.write import DicomResults

        dicom = DicomResults(report=report_objects, capture=capture_objects)
    with console.progress("studies", len(entries)) as done:
        report = run_batch(pipeline, entries, output, draw=draw, progress=done, dicom=dicom)
    console.list_rejections(report.rejections)
    return report
