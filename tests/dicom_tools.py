"""What judges our DICOM objects: the rules of UIDs, and tools of other people; tests skip without them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

_UID = re.compile(r"[012](\.(0|[1-9][0-9]*))+")


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


def is_valid_uid(text: str) -> bool:
    """Whether a text is a UID (PS3.5 section 9.1) of an existing root: 0, 1 or 2.

    The RSNA files hold ``4003253.1.1``, which has the characters of a UID but no root.
    """
    if len(text) > 64 or not _UID.fullmatch(text):
        return False
    first, second = text.split(".")[:2]
    return first == "2" or int(second) < 40
