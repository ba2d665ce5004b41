"""The bundled detectors on patients that they were not trained on; weights that are not the released ones."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_prep.base.manifest import DEFAULT_BUNDLE, WeightsRejected
from data_prep.levels import PointSource
from data_prep.phantom import PhantomStudy, make_study
from data_prep.read.find import find_studies
from data_prep.rsna.annotations import annotated_points
from data_prep.study import Study
from data_prep.vocabulary import LEVELS, ConditionGroup, SeriesKind
from detector import BUNDLED_WEIGHTS
from detector.evaluate import point_errors
from detector.learn.point_slices import external_study
from detector.learn.slices import ExternalSlices
from detector.levels_table import LEVELS_COLUMNS, levels_table
from detector.predict import LevelDetector

REPORTING_SEED = 200_420
LABELS = {level.label for level in LEVELS}


@pytest.fixture(scope="module")
def detector() -> LevelDetector:
    return LevelDetector.load_bundled()


@pytest.fixture(scope="module")
def phantom() -> PhantomStudy:
    return make_study(REPORTING_SEED)


def without(study: Study, *kinds: SeriesKind) -> Study:
    return Study(study.study_id, tuple(series for series in study.series if series.kind not in kinds))


def test_all_levels_of_a_phantom_are_found_where_they_are(
    detector: LevelDetector, phantom: PhantomStudy
) -> None:
    levels = detector.predict(phantom.study)
    truth = {disc.name: disc for disc in phantom.discs}
    assert list(levels.levels) == list(LEVELS)
    for level, found in levels.levels.items():
        assert np.linalg.norm((found.canal_mm - truth[level.label].canal_mm)[1:]) < 6
    assert len(levels.points) == 25


def test_beside_the_middle_slice_a_strip_around_the_spine_is_looked_at(
    detector: LevelDetector, phantom: PhantomStudy
) -> None:
    (series,) = phantom.study.of_kind(SeriesKind.SAGITTAL_T2)
    canal_mm = np.stack([disc.canal_mm for disc in phantom.discs if disc.name in LABELS])
    (sightings,) = detector.finder.see((series,))
    middle = sightings[len(sightings) // 2]
    for seen in sightings:
        assert (seen.plane.shape[1] < middle.plane.shape[1]) is (seen is not middle)
        assert seen.plane.shape[0] == middle.plane.shape[0]
        assert seen.plane.contains_px(seen.plane.to_px(canal_mm)).all()


def test_a_middle_slice_without_signal_has_its_neighbours_looked_at_as_a_whole(
    detector: LevelDetector, phantom: PhantomStudy
) -> None:
    (series,) = phantom.study.of_kind(SeriesKind.SAGITTAL_T2)
    (sightings,) = detector.finder.see((series,))
    middle = sightings[len(sightings) // 2]
    dark = replace(middle.item, read_pixels=lambda: np.zeros(middle.item.plane.shape, np.float32))
    stack = tuple(dark if item is middle.item else item for item in series.slices)
    (again,) = detector.finder.see((replace(series, stacks=(stack,)),))
    assert {seen.plane.shape for seen in again} == {middle.plane.shape}
    levels = detector.finder.look((replace(series, stacks=(stack,)),)).discs
    assert len(levels) >= len(LEVELS)


def test_recesses_and_foramina_are_refined_in_the_image(
    detector: LevelDetector, phantom: PhantomStudy
) -> None:
    levels = detector.predict(phantom.study)
    errors = point_errors(phantom.study, levels, phantom.points)
    for group in (ConditionGroup.FORAMINAL, ConditionGroup.SUBARTICULAR):
        points = [point for point in levels.points if point.condition.group is group]
        assert sum(point.source is PointSource.SEEN for point in points) >= 7, "most of ten are seen"
        assert not errors.loc[errors["group"] == group.value, "wrong_side"].any()
        assert errors.loc[errors["group"] == group.value, "distance_mm"].median() < 6


def test_points_lie_on_slices_of_the_kind_that_shows_their_condition(
    detector: LevelDetector, phantom: PhantomStudy
) -> None:
    kinds = {series.series_id: series.kind for series in phantom.study.series}
    levels = detector.predict(phantom.study)
    placed = [point for point in levels.points if point.sight is not None]
    assert len(placed) >= 23
    for point in placed:
        assert point.sight is not None and kinds[point.sight.series_id] is point.condition.series_kind
    table = levels_table([levels])
    assert tuple(table.columns) == LEVELS_COLUMNS and len(table) == len(placed)
    assert not table.duplicated(["study_id", "condition", "level"]).any()


def test_without_t2_the_t1_serves_and_is_flagged(detector: LevelDetector, phantom: PhantomStudy) -> None:
    levels = detector.predict(without(phantom.study, SeriesKind.SAGITTAL_T2))
    assert "no_sagittal_t2" in levels.flags
    spinal = [point for point in levels.points if point.condition.group is ConditionGroup.SPINAL]
    assert all(point.sight is None for point in spinal), "no slice shows what is read on T2"


def test_without_sagittals_nothing_is_guessed(detector: LevelDetector, phantom: PhantomStudy) -> None:
    levels = detector.predict(without(phantom.study, SeriesKind.SAGITTAL_T2, SeriesKind.SAGITTAL_T1))
    assert levels.points == () and levels.levels == {}
    assert set(levels.flags) == {"no_sagittal", "numbering_uncertain"}


def test_the_same_study_gives_the_same_points(detector: LevelDetector) -> None:
    first, second = (detector.predict(make_study(REPORTING_SEED + 1).study) for _ in range(2))
    for a, b in zip(first.points, second.points, strict=True):
        assert np.array_equal(a.xyz_mm, b.xyz_mm) and a.sight == b.sight


@pytest.mark.parametrize("file", ["sagittal.safetensors", "axial.safetensors"])
def test_a_flipped_byte_in_the_weights_is_refused(file: str, tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    shutil.copytree(BUNDLED_WEIGHTS[DEFAULT_BUNDLE], folder)
    content = bytearray((folder / file).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / file).write_bytes(bytes(content))
    with pytest.raises(WeightsRejected, match=f"{file}.*not the released file"):
        LevelDetector.load(folder)


def test_a_folder_without_weights_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(WeightsRejected, match="make models"):
        LevelDetector.load(tmp_path)


@pytest.mark.parametrize("study_id", ["100206310", "4003253"])
def test_real_rsna_studies(detector: LevelDetector, real_rsna: Path, study_id: str) -> None:
    """Every canal point at the right level, within 8 mm of the annotated one; no side confused."""
    study = find_studies(real_rsna / "train_images" / study_id)[0].load()
    coordinates = pd.read_csv(real_rsna / "train_label_coordinates.csv")
    annotated, problems = annotated_points(study, coordinates)
    assert len(annotated) == 25 and not problems
    errors = point_errors(study, detector.predict(study), annotated)
    canal = errors[errors["group"] == "spinal"]
    assert canal["distance_mm"].max() <= 8
    assert not errors["wrong_level"].any() and not errors["wrong_side"].any()


def test_spider_report_patients(detector: LevelDetector, spider_dir: Path) -> None:
    """At least 33 of the 35 canal points of the 7 report patients at the right level, within 6 mm."""
    split = pd.read_csv(spider_dir / "split.csv")
    source = ExternalSlices(spider_dir, spider_dir / "level_points.csv", 0.47, average_slices=4)
    found = 0
    for patient in split.loc[split["part"] == "report", "patient"]:
        study, annotated = external_study(source, str(patient), slice_gap_mm=0.9, every=4)
        errors = point_errors(study, detector.predict(study), annotated)
        found += int(((errors["in_plane_mm"] <= 6) & ~errors["wrong_level"]).sum())
    assert found >= 33
