"""``lumbar detector train``, ``train-points`` and ``bundle``. Importable without torch."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from data_prep.base.files import locked_folder
from data_prep.base.manifest import MANIFEST_NAME, read_verified, weights_folder, write_manifest
from data_prep.synthetic import FIRST_CHOOSING_SEED
from data_prep.vocabulary import ConditionGroup
from detector.spec import REFINERS, DetectorKind
from pipeline.commands.console import Verbosity, err, fail, progress, progress_of_parts, tell, verbosity
from pipeline.commands.options import (
    BatchThreads,
    External,
    ExternalScale,
    Slices,
    machine_option,
    other_option,
)
from pipeline.commands.summaries import told_of_left_out

if TYPE_CHECKING:
    from detector.learn.slices import LabelledSlice
    from detector.learn.sources import WeightedSlices
    from detector.learn.train import TrainConfig

_DATA_SETS = typer.Argument(
    metavar="DATA...", help="Data sets in the RSNA layout; each may hold some series of some studies."
)


def train(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.")],
    data: Annotated[list[Path] | None, _DATA_SETS] = None,
    kind: Annotated[DetectorKind, typer.Option(help="Which detector.")] = DetectorKind.SAGITTAL,
    external: External = None,
    slices: Slices = None,
    external_mm_per_px: ExternalScale = 0.47,
    phantoms: Annotated[int, other_option(min=0, help="Synthetic studies to add, made on the fly.")] = 0,
    seed: Annotated[int, typer.Option(help="First seed of the synthetic studies, and of the training.")] = 0,
    epochs: Annotated[int, typer.Option(min=1, help="Passes of --samples-per-epoch views.")] = 16,
    samples_per_epoch: Annotated[int, typer.Option(min=1, help="Random views per epoch.")] = 1200,
    synthesis: Annotated[
        bool,
        other_option(
            " /--no-synthesis",
            help="Do not bend slices that have a tissue map, nor render them in other contrasts.",
            show_default=False,
        ),
    ] = True,
    threads: Annotated[int, machine_option(help="CPU threads of the training.")] = 2,
    jobs: Annotated[int, machine_option(help="Processes that make synthetic studies.")] = 2,
    device: Annotated[str, machine_option(help="cpu, the number of a GPU, or several: 0,1.")] = "cpu",
    workers: BatchThreads = 0,
    batch_size: Annotated[int, machine_option(min=1, help="Slices per step, over all GPUs.")] = 8,
    slice_cache: Annotated[
        Path | None, typer.Option(help="Folder for slices read once; RUN/slices if left out.")
    ] = None,
    start_from: Annotated[
        Path | None,
        typer.Option(
            metavar="research|open|FOLDER",
            help="Begin with bundled weights, or those of a folder; left out: from scratch.",
        ),
    ] = None,
    rate: Annotated[
        float, typer.Option(help="Learning rate at the start; lower it with --start-from.")
    ] = 1.5e-3,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint in the run folder.")
    ] = False,
) -> None:
    """Train one detector on annotated studies, external slices and synthetic studies, in any mixture."""
    from detector.learn.sources import SliceSources, training_slices
    from detector.learn.synthesis import NO_SYNTHESIS
    from detector.learn.train import TrainConfig
    from detector.learn.views import AugmentConfig

    if phantoms and seed + phantoms > FIRST_CHOOSING_SEED:
        raise typer.BadParameter("phantoms of seeds from 100,000 on are kept for choosing and reporting")
    first = None if start_from is None else _weights_of(start_from, kind)
    wanted = SliceSources(
        tuple(data or ()), external, external_mm_per_px, tuple(slices or ()), phantoms, seed
    )
    with told_of_left_out() as left_out, progress("reading slices", None) as read:
        sources, validation = training_slices(
            wanted,
            kind,
            jobs=jobs,
            progress=lambda _, total: read(of=total),
            cache=slice_cache or output / "slices",
            left_out=left_out,
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
        workers=workers,
        device=device,
        seed=seed,
        initial_rate=rate,
        augment=AugmentConfig() if synthesis else AugmentConfig(synthesis=NO_SYNTHESIS),
    )
    if not resume and (output / "training" / "weights" / "last.pt").is_file():
        tell(f"note: the training that {output.name}/ holds is begun anew; --resume goes on with it")
    weights = _trained(config, sources, validation, output, resume=resume, start_from=first)
    err.print(f"weights: {weights.name} in {output}; next: lumbar detector bundle {output} -o WEIGHTS")


def _trained(
    config: TrainConfig,
    sources: WeightedSlices,
    validation: list[LabelledSlice],
    output: Path,
    *,
    resume: bool,
    start_from: bytes | None,
) -> Path:
    """``train_detector``, with a bar and a line for each epoch."""
    from detector.learn.train import train_detector

    with progress_of_parts(f"training {config.kind.value} detector", config.epochs) as at:
        last = ""

        def on_epoch(done: int, metrics: dict[str, float]) -> None:
            nonlocal last
            share = metrics.get("metrics/within_6mm", 0.0)
            last = f"{share:.0%} within 6 mm" if validation else ""
            at(done, last)
            if not err.is_terminal:  # a bar is drawn on terminals alone; a log wants lines
                said = f"{share:.1%} of kept apart points within 6 mm"
                said = said if validation else "no patient is kept apart"
                err.print(f"epoch {done} of {config.epochs}: {said}")

        # torchrun's processes share the folder.
        with nullcontext() if "LOCAL_RANK" in os.environ else locked_folder(output):
            return train_detector(
                config,
                sources,
                validation,
                output,
                resume=resume,
                start_from=start_from,
                on_epoch=on_epoch,
                on_batch=lambda done: at(done, last),
                talkative=verbosity() is Verbosity.VERBOSE,
            )


def train_points(
    data: Annotated[list[Path], _DATA_SETS],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.")],
    group: Annotated[
        ConditionGroup, typer.Option(help="Condition group whose points it moves.")
    ] = ConditionGroup.SPINAL,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the annotated points.")] = 10,
    seed: Annotated[int, typer.Option(help="Seed of weights, order and moves.")] = 0,
    threads: Annotated[int, machine_option(help="CPU threads of the training.")] = 2,
    jobs: Annotated[int, machine_option(help="Processes that cut crops.")] = 2,
) -> None:
    """Train the second look that moves the points of a condition group within their slices.

    Goes on from the checkpoint in the run folder. Studies of the validation
    part are watched only.
    """
    from detector.learn.point_crops import cut_point_crops
    from detector.learn.refiner import Errors, RefinerTraining, train_refiner

    spec = next(spec for spec in REFINERS if spec.group is group)
    with told_of_left_out() as left_out, progress("cutting crops", None) as cut:
        train_crops, watched = cut_point_crops(data, spec, jobs=jobs, progress=cut, left_out=left_out)
    with progress(f"training {spec.stem}", epochs) as epoch_done:

        def report(done: int, errors: Errors | None) -> None:
            said = "" if errors is None else f"{errors.median_mm:.2f} mm, {errors.within_6mm:.3f} within 6 mm"
            epoch_done(said)
            if not err.is_terminal:
                err.print(f"epoch {done} of {epochs}: {said}")

        training = RefinerTraining(epochs=epochs, seed=seed, threads=threads)
        with locked_folder(output):
            train_refiner(spec, train_crops, watched, output, training, report=report)
    err.print(f"weights: {spec.stem}.safetensors in {output}")


def bundle(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Folders that `train` wrote.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Weights folder to write.")],
) -> None:
    """Collect trained detectors in one weights folder with a SHA-256 manifest, ready to run without torch.

    What the folder held beside them stays; `calibrate` fits the numbering to new detectors.
    """
    from detector.config import NUMBERING_FILE
    from pipeline.export.graphs import write_graphs

    output.mkdir(parents=True, exist_ok=True)
    stems = (*(kind.value for kind in DetectorKind), *(spec.stem for spec in REFINERS))
    chosen: dict[str, Path] = {}
    for run in runs:
        trained = [stem for stem in stems if (run / f"{stem}.safetensors").is_file()]
        if not trained:
            fail(f"{run.name}: no finished detector there")
        if twice := [stem for stem in trained if stem in chosen]:
            fail(f"{run.name} and {chosen[twice[0]].name} both hold {twice[0]}: name one of them")
        chosen |= dict.fromkeys(trained, run)
    changed = set()
    for stem, run in chosen.items():
        content = (run / f"{stem}.safetensors").read_bytes()
        place = output / f"{stem}.safetensors"
        if not place.is_file() or place.read_bytes() != content:
            changed.add(stem)
        for suffix in (".safetensors", ".json"):
            if run.resolve() != output.resolve():
                shutil.copyfile(run / f"{stem}{suffix}", output / f"{stem}{suffix}")
    kept = [stem for stem in stems if stem not in chosen and (output / f"{stem}.safetensors").is_file()]
    if kept:
        err.print(f"kept of what {output.name}/ held before: {', '.join(kept)}")
    numbering = output / NUMBERING_FILE
    if numbering.is_file() and changed & set(DetectorKind):
        numbering.unlink()
        err.print("removed the numbering that was fitted to other detectors; next: lumbar detector calibrate")
    write_manifest(output)
    write_graphs(output)
    held = ", ".join(sorted(path.stem for path in output.glob("*.safetensors")))
    err.print(f"{output} holds {held}; next: lumbar detector evaluate DATA --weights {output}")


def torchrun_command(device: str, arguments: list[str]) -> list[str]:
    """The command that starts this program once per GPU of ``device`` (``0,1``) with the same arguments."""
    count = len([number for number in device.split(",") if number.strip()])
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    return [sys.executable, *launcher, "-m", "pipeline", *arguments]


def _weights_of(folder: Path, kind: DetectorKind) -> bytes:
    """A trained detector's weight file, checked against the manifest when the folder has one."""
    from detector import BUNDLED_WEIGHTS
    from detector.learn.slices import SlicesUnusable

    folder = weights_folder(folder, BUNDLED_WEIGHTS)
    name = f"{kind.value}.safetensors"
    if (folder / MANIFEST_NAME).is_file():
        return read_verified(folder, name)
    if not (folder / name).is_file():
        raise SlicesUnusable(f"{folder.name}/{name} not found: --start-from wants research, open or a run")
    return (folder / name).read_bytes()
