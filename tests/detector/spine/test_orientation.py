"""Patients whose coordinates say that they lie otherwise than the images show are flagged; no others are."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.orientation import REGISTRATIONS
from benchmarks.orientation import registered as registered_series
from data_prep.phantom import make_study
from data_prep.problems import DicomRejected, Reason, Rejection
from data_prep.study import Slice, Study
from data_prep.vocabulary import SeriesKind
from detector.finder import central_slices
from detector.learn.study_slices import hard_phantom
from detector.look.candidates import DiscCandidate
from detector.predict import LevelDetector
from detector.spine.chain import ChainDisc
from detector.spine.orientation import OrientationConfig, is_clearly_better, level_evidence, plausibility

PRONE = "prone for supine"


@pytest.fixture(scope="module")
def detector() -> LevelDetector:
    return LevelDetector.load_bundled()


@pytest.fixture(scope="module")
def study() -> Study:
    return middle_of(make_study(153_900).study)


def middle_of(study: Study, kind: SeriesKind = SeriesKind.SAGITTAL_T2) -> Study:
    """The three middle slices of one series, rendered once."""
    (series,) = study.of_kind(kind)
    stack = tuple(rendered(item) for item in central_slices(series, 3, 18.0))
    return Study(study.study_id, (replace(series, stacks=(stack,)),))


def rendered(item: Slice) -> Slice:
    pixels = item.pixels()
    return replace(item, read_pixels=lambda: pixels)


def registered(study: Study, registration: str) -> Study:
    """The same pixels at coordinates that are off by half a turn."""
    signs = REGISTRATIONS[registration]
    return Study(study.study_id, tuple(registered_series(item, signs) for item in study.series))


@pytest.mark.parametrize("registration", sorted({*REGISTRATIONS} - {"right"}))
def test_a_wrong_registration_is_flagged(detector: LevelDetector, study: Study, registration: str) -> None:
    levels = detector.predict(registered(study, registration))
    assert set(levels.flags) >= {"orientation_doubtful", "numbering_uncertain"}


def test_t1_is_asked_where_there_is_no_t2(detector: LevelDetector) -> None:
    study = middle_of(make_study(153_901).study, SeriesKind.SAGITTAL_T1)
    assert "orientation_doubtful" not in detector.predict(study).flags
    assert "orientation_doubtful" in detector.predict(registered(study, PRONE)).flags


def test_a_patient_who_lies_as_registered_is_not_flagged(detector: LevelDetector, study: Study) -> None:
    assert "orientation_doubtful" not in detector.predict(study).flags


def test_an_image_stored_upside_down_with_coordinates_that_say_so_is_not_flagged(
    detector: LevelDetector, study: Study
) -> None:
    def stored(item: Slice) -> Slice:
        rows, columns = item.plane.shape
        corner = item.plane.to_mm([columns - 1, rows - 1])
        plane = replace(item.plane, origin_mm=corner, x_axis=-item.plane.x_axis, y_axis=-item.plane.y_axis)
        pixels = item.pixels()[::-1, ::-1]
        return replace(item, plane=plane, read_pixels=lambda: pixels)

    assert "orientation_doubtful" not in detector.predict(study.changed(stored)).flags


@pytest.mark.parametrize("seed", [153_950, 153_951], ids=["cut view", "transitional"])
def test_a_view_that_is_hard_to_number_is_not_flagged(detector: LevelDetector, seed: int) -> None:
    levels = detector.predict(middle_of(hard_phantom(seed).study))
    assert "orientation_doubtful" not in levels.flags


@pytest.mark.parametrize(
    "fill", [lambda shape: np.zeros(shape), np.random.default_rng(1).random], ids=["black", "noise"]
)
def test_images_without_a_spine_leave_the_orientation_alone(
    detector: LevelDetector, study: Study, fill: Callable[[tuple[int, int]], NDArray[np.float64]]
) -> None:
    def shown(item: Slice) -> Slice:
        return replace(item, read_pixels=lambda: fill(item.plane.shape).astype(np.float32))

    levels = detector.predict(study.changed(shown))
    assert "no_level_found" in levels.flags
    assert "orientation_doubtful" not in levels.flags


def test_a_middle_slice_that_cannot_be_decoded_leaves_the_orientation_alone(
    detector: LevelDetector, study: Study
) -> None:
    (middle,) = central_slices(study.series[0], 1, 18.0)

    def broken() -> NDArray[np.float32]:
        raise DicomRejected(Rejection(Reason.BAD_PIXELS, "broken"))

    def lost(item: Slice) -> Slice:
        return replace(item, read_pixels=broken) if item is middle else item

    levels = detector.predict(registered(study.changed(lost), PRONE))
    assert "orientation_doubtful" not in levels.flags


def disc(level: int, score: float) -> ChainDisc:
    classes = np.zeros(7)
    classes[level] = score
    point = np.zeros(3)
    return ChainDisc(point, point, DiscCandidate(score, classes, point, point, 0.0, ()))


def test_evidence_is_high_only_where_levels_follow_each_other() -> None:
    seen = tuple(disc(level, 0.9) for level in (2, 3, 4, 5, 6))
    assert level_evidence(seen) == (pytest.approx(5 * 0.81), 2)
    assert level_evidence(seen[1:]) == (pytest.approx(4 * 0.81), 3)
    assert level_evidence(seen[::-1])[0] == pytest.approx(0.81)
    assert level_evidence((*seen[:2], replace(seen[2], candidate=None), *seen[3:]))[0] == pytest.approx(
        4 * 0.81
    )


@pytest.mark.parametrize(("discs", "is_believed"), [(7, True), (6, True), (5, False), (4, False)])
def test_few_discs_must_look_much_better_turned(discs: int, is_believed: bool) -> None:
    """Evidence of 1.35 times as much turns a chain of six discs, not one of five."""
    chain = tuple(
        replace(disc(level, 0.9), canal_mm=np.array([0.0, 0.0, -33.0 * level])) for level in range(discs)
    )
    evidence = plausibility(chain, OrientationConfig())
    assert evidence > 1.0
    assert is_clearly_better(chain, evidence / 1.35, OrientationConfig()) is is_believed
    assert is_clearly_better(chain, evidence / 1.6, OrientationConfig())
    assert not is_clearly_better(chain, evidence / 1.1, OrientationConfig())
