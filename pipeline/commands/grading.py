"""``predict``, ``demo``, ``show`` and ``app``: from images to grades and pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Literal

import typer

from data_prep.base.backend import Backend
from data_prep.base.manifest import DEFAULT_BUNDLE, Bundle
from pipeline.commands import console, summaries
from pipeline.commands.options import (
    ArchiveAuthority,
    ArchiveCertificate,
    ArchiveKey,
    ArchiveToken,
    AsJson,
    ChosenModels,
    ClassifierWeights,
    DetectorWeights,
    Inputs,
    Models,
    Output,
    ReportOption,
    SeriesTable,
    archive_at,
    archive_option,
    machine_option,
    result_objects,
    result_option,
)

# Of the reporting range; chosen by its labels alone: every severity occurs in every condition group.
DEMO_SEED = 200_127


def predict(
    paths: Inputs = None,
    *,
    output: Output,
    series_table: SeriesTable = None,
    pictures: Annotated[bool, result_option(help="Draw a picture of each study.")] = True,
    sr: ReportOption = None,
    sc: Annotated[
        bool, result_option("--sc", help="The picture as DICOM, too; it names the patient.")
    ] = False,
    gsps: Annotated[
        bool,
        result_option("--gsps", help="Points and grades as DICOM overlays, a presentation state per series."),
    ] = False,
    kos: Annotated[
        bool,
        result_option("--kos", help="The slices with Moderate or Severe, as a DICOM key object selection."),
    ] = False,
    report: Annotated[
        bool, result_option(help="Write report.html for each study, and index.html over them.")
    ] = True,
    models: Models = DEFAULT_BUNDLE.value,
    detector_weights: DetectorWeights = None,
    classifier_weights: ClassifierWeights = None,
    engine: Annotated[
        Literal["local", "ray"],
        machine_option(help="local: processes of this machine; ray: actors of a Ray cluster."),
    ] = "local",
    jobs: Annotated[
        int | None,
        machine_option(
            "--jobs",
            "-j",
            min=1,
            help="Studies at a time, each by a worker with its own models. Left out: by processors, memory "
            "and how many studies there are, 1 for a few; with ray, the processors of the cluster.",
        ),
    ] = None,
    address: Annotated[
        str | None,
        machine_option(metavar="HOST:PORT", help="The running Ray cluster to use, with --engine ray."),
    ] = None,
    backend: Annotated[
        Backend, machine_option(help="What runs the networks; auto: ONNX Runtime. Grades agree to 1e-3.")
    ] = Backend.AUTO,
    threads: Annotated[
        int | None,
        machine_option(
            help="Threads of this process, which then does the studies alone unless --jobs says otherwise; "
            "workers of --jobs have one each.",
            min=1,
        ),
    ] = None,
    device: Annotated[
        str, machine_option(help="cpu, cuda, cuda:N, mps, or auto: the first GPU there is. GPUs need torch.")
    ] = "cpu",
    bids: Annotated[
        bool,
        result_option("--bids", help="Points and grades as a BIDS derivative data set in OUT/bids, too."),
    ] = False,
    archive: Annotated[
        str | None,
        archive_option(
            "--from", metavar="URL", help="Instead of INPUT: a DICOMweb archive to fetch studies from."
        ),
    ] = None,
    study: Annotated[
        list[str] | None,
        archive_option(help="StudyInstanceUID to fetch with --from; give it again for more."),
    ] = None,
    query: Annotated[
        list[str] | None,
        archive_option(help="Or what to search for: KEY=VALUE, such as StudyDate=20260101-20260131."),
    ] = None,
    tls_ca: ArchiveAuthority = None,
    tls_cert: ArchiveCertificate = None,
    tls_key: ArchiveKey = None,
    token_file: ArchiveToken = None,
    as_json: AsJson = False,
) -> None:
    """Grade every study under INPUT: reports, pictures, tables, submission.csv.

    Started again after an interruption, it does what is missing. The results
    are the same bytes whatever does the studies; see docs/scale-out.md for
    several machines.
    """
    if address is not None and engine != "ray":
        raise typer.BadParameter("--address is of a Ray cluster: add --engine ray")
    if bool(paths) == bool(archive):
        raise typer.BadParameter("give INPUT, or an archive with --from, and not both")
    if engine == "ray":
        _check_ray(paths or [], address)
    from pipeline.commands.grading_steps import fetched_from, grade_all

    chosen = ChosenModels.of(models, detector_weights, classifier_weights, backend, device)
    if bids:
        from pipeline.results.bids import check_derivatives, write_derivatives

        check_derivatives(output / "bids")
    with ExitStack() as stack:
        if archive is not None:
            where = archive_at(archive, tls_ca, tls_cert, tls_key, token_file)
            paths = [stack.enter_context(fetched_from(where, study or [], query or []))]
        done = grade_all(
            paths or [],
            output,
            chosen,
            series_table=series_table,
            pictures=pictures,
            reports=report,
            threads=threads,
            objects=result_objects(sr, sc=sc, gsps=gsps, kos=kos),
            jobs=jobs,
            address=address,
        )
    if bids:
        write_derivatives(json.loads(done.predictions.read_text(encoding="utf-8")), output / "bids")
    if as_json:
        console.print_json(done.to_dict())
    else:
        summaries.print_batch(done)
    console.exit_by(done.rejections)


def _check_ray(paths: Sequence[Path], address: str | None) -> None:
    """Ends with exit code 2 where Ray is not installed, or the cluster would not see the images."""
    from data_prep.read.archives import is_archive
    from data_prep.read.opening import archives_in
    from pipeline.batch.ray_engine import HOW_TO_INSTALL, is_installed

    if address is None:
        raise typer.BadParameter("--engine ray wants the --address of a cluster; --jobs is for this machine")
    if not is_installed():
        raise typer.BadParameter(HOW_TO_INSTALL)
    if any(is_archive(path) or archives_in(path) for path in paths):
        raise typer.BadParameter("unpack the archive on a disk that every node has, and give the folder")


def demo(
    output: Output = Path("demo-output"),
    seed: Annotated[int, typer.Option(help="Which synthetic patient.", min=0)] = DEMO_SEED,
    models: Models = Bundle.OPEN.value,
) -> None:
    """Make one synthetic study, grade it, and put truth beside prediction.

    The open models grade it: they learned from synthetic patients, the research
    ones from real ones.
    """
    from pipeline.commands.demo import make_demo_study, truth_beside_prediction
    from pipeline.commands.grading_steps import grade_all

    phantom = output / "phantom"
    with console.progress("making a synthetic patient", 1) as done:
        study = make_demo_study(phantom, seed)
        done()
    report = grade_all(study, output, ChosenModels.of(models))
    rows = truth_beside_prediction(phantom, report.predictions)
    console.print_rows("truth beside prediction", rows)
    summaries.print_batch(report)
    console.exit_by(report.rejections)


def show(
    paths: Inputs = None,
    *,
    output: Output,
    series_table: SeriesTable = None,
    truth: Annotated[
        Literal["none", "only", "beside"],
        typer.Option(
            help="none: what is detected; only: the annotations of the data set, no model is loaded; "
            "beside: both, side by side."
        ),
    ] = "none",
    models: Models = DEFAULT_BUNDLE.value,
    detector_weights: DetectorWeights = None,
    classifier_weights: ClassifierWeights = None,
) -> None:
    """Draw the levels on the slices of every series, and a montage per study.

    Names, points, uncertainty in millimetres, scale bar and the patient's
    directions, sharp enough to print. Annotations come from
    train_label_coordinates.csv and train.csv, in INPUT or up to three folders
    above.
    """
    from pipeline.commands.show import draw_all

    chosen = ChosenModels.of(models, detector_weights, classifier_weights)
    if not paths:
        raise typer.BadParameter("give INPUT")
    rejections = draw_all(
        paths,
        output,
        None if truth == "only" else chosen,
        series_table=series_table,
        annotated=truth != "none",
    )
    console.say(f"pictures    {output}")
    console.exit_by(rejections)


def local_app(
    port: Annotated[int, typer.Option(help="Port on this machine; 0: a free one.", min=0, max=65535)] = 8642,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
    models: Models = DEFAULT_BUNDLE.value,
    detector_weights: DetectorWeights = None,
    classifier_weights: ClassifierWeights = None,
) -> None:
    """A page on this machine where a folder or zip is dropped, graded, and the report appears.

    It listens on 127.0.0.1 alone: nothing leaves the machine. Images and
    results are removed when it ends.
    """
    import webbrowser

    chosen = ChosenModels.of(models, detector_weights, classifier_weights)
    from pipeline.app.server import listen, serve
    from pipeline.commands.console import ended_by_signals
    from pipeline.commands.grading_steps import load_pipeline

    def ready(address: str) -> None:
        # The address is the result: it is printed even when quiet.
        console.out.print(f"lumbar is at {address} on this machine alone; Ctrl-C ends it")
        if browser:
            webbrowser.open(address)

    listener = listen(port)
    verbose = console.verbosity() is console.Verbosity.VERBOSE
    loaded = load_pipeline(chosen)
    with ended_by_signals():  # a closed terminal, too, must not leave images behind
        serve(loaded, listener, log_level="info" if verbose else "warning", ready=ready)
