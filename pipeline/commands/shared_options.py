"""Options that commands of every stage share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SeriesTable = Annotated[
    Path | None,
    typer.Option(
        help="CSV with study_id, series_id, series_description; RSNA names are looked for if left out.",
        exists=True,
        dir_okay=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Figures as JSON on stdout.")]
