"""Pictures of detected beside annotated points, for the cases that went worst."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_prep.levels import LevelPoint, SpineLevels
from data_prep.names import safe_id
from data_prep.problems import DicomRejected
from data_prep.study import Study
from detector.look.canonical import canonical_image

# Okabe and Ito's blue and orange: told apart by colour-blind readers, and here also by shape. OpenCV is BGR.
ANNOTATED_BGR, DETECTED_BGR = (178, 114, 0), (0, 159, 230)
MM_PER_PX = 0.4
HALF_SIDE_MM = 45.0


def draw_worst(
    cases: Iterable[tuple[Study, SpineLevels, tuple[LevelPoint, ...]]],
    errors: pd.DataFrame,
    folder: Path,
    *,
    count: int = 12,
) -> list[Path]:
    """Write a picture of each of the ``count`` targets with the largest 3-D errors, worst first.

    Args:
        errors: rows of ``point_errors`` of these studies.
    """
    folder.mkdir(parents=True, exist_ok=True)
    by_study = {study.study_id: (study, found, annotated) for study, found, annotated in cases}
    written = []
    for rank, row in enumerate(
        errors.sort_values("distance_mm", ascending=False).head(count).itertuples(), 1
    ):
        study, found, annotated = by_study[str(row.study_id)]
        truth = next(p for p in annotated if (p.condition, p.level) == (row.condition, row.level))
        picture = draw_point(study, truth, found.point(truth.condition, truth.level))
        if picture is not None:
            name = f"{rank:02d}_{safe_id(study.study_id)}_{row.condition}_{row.level}.png"
            cv2.imwrite(str(folder / name), picture)
            written.append(folder / name)
    return written


def draw_point(study: Study, truth: LevelPoint, found: LevelPoint | None) -> NDArray[np.uint8] | None:
    """The annotated slice around the annotated point (ring), with the detected point (cross) projected on it.

    Returns:
        uint8 (rows, columns, 3) BGR, square pixels; None when the slice cannot be decoded.
    """
    assert truth.sight is not None
    _, item = study.slice_at(truth.sight)
    try:
        pixels = item.pixels()
    except DicomRejected:
        return None
    canonical = canonical_image(item.plane, pixels, mm_per_px=MM_PER_PX, max_side_px=4096)
    picture = cv2.cvtColor(canonical.image, cv2.COLOR_GRAY2BGR)
    at = canonical.plane.to_px(truth.xyz_mm)
    cv2.circle(picture, _whole(at), 9, ANNOTATED_BGR, 2, cv2.LINE_AA)
    label = "missing"
    if found is not None:
        there = canonical.plane.to_px(found.xyz_mm)
        cv2.drawMarker(picture, _whole(there), DETECTED_BGR, cv2.MARKER_CROSS, 16, 2, cv2.LINE_AA)
        label = f"{np.linalg.norm(found.xyz_mm - truth.xyz_mm):.1f} mm, {found.source.value}"
    half = round(HALF_SIDE_MM / MM_PER_PX)
    left, top = np.clip(np.rint(at).astype(int) - half, 0, None)
    cut = np.ascontiguousarray(picture[top : top + 2 * half, left : left + 2 * half])
    named = (f"{truth.level.label} {truth.condition.label}", label, "ring annotated, cross detected")
    for line, text in enumerate(named):
        cv2.putText(
            cut, text, (4, 14 + 16 * line), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (255, 255, 255), 1, cv2.LINE_AA
        )
    return np.asarray(cut, dtype=np.uint8)


def draw_training(results: Path, path: Path) -> None:
    """Plot a training log (``results.csv`` of ultralytics): losses, and the share of validation points found.

    Args:
        results: CSV with the columns ``epoch``, ``train/…`` and ``metrics/within_6mm``.
    """
    from matplotlib.figure import Figure

    table = pd.read_csv(results).rename(columns=str.strip)
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    losses, share = figure.subplots(1, 2)
    for column in (name for name in table.columns if name.startswith("train/")):
        losses.plot(table["epoch"], table[column], label=column.removeprefix("train/"))
    losses.set(xlabel="epoch", ylabel="loss", yscale="log")
    losses.legend(fontsize=8)
    share.plot(table["epoch"], table["metrics/within_6mm"], marker="o", color="#0072B2")
    share.set(xlabel="epoch", ylabel="kept apart points within 6 mm", ylim=(0, 1))
    for axis in (losses, share):
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def _whole(xy_px: NDArray[np.float64]) -> tuple[int, int]:
    return round(float(xy_px[0])), round(float(xy_px[1]))
