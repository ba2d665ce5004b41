"""Which state of the source tree made a file."""

from __future__ import annotations

import subprocess
from pathlib import Path


def git_revision() -> str:
    """Revision of the source tree, ``+`` when it has changes, ``unknown`` outside a checkout."""
    here = Path(__file__).parent
    try:
        answers = [
            subprocess.run(["git", *call], cwd=here, capture_output=True, text=True, timeout=10, check=True)
            for call in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        ]
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return answers[0].stdout.strip() + ("+" if answers[1].stdout.strip() else "")
