"""Protects: positions that a program has computed anew are said; those of usual scans are not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from data_prep.problems import Reason
from data_prep.read.find import find_studies
from tests.dicom_files import AXIAL, SAGITTAL, write_series, write_slice


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
        (3.84, "4", "4.8", True),  # scaled
        (6.0, "4", "4.8", True),
        (4.9, "4", "0.9", False),  # the gap alone
        (3.0, "3", "0.9", False),  # cut anew from a volume
        (3.0, None, None, False),
    ],
)
def test_steps_that_scanners_write_and_others(
    tmp_path: Path, step_mm: float, thickness: str | None, spacing: str | None, is_said: bool
) -> None:
    stated = {"SliceThickness": thickness, "SpacingBetweenSlices": spacing}
    elements = {keyword: value for keyword, value in stated.items() if value is not None}
    write_series(tmp_path / "1", 9, step_mm=step_mm, **elements)
    said = doubts_of(tmp_path)
    assert bool(said) == is_said
    assert all(f"{step_mm:.1f} mm apart" in message for message in said)


def doubts_of(folder: Path) -> list[str]:
    (entry,) = find_studies(folder)
    study = entry.load()
    assert len(study.series) == 1
    return [item.message for item in study.rejections if item.reason is Reason.POSITIONS_DOUBTFUL]


def write_slices(
    folder: Path, positions: Sequence[Sequence[float]], orientations: Sequence[Sequence[float]]
) -> None:
    for number, (position, orientation) in enumerate(zip(positions, orientations, strict=True), start=1):
        write_slice(
            folder / f"{number}.dcm",
            position=list(position),
            orientation=list(orientation),
            instance_number=number,
        )


@pytest.mark.parametrize("as_stated", [True, False])
def test_axial_slices_whose_tilt_is_not_told(tmp_path: Path, as_stated: bool) -> None:
    """Stacks along three discs, written with the axes of the patient or with their own."""
    positions, orientations = [], []
    for disc, degrees in enumerate((-4.0, 8.0, 20.0)):
        angle = np.radians(degrees)
        normal = np.array([0.0, -np.sin(angle), np.cos(angle)])
        positions += [(np.array([0.0, 0.0, -40.0 * disc]) + 4.0 * at * normal).tolist() for at in range(5)]
        own = [1.0, 0.0, 0.0, 0.0, np.cos(angle), np.sin(angle)]
        orientations += [own if as_stated else [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]] * 5
    write_slices(tmp_path / "1", positions, orientations)
    assert bool(doubts_of(tmp_path)) != as_stated


def test_images_cut_by_another_border_each_do_not_lean(tmp_path: Path) -> None:
    shifts = (0, 9, -4, 6, 1, -8, 3, 5)
    positions = [[float(shift), -shift / 2, 4.0 * at] for at, shift in enumerate(shifts)]
    write_slices(tmp_path / "1", positions, [AXIAL] * len(positions))
    assert not doubts_of(tmp_path)


@pytest.mark.parametrize(
    ("places", "is_said"),
    [
        ([0, 1, 2, 3, 7, 5, 6, 7, 8, 9, 10, 11], True),  # on another one
        ([0, 1, 2, 3, 6.4, 5, 6, 7, 8, 9, 10, 11], True),  # between two others
        ([0, 1, 2, 3, 5, 6, 7, 8], False),  # one is missing
        ([0, 1, 2, 3, 4, 4, 5, 6, 7], False),  # one was acquired twice
        ([0, 1, 2, 3, 4, 0, 1, 2, 3, 4], False),  # two echoes
        ([0, 1, 2, 8, 9, 10], False),  # on either side alone
        ([0, 2, 3, 5, 7, 11, 13, 15], False),  # foramina alone
    ],
)
def test_a_slice_at_the_place_of_another(tmp_path: Path, places: Sequence[float], is_said: bool) -> None:
    positions = [[4.4 * place, 0.0, 0.0] for place in places]
    write_slices(tmp_path / "1", positions, [SAGITTAL] * len(positions))
    assert bool(doubts_of(tmp_path)) == is_said
