"""``lumbar classifier cut``, ``train`` and ``teach``. Importable without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from classifier.config import GROUP_GRADERS, GraderName, default_config, merged
from data_prep.base.files import locked_folder
from data_prep.names import safe_id
from data_prep.synthetic import FIRST_CHOOSING_SEED, ScannerName
from pipeline.commands import console
from pipeline.commands.options import BatchThreads, Device, Pretrained, machine_option, synthetic_option
from pipeline.commands.summaries import tell_of_points

if TYPE_CHECKING:
    from classifier.config import GraderConfig
    from classifier.learn.crop_cache import Source
    from classifier.learn.train import EpochReport
    from data_prep.problems import Rejection

_NAMED = 5

GivenData = Annotated[
    Path | None,
    typer.Argument(
        metavar="DATA",
        help="Folder in the RSNA layout; leave out to use --phantoms.",
        exists=True,
        file_okay=False,
    ),
]
Phantoms = Annotated[int, synthetic_option(min=0, help="Use this many synthetic studies, made on the fly.")]
Seed = Annotated[int, synthetic_option(min=0, help="Seed of the first synthetic study.")]
Enriched = Annotated[
    bool, synthetic_option(help="Synthetic studies with all severities equally often, for training.")
]
Scanners = Annotated[
    ScannerName,
    synthetic_option(help="Noise, resolution and contrast of synthetic studies; usual: as trained on."),
]
Graders = Annotated[list[GraderName] | None, typer.Option("--grader", help="Only this grader; repeatable.")]
Jobs = Annotated[int, machine_option(min=1, help="Processes that cut crops; the crops are the same.")]
Config = Annotated[
    Path | None,
    typer.Option(
        help="JSON with changes for all graders, or below the name of one, such as "
        '{"training": {"epochs": 5}, "spinal": {"crop": {"slices": 1}}}.',
        exists=True,
        dir_okay=False,
    ),
]
Epochs = Annotated[int | None, typer.Option(min=1, help="Passes over the crops.")]
Threads = Annotated[int | None, machine_option(min=1, help="CPU threads of the training.")]


def cut(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the crop cache.")],
    data: GivenData = None,
    phantoms: Phantoms = 0,
    seed: Seed = 0,
    enriched: Enriched = False,
    scanners: Scanners = "usual",
    grader: Graders = None,
    config: Config = None,
    jobs: Jobs = 1,
) -> None:
    """Cut and cache the crops of many studies; goes on where it stopped."""
    configs = _configs(grader or list(GraderName), config, {})
    console.exit_by(_cut(data, phantoms, seed, enriched, output, jobs, configs, scanners))


def train(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for weights, logs, checkpoints.")],
    data: GivenData = None,
    phantoms: Phantoms = 0,
    seed: Seed = 0,
    enriched: Enriched = False,
    crops: Annotated[
        list[Path] | None, typer.Option(help="Crop cache from `cut`, instead of cutting; repeatable.")
    ] = None,
    validation: Annotated[
        list[Path] | None, typer.Option(help="Crop cache to watch while training; repeatable.")
    ] = None,
    grader: Graders = None,
    config: Config = None,
    epochs: Epochs = None,
    threads: Threads = None,
    device: Device = "cpu",
    workers: BatchThreads = 0,
    pretrained: Pretrained = None,
    teachers: Annotated[
        list[Path] | None,
        typer.Option(
            help="What `teach` wrote, for graders whose training.teaching says how much they learn of it; "
            "repeatable.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    start_from: Annotated[
        Path | None,
        typer.Option(
            help="Folder of graders with the same networks to go on from, such as a run.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    jobs: Jobs = 1,
) -> None:
    """Train the graders (or one --grader); an interrupted training goes on where it stopped.

    Of DATA, the studies of the train part are learned from and those of the
    validation part watched: a study's identifier alone decides its part, the
    same in every data set.
    """
    from classifier.learn.devices import resolve_device
    from classifier.learn.train import Machine, TrainingFailed
    from classifier.learn.workflow import train_groups

    if phantoms and seed + phantoms > FIRST_CHOOSING_SEED:
        raise typer.BadParameter("phantoms of seeds from 100,000 on are kept for choosing and reporting")
    if crops and (data is not None or phantoms):
        raise typer.BadParameter("give --crops, or DATA or --phantoms to cut: only one is learned from")
    configs = _configs(grader or list(GraderName), config, {"epochs": epochs, "threads": threads})
    rejections: list[Rejection] = []
    if not crops:
        crops = [output / "crops"]
        rejections = _cut(data, phantoms, seed, enriched, crops[0], jobs, configs)

    try:
        machine = Machine(resolve_device(device), workers)
        total, epochs_before = 0, {}
        for one in configs:
            epochs_before[one.name] = total
            total += one.training.epochs
        with locked_folder(output), console.progress_of_parts("training, epochs", total) as at:
            train_groups(
                configs,
                crops,
                validation or [],
                output,
                report=lambda name, row: _tell(name.value, row),
                on_step=lambda name, done: at(epochs_before[name] + done, name.value),
                machine=machine,
                pretrained=pretrained,
                teachers=teachers or [],
                start_from=start_from,
                say=_note,
            )
    except (TrainingFailed, ValueError) as error:
        console.fail(str(error))
    console.err.print(
        f"weights: {output}; next: lumbar classifier calibrate {output} --validation {crops[-1]}"
    )
    console.exit_by(rejections)


def teach(
    crops: Annotated[
        list[Path],
        typer.Argument(
            metavar="CROPS...",
            help="Crop caches from `cut`: patients, and perhaps phantoms to learn from beside them.",
            exists=True,
            file_okay=False,
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for what the teachers say.")],
    folds: Annotated[
        int, typer.Option(min=2, help="Teachers; each leaves out one part of the patients.")
    ] = 5,
    grader: Graders = None,
    config: Config = None,
    epochs: Epochs = None,
    threads: Threads = None,
    device: Device = "cpu",
    workers: BatchThreads = 0,
    pretrained: Pretrained = None,
) -> None:
    """Train teachers that each leave out patients, and write what they say of those: OUTPUT/{grader}.npz.

    Readers err, and a grader that learns long from them learns that, too.
    `train --teachers` mixes in what networks say that did not see the patient.
    Goes on where it was interrupted.
    """
    from classifier.learn.devices import resolve_device
    from classifier.learn.train import Machine, TrainingFailed
    from classifier.learn.workflow import teach_groups

    configs = _configs(grader or list(GROUP_GRADERS), config, {"epochs": epochs, "threads": threads})
    try:
        with locked_folder(output):
            written = teach_groups(
                configs,
                crops,
                output,
                folds=folds,
                report=lambda name, fold, row: _tell(f"{name.value} without fold {fold}", row),
                machine=Machine(resolve_device(device), workers),
                pretrained=pretrained,
                say=_note,
            )
    except (TrainingFailed, ValueError) as error:
        console.fail(str(error))
    named = " ".join(f"--teachers {path}" for path in written)
    console.err.print(f"next: lumbar classifier train … {named}", soft_wrap=True)


def _note(text: str) -> None:
    console.tell(f"note: {text}")


def _tell(name: str, row: EpochReport) -> None:
    """One line for each epoch of a training."""
    watched = ""
    if row.choosing_loss is not None:
        watched = f", validation {row.choosing_loss:.4f} (level prior {row.choosing_prior_loss:.4f})"
    console.err.print(f"{name} epoch {row.epoch}: train {row.train_loss:.4f}{watched}, {row.seconds:.0f} s")


def _configs(
    groups: list[GraderName], file: Path | None, training: Mapping[str, int | None]
) -> list[GraderConfig]:
    """Default configurations with the changes of a JSON file, then those of the command line."""
    given = {name: value for name, value in training.items() if value is not None}
    try:
        changes = json.loads(file.read_text(encoding="utf-8")) if file is not None else {}
        of_one = {name.value: changes.pop(name.value, {}) for name in GraderName}
        base = [merged(default_config(name), changes) for name in groups]
        found = [merged(config, of_one[config.name.value]) for config in base]
        return [merged(config, {"training": given}) for config in found]
    except (ValueError, TypeError, AttributeError) as error:
        console.fail(f"configuration: {error}")


def _cut(
    data: Path | None,
    phantoms: int,
    seed: int,
    enriched: bool,
    folder: Path,
    jobs: int,
    configs: list[GraderConfig],
    scanners: ScannerName = "usual",
) -> list[Rejection]:
    """Cut crops into a folder; what was rejected is printed and returned."""
    from classifier.learn.crop_cache import build_cache

    sources = studies_of(data, phantoms, seed, enriched=enriched, scanners=scanners)
    crops = {config.name: config.crop for config in configs}
    how: dict[str, Any] = {"natural_grades": not enriched, "parted": data is not None, "jobs": jobs}
    rejections: list[Rejection] = []
    problems: list[str] = []
    n_anew = 0
    with locked_folder(folder), console.progress("cutting crops", len(sources)) as done:
        others = {path.stem for path in folder.glob("*.npz")} - {safe_id(source.name) for source in sources}
        if others and data is not None:
            named = ", ".join(sorted(others)[:_NAMED]) + (", …" if len(others) > _NAMED else "")
            console.fail(
                f"crop cache '{folder.name}' holds {len(others)} studies that '{data.name}' lacks, or lacks "
                f"images, labels or points of ({named}): they would be learned from. Delete their .npz files "
                "there, or choose a new folder, as for another data set"
            )
        try:
            for item in build_cache(sources, folder, crops, **how):
                rejections += item.rejections
                problems += item.problems
                n_anew += item.is_anew
                done(item.name)
        except ValueError as error:
            console.fail(str(error))
    console.list_rejections(rejections)
    tell_of_points(problems)
    if n_anew:
        _note(f"{n_anew} studies were cut anew: their images, points or labels are not those of before")
    if others:
        _note(f"the crop cache also holds {len(others)} studies of earlier cuts, which count, too")
    console.tell(f"crops: {folder}")
    return rejections


def studies_of(
    data: Path | None, phantoms: int, seed: int, *, enriched: bool, scanners: ScannerName
) -> list[Source]:
    """Annotated studies of a folder, or synthetic ones; what is wrong with them ends the program."""
    from classifier.learn.sources import phantom_sources, rsna_sources
    from data_prep.problems import DicomRejected

    if (data is None) == (phantoms == 0):
        raise typer.BadParameter("give either a DATA folder or --phantoms N")
    if data is None:
        return phantom_sources(phantoms, seed, enriched=enriched, scanners=scanners)
    try:
        return rsna_sources(data, lambda text: console.tell(f"note: {text}"))
    except (ValueError, DicomRejected) as error:
        console.fail(str(error))
