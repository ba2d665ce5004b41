"""Protects: a neck is not graded as a lumbar spine, beside one or alone."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from data_prep.base.manifest import DEFAULT_BUNDLE, Bundle
from data_prep.phantom import make_study
from data_prep.study import Series, Slice, Study
from data_prep.traits import Traits
from data_prep.vocabulary import SeriesKind
from detector.look.candidates import DiscCandidate
from detector.predict import LevelDetector
from detector.spine.chain import ChainDisc
from detector.spine.region import Region, lumbar_evidence, shows_lumbar_spine, views_of
from pipeline.results.words import numbering_words

SEED = 152_004
OTHER = Traits(is_other_region=True)


@cache
def study() -> Study:
    return make_study(SEED, size="small").study


def elsewhere(series: Series, series_id: str, *, scale: float = 0.5, dz_mm: float = 420.0) -> Series:
    """The series at half its size, as far up as the neck."""

    def changed(item: Slice) -> Slice:
        plane = item.plane
        origin = plane.origin_mm * [1.0, scale, scale] + [0.0, 0.0, dz_mm]
        x, y = plane.spacing_mm
        return replace(item, plane=replace(plane, origin_mm=origin, spacing_mm=(x * scale, y * scale)))

    return replace(series.changed(changed), series_id=series_id)


def chain(gap_mm: float, score: float, depth_mm: float = 27.0) -> list[ChainDisc]:
    discs = []
    for number in range(5):
        classes = np.zeros(7)
        classes[number + 2] = score
        place = np.array([0.0, 0.0, -gap_mm * number])
        candidate = DiscCandidate(score, classes, place, place + [0.0, depth_mm, 0.0], 0.0, ())
        discs.append(ChainDisc(place, candidate.canal_mm, candidate))
    return discs


def of_heights(low: float, high: float, like: Series) -> Series:
    """A series whose images reach from one height to another (mm)."""
    plane = like.slices[0].plane
    y_mm = (high - low) / (plane.shape[0] - 1)
    place = replace(plane, origin_mm=np.array([0.0, 0.0, high]), y_axis=np.array([0.0, 0.0, -1.0]))
    item = replace(like.slices[0], plane=replace(place, spacing_mm=(y_mm, y_mm)))
    return replace(like, stacks=((item,),))


def test_a_view_of_more_or_less_than_another_of_its_kind_may_lead() -> None:
    (t2,) = study().of_kind(SeriesKind.SAGITTAL_T2)
    (t1,) = study().of_kind(SeriesKind.SAGITTAL_T1)
    lumbar, stir, longer_t1 = (of_heights(*ends) for ends in ((0, 300, t2), (10, 320, t2), (-60, 330, t1)))
    assert views_of([lumbar, stir, longer_t1]) == [(lumbar, stir, longer_t1)]
    whole_spine, neck = of_heights(0, 800, t2), of_heights(520, 790, t2)
    everything = [whole_spine, neck, lumbar, longer_t1]
    assert views_of(everything) == [
        (whole_spine, neck, lumbar, longer_t1),
        (neck, whole_spine),
        (lumbar, whole_spine, longer_t1),
    ]
    above_the_sacrum = of_heights(140, 440, t2)
    assert views_of([above_the_sacrum, lumbar, longer_t1]) == [
        (above_the_sacrum, lumbar, longer_t1),
        (lumbar, above_the_sacrum, longer_t1),
    ]


def test_series_far_apart_are_two_views() -> None:
    (t2,) = study().of_kind(SeriesKind.SAGITTAL_T2)
    (t1,) = study().of_kind(SeriesKind.SAGITTAL_T1)
    neck = elsewhere(t2, "neck")
    assert views_of([neck, t2, t1]) == [(neck,), (t2, t1)]


@pytest.mark.parametrize(
    ("gap_mm", "score", "traits", "region", "shown"),
    [
        (35.0, 0.9, Traits(), Region.DOUBTFUL, True),
        (35.0, 0.9, OTHER, Region.DOUBTFUL, True),
        (35.0, 0.2, OTHER, Region.DOUBTFUL, False),
        (35.0, 0.2, OTHER, Region.LUMBAR, True),
        (35.0, 0.9, Traits(), Region.OTHER, False),
        (18.0, 0.9, Traits(), Region.LUMBAR, False),
    ],
    ids=["lumbar", "named, clear", "named, doubtful", "named, not larger than lumbar", "larger", "too close"],
)
def test_the_gaps_decide_and_the_headers_are_a_hint(
    gap_mm: float, score: float, traits: Traits, region: Region, shown: bool
) -> None:
    (t2,) = study().of_kind(SeriesKind.SAGITTAL_T2)
    discs = chain(gap_mm, score)
    assert shows_lumbar_spine([replace(t2, traits=traits)], discs, region) is shown
    assert (lumbar_evidence(discs) > 0) == (gap_mm > 24)


def test_discs_of_a_neck_are_too_small_where_every_second_one_is_unseen() -> None:
    (t2,) = study().of_kind(SeriesKind.SAGITTAL_T2)
    small = chain(36.0, 0.9, depth_mm=16.5)
    assert not shows_lumbar_spine([t2], small, Region.LUMBAR) and lumbar_evidence(small) == 0


@pytest.mark.parametrize("first", [True, False])
def test_a_neck_beside_the_lumbar_spine_is_set_aside(first: bool) -> None:
    """More slices, and its name before or behind in the alphabet."""
    (t2,) = study().of_kind(SeriesKind.SAGITTAL_T2)
    neck = elsewhere(t2, "0" if first else "zz")
    neck = replace(neck, stacks=((*neck.stacks[0], *neck.stacks[0][:1]),))
    plain: Any = _detector().predict(study())
    both = _detector().predict(replace(study(), series=(neck, *study().series)))
    assert both.set_aside == (neck.series_id,)
    for level, found in plain.levels.items():
        assert np.allclose(both.levels[level].canal_mm, found.canal_mm)


@pytest.mark.parametrize("scale", [0.45, 0.55, 0.65])
@pytest.mark.parametrize("bundle", Bundle)
def test_a_neck_alone_is_not_graded(bundle: Bundle, scale: float) -> None:
    (t2,) = study().of_kind(SeriesKind.SAGITTAL_T2)
    found = _detector(bundle).predict(Study("1", (elsewhere(t2, "neck", scale=scale),)))
    assert found.levels == {} and {"no_lumbar_spine", "no_level_found"} & set(found.flags)


def test_headers_of_the_neck_leave_a_doubt() -> None:
    named = tuple(replace(item, traits=OTHER) for item in study().series)
    found = _detector().predict(replace(study(), series=named))
    assert {"region_doubtful", "numbering_uncertain"} <= set(found.flags)


@pytest.mark.parametrize("flag", ["sacrum_unseen", "numbering_uncertain", "region_doubtful"])
def test_no_figure_stands_beside_a_doubt(flag: str) -> None:
    assert numbering_words(0.93) == "numbering 93% sure"
    assert numbering_words(0.93, (flag,)) == "numbering in doubt"


@cache
def _detector(bundle: Bundle = DEFAULT_BUNDLE) -> LevelDetector:
    return LevelDetector.load_bundled(bundle=bundle)


@pytest.mark.parametrize("scale", [0.4, 0.5, 0.6])
@pytest.mark.parametrize("seed", [152_001, 152_002, 152_003])
def test_a_neck_of_any_field_of_view_is_refused(seed: int, scale: float) -> None:
    """T1, T2 and axial slices of it, and headers that say nothing of it."""
    found = make_study(seed, size="small").study
    small = tuple(elsewhere(item, item.series_id, scale=scale) for item in found.series)
    levels: Any = _detector().predict(replace(found, series=small))
    assert levels.levels == {} and {"no_lumbar_spine", "no_level_found"} & set(levels.flags)


@pytest.mark.parametrize("seed", [152_001, 152_002, 152_003])
def test_a_lumbar_spine_is_not_taken_for_a_neck(seed: int) -> None:
    levels: Any = _detector().predict(make_study(seed, size="small").study)
    assert not {"no_lumbar_spine", "region_doubtful"} & set(levels.flags) and len(levels.levels) == 5
