"""Whether axial and sagittal series show the same where their planes meet.

Their coordinates are one only if the patient lay still between them, and if the images are as their headers
say. Along the line where an axial and a sagittal plane meet both show the same tissue; if the patient has
moved along the table, they do so a step farther up or down. So does each line by itself where the patient
moved between stacks, or where the positions or the tilt of slices were made up. Images that a program has
cropped or padded do so farther to the front or back, and images that it has resized in another size, where
their headers were left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from data_prep.geometry import FloatArray
from data_prep.problems import DicomRejected
from data_prep.study import Series, Slice
from detector.spine.lines import Smoothed, correlations, on_both, sampled, smoothed

_FEWEST_LINES = 4
# Below every correlation.
_UNTOLD = -1.0


@dataclass(frozen=True)
class AgreementConfig:
    """What is compared and when two series are said to lie elsewhere.

    Attributes:
        slices: axial slices compared, spread over the series.
        before_mm, behind_mm: how far before and behind the canal the lines are followed.
        reach_mm, step_mm: shifts that are tried along the spine.
        least_shift_mm: a smaller one is no disagreement.
        least_likeness: mean correlation at the best shift below which nothing can be said.
        margin: by which the best shift must be better than none.
        each_mm: how far along the table a line by itself may lie elsewhere.
        least_alone: mean correlation of the lines, each at its own shift, below which nothing can be said.
        least_beside: the same where neighbouring lines must agree on the shift, which those that are alike by
            chance do not.
        suspect_by, apart_by: by which the lines must be more alike each at its own shift than at small ones
            to be looked at, and to be believed when the patient has been moved and turned.
        moved_mm, turned: how far to the side and to front and back all of them are moved before, and how much
            farther for every mm along the table, as patients move and turn.
        look_closer_below: mean correlation from which on nothing else is asked.
        unlike_below: mean correlation of the edges on the lines below which the images do not show the same,
            whatever their contrasts. 100 synthetic patients, of 40 of whom chance has made every tissue as
            bright as it likes in each series, have .15 and more, the real studies .54 and .79; if their axial
            images are resized, cropped or padded under the old headers, -.11 to .14.
        fits_better_by: by which the edges must be more alike in another size, or farther to front or back.
        scales: factors by which axial pixels may be larger than their headers say.
    """

    slices: int = 14
    before_mm: float = 45.0
    behind_mm: float = 45.0
    reach_mm: float = 45.0
    step_mm: float = 3.0
    least_shift_mm: float = 9.0
    least_likeness: float = 0.45
    margin: float = 0.15
    each_mm: float = 24.0
    least_alone: float = 0.5
    least_beside: float = 0.6
    suspect_by: float = 0.02
    apart_by: float = 0.05
    moved_mm: tuple[float, ...] = (-9.0, -6.0, -3.0, 0.0, 3.0, 6.0, 9.0)
    turned: tuple[float, ...] = (-0.05, -0.025, 0.0, 0.025, 0.05)
    look_closer_below: float = 0.5
    unlike_below: float = 0.2
    fits_better_by: float = 0.12
    scales: tuple[float, ...] = (
        0.42,
        0.47,
        0.53,
        0.6,
        0.67,
        0.75,
        0.83,
        1.2,
        1.34,
        1.5,
        1.68,
        1.88,
        2.1,
        2.35,
    )


def lie_elsewhere(
    sagittal: Slice, canal_mm: FloatArray, axial: Sequence[Series], config: AgreementConfig
) -> bool:
    """Whether axial series lie elsewhere along the spine, or have other pixels, than their headers say.

    Args:
        sagittal: the middle slice.
        canal_mm: (n, 3) canal points of the levels.
    """
    meeting = Meeting.of(sagittal, canal_mm, axial, config)
    return meeting is not None and (
        meeting.shift_mm() != 0.0 or meeting.is_unlike() or meeting.lines_lie_apart()
    )


@dataclass(frozen=True, eq=False)
class Meeting:
    """The lines where axial slices meet a sagittal one.

    Attributes:
        lines: (slice, (n, 3) points from front to back) of the axial slices.
        likeness: (lines, shifts) correlation of both images for every shift of the sagittal one.
        shifts_mm: along the table.
    """

    sagittal: Slice
    side: Smoothed
    lines: list[tuple[Slice, FloatArray]]
    likeness: FloatArray
    shifts_mm: FloatArray
    config: AgreementConfig

    @classmethod
    def of(
        cls, sagittal: Slice, canal_mm: FloatArray, axial: Sequence[Series], config: AgreementConfig
    ) -> Meeting | None:
        """None where fewer than four slices can be compared as they lie."""
        near = [
            item
            for series in axial
            for item in series.slices
            if abs(float(np.abs(item.plane.distance_mm(canal_mm)).min())) < 40.0
        ]
        if len(near) < _FEWEST_LINES:
            return None
        chosen = np.unique(np.linspace(0, len(near) - 1, config.slices).round().astype(int))
        shifts = np.arange(-config.reach_mm, config.reach_mm + 0.1, config.step_mm)
        try:
            side = smoothed(sagittal, None)
        except DicomRejected:
            return None
        lines, likeness = [], []
        for item in (near[place] for place in chosen):
            line = _line(sagittal, item, canal_mm, config)
            row = None if line is None else _likeness(sagittal, side, item, line, shifts)
            if line is not None and row is not None:
                lines.append((item, line))
                likeness.append(row)
        if len(lines) < _FEWEST_LINES or not np.isfinite(np.stack(likeness)[:, len(shifts) // 2]).any():
            return None
        return cls(sagittal, side, lines, np.stack(likeness), shifts, config)

    def shift_mm(self) -> float:
        """How far along the table they seem to lie from where their coordinates say; 0 if they do not."""
        config, mean = self.config, _mean(self.likeness)
        best = int(np.argmax(mean))
        elsewhere = abs(self.shifts_mm[best]) >= config.least_shift_mm
        enough = mean[best] >= config.least_likeness and mean[best] - self._here(mean) >= config.margin
        return float(self.shifts_mm[best]) if elsewhere and enough else 0.0

    def is_unlike(self) -> bool:
        """Whether their edges do not lie at the same places, and rather do in another size or depth."""
        config = self.config
        if self._here(_mean(self.likeness)) >= config.look_closer_below:
            return False
        here = self._here(_mean(self._edges_alike()))
        if here >= config.unlike_below:
            return False
        deep, scaled = np.split(_mean(self._edges_alike_moved()), [len(self.shifts_mm)])
        # At either end the likeness may be on its way to what lies beyond it.
        best = int(np.argmax(deep))
        elsewhere = abs(self.shifts_mm[best]) >= config.least_shift_mm and 0 < best < len(deep) - 1
        most = max(float(deep[best]) if elsewhere else -1.0, float(scaled.max()))
        return most >= here + config.fits_better_by

    def lines_lie_apart(self) -> bool:
        """Whether lines lie elsewhere along the table than their coordinates say, each by another way."""
        config = self.config
        alone, near = self._alone_and_near(self.likeness)
        if alone < config.least_alone or alone - near < config.suspect_by:
            return False
        moved = self._likeness_moved()
        alone, near = self._alone_and_near(moved)
        together, _ = self._alone_and_near(_of_neighbours(moved))
        return alone - near >= config.apart_by and together >= config.least_beside

    def _alone_and_near(self, likeness: FloatArray) -> tuple[float, float]:
        """Mean likeness of lines (lines, shifts), each at its own shift, and at its own small one."""
        alone, near = self._largest(likeness)
        told = near > _UNTOLD
        if 2 * told.sum() < len(self.lines):
            return _UNTOLD, _UNTOLD
        return float(alone[told].mean()), float(near[told].mean())

    def _largest(self, likeness: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Of the last axis, the shifts: at any that a line may have by itself, and at a small one."""
        away, likeness = np.abs(self.shifts_mm), np.nan_to_num(likeness, nan=_UNTOLD)
        alone = likeness[..., away <= self.config.each_mm].max(axis=-1)
        return alone, likeness[..., away < self.config.least_shift_mm].max(axis=-1)

    def _likeness_moved(self) -> FloatArray:
        """(lines, shifts) where the patient has moved to the side or back and turned; from foot to head.

        As is most alike at small shifts.
        """
        ways = self.config.moved_mm
        lines = sorted(self.lines, key=lambda pair: float(pair[1][0, 2]))
        likeness = np.stack([self._alike_moved(item, line) for item, line in lines])
        _, near = self._largest(likeness)
        each = np.arange(len(lines))
        z_mm = np.array([line[0, 2] for _, line in lines])
        z_mm -= z_mm.mean()
        places = [
            np.abs(mm + turned * z_mm - np.array(ways)[:, None]).argmin(axis=0)
            for mm, turned in product(ways, self.config.turned)
        ]
        pairs = list(product(places, places))
        best = max(pairs, key=lambda pair: float(near[each, pair[0], pair[1]].mean()))
        return np.asarray(likeness[each, best[0], best[1]])

    def _alike_moved(self, item: Slice, line: FloatArray) -> FloatArray:
        """(aside, deep, shifts) correlation with the axial image moved in its plane."""
        ways = self.config.moved_mm
        back = (line[-1] - line[0]) / float(np.linalg.norm(line[-1] - line[0]))
        side = np.cross(item.plane.normal, back)
        moved = np.array([x * side + y * back for x, y in product(ways, ways)])
        across, shown = sampled(item, smoothed(item, None), line + moved[:, None])
        along, seen = _shifted(self.sagittal, self.side, line, self.shifts_mm)
        alike = np.where(shown[:, None] & seen, correlations(across, along), np.nan)
        return alike.reshape(len(ways), len(ways), -1)

    def _here(self, mean: FloatArray) -> float:
        return float(np.max(mean[np.abs(self.shifts_mm) < self.config.least_shift_mm]))

    def _edges_alike(self) -> FloatArray:
        """(lines, shifts) correlation of edges for every shift of the sagittal image along the table."""
        rows = [
            _likeness(self.sagittal, self.side, item, line, self.shifts_mm, of_edges=True)
            for item, line in self.lines
        ]
        return np.stack([row for row in rows if row is not None])

    def _edges_alike_moved(self) -> FloatArray:
        """(lines, shifts + scales) correlation of edges with axial images from front or back, and resized."""
        rows = []
        for item, line in self.lines:
            along, _ = sampled(self.sagittal, self.side, line[None])
            image = smoothed(item, None)
            to_the_back = (line[-1] - line[0]) / float(np.linalg.norm(line[-1] - line[0]))
            ways = [sampled(item, image, line + self.shifts_mm[:, None, None] * to_the_back)]
            for scale in self.config.scales:
                x_mm, y_mm = item.plane.spacing_mm
                plane = replace(item.plane, spacing_mm=(x_mm * scale, y_mm * scale))
                ways.append(sampled(replace(item, plane=plane), image, line[None]))
            shown = np.concatenate([inside for _, inside in ways])
            alike = correlations(along, np.concatenate([values for values, _ in ways]), of_edges=True)
            rows.append(np.where(shown, alike[0], np.nan))
        return np.stack(rows)


def _mean(likeness: FloatArray) -> FloatArray:
    """Of each column; -1 where few lines lie within both images, which says nothing."""
    seen = np.isfinite(likeness).sum(axis=0)
    return np.where(2 * seen >= len(likeness), np.nansum(likeness, axis=0) / np.maximum(seen, 1), -1.0)


def _of_neighbours(likeness: FloatArray) -> FloatArray:
    """(lines, shifts): of each line the mean with the lines beside it; NaN where that is told of none."""
    nothing = np.full_like(likeness[:1], np.nan)
    rows = np.concatenate([nothing, likeness, nothing])
    beside = np.stack([rows[:-2], rows[1:-1], rows[2:]])
    told = np.isfinite(beside).sum(axis=0)
    return np.where(told > 0, np.nansum(beside, axis=0) / np.maximum(told, 1), np.nan)


def _line(sagittal: Slice, item: Slice, canal_mm: FloatArray, config: AgreementConfig) -> FloatArray | None:
    """(n, 3) points of the line where both planes meet, from front to back; None where they hardly do."""
    nearest = canal_mm[int(np.argmin(np.abs(item.plane.distance_mm(canal_mm))))]
    direction = np.cross(item.plane.normal, sagittal.plane.normal)
    length = float(np.linalg.norm(direction))
    if length < 0.5:
        return None
    direction *= np.sign(direction[1]) / length  # to the back
    start = on_both(nearest, item, sagittal)
    steps = np.arange(-config.before_mm, config.behind_mm + 0.1, 1.0)
    return np.asarray(start + steps[:, None] * direction)


def _likeness(
    sagittal: Slice,
    side: Smoothed,
    item: Slice,
    line: FloatArray,
    shifts: FloatArray,
    *,
    of_edges: bool = False,
) -> FloatArray | None:
    """Correlation of both images along a line, for every shift of the sagittal one; None: not shown."""
    try:
        across, shown = sampled(item, smoothed(item, line), line[None])
    except DicomRejected:
        return None
    if not shown[0]:
        return None
    along, shown = _shifted(sagittal, side, line, shifts)
    return np.where(shown, correlations(across, along, of_edges=of_edges)[0], np.nan)


def _shifted(
    sagittal: Slice, side: Smoothed, line: FloatArray, shifts: FloatArray
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """What a sagittal image shows along a line (n, 3) that is shifted along the table."""
    along_table = np.array([0.0, 0.0, 1.0])
    up = along_table - (along_table @ sagittal.plane.normal) * sagittal.plane.normal
    return sampled(sagittal, side, line + shifts[:, None, None] * up)
