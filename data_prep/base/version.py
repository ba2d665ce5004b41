"""Which state of the source tree, and which packages, made a file."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


@cache  # a file of text is read and understood for it, and each study asks for several
def version_of(package: str) -> str | None:
    """Of a package that is installed; None for one that is not."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def git_revision() -> str:
    """Revision of the source tree, ``+`` when it has changes, ``unknown`` outside a checkout."""
    import subprocess  # not for those who only ask for a package

    here = Path(__file__).parent
    try:
        answers = [
            subprocess.run(["git", *call], cwd=here, capture_output=True, text=True, timeout=10, check=True)
            for call in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        ]
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return answers[0].stdout.strip() + ("+" if answers[1].stdout.strip() else "")
