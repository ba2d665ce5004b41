"""What the commands that grade studies have in common; a step that fails says why and ends the program."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from data_prep import console
from data_prep.archives import is_archive, opened_input
from data_prep.files import atomic_write
from data_prep.manifest import WeightsRejected
from data_prep.studies import StudyEntry, find_studies
from data_prep.study_types import DicomRejected, Rejection
from pipeline.batch import BatchReport, run_batch
from pipeline.predict import Pipeline
from pipeline.report import write_report
from pipeline.study_figures import draw_montage


@contextmanager
def opened(path: Path) -> Iterator[tuple[Path, tuple[Rejection, ...]]]:
    """The folder of an input, a zip unpacked for as long as the block lasts; see ``opened_input``."""
    if not is_archive(path):
        yield path, ()
        return
    with ExitStack() as stack:
        with console.progress("unpacking", None) as done:
            try:
                found = stack.enter_context(opened_input(path, progress=lambda _, total: done(of=total)))
            except DicomRejected as rejected:
                console.fail_rejected(rejected.rejection, rejected.rejections)
        yield found


def find_entries(path: Path, series_table: Path | None) -> tuple[StudyEntry, ...]:
    """The studies under a path."""
    with console.status("looking for studies"):
        try:
            return find_studies(path, series_table=series_table)
        except DicomRejected as rejected:
            console.fail_rejected(rejected.rejection, rejected.rejections)


def make_writable(folder: Path) -> None:
    """Make the folder and write to it now: a batch takes hours. Raises OSError."""
    probe = folder / ".writable"
    with atomic_write(probe):
        pass
    probe.unlink()


def load_pipeline(detector_weights: Path | None = None, classifier_weights: Path | None = None) -> Pipeline:
    """The models, bundled ones if not given; see ``Pipeline.load``."""
    with console.status("loading models"):
        try:
            pipeline = Pipeline.load(detector_weights=detector_weights, classifier_weights=classifier_weights)
        except WeightsRejected as rejected:
            console.fail(str(rejected))
    for name, digest in pipeline.provenance.models.items():
        console.note(f"model {name} {digest}")
    return pipeline


def grade_all(
    path: Path,
    output: Path,
    *,
    series_table: Path | None = None,
    pictures: bool = True,
    reports: bool = True,
    detector_weights: Path | None = None,
    classifier_weights: Path | None = None,
    report_objects: bool = False,
    capture_objects: bool = False,
) -> BatchReport:
    """Grade every study under a path, or in a zip, into a folder; what was rejected is printed.

    ``report_objects`` and ``capture_objects`` ask for DICOM SR and SC files.
    """
    dicom = None
    if report_objects or capture_objects:
        # Here, because few runs need the library behind it.
        from pipeline.dicom_results.write import DicomResults

        dicom = DicomResults(report=report_objects, capture=capture_objects)
    with opened(path) as (folder, rejections):
        entries = find_entries(folder, series_table)
        make_writable(output)
        pipeline = load_pipeline(detector_weights, classifier_weights)
        with console.progress_of_parts("studies", len(entries)) as on_stage:
            report = run_batch(
                pipeline,
                entries,
                output,
                draw=draw_montage if pictures else None,
                report=write_report if reports else None,
                dicom=dicom,
                on_stage=on_stage,
                rejections=rejections,
            )
    console.list_rejections(report.rejections)
    return report
