"""What the commands that grade studies have in common; a step that fails says why and ends the program."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from data_prep import console
from data_prep.archives import is_archive, opened_input
from data_prep.backend import Backend, BackendUnusable
from data_prep.files import FolderInUse, atomic_write, locked_folder
from data_prep.manifest import WeightsRejected
from data_prep.studies import find_studies
from data_prep.study_entry import StudyEntry
from data_prep.study_types import DicomRejected, Rejection
from pipeline.batch import BatchReport, run_batch
from pipeline.engines import Engine, EngineFailed, LoadPipeline
from pipeline.local_pool import LocalPool
from pipeline.predict import Pipeline
from pipeline.prediction import Provenance
from pipeline.ray_engine import RayEngine, connecting
from pipeline.report import write_report
from pipeline.study_figures import draw_montage


@contextmanager
def opened(path: Path) -> Iterator[tuple[Path, tuple[Rejection, ...]]]:
    """The folder of an input, a zip unpacked for as long as the block lasts; see ``opened_input``."""
    if not is_archive(path):
        yield path, ()
        return
    with ended_by_signals(), ExitStack() as stack:
        with console.progress("unpacking", None) as done:
            try:
                found = stack.enter_context(opened_input(path, progress=lambda _, total: done(of=total)))
            except DicomRejected as rejected:
                console.fail_rejected(rejected.rejection, rejected.rejections)
        yield found


# SIGHUP is not everywhere.
_ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block by an exception, so that what was unpacked is removed."""
    owner = os.getpid()

    def end(number: int, _: object) -> None:
        if os.getpid() != owner:  # a worker that inherited this has nothing to remove
            os._exit(128 + number)
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, end) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def find_entries(path: Path, series_table: Path | None) -> tuple[StudyEntry, ...]:
    """The studies under a path."""
    with console.status("looking for studies"):
        try:
            return find_studies(path, series_table=series_table)
        except DicomRejected as rejected:
            console.fail_rejected(rejected.rejection, rejected.rejections)


def make_writable(folder: Path) -> None:
    """Make the folder and write to it now: a batch takes hours. Raises OSError, naming the folder."""
    probe = folder / ".writable"
    try:
        with atomic_write(probe):
            pass
        probe.unlink()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from None


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Make sure that no other run writes into the folder for as long as the block lasts."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locked_folder(folder))
        except FolderInUse:
            console.fail(
                f"another run is writing into {folder.name!r}\n"
                "what to do: wait until it ends, or choose another folder with -o"
            )
        yield


def load_pipeline(
    detector_weights: Path | None = None,
    classifier_weights: Path | None = None,
    *,
    backend: Backend = Backend.AUTO,
    threads: int | None = None,
) -> Pipeline:
    """The models, bundled ones if not given; see ``Pipeline.load``."""
    with console.status("loading models (converting them the first time)"):
        try:
            pipeline = Pipeline.load(
                detector_weights=detector_weights,
                classifier_weights=classifier_weights,
                backend=backend,
                threads=threads,
            )
        except (WeightsRejected, BackendUnusable) as rejected:
            console.fail(str(rejected))
    for name, digest in pipeline.provenance.models.items():
        console.note(f"model {name} {digest}")
    return pipeline


MakeEngine = Callable[[LoadPipeline, Provenance], Engine | None]


@dataclass(frozen=True)
class Workers:
    """Where studies are done.

    Attributes:
        jobs: workers with models of their own; None: one, or as many as a Ray cluster has processors.
        ray: they are actors of a Ray cluster.
        address: of the cluster; None starts a Ray on this machine.
    """

    jobs: int | None = None
    ray: bool = False
    address: str | None = None

    @contextmanager
    def prepared(self) -> Iterator[MakeEngine]:
        """What makes the engine, or None for this process alone, once the models are loaded.

        Ray connects meanwhile, and a Ray of our own ends with the block. Raises EngineFailed: no Ray.
        """
        if not self.ray:
            yield self._local
            return
        with ended_by_signals(), connecting(self.address, self.jobs) as connected:
            yield lambda load, provenance: RayEngine(load, provenance, connected, self.jobs, say=console.tell)

    def _local(self, load: LoadPipeline, _: Provenance) -> Engine | None:
        return LocalPool(load, self.jobs, say=console.tell) if self.jobs and self.jobs > 1 else None


def load_in_worker(
    detector_weights: Path | None, classifier_weights: Path | None, backend: Backend = Backend.AUTO
) -> Pipeline:
    """``Pipeline.load`` as workers in other processes find it, each with one thread."""
    return Pipeline.load(
        detector_weights=detector_weights, classifier_weights=classifier_weights, backend=backend, threads=1
    )


@contextmanager
def _engine_failures_named() -> Iterator[None]:
    try:
        yield
    except EngineFailed as failed:
        console.fail(f"{failed}\nwhat to do: start it again when that is mended; it goes on where it was")


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.absolute()


def grade_all(
    path: Path,
    output: Path,
    *,
    series_table: Path | None = None,
    pictures: bool = True,
    reports: bool = True,
    detector_weights: Path | None = None,
    classifier_weights: Path | None = None,
    backend: Backend = Backend.AUTO,
    threads: int | None = None,
    report_objects: bool = False,
    capture_objects: bool = False,
    workers: Workers | None = None,
) -> BatchReport:
    """Grade every study under a path, or in a zip, into a folder; what was rejected is printed.

    ``report_objects`` and ``capture_objects`` ask for DICOM SR and SC files; ``workers`` says where studies
    are done, in this process if left out.
    """
    dicom = None
    if report_objects or capture_objects:
        # Here, because few runs need the library behind it.
        from pipeline.dicom_results.write import DicomResults

        dicom = DicomResults(report=report_objects, capture=capture_objects)
    with opened(path) as (folder, rejections), _engine_failures_named():
        entries = find_entries(folder, series_table)
        make_writable(output)
        with (workers or Workers()).prepared() as make_engine:
            pipeline = load_pipeline(detector_weights, classifier_weights, backend=backend, threads=threads)
            load = partial(
                load_in_worker, _absolute(detector_weights), _absolute(classifier_weights), backend
            )
            with alone_in(output), console.progress_of_parts("studies", len(entries)) as on_stage:
                report = run_batch(
                    pipeline,
                    entries,
                    output,
                    draw=draw_montage if pictures else None,
                    report=write_report if reports else None,
                    dicom=dicom,
                    on_stage=on_stage,
                    rejections=rejections,
                    engine=make_engine(load, pipeline.provenance),
                )
    console.list_rejections(report.rejections)
    return report
