"""Protects: positions that a program has computed anew are said; those of usual scans are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_prep.problems import Reason
from data_prep.read.find import find_studies
from tests.dicom_files import write_series


@pytest.mark.parametrize(
    ("step_mm", "thickness", "spacing", "is_said"),
    [
        (4.0, "4", "4.8", True),  # the gap was forgotten
        (1.0, "4", "4.4", True),  # a millimetre, where nobody knew
        (1.0, "4", None, True),
        (4.8, "4", "4.8", False),
        (4.4, "4", None, False),
        (4.0, "4", "4", False),
        (4.0, "4", "-4", False),
        (4.0, "4", "8", False),  # two passes of one series, each with the gap of a slice
        (0.5, "1", None, False),  # interpolated
        (0.5, "2", "0.5", False),
        (9.6, "4", "4.8", False),  # every second slice is missing
        (3.0, None, None, False),
    ],
)
def test_steps_that_scanners_write_and_others(
    tmp_path: Path, step_mm: float, thickness: str | None, spacing: str | None, is_said: bool
) -> None:
    stated = {"SliceThickness": thickness, "SpacingBetweenSlices": spacing}
    elements = {keyword: value for keyword, value in stated.items() if value is not None}
    write_series(tmp_path / "1", 9, step_mm=step_mm, **elements)
    (entry,) = find_studies(tmp_path)
    study = entry.load()
    said = [item.message for item in study.rejections if item.reason is Reason.POSITIONS_DOUBTFUL]
    assert bool(said) == is_said
    assert all(f"{step_mm:.1f} mm apart" in message for message in said)
    assert len(study.series) == 1
