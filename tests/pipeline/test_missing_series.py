"""Protects: a series of another part of the patient does not pass for a lumbar one that is missing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from data_prep.phantom import make_study
from data_prep.study import Series, Slice, Study
from data_prep.vocabulary import ConditionGroup, SeriesKind
from pipeline.grade import Pipeline

SEED = 152_020
KINDS = {
    SeriesKind.SAGITTAL_T1: ("no_sagittal_t1", ConditionGroup.FORAMINAL),
    SeriesKind.AXIAL_T2: ("no_axial_t2", ConditionGroup.SUBARTICULAR),
}


def as_of_the_neck(series: Series) -> Series:
    """At half its size, 420 mm farther up."""

    def moved(item: Slice) -> Slice:
        plane = item.plane
        x_mm, y_mm = plane.spacing_mm
        origin = plane.origin_mm * [1.0, 0.5, 0.5] + [0.0, 0.0, 420.0]
        return replace(item, plane=replace(plane, origin_mm=origin, spacing_mm=(x_mm / 2, y_mm / 2)))

    return replace(series, stacks=tuple(tuple(map(moved, stack)) for stack in series.stacks))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_what_shows_the_neck_is_no_lumbar_series(kind: SeriesKind, bundled_pipeline: Pipeline) -> None:
    study = make_study(SEED, size="small").study
    series = tuple(as_of_the_neck(item) if item.kind is kind else item for item in study.series)
    prediction = bundled_pipeline.predict_study(Study("1", series))
    flag, group = KINDS[kind]
    assert flag in prediction.flags
    graded = {
        target.condition.group
        for target, grade in prediction.grades.items()
        if grade.source in ("seen", "predicted")
    }
    assert graded == set(ConditionGroup) - {group}
