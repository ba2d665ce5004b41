"""Series that show no spine, or show it elsewhere, are flagged: never a crash, never a silent guess."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from data_prep.geometry import SlicePlane
from data_prep.phantom import PhantomStudy, make_study
from data_prep.problems import DicomRejected, Reason, Rejection
from data_prep.study import Series, Slice, Study
from data_prep.vocabulary import SeriesKind
from detector.predict import LevelDetector


@pytest.fixture(scope="module")
def detector() -> LevelDetector:
    return LevelDetector.load_bundled()


@pytest.fixture(scope="module")
def phantom() -> PhantomStudy:
    return make_study(200_420)


def rebuilt(study: Study, change: Callable[[Series, Slice], Slice | None]) -> Study:
    """The study with every slice changed, or left out (None)."""
    series = []
    for item in study.series:
        stacks = [[new for s in stack if (new := change(item, s)) is not None] for stack in item.stacks]
        kept = tuple(tuple(stack) for stack in stacks if stack)
        if kept:
            series.append(replace(item, stacks=kept))
    return Study(study.study_id, tuple(series))


def showing(pixels: Callable[[SlicePlane], NDArray[np.float32]]) -> Callable[[Series, Slice], Slice]:
    return lambda _, item: replace(item, read_pixels=lambda: pixels(item.plane))


@pytest.mark.parametrize(
    "pixels",
    [
        lambda plane: np.zeros(plane.shape, np.float32),
        lambda plane: np.full(plane.shape, np.nan, np.float32),
        lambda plane: np.random.default_rng(1).random(plane.shape).astype(np.float32),
    ],
    ids=["black", "nan", "noise"],
)
def test_images_without_a_spine_give_no_level(
    detector: LevelDetector, phantom: PhantomStudy, pixels: Callable[[SlicePlane], NDArray[np.float32]]
) -> None:
    levels = detector.predict(rebuilt(phantom.study, showing(pixels)))
    assert levels.points == () and levels.levels == {}
    assert set(levels.flags) >= {"no_level_found", "numbering_uncertain"}


def test_slices_that_cannot_be_decoded_give_no_level(detector: LevelDetector, phantom: PhantomStudy) -> None:
    def broken(plane: SlicePlane) -> NDArray[np.float32]:
        raise DicomRejected(Rejection(Reason.BAD_PIXELS, "broken"))

    assert "no_level_found" in detector.predict(rebuilt(phantom.study, showing(broken))).flags


def test_a_patient_who_moved_between_series_is_flagged(
    detector: LevelDetector, phantom: PhantomStudy
) -> None:
    def moved(series: Series, item: Slice) -> Slice:
        if series.kind is not SeriesKind.SAGITTAL_T1:
            return item
        return replace(item, plane=replace(item.plane, origin_mm=item.plane.origin_mm + [0, 14, 0]))

    still, shifted = (detector.predict(study) for study in (phantom.study, rebuilt(phantom.study, moved)))
    assert "series_disagree" not in still.flags
    assert "series_disagree" in shifted.flags


def test_a_level_whose_canal_is_cut_off_is_flagged(detector: LevelDetector, phantom: PhantomStudy) -> None:
    canal_y = np.mean([disc.canal_mm[1] for disc in phantom.discs if disc.name in ("L1/L2", "L2/L3")])

    def front(series: Series, item: Slice) -> Slice:
        """The columns in front of the upper lumbar canal."""
        if series.kind is SeriesKind.AXIAL_T2:
            return item
        columns = round(float(item.plane.to_px([0.0, canal_y - 5.0, item.plane.centre_mm[2]])[0]))
        plane = replace(item.plane, shape=(item.plane.shape[0], columns))
        return replace(item, plane=plane, read_pixels=lambda: item.pixels()[:, :columns])

    whole, cut = (detector.predict(study) for study in (phantom.study, rebuilt(phantom.study, front)))
    assert "level_at_edge" not in whole.flags
    assert "level_at_edge" in cut.flags or "level_absent" in cut.flags


def test_levels_that_are_counted_without_the_sacrum_are_flagged(
    detector: LevelDetector, phantom: PhantomStudy
) -> None:
    lowest = next(disc.disc_mm[2] for disc in phantom.discs if disc.name == "L3/L4") - 15.0

    def upper(series: Series, item: Slice) -> Slice:
        """The rows above the middle of L4."""
        if series.kind is SeriesKind.AXIAL_T2:
            return item
        rows = round(float(item.plane.to_px([*item.plane.centre_mm[:2], lowest])[1]))
        plane = replace(item.plane, shape=(rows, item.plane.shape[1]))
        return replace(item, plane=plane, read_pixels=lambda: item.pixels()[:rows])

    whole, cut = (detector.predict(study) for study in (phantom.study, rebuilt(phantom.study, upper)))
    assert "sacrum_unseen" not in whole.flags
    assert "sacrum_unseen" in cut.flags and "level_absent" in cut.flags


def test_a_series_of_one_slice_is_used_and_flagged(detector: LevelDetector, phantom: PhantomStudy) -> None:
    middle = {
        series.series_id: series.slices[len(series.slices) // 2].instance_number
        for series in phantom.study.series
    }
    study = rebuilt(
        phantom.study, lambda series, s: s if s.instance_number == middle[series.series_id] else None
    )
    levels = detector.predict(study)
    assert "few_slices" in levels.flags
    assert len(levels.levels) >= 4
