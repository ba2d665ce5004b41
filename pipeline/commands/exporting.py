"""``export``: the networks for programs without torch."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands import console
from pipeline.commands.options import AsJson, Output


def export(
    output: Output,
    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="RUN",
            help="A run of `lumbar train`, or a folder of weights; the bundled weights if left out.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write detectors and graders as ONNX files, with a manifest of inputs, outputs and calibration.

    Each file is compared with torch by ONNX Runtime, where that is installed.
    """
    if find_spec("onnx") is None:  # before torch is waited for
        raise typer.BadParameter("onnx is not installed: pip install 'lumbar[export]'")
    from pipeline.export.bundle import count_models, export_weights, find_weights

    source = find_weights(run)
    with console.progress("networks", count_models(source)) as done:
        manifest = export_weights(source, output, progress=done)
    if as_json:
        console.print_json(manifest)
        return
    checked = manifest["checked_with_onnxruntime"]
    if checked is None:
        console.say("not compared with torch: onnxruntime is not installed")
    else:
        largest = max(checked["largest_difference"].values())
        console.say(f"compared    largest difference from torch {largest:.1e}")
    console.say(f"networks    {', '.join(manifest['models'])}")
    console.say(f"manifest    {output / 'manifest.json'}")
