"""``lumbar detector``: train, evaluate and run the level detectors. Importable without torch."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from data_prep.base.bundles import weights_folder
from data_prep.base.files import without_nan
from data_prep.vocabulary import ConditionGroup
from detector.spec import REFINERS, DetectorKind
from pipeline.commands.console import (
    err,
    exit_by,
    fail,
    list_rejections,
    out,
    print_json,
    print_rows,
    progress,
    tell,
)
from pipeline.commands.options import AsJson, Input, SeriesTable

if TYPE_CHECKING:
    from data_prep.problems import Rejection
    from detector.predict import LevelDetector

app = typer.Typer(help="Find levels: train, evaluate, predict.", no_args_is_help=True)
FIRST_CHOOSING_SEED = 100_000
SHOWN = ("n", "missing", "median_in_plane_mm", "p95_in_plane_mm", "median_3d_mm", "wrong_level", "wrong_side")

ExternalOption = Annotated[
    Path | None,
    typer.Option(help="External sagittal slices: a folder with images/, level_points.csv, split.csv."),
]
SlicesOption = Annotated[
    list[Path] | None,
    typer.Option(help="Single sagittal slices: a folder with images/ and level_points.csv; repeatable."),
]
WeightsOption = Annotated[
    Path | None,
    typer.Option(
        metavar="research|open|FOLDER", help="Bundled detectors by name (default: research), or a folder's."
    ),
]
ScaleOption = Annotated[float, typer.Option(help="Pixel size of the external slices, mm.")]


@app.command(epilog="Example: lumbar detector train rsna/ -o runs/sagittal --kind sagittal")
def train(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.")],
    data: Annotated[
        list[Path] | None,
        typer.Argument(help="Data sets in the RSNA layout; each may hold some series of some studies."),
    ] = None,
    kind: Annotated[DetectorKind, typer.Option(help="Which detector.")] = DetectorKind.SAGITTAL,
    external: ExternalOption = None,
    slices: SlicesOption = None,
    external_mm_per_px: ScaleOption = 0.47,
    phantoms: Annotated[int, typer.Option(min=0, help="Synthetic studies to add, made on the fly.")] = 0,
    seed: Annotated[int, typer.Option(help="First seed of the synthetic studies, and of the training.")] = 0,
    epochs: Annotated[int, typer.Option(min=1, help="Passes of --samples-per-epoch views.")] = 16,
    samples_per_epoch: Annotated[int, typer.Option(min=1, help="Random views per epoch.")] = 1200,
    synthesis: Annotated[
        bool, typer.Option(help="Bend slices with a tissue map and render them in other contrasts.")
    ] = True,
    threads: Annotated[int, typer.Option(help="CPU threads of the training.")] = 2,
    jobs: Annotated[int, typer.Option(help="Processes that make synthetic studies.")] = 2,
    device: Annotated[str, typer.Option(help="cpu, the number of a GPU, or several: 0,1.")] = "cpu",
    batch_size: Annotated[int, typer.Option(min=1, help="Slices per step, over all GPUs.")] = 8,
    slice_cache: Annotated[
        Path | None, typer.Option(help="Folder for slices read once; RUN/slices if left out.")
    ] = None,
    start_from: Annotated[
        Path | None, typer.Option(help="Weights folder to begin with, such as detector/weights/open.")
    ] = None,
    rate: Annotated[
        float, typer.Option(help="Learning rate at the start; lower it with --start-from.")
    ] = 1.5e-3,
    resume: Annotated[bool, typer.Option(help="Go on from the last checkpoint in the run folder.")] = False,
) -> None:
    """Train one detector on annotated studies, external slices and synthetic studies, in any mixture."""
    from detector.learn.sources import SliceSources, training_slices
    from detector.learn.synthesis import NO_SYNTHESIS
    from detector.learn.train import TrainConfig, train_detector
    from detector.learn.views import AugmentConfig

    if phantoms and seed + phantoms > FIRST_CHOOSING_SEED:
        raise typer.BadParameter("phantoms of seeds from 100,000 on are kept for choosing and reporting")
    with progress("reading slices", None) as read:
        sources, choosing = training_slices(
            SliceSources(
                tuple(data or ()), external, external_mm_per_px, tuple(slices or ()), phantoms, seed
            ),
            kind,
            jobs=jobs,
            progress=lambda _, total: read(of=total),
            cache=slice_cache or output / "slices",
        )
    if "," in device and "LOCAL_RANK" not in os.environ:
        # The slices are cached now: every process reads them from there.
        raise typer.Exit(subprocess.call(torchrun_command(device, sys.argv[1:])))
    config = TrainConfig(
        kind=kind,
        epochs=epochs,
        samples_per_epoch=samples_per_epoch,
        batch_size_slices=batch_size,
        threads=threads,
        device=device,
        seed=seed,
        initial_rate=rate,
        augment=AugmentConfig() if synthesis else AugmentConfig(synthesis=NO_SYNTHESIS),
    )
    with progress(f"training {kind.value} detector", epochs) as epoch_done:

        def on_epoch(done: int, metrics: dict[str, float]) -> None:
            share = metrics.get("metrics/within_6mm", 0.0)
            epoch_done(f"{share:.3f} of choosing points within 6 mm")
            if not err.is_terminal:  # a bar is drawn on terminals alone; a log wants lines
                err.print(f"epoch {done} of {epochs}: {share:.3f} of choosing points within 6 mm")

        first = None if start_from is None else _weights_of(start_from, kind)
        weights = train_detector(
            config, sources, choosing, output, resume=resume, start_from=first, on_epoch=on_epoch
        )
    err.print(f"weights: {weights.name} in {output}")


@app.command(epilog="Example: lumbar detector train-points rsna/ -o runs/points --group spinal")
def train_points(
    data: Annotated[
        list[Path],
        typer.Argument(help="Data sets in the RSNA layout; each may hold some series of some studies."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.")],
    group: Annotated[ConditionGroup, typer.Option(help="Whose points.")] = ConditionGroup.SPINAL,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the annotated points.")] = 10,
    seed: Annotated[int, typer.Option(help="Of weights, order and moves.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads of the training.")] = 2,
    jobs: Annotated[int, typer.Option(help="Processes that cut crops.")] = 2,
) -> None:
    """Train the second look that moves the points of a condition group within their slices.

    Goes on from the checkpoint in the run folder. Studies of the validation part are watched only.
    """
    from detector.learn.refiner import Errors, RefinerTraining, cut_point_crops, train_refiner

    spec = next(spec for spec in REFINERS if spec.group is group)
    with progress("cutting crops", None) as cut:
        train_crops, watched = cut_point_crops(data, spec, jobs=jobs, progress=cut)
    with progress(f"training {spec.stem}", epochs) as epoch_done:

        def report(done: int, errors: Errors | None) -> None:
            said = "" if errors is None else f"{errors.median_mm:.2f} mm, {errors.within_6mm:.3f} within 6 mm"
            epoch_done(said)
            if not err.is_terminal:
                err.print(f"epoch {done} of {epochs}: {said}")

        training = RefinerTraining(epochs=epochs, seed=seed, threads=threads)
        train_refiner(spec, train_crops, watched, output, training, report=report)
    err.print(f"weights: {spec.stem}.safetensors in {output}")


@app.command(epilog="Example: lumbar detector predict train_images/100206310 -o levels.csv")
def predict(
    path: Input,
    output: Annotated[Path, typer.Option("--output", "-o", help="levels.csv to write.")],
    weights: WeightsOption = None,
    series_table: SeriesTable = None,
) -> None:
    """Find the levels of every study and write their points as levels.csv."""
    from data_prep.problems import DicomRejected
    from data_prep.read.archives import opened_input
    from data_prep.read.find import find_studies
    from detector.levels_table import write_levels

    rejections: list[Rejection] = []
    predictions = []
    with opened_input(path) as (folder, unpacked):
        rejections += unpacked
        entries = find_studies(folder, series_table=series_table)
        detector = _detector(weights)
        with progress("finding levels", len(entries)) as done:
            for entry in entries:
                try:
                    study = entry.load()
                    rejections += study.rejections
                    predictions.append(detector.predict(study))
                except DicomRejected as error:
                    rejections += [error.rejection, *error.rejections]
                done(entry.study_id)
    list_rejections(rejections)
    if not predictions:
        fail("no study could be used")
    write_levels(predictions, output)
    for levels in predictions:
        flags = f" [{', '.join(levels.flags)}]" if levels.flags else ""
        confidence = f"numbering {levels.numbering_confidence:.2f}"
        tell(f"{levels.study_id}: {len(levels.levels)} levels, {confidence}{flags}")
    exit_by(rejections)


@app.command(epilog="Example: lumbar detector evaluate rsna/ --json")
def evaluate(
    data: Annotated[Path | None, typer.Argument(help="Data set in the RSNA layout.")] = None,
    external: ExternalOption = None,
    external_mm_per_px: ScaleOption = 0.47,
    slices: SlicesOption = None,
    part: Annotated[
        str | None,
        typer.Option(
            help="Of --external, by its split.csv: report (default) or choosing. Of DATA and --slices, by "
            "identifiers: train, validation or test; all if left out."
        ),
    ] = None,
    weights: WeightsOption = None,
    pictures: Annotated[Path | None, typer.Option(help="Folder for pictures of the worst cases.")] = None,
    as_json: AsJson = False,
) -> None:
    """Errors of the detected points against annotated ones, per condition group, in millimetres.

    Every slice of --slices counts as a study of its own. Where a study has axial slices alone, no level can
    be told: the recesses are looked for on the annotated slices.
    """
    import pandas as pd

    from data_prep.partition import Part
    from detector.evaluate import (
        is_axial_alone,
        numbering_report,
        point_errors,
        recesses_on_slices,
        summarise,
    )
    from detector.figures import draw_worst
    from detector.learn.point_slices import point_slice_cases
    from detector.learn.sources import annotated_cases, external_cases

    if external is None and part is not None and part not in set(Part):
        raise typer.BadParameter("DATA and --slices have the parts train, validation and test")
    wanted = None if part is None or external is not None else Part(part)
    detector = _detector(weights)
    if external is not None:
        cases = external_cases(external, external_mm_per_px, part or "report")
    elif slices:
        cases = [case for folder in slices for case in point_slice_cases(folder, wanted)]
    else:
        cases = annotated_cases(data, wanted)
    rows, found = [], []
    with progress("evaluating", len(cases)) as done:
        for study, annotated in cases:
            if is_axial_alone(study):
                found.append(recesses_on_slices(detector, study, annotated))
            else:
                found.append(detector.predict(study))
            rows.append(point_errors(study, found[-1], annotated))
            done(study.study_id)
    table = pd.concat(rows)
    report = {group: dataclasses.asdict(figures) for group, figures in summarise(table).items()}
    numbering = dataclasses.asdict(numbering_report(table, found))
    if pictures is not None:
        triples = [(study, levels, points) for (study, points), levels in zip(cases, found, strict=True)]
        draw_worst(triples, table, pictures)
    if as_json:
        figures = {"studies": len(cases), **report, "numbering": numbering}
        print_json({key: without_nan(value) for key, value in figures.items()})
        return
    print_rows(
        f"{len(cases)} studies",
        [
            {"group": group, **{name.replace("_", " "): str(figures[name]) for name in SHOWN}}
            for group, figures in report.items()
        ],
    )
    out.print(
        f"numbering: {numbering['wrong']} of {numbering['studies']} studies wrong, mean confidence "
        f"{numbering['mean_confidence']:.2f}, calibration error {numbering['calibration_error']:.3f}"
    )


@app.command(epilog="Example: lumbar detector calibrate runs/detectors --phantoms 100 --hard 150")
def calibrate(
    weights: Annotated[Path, typer.Argument(help="Weights folder; gets numbering.json and a new manifest.")],
    phantoms: Annotated[int, typer.Option(help="Synthetic studies of choosing seeds.")] = 150,
    hard: Annotated[int, typer.Option(help="Cut views and transitional anatomy, half each.")] = 800,
    seed: Annotated[
        int, typer.Option(help="First seed, in the choosing range; the hard ones start 10,000 above.")
    ] = 153_000,
    external: ExternalOption = None,
    external_mm_per_px: ScaleOption = 0.47,
    data: Annotated[
        list[Path] | None,
        typer.Option(help="Data set in the RSNA layout, of which the validation part counts; repeatable."),
    ] = None,
    slices: SlicesOption = None,
) -> None:
    """Fit the numbering, its confidence and its flag on patients that trained nothing."""
    from data_prep.base.files import atomic_write
    from data_prep.base.manifest import write_manifest
    from detector.config import NUMBERING_FILE, PredictConfig
    from detector.learn.numbering import choose_uncertain_below, fit_weights
    from detector.learn.sources import numbering_cases
    from detector.spine.chain import ChainConfig

    with progress("looking at studies", phantoms + hard) as done:
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
    fitted, loss = fit_weights(cases, ChainConfig().weights)
    flags = choose_uncertain_below(
        cases, ChainConfig(weights=fitted), transitional_score=PredictConfig.transitional_score
    )
    record = {"weights": fitted, "seed": seed, "studies": len(cases), "loss": round(loss, 4)}
    with atomic_write(weights / NUMBERING_FILE) as stream:
        json.dump(record | dataclasses.asdict(flags), stream)
    write_manifest(weights)
    err.print(f"{len(cases)} studies; weights {fitted}")
    err.print(
        f"uncertain below {flags.uncertain_below}: of the hard studies, flags {flags.flagged_wrong} of "
        f"{flags.wrong} wrong and {flags.flagged_right} of {flags.right} right ones"
    )


@app.command(epilog="Example: lumbar detector bundle runs/sagittal runs/axial -o detector/weights")
def bundle(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Folders that `train` wrote.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Weights folder to write.")],
) -> None:
    """Collect trained detectors in one weights folder with a SHA-256 manifest."""
    import shutil

    from data_prep.base.manifest import write_manifest

    output.mkdir(parents=True, exist_ok=True)
    for run in runs:
        stems = (*(kind.value for kind in DetectorKind), *(spec.stem for spec in REFINERS))
        trained = [stem for stem in stems if (run / f"{stem}.safetensors").is_file()]
        if not trained:
            fail(f"{run.name}: no finished detector there")
        for stem in trained:
            for suffix in (".safetensors", ".json"):
                shutil.copyfile(run / f"{stem}{suffix}", output / f"{stem}{suffix}")
    write_manifest(output)
    err.print(f"{len(runs)} runs bundled in {output.name}/")


def torchrun_command(device: str, arguments: list[str]) -> list[str]:
    """The command that starts this program once per GPU of ``device`` (``0,1``) with the same arguments."""
    count = len([number for number in device.split(",") if number.strip()])
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    return [sys.executable, *launcher, "-m", "pipeline", *arguments]


def _weights_of(folder: Path, kind: DetectorKind) -> bytes:
    """A trained detector's weight file, checked against the manifest when the folder has one."""
    from data_prep.base.manifest import MANIFEST_NAME, read_verified
    from detector.learn.slices import SlicesUnusable

    name = f"{kind.value}.safetensors"
    if (folder / MANIFEST_NAME).is_file():
        return read_verified(folder, name)
    if not (folder / name).is_file():
        raise SlicesUnusable(f"{folder.name}/{name} not found: --start-from wants a finished run")
    return (folder / name).read_bytes()


def _detector(weights: Path | None) -> LevelDetector:
    """The bundled detector or that of a folder. Raises WeightsRejected."""
    from detector.predict import BUNDLED_WEIGHTS, LevelDetector

    return LevelDetector.load(weights_folder(weights, BUNDLED_WEIGHTS))
