"""Arguments and options that several commands share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer
import typer.core

from data_prep.base.backend import Backend
from data_prep.base.manifest import DEFAULT_BUNDLE, WeightsRejected
from pipeline.commands import console
from pipeline.results.dicom import ResultObject

if TYPE_CHECKING:
    from pipeline.service.config import Tls
    from pipeline.service.dicomweb import Archive


# Options of a group in `--help`.
result_option = partial(typer.Option, rich_help_panel="What is written")
archive_option = partial(typer.Option, rich_help_panel="The archive")
model_option = partial(typer.Option, rich_help_panel="Models")
machine_option = partial(typer.Option, rich_help_panel="The machine")
node_option = partial(typer.Option, rich_help_panel="This node")
limit_option = partial(typer.Option, rich_help_panel="Times and limits")
other_option = partial(typer.Option, rich_help_panel="Slices of other sets, synthetic studies")
synthetic_option = partial(typer.Option, rich_help_panel="Synthetic studies")


def _there(given: Any) -> Any:
    """What is not there is refused without its name, which may be a patient's."""
    paths = given if isinstance(given, list) else [given]
    for number, path in enumerate(paths, start=1):
        if path is not None and not path.exists():
            raise typer.BadParameter(f"path {number} of {len(paths)} does not exist")
    return given


_IMAGES = (
    "RSNA images folder, one study, any tree of DICOM files or NIfTI volumes, a BIDS data set, a DICOMDIR, "
    "or a zip of one of these"
)
Input = Annotated[Path, typer.Argument(metavar="INPUT", help=f"{_IMAGES}.", callback=_there)]
_SEVERAL = f"{_IMAGES}; several are graded as one input."
Inputs = Annotated[list[Path] | None, typer.Argument(metavar="INPUT...", help=_SEVERAL, callback=_there)]
SeriesTable = Annotated[
    Path | None,
    typer.Option(
        help="CSV with study_id, series_id, series_description; RSNA names are looked for if left out.",
        callback=_there,
        dir_okay=False,
    ),
]
External = Annotated[
    Path | None,
    other_option(help="External sagittal slices: a folder with images/, level_points.csv, split.csv."),
]
Slices = Annotated[
    list[Path] | None,
    other_option(help="Single sagittal slices: a folder with images/ and level_points.csv; repeatable."),
]
ExternalScale = Annotated[float, other_option(help="Pixel size of the external slices, mm.")]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON on stdout.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder to write into.", file_okay=False)]
Run = Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.", file_okay=False)]
Data = Annotated[
    Path, typer.Argument(metavar="DATA", help="Folder in the RSNA layout.", exists=True, file_okay=False)
]
Device = Annotated[str, machine_option(help="auto, cpu, cuda, cuda:N or mps.")]
BatchThreads = Annotated[
    int, machine_option(min=0, help="Threads, or processes, that make batches for a GPU.")
]
Pretrained = Annotated[
    Path | None,
    typer.Option(help="Weights of the graders' timm backbone, a local file.", exists=True, dir_okay=False),
]
Resamples = Annotated[int, typer.Option(min=0, help="Draws of studies behind the intervals.")]
NamedWeights = Annotated[
    Path | None,
    typer.Option(
        metavar="research|open|FOLDER", help="Bundled networks by name (default: research), or a folder's."
    ),
]
Models = Annotated[
    str,
    model_option(
        metavar="research|open|FOLDER",
        help="research: learned from RSNA LumbarDISC, too; for non-commercial research and education. "
        "open: networks that learned from synthetic spines and openly licensed images alone. "
        "FOLDER: of `lumbar train`.",
    ),
]


def _weights_of(command: str) -> Any:
    said = f"Weights folder of `lumbar {command}`, instead of that of --models."
    return model_option(help=said, exists=True, file_okay=False)


DetectorWeights = Annotated[Path | None, _weights_of("detector bundle")]
ClassifierWeights = Annotated[Path | None, _weights_of("classifier calibrate")]


ReportChoice = Literal["3d", "comprehensive", "none"]
ReportOption = Annotated[
    ReportChoice | None,
    result_option(
        "--sr",
        help="A DICOM structured report per study; it names the patient. Alone or 3d: Comprehensive 3D SR; "
        "comprehensive: beside it the older Comprehensive SR, which more viewers show.",
        show_default=False,
    ),
]


class ReportCommand(typer.core.TyperCommand):
    """Takes ``--sr`` with a value or without: alone it means ``--sr 3d``; ``--no-sr`` means ``--sr none``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        known = get_args(ReportChoice)
        given = [part for item in args for part in (["--sr", "none"] if item == "--no-sr" else [item])]
        for place in reversed([i for i, item in enumerate(given) if item == "--sr"]):
            if place + 1 == len(given) or given[place + 1] not in known:
                given.insert(place + 1, "3d")
        return super().parse_args(ctx, given)


@dataclass(frozen=True)
class ChosenModels:
    """Which models and what runs them, as ``Pipeline.load`` has it; None: those of the default bundle."""

    detector_weights: Path | None = None
    classifier_weights: Path | None = None
    backend: Backend = Backend.AUTO
    device: str = "cpu"

    @classmethod
    def of(
        cls,
        models: str,
        detector_weights: Path | None = None,
        classifier_weights: Path | None = None,
        backend: Backend = Backend.AUTO,
        device: str = "cpu",
    ) -> ChosenModels:
        """Those of the options. Raises typer.BadParameter: no such models."""
        if models == DEFAULT_BUNDLE.value:
            return cls(detector_weights, classifier_weights, backend, device)
        from pipeline.models import model_folders

        try:
            found = model_folders(
                models, detector_weights=detector_weights, classifier_weights=classifier_weights
            )
        except WeightsRejected as error:
            raise typer.BadParameter(str(error), param_hint="--models") from None
        return cls(found["detector"], found["classifier"], backend, device)

    def absolute(self) -> ChosenModels:
        """The same, wherever a process runs."""
        folders = {name: getattr(self, name) for name in ("detector_weights", "classifier_weights")}
        return replace(self, **{name: folder.absolute() for name, folder in folders.items() if folder})


DEFAULT_MODELS = ChosenModels()


def result_objects(sr: ReportChoice | None, *, sc: bool, gsps: bool, kos: bool) -> tuple[ResultObject, ...]:
    """What the options ask for."""
    asked = {
        ResultObject.SR: sr in ("3d", "comprehensive"),
        ResultObject.COMPREHENSIVE_SR: sr == "comprehensive",
        ResultObject.SC: sc,
        ResultObject.GSPS: gsps,
        ResultObject.KOS: kos,
    }
    return tuple(item for item, is_asked in asked.items() if is_asked)


ArchiveAuthority = Annotated[
    Path | None,
    archive_option("--tls-ca", help="Certificates (PEM) that sign the other side's; left out: the system's."),
]
ArchiveCertificate = Annotated[
    Path | None, archive_option("--tls-cert", help="Certificate (PEM) to show to the other side.")
]
ArchiveKey = Annotated[Path | None, archive_option("--tls-key", help="Its key (PEM).")]
ArchiveToken = Annotated[
    Path | None, archive_option("--token-file", help="File with a bearer token for the archive.")
]


def check_files(*paths: Path | None) -> None:
    """That they are there; else the program ends with exit code 2."""
    for path in paths:
        if path is not None and not path.is_file():
            raise typer.BadParameter(f"there is no file {path.name!r}")


def tls_of(
    authority: Path | None, certificate: Path | None, key: Path | None, *, is_asked: bool
) -> Tls | None:
    """Encryption as the options ask for it; None where no option does. Raises ValueError."""
    from pipeline.service.config import Tls

    check_files(authority, certificate, key)
    if not (is_asked or authority or certificate or key):
        return None
    return Tls(authority, certificate, key)


def archive_at(
    url: str, authority: Path | None, certificate: Path | None, key: Path | None, token_file: Path | None
) -> Archive:
    """The DICOMweb archive of the options; what is wrong with them ends the program with exit code 2."""
    from pipeline.service.dicomweb import Archive

    check_files(authority, certificate, key, token_file)
    try:
        token = token_file.read_text(encoding="utf-8").strip() if token_file is not None else ""
        archive = Archive(url, authority, certificate, key, token)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if archive.is_open:
        console.tell("the archive's address is not encrypted: patient data can be read on the way")
    return archive
