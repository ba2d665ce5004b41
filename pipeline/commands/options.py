"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Input = Annotated[
    Path,
    typer.Argument(
        metavar="INPUT",
        help="RSNA images folder, one study, any tree of DICOM files or NIfTI volumes, a BIDS data set, or a "
        "zip of one of these.",
        exists=True,
    ),
]
Inputs = Annotated[
    list[Path],
    typer.Argument(
        metavar="INPUT...",
        help="RSNA images folder, one study, any tree of DICOM files or NIfTI volumes, a BIDS data set, or a "
        "zip of one of these; several are graded as one input.",
        exists=True,
    ),
]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder to write into.", file_okay=False)]
DetectorWeights = Annotated[
    Path | None,
    typer.Option(
        help="Weights folder of `lumbar detector bundle`; the bundled one if left out.",
        exists=True,
        file_okay=False,
    ),
]
ClassifierWeights = Annotated[
    Path | None,
    typer.Option(
        help="Weights folder of `lumbar classifier calibrate`; the bundled one if left out.",
        exists=True,
        file_okay=False,
    ),
]
