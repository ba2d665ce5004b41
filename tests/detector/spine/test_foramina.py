"""Protects: which slice shows a foramen best, and what other slices that show it as well get of its grade."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from data_prep.levels import LevelPoint, PointSource
from data_prep.phantom import make_study
from data_prep.vocabulary import ConditionGroup, SeriesKind
from detector.look.candidates import SliceCandidate
from detector.look.sightings import SliceSighting
from detector.spine.foramina import ForamenConfig, _refined

CONFIG = ForamenConfig()


@pytest.fixture(scope="module")
def point() -> LevelPoint:
    points = make_study(100_400).points
    found = next(point for point in points if point.condition.group is ConditionGroup.FORAMINAL)
    return replace(found, source=PointSource.PREDICTED)


def sightings(point: LevelPoint, *scores: float) -> list[SliceSighting]:
    """The slices nearest to a point, each with a detection of such a score."""
    (series, *_) = make_study(100_400).study.of_kind(SeriesKind.SAGITTAL_T1)
    near = sorted(series.slices, key=lambda item: abs(float(item.plane.distance_mm(point.xyz_mm))))
    found = []
    for item, score in zip(near, scores, strict=False):
        away = float(item.plane.distance_mm(point.xyz_mm))
        at = point.xyz_mm - away * item.plane.normal
        candidate = SliceCandidate(score, np.zeros(0), at[None], series.series_id, 1)
        found.append(SliceSighting(series, item, item.plane, (candidate,)))
    return found


@pytest.mark.parametrize(
    ("scores", "shares"),
    [
        ((0.5, 0.25, 0.2), (1.0,)),
        ((0.5, 0.45, 0.2), (5 / 9, 4 / 9)),
        ((0.45, 0.5), (5 / 9, 4 / 9)),
        ((0.5, 0.5, 0.375), (0.4, 0.4, 0.2)),
        ((0.5, 0.2), (1.0,)),
    ],
)
def test_slices_share_a_grade_as_far_as_they_show_it_alike(
    point: LevelPoint, scores: tuple[float, ...], shares: tuple[float, ...]
) -> None:
    seen = sightings(point, *scores)
    found = _refined(point, seen, CONFIG)
    assert found is not None and found.source is PointSource.SEEN
    assert [found.share, *(other.share for other in found.also)] == pytest.approx(list(shares))
    best = seen[int(np.argmax(scores))].item.instance_number
    numbers = [reading.sight.instance_number for reading in (found, *found.also) if reading.sight is not None]
    assert numbers[0] == best and len(set(numbers)) == len(shares)


def test_another_best_slice_leaves_the_shares_nearly_as_they_are(point: LevelPoint) -> None:
    """The slice that wins by a hair and the one that loses by one get the same."""
    shares = []
    for scores in ((0.500, 0.499), (0.499, 0.500)):
        found = _refined(point, sightings(point, *scores), CONFIG)
        assert found is not None
        shares.append({reading.sight: reading.share for reading in (found, *found.also)})
    assert shares[0].keys() == shares[1].keys()
    assert all(abs(shares[0][sight] - shares[1][sight]) < 0.02 for sight in shares[0])


def test_copies_of_a_slice_get_no_share(point: LevelPoint) -> None:
    once = sightings(point, 0.5, 0.45)
    alone, twice = (_refined(point, seen, CONFIG) for seen in (once, [*once, *once]))
    assert alone is not None and twice is not None
    assert [p.share for p in (twice, *twice.also)] == [p.share for p in (alone, *alone.also)]


def test_without_a_detection_there_is_no_point(point: LevelPoint) -> None:
    assert _refined(point, [], CONFIG) is None
