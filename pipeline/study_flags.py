"""What is said of a study beside its grades: series that are missing, and what its images leave in doubt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from classifier.grade import Grade
from classifier.measure.quantities import FORAMEN, Measured
from data_prep.greys import are_edited
from data_prep.levels import SpineLevels
from data_prep.problems import Reason
from data_prep.study import Series, Study
from data_prep.vocabulary import ConditionGroup, Flag, SeriesKind, Target
from detector.spine.contrast import with_fat_doubted
from detector.spine.neighbours import with_order_doubted


def with_images_doubted(study: Study, levels: SpineLevels) -> Study:
    """The study, and notes on series whose images lie in another order or lack fat, and nothing says so."""
    return with_order_doubted(with_fat_doubted(study, levels), levels.flags)


def missing_series(study: Study, levels: SpineLevels, grades: Mapping[Target, Grade]) -> tuple[str, ...]:
    """Flags for kinds of series that are not there, or show another part of the patient.

    The detector flags those that it needs.
    """
    kinds = {
        ConditionGroup.FORAMINAL: (SeriesKind.SAGITTAL_T1, Flag.NO_SAGITTAL_T1),
        ConditionGroup.SUBARTICULAR: (SeriesKind.AXIAL_T2, Flag.NO_AXIAL_T2),
    }
    found = []
    for group, (kind, flag) in kinds.items():
        series = [item for item in study.of_kind(kind) if item.series_id not in levels.set_aside]
        own = [grade for target, grade in grades.items() if target.condition.group is group]
        unseen = bool(levels.levels) and all(Flag.NO_SLICE in grade.flags for grade in own)
        if not series or (unseen and not _reach(series, levels, group)):
            found.append(flag)
    return tuple(found)


def _reach(series: Sequence[Series], levels: SpineLevels, group: ConditionGroup) -> bool:
    """Whether a slice lies at a point that is looked for, though it may end before it or behind it.

    Such series show the same part of the patient: their slices are cut, or the levels lie wrong.
    """
    points_mm = [point.xyz_mm for point in levels.points if point.condition.group is group]
    for item, gap_mm in ((item, one.gap_mm(item)) for one in series for item in one.slices):
        plane = item.plane
        to_the_back = int(abs(plane.y_axis[1]) > abs(plane.x_axis[1]))
        for point_mm in points_mm:
            at = plane.to_px(point_mm)
            at[to_the_back] = 0.0
            if abs(float(plane.distance_mm(point_mm))) <= gap_mm and bool(plane.contains_px(at)):
                return True
    return False


def is_degraded(study: Study) -> bool:
    """Whether images of a series that is graded are not as they were acquired."""
    # A few slices beside a series of their kind, as of a scout, are mostly graded by nobody.
    used = [
        series
        for best, *others in filter(None, map(study.of_kind, SeriesKind))
        for series in (best, *(item for item in others if 2 * len(item.slices) >= len(best.slices)))
    ]
    return any(series.traits.is_degraded or are_edited(series) for series in used)


def doubts_of_images(study: Study, grades: Mapping[Target, Grade], *, degraded: bool) -> tuple[str, ...]:
    """Flags of a study for what no network says: a guessed kind of series, poor images, voids."""
    doubted = {item.series_id for item in study.rejections if item.reason is Reason.KIND_DISAGREES}
    guessed = any(
        series.kind_source in ("image", "assumed") and series.series_id not in doubted
        for series in study.series
    )
    void = any(Flag.NO_SIGNAL in grade.flags for grade in grades.values())
    said = {
        Flag.SERIES_KIND_DOUBTFUL: bool(doubted),
        Flag.SERIES_KIND_GUESSED: guessed,
        Flag.DEGRADED_INPUT: degraded,
        Flag.NO_SIGNAL: void,
    }
    return tuple(flag for flag, is_so in said.items() if is_so)


def without_doubtful_fat(study: Study, measurements: Iterable[Measured]) -> tuple[Measured, ...]:
    """Without foramina of levels that were read on a T1 whose fat may be suppressed: they are fat, mostly."""
    doubtful = {note.series_id for note in study.rejections if note.reason is Reason.KIND_DISAGREES}
    measured = tuple(measurements)
    levels = {item.level for item in measured if item.quantity in FORAMEN and item.series_id in doubtful}
    return tuple(item for item in measured if item.quantity not in FORAMEN or item.level not in levels)
