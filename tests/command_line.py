"""The command line in this process."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from pipeline.cli import app


def lumbar(*arguments: object) -> Result:
    """What the command said, and its exit code."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])
