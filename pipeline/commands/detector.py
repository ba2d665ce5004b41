"""``lumbar detector``: train, evaluate and run the level detectors. Importable without torch."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from data_prep.base.files import without_nan, write_whole
from data_prep.base.manifest import weights_folder
from pipeline.commands import console, detector_training
from pipeline.commands.options import (
    AsJson,
    External,
    ExternalScale,
    Input,
    NamedWeights,
    SeriesTable,
    Slices,
)
from pipeline.commands.summaries import tell_of_known, told_of_left_out

if TYPE_CHECKING:
    from data_prep.levels import SpineLevels
    from data_prep.problems import Rejection
    from data_prep.read.entry import StudyEntry
    from detector.learn.slices import AnnotatedStudy
    from detector.learn.study_slices import LeftOut
    from detector.predict import LevelDetector

app = typer.Typer(
    help="The level detectors alone: train, bundle, calibrate, evaluate, predict.", no_args_is_help=True
)
for name, command, example in (
    ("train", detector_training.train, "train rsna/ -o runs/sagittal --kind sagittal"),
    ("train-points", detector_training.train_points, "train-points rsna/ -o runs/points --group spinal"),
    ("bundle", detector_training.bundle, "bundle runs/sagittal runs/axial -o detector/weights"),
):
    app.command(name, epilog=f"Example: lumbar detector {example}")(command)
# What has room on 80 columns; --json has every figure.
SHOWN = {
    "missing": "missing",
    "median_in_plane_mm": "median",
    "p95_in_plane_mm": "p95",
    "median_3d_mm": "3D",
    "wrong_level": "level",
    "wrong_side": "side",
}


@app.command(epilog="Example: lumbar detector predict train_images/100206310 -o levels.csv")
def predict(
    path: Input,
    output: Annotated[Path, typer.Option("--output", "-o", help="levels.csv to write.", dir_okay=False)],
    weights: NamedWeights = None,
    series_table: SeriesTable = None,
) -> None:
    """Find the levels of every study and write their points as levels.csv."""
    from data_prep.read.find import find_all_studies
    from detector.levels_table import write_levels
    from pipeline.commands.grading_steps import make_writable, opened

    rejections: list[Rejection] = []
    found = []
    with opened(path) as (folder, unpacked):
        rejections += unpacked
        entries = find_all_studies([folder], series_table=series_table)
        make_writable(output.parent)
        detector = _detector(weights)
        with console.progress("finding levels", len(entries)) as done:
            for entry in entries:
                levels, flags, refused = _levels_of(detector, entry)
                rejections += refused
                if levels is not None:
                    found.append((levels, flags))
                done(entry.study_id)
    console.list_rejections(rejections)
    if not found:
        console.fail("no study could be used")
    write_levels([levels for levels, _ in found], output)
    for levels, flags in found:
        said = f" [{', '.join(flags)}]" if flags else ""
        confidence = f"numbering {levels.numbering_confidence:.2f}"
        console.tell(f"{levels.study_id}: {len(levels.levels)} levels, {confidence}{said}")
    console.exit_by(rejections)


def _levels_of(
    detector: LevelDetector, entry: StudyEntry
) -> tuple[SpineLevels | None, tuple[str, ...], Sequence[Rejection]]:
    """Levels of a study, its flags, and what was not used: what ``lumbar predict`` says of them, too."""
    from data_prep.base.backend import BackendUnusable
    from data_prep.pixel_cache import PixelCache
    from data_prep.problems import DicomRejected
    from pipeline.grade import failure_of, find_levels
    from pipeline.study_flags import with_images_doubted

    try:
        cache = PixelCache(entry.load())
    except DicomRejected as rejected:
        return None, (), (*rejected.rejections, rejected.rejection)
    except Exception as error:
        return None, (), (failure_of(error, "reading", entry.study_id),)
    study = cache.study
    try:
        study, levels = find_levels(detector, study)
        study = with_images_doubted(study, levels)
    except BackendUnusable:  # no study's fault
        raise
    except Exception as error:
        failure = failure_of(error, "detection", entry.study_id)
        return None, (), (*study.rejections, *cache.rejections, failure)
    return levels, (*levels.flags, *study.flags), (*study.rejections, *cache.rejections)


@app.command(epilog="Example: lumbar detector evaluate rsna/ --json")
def evaluate(
    data: Annotated[Path | None, typer.Argument(metavar="DATA", help="Data set in the RSNA layout.")] = None,
    external: External = None,
    external_mm_per_px: ExternalScale = 0.47,
    slices: Slices = None,
    part: Annotated[
        str | None,
        typer.Option(
            help="Of --external, by its split.csv: report (default) or choosing. Of DATA and --slices, by "
            "identifiers: train, validation or test; all if left out."
        ),
    ] = None,
    weights: NamedWeights = None,
    pictures: Annotated[Path | None, typer.Option(help="Folder for pictures of the worst cases.")] = None,
    as_json: AsJson = False,
) -> None:
    """Errors of the detected points against annotated ones, per condition group, in millimetres.

    Every slice of --slices counts as a study of its own. Where a study has
    axial slices alone, no level can be told: the recesses are looked for on the
    annotated slices.
    """
    import pandas as pd

    from detector.evaluate import (
        is_axial_alone,
        numbering_report,
        point_errors,
        recesses_on_slices,
        summarise,
    )
    from detector.figures import draw_worst

    detector = _detector(weights)
    with told_of_left_out() as left_out:
        cases = _annotated(data, external, external_mm_per_px, slices, part, left_out)
    if external is None and not slices:
        tell_of_known((study.study_id for study, _ in cases), weights)
    rows, found, numbered = [], [], []
    with console.progress("evaluating", len(cases)) as done:
        for study, annotated in cases:
            if is_axial_alone(study):
                found.append(recesses_on_slices(detector, study, annotated))
            else:
                found.append(detector.predict(study))
                numbered.append(found[-1])
            rows.append(point_errors(study, found[-1], annotated))
            done(study.study_id)
    table = pd.concat(rows)
    report = {group: dataclasses.asdict(figures) for group, figures in summarise(table).items()}
    numbering = dataclasses.asdict(numbering_report(table, numbered))
    unseen = sum(not levels.points for levels in found)
    if pictures is not None:
        triples = [(study, levels, points) for (study, points), levels in zip(cases, found, strict=True)]
        drawn = draw_worst(triples, table, pictures)
        console.tell(f"pictures of the {len(drawn)} worst points, worst first: {pictures}")
    if as_json:
        figures = {"studies": len(cases), "without_points": unseen, **report, "numbering": numbering}
        console.print_json({key: without_nan(value) for key, value in figures.items()})
    else:
        _print_errors(report, numbering, len(cases), unseen)
    console.exit_by(left_out.rejections)


def _annotated(
    data: Path | None,
    external: Path | None,
    external_mm_per_px: float,
    slices: list[Path] | None,
    part: str | None,
    left_out: LeftOut,
) -> list[AnnotatedStudy]:
    """The annotated studies that the options of ``evaluate`` name."""
    from data_prep.partition import Part
    from detector.learn.point_slices import point_slice_cases
    from detector.learn.sources import annotated_cases, external_cases

    if external is not None:
        return external_cases(external, external_mm_per_px, part or "report")
    if part is not None and part not in set(Part):
        raise typer.BadParameter("DATA and --slices have the parts train, validation and test")
    wanted = None if part is None else Part(part)
    if slices:
        cases = [case for folder in slices for case in point_slice_cases(folder, wanted)]
        if wanted is None:
            console.tell(
                "note: of folders that the models learned from, --part test leaves known patients out"
            )
        return cases
    return annotated_cases(data, wanted, left_out)


def _print_errors(
    report: Mapping[str, Any], numbering: Mapping[str, Any], n_studies: int, n_unseen: int
) -> None:
    """Errors per condition group, and how often the numbering is wrong."""
    console.print_rows(
        f"{n_studies} studies; mm in the plane of the slice, 3D: in space; level, side: at a wrong one",
        [
            {
                "group": group,
                "n": str(figures["n"]),
                "≤ 6 mm": f"{figures['within_in_plane']['6']:.1%}",
                **{title: str(figures[name]).replace("inf", "none") for name, title in SHOWN.items()},
            }
            for group, figures in report.items()
        ],
    )
    if n_unseen:
        console.out.print(
            f"no spine was found in {n_unseen} of {n_studies} studies: their points are missing"
        )
    if n_unseen == n_studies:
        return
    if not numbering["studies"] + numbering["contradictory"]:
        console.out.print("numbering: not looked at: the level that an axial slice shows was taken as known")
        return
    console.out.print(
        f"numbering: {numbering['wrong']} of {numbering['studies']} studies wrong, mean confidence "
        f"{numbering['mean_confidence']:.2f}, calibration error {numbering['calibration_error']:.3f}"
    )
    if numbering["contradictory"]:
        console.out.print(
            f"{numbering['contradictory']} studies are not counted there: their left and right foramina are "
            "annotated a level apart"
        )


@app.command(epilog="Example: lumbar detector calibrate runs/detectors --phantoms 100 --hard 150")
def calibrate(
    weights: Annotated[
        Path,
        typer.Argument(metavar="WEIGHTS", help="Weights folder; gets numbering.json and a new manifest."),
    ],
    phantoms: Annotated[int, typer.Option(help="Usual synthetic studies, of validation seeds.")] = 150,
    hard: Annotated[int, typer.Option(help="Cut views and transitional anatomy, half each.")] = 800,
    seed: Annotated[
        int, typer.Option(help="First seed, a validation one; the hard ones start 10,000 above.")
    ] = 153_000,
    external: External = None,
    external_mm_per_px: ExternalScale = 0.47,
    data: Annotated[
        list[Path] | None,
        typer.Option(help="Data set in the RSNA layout, of which the validation part counts; repeatable."),
    ] = None,
    slices: Slices = None,
) -> None:
    """Fit the numbering, its confidence and its flag on patients that trained nothing."""
    from data_prep.base.manifest import write_manifest
    from detector.config import NUMBERING_FILE, PredictConfig
    from detector.learn.numbering import choose_uncertain_below, fit_sureness, fit_weights
    from detector.learn.sources import numbering_cases
    from detector.spine.chain import ChainConfig

    with console.progress("looking at studies", None) as done:
        cases = numbering_cases(
            _detector(weights),
            phantoms=phantoms,
            hard=hard,
            seed=seed,
            external=external,
            mm_per_px=external_mm_per_px,
            data=data or [],
            slices=slices or [],
            progress=done,
        )
    if not any(case.weight for case in cases):
        console.fail("the detectors find no spine in these studies: nothing to fit the numbering on")
    fitted, loss = fit_weights(cases, ChainConfig().weights)
    chain = ChainConfig(weights=fitted, sureness=fit_sureness(cases, fitted))
    flags = choose_uncertain_below(cases, chain, transitional_score=PredictConfig.transitional_score)
    record = {
        "weights": chain.weights,
        "sureness": chain.sureness,
        "seed": seed,
        "studies": len(cases),
        "loss": round(loss, 4),
    }
    write_whole(weights / NUMBERING_FILE, json.dumps(record | dataclasses.asdict(flags)))
    write_manifest(weights)
    console.err.print(f"{len(cases)} studies; weights {chain.weights}, sureness {chain.sureness}")
    console.err.print(
        f"uncertain below {flags.uncertain_below}: of the hard studies, flags {flags.flagged_wrong} of "
        f"{flags.wrong} wrong and {flags.flagged_right} of {flags.right} right ones"
    )


def _detector(weights: Path | None) -> LevelDetector:
    """The bundled detector or that of a folder. Raises WeightsRejected."""
    from detector import BUNDLED_WEIGHTS
    from detector.predict import LevelDetector

    return LevelDetector.load(weights_folder(weights, BUNDLED_WEIGHTS))
