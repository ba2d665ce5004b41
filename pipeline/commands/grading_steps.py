"""What the commands that grade studies have in common; a step that fails says why and ends the program."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from data_prep.base.files import locked_folder, write_whole
from data_prep.base.networks import await_networks
from data_prep.problems import Rejection
from data_prep.read.archives import is_archive
from data_prep.read.entry import StudyEntry
from data_prep.read.find import find_all_studies
from data_prep.read.opening import archives_in, opened_input
from data_prep.study import Study
from pipeline.batch.engines import Engine
from pipeline.batch.output import check_output, others_in
from pipeline.batch.processes import LocalPool, jobs_for
from pipeline.batch.ray_engine import RayEngine
from pipeline.batch.run import BatchReport, run_batch
from pipeline.commands import console
from pipeline.commands.console import ended_by_signals
from pipeline.commands.options import DEFAULT_MODELS, ChosenModels
from pipeline.extras import what_is_missing
from pipeline.grade import Pipeline
from pipeline.model_facts import ModelFacts
from pipeline.prediction import StudyPrediction
from pipeline.results.dicom import ResultObject

if TYPE_CHECKING:
    from pipeline.service.dicomweb import Archive


@contextmanager
def opened(path: Path) -> Iterator[tuple[Path, tuple[Rejection, ...]]]:
    """The folder of an input, a zip unpacked for as long as the block lasts; see ``opened_input``."""
    if not (is_archive(path) or archives_in(path)):
        yield path, ()
        return
    with ended_by_signals(), ExitStack() as stack:
        with console.progress("unpacking", None) as done:
            found = stack.enter_context(opened_input(path, progress=lambda _, total: done(of=total)))
        yield found


def find_entries(paths: Sequence[Path], series_table: Path | None) -> tuple[StudyEntry, ...]:
    """The studies under one path or several."""
    with console.status("looking for studies"):
        return find_all_studies(paths, series_table=series_table)


@contextmanager
def fetched_from(archive: Archive, study_uids: Sequence[str], query: Sequence[str]) -> Iterator[Path]:
    """Studies of a DICOMweb archive in a folder, for as long as the block lasts; failures end the program."""
    from pipeline.service.dicomweb import ArchiveFailed, fetched, find_study_uids, parse_query

    with ended_by_signals(), ExitStack() as stack:
        try:
            with console.status("fetching studies"):
                wanted = list(study_uids) or find_study_uids(archive, parse_query(query))
                folder = stack.enter_context(fetched(archive, wanted))
        except (ValueError, ArchiveFailed) as error:
            console.fail(str(error))
        yield folder


def make_writable(folder: Path) -> None:
    """Make the folder and write to it now: a batch takes hours. Raises OSError, naming the folder."""
    probe = folder / ".writable"
    try:
        write_whole(probe, "")
        probe.unlink()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from None


def load_pipeline(chosen: ChosenModels, *, threads: int | None = None, wait: bool = True) -> Pipeline:
    """See ``Pipeline.load``; ``wait`` until all networks are ready: who grades at once need not."""
    with console.status("loading models"):
        pipeline = Pipeline.load(**vars(chosen), threads=threads)
        if wait:
            await_networks()
    _note_models(pipeline.facts)
    return pipeline


def _note_models(facts: ModelFacts) -> None:
    for name, digest in facts.provenance.models.items():
        console.note(f"model {name} {digest}")
    if facts.uncalibrated:
        console.tell(
            f"note: graders that are not calibrated: {', '.join(facts.uncalibrated)}; "
            "`lumbar classifier calibrate` fits their probabilities"
        )


def draw_picture(study: Study | None, prediction: StudyPrediction, path: Path) -> None:
    """``draw_montage``, its library imported by whoever draws: with --jobs, that is never the driver."""
    from pipeline.results.pictures.montage import draw_montage

    draw_montage(study, prediction, path)


def draw_report(study: Study | None, prediction: StudyPrediction, path: Path) -> None:
    """``write_report``, in the same way."""
    from pipeline.results.report.study_report import write_report

    write_report(study, prediction, path)


def grade_all(
    paths: Path | Sequence[Path],
    output: Path,
    chosen: ChosenModels = DEFAULT_MODELS,
    *,
    series_table: Path | None = None,
    pictures: bool = True,
    reports: bool = True,
    threads: int | None = None,
    objects: Collection[ResultObject] = (),
    jobs: int | None = 1,
    address: str | None = None,
) -> BatchReport:
    """Grade every study under one path or several, or in a zip, into a folder; what was rejected is printed.

    Args:
        objects: the DICOM objects that each study gets.
        jobs: workers with models of their own, of which 1 is this process; None: what suits the studies and
            this machine, or as many as a Ray cluster has processors.
        address: the workers are actors of the Ray cluster there.
    """
    dicom = None
    if objects:
        # Here, because few runs need the library behind it.
        from pipeline.results.dicom.write import DicomResults

        dicom = DicomResults(objects)
    if pictures and find_spec("matplotlib") is None:
        console.tell(f"no pictures: {what_is_missing('matplotlib')}")
        pictures = False
    named = [paths] if isinstance(paths, Path) else paths
    with ExitStack() as stack:
        if address is not None:
            stack.enter_context(ended_by_signals())
        inputs = [stack.enter_context(opened(path)) for path in named]
        rejections = tuple(item for _, refused in inputs for item in refused)
        entries = find_entries([folder for folder, _ in inputs], series_table)
        unlisted = sum(not entry.kinds for entry in entries)
        if series_table is not None and unlisted:
            console.tell(
                f"note: {unlisted} of {len(entries)} studies are not in the series table that was named: "
                "what their series show is told by headers and images"
            )
        make_writable(output)
        check_output(output)
        models: Pipeline | ModelFacts
        engine: Engine | None = None
        if address is None and jobs is None and threads is None and chosen.device == "cpu":
            jobs = jobs_for(len(entries), drawn=pictures or reports)
        if address is not None or (jobs or 1) > 1:
            models = ModelFacts.read(**vars(chosen))
            _note_models(models)
            load = partial(Pipeline.load, **vars(chosen.absolute()), threads=1)
            if address is not None:
                engine = RayEngine(load, models.provenance, address, jobs, say=console.tell)
            else:
                engine = LocalPool(load, jobs or 1, say=console.tell)
        else:
            models = load_pipeline(chosen, threads=threads, wait=False)
        with locked_folder(output), console.progress_of_parts("studies", len(entries)) as told:
            report = run_batch(
                models,
                entries,
                output,
                draw=draw_picture if pictures else None,
                report=draw_report if reports else None,
                dicom=dicom,
                on_stage=told,
                rejections=rejections,
                engine=engine,
            )
    console.list_rejections(report.rejections, report.refused)
    if others := others_in(output, entries):
        studies = "study" if others == 1 else "studies"
        console.tell(
            f"the output folder holds results of {others} more {studies} from earlier runs; the tables and "
            "index.html are of this run alone"
        )
    return report
