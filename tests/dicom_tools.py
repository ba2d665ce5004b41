"""Tools of other people that judge our DICOM objects; tests skip where they are not installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def needs(program: str, package: str) -> str:
    """The path of a program; skips the test without it."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"needs {program} (Debian package {package})")
    return found


def dciodvfy_errors(path: Path) -> list[str]:
    """What David Clunie's dciodvfy finds wrong with an object; warnings are left out."""
    done = subprocess.run(
        [needs("dciodvfy", "dicom3tools"), str(path)], capture_output=True, text=True, errors="replace"
    )
    lines = (done.stdout + done.stderr).splitlines()
    assert lines, "dciodvfy said nothing, not even which IOD it is"
    return [line for line in lines if line.startswith("Error")]


def dsrdump(path: Path) -> str:
    """The tree of a structured report as OFFIS dcmtk reads it; unknown relationships or values are fatal."""
    done = subprocess.run(
        [needs("dsrdump", "dcmtk"), "+Pl", "+Pu", str(path)], capture_output=True, text=True, errors="replace"
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
