"""The whole line: from a folder of DICOM to 25 grades per study, and the command line ``lumbar``.

``from pipeline import Pipeline; Pipeline.load().predict(path)``
"""

from __future__ import annotations

from typing import Any

__all__ = ["Pipeline"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Lazy, because `lumbar --help` imports this package and should not wait for numpy and pandas.
    if name == "Pipeline":
        from pipeline.grade import Pipeline

        return Pipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
