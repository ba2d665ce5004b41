"""NIfTI files of a study that was loaded from DICOM, as converters write them, and in other orientations."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from data_prep.study import Series, Slice, Study
from data_prep.vocabulary import SeriesKind

BIDS_NAMES = {
    SeriesKind.SAGITTAL_T1: "acq-sag_{run}T1w",
    SeriesKind.SAGITTAL_T2: "acq-sag_{run}T2w",
    SeriesKind.AXIAL_T2: "acq-ax_{run}T2w",
}


def volume(stack: tuple[Slice, ...], *, dtype: str = "int16") -> nibabel.Nifti1Image:
    """A stack as dcm2niix writes it: columns, rows counted from below, slices; RAS millimetres."""
    first = stack[0].plane
    # One slice has no step: its thickness is not known here.
    step = (
        (stack[-1].plane.origin_mm - first.origin_mm) / (len(stack) - 1)
        if len(stack) > 1
        else first.normal * 4
    )
    affine = np.eye(4)
    affine[:3, 0] = first.x_axis * first.spacing_mm[0]
    affine[:3, 1] = -first.y_axis * first.spacing_mm[1]
    affine[:3, 2] = step
    affine[:3, 3] = first.to_mm([0, first.shape[0] - 1])
    affine[:2] *= -1
    voxels = np.stack([item.pixels()[::-1].T for item in stack], axis=-1)
    image = nibabel.Nifti1Image(voxels.astype(dtype), affine)
    image.header.set_xyzt_units("mm", "sec")
    return image


def write_bids(
    study: Study, root: Path, *, subject: str = "01", sidecars: Mapping[SeriesKind, Any] | None = None
) -> Path:
    """A BIDS data set of one patient; a volume for every stack. The folder of the patient."""
    folder = root / f"sub-{subject}" / "anat"
    folder.mkdir(parents=True, exist_ok=True)
    (root / "dataset_description.json").write_text(json.dumps({"Name": "test", "BIDSVersion": "1.10.0"}))
    for series in study.series:
        assert series.kind is not None
        for name, stack in _named_stacks(series):
            nibabel.save(volume(stack), folder / f"sub-{subject}_{name}.nii.gz")
            if sidecars and series.kind in sidecars:
                told = json.dumps(sidecars[series.kind])
                (folder / f"sub-{subject}_{name}.json").write_text(told)
    return folder.parent


def _named_stacks(series: Series) -> list[tuple[str, tuple[Slice, ...]]]:
    """A volume is a regular grid: stacks that were joined at an angle or across a gap are divided again."""
    assert series.kind is not None
    volumes = [part for stack in series.stacks for part in _regular(stack)]
    runs = [f"run-{number}_" for number in range(1, len(volumes) + 1)] if len(volumes) > 1 else [""]
    return [(BIDS_NAMES[series.kind].format(run=run), part) for run, part in zip(runs, volumes, strict=True)]


def _regular(stack: tuple[Slice, ...]) -> list[tuple[Slice, ...]]:
    parts: list[list[Slice]] = []
    for item in stack:
        if parts and _continues(parts[-1], item):
            parts[-1].append(item)
        else:
            parts.append([item])
    return [tuple(part) for part in parts]


def _continues(part: list[Slice], item: Slice) -> bool:
    if len(part) < 2:
        return item.plane.is_parallel_to(part[-1].plane, 0.05)
    expected = 2 * part[-1].plane.origin_mm - part[-2].plane.origin_mm
    return item.plane.is_parallel_to(part[-1].plane, 0.05) and np.allclose(
        item.plane.origin_mm, expected, atol=0.05
    )
