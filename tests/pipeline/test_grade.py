"""One study through the line, and what happens when a part of it is bad."""

from __future__ import annotations

import json
import zipfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import RLELossless

from classifier.grade import Grade
from classifier.prior import level_prior
from data_prep.base.backend import BackendUnusable
from data_prep.levels import SpineLevels
from data_prep.problems import DicomRejected, Reason
from data_prep.read.entry import StudyEntry
from data_prep.read.find import find_studies
from data_prep.rsna.known import known_studies
from data_prep.study import PLAIN, Study
from data_prep.vocabulary import TARGETS, Condition, Flag, Level, SeriesKind, Target
from pipeline.grade import Pipeline
from pipeline.prediction import StudyPrediction, probabilities_in
from pipeline.study_flags import doubts_of_images, is_degraded
from tests.pipeline.stand_in import (
    CANARY,
    BrightnessGrader,
    BrokenGrader,
    StraightSpine,
    stand_in_pipeline,
    write_studies,
    write_study,
    write_table,
)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_studies(tmp_path / "test_images", ["501", "502"])


def test_every_study_gets_25_grades_with_their_source(images: Path) -> None:
    first, second = stand_in_pipeline().predict(images)
    assert (first.study_id, second.study_id) == ("501", "502")
    assert set(first.grades) == set(TARGETS)
    assert first.grades[Target(Condition.SPINAL_CANAL_STENOSIS, Level.L4_L5)].source == "seen"
    absent = Target(Condition.SPINAL_CANAL_STENOSIS, Level.L1_L2)
    assert first.grades[absent].flags == ("level_absent",)
    np.testing.assert_allclose(first.grades[absent].probabilities, level_prior(absent))
    assert not first.rejected
    assert first.rejections == ()


def test_the_record_keeps_levels_points_and_unweighted_probabilities(images: Path) -> None:
    prediction = stand_in_pipeline().predict(images / "501")[0]
    record = json.loads(json.dumps(prediction.to_dict(), allow_nan=False))
    assert record["numbering_confidence"] == 0.875
    assert record["levels"]["l1_l2"] is None
    assert record["levels"]["l3_l4"]["canal_mm"] == [0.0, 5.0, 0.0]
    row = next(
        r
        for r in record["targets"]
        if (r["condition"], r["level"]) == ("left_subarticular_stenosis", "l3_l4")
    )
    assert row["point"]["series_id"] == "13"
    assert row["point"]["xyz_mm"] == [8.0, 5.0, 0.0]
    p = probabilities_in(record)
    for target in TARGETS:
        np.testing.assert_allclose(p[target], prediction.grades[target].probabilities, atol=1e-8)


def test_a_listed_study_without_images_gets_the_prior(images: Path) -> None:
    write_table(images, ["501", "502", "503"])
    listed = stand_in_pipeline().predict(images)[-1]
    assert listed.study_id == "503"
    assert listed.rejected
    assert [item.reason for item in listed.rejections] == [Reason.NO_IMAGES]
    assert {grade.source for grade in listed.grades.values()} == {"prior"}


def test_a_study_without_t2_is_done(tmp_path: Path) -> None:
    images = tmp_path / "test_images"
    write_study(images, "501", {"12": SeriesKind.SAGITTAL_T1, "13": SeriesKind.AXIAL_T2})
    write_table(images, ["501"])
    prediction = stand_in_pipeline().predict(images)[0]
    assert not prediction.rejected
    assert prediction.grades[Target(Condition.SPINAL_CANAL_STENOSIS, Level.L4_L5)].source == "prior"
    assert prediction.grades[Target(Condition.LEFT_SUBARTICULAR_STENOSIS, Level.L4_L5)].source == "seen"


def test_measuring_that_fails_costs_a_flag_and_no_grade(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, *_ = stand_in_pipeline().predict(images / "501")
    monkeypatch.setattr("pipeline.grade.measure_study", lambda *_: 1 / 0)
    failed, *_ = stand_in_pipeline().predict(images / "501")
    assert failed.measurements == () and {*failed.flags} - {*whole.flags} == {"measuring_failed"}
    assert [grade.source for grade in failed.grades.values()] == [
        grade.source for grade in whole.grades.values()
    ]


def test_a_bad_file_is_listed_and_the_study_is_graded(images: Path) -> None:
    (images / "501" / "11" / "1.dcm").write_text("this is no DICOM")
    truncated = images / "501" / "12" / "1.dcm"
    truncated.write_bytes(truncated.read_bytes()[:2000])
    prediction = stand_in_pipeline().predict(images / "501")[0]
    assert not prediction.rejected
    assert {(item.series_id, item.file) for item in prediction.rejections} == {
        ("11", "1.dcm"),
        ("12", "1.dcm"),
    }


def test_a_guess_of_what_a_series_shows_is_flagged(images: Path) -> None:
    known, *_ = stand_in_pipeline().predict(images / "501")
    (images.parent / "test_series_descriptions.csv").unlink()
    guessed, *_ = stand_in_pipeline().predict(images / "501")
    assert "series_kind_guessed" not in known.flags
    assert "series_kind_guessed" in guessed.flags


def test_a_failing_stage_rejects_its_study_only_and_quotes_nothing(images: Path) -> None:
    pipeline = Pipeline(StraightSpine(), BrokenGrader("501"))
    failed, graded = pipeline.predict(images)
    assert failed.rejected
    assert failed.levels is not None
    assert [str(item) for item in failed.rejections] == [
        "[internal_failure] 501: grading failed (RuntimeError)"
    ]
    assert not graded.rejected
    assert CANARY not in json.dumps(failed.to_dict())


def test_reading_that_fails_rejects_its_study_only_and_quotes_nothing(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = StudyEntry.load

    def broken(entry: StudyEntry) -> Study:
        if entry.study_id == "501":
            raise RuntimeError(CANARY)
        return load(entry)

    monkeypatch.setattr(StudyEntry, "load", broken)
    failed, graded = stand_in_pipeline().predict(images)
    assert [str(item) for item in failed.rejections] == [
        "[internal_failure] 501: reading failed (RuntimeError)"
    ]
    assert failed.rejected and not graded.rejected


def test_an_empty_folder_is_refused_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DicomRejected, match=r"\[no_images\]"):
        stand_in_pipeline().predict(tmp_path / "empty")


def test_a_prediction_needs_all_targets(images: Path) -> None:
    grades = dict(stand_in_pipeline().predict(images / "501")[0].grades)
    del grades[TARGETS[7]]
    with pytest.raises(ValueError, match=f"no grade for {TARGETS[7].column}"):
        StudyPrediction("501", grades)


def test_a_graded_study_does_not_depend_on_its_neighbours(images: Path) -> None:
    pipeline = Pipeline(StraightSpine(), BrightnessGrader())
    alone = pipeline.predict(images / "502")[0].to_dict()
    together = pipeline.predict(images)[1].to_dict()
    assert alone == together


class TellingSpine(StraightSpine):
    """Says more of what it found."""

    def __init__(self, **told: tuple[str, ...]) -> None:
        super().__init__()
        self.told = told

    def predict(self, study: Study) -> SpineLevels:
        return replace(super().predict(study), **self.told)  # type: ignore[arg-type]


class BlindGrader:
    """Looks at every slice, and sees no signal at one of the targets."""

    def grade(self, study: Study, levels: SpineLevels) -> dict[Target, Grade]:
        for item in (item for series in study.series for item in series.slices):
            with suppress(DicomRejected):
                item.pixels()
        prior = {target: Grade(level_prior(target), "prior") for target in TARGETS}
        return {**prior, TARGETS[7]: Grade(level_prior(TARGETS[7]), "prior", (Flag.NO_SIGNAL,))}


def test_what_detector_and_graders_say_is_said_of_the_study(images: Path) -> None:
    def flags(*stages: object) -> set[str]:
        (prediction,) = Pipeline(*stages).predict(images / "501")  # type: ignore[arg-type]
        return {*prediction.flags} - plain

    plain: set[str] = set()
    plain = flags(StraightSpine(), BrightnessGrader())
    assert "level_absent" in plain
    assert flags(TellingSpine(flags=("noisy",)), BrightnessGrader()) == {"noisy"}
    assert flags(TellingSpine(set_aside=("12",)), BrightnessGrader()) == {"no_sagittal_t1"}
    assert "no_axial_t2" in flags(TellingSpine(turned=("13",)), BrightnessGrader())
    assert flags(StraightSpine(), BlindGrader()) == {"no_signal"}


def test_a_study_that_others_have_learned_from_is_not_called_known(images: Path) -> None:
    (images / "501").rename(images / min(known_studies()))
    (prediction,) = stand_in_pipeline().predict(images / min(known_studies()))
    assert "known_study" not in prediction.flags and not prediction.rejected


@pytest.mark.parametrize("grader", [BlindGrader(), BrightnessGrader()])
def test_slices_that_cannot_be_decoded_are_listed_whether_grading_fails_or_not(
    images: Path, grader: BlindGrader | BrightnessGrader
) -> None:
    for path in (images / "501" / "11").iterdir():
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = RLELossless
        dataset.PixelData = encapsulate([b"no RLE" * 20])
        dataset["PixelData"].VR = "OB"
        dataset.save_as(path, enforce_file_format=True)
    (prediction,) = Pipeline(StraightSpine(), grader).predict(images / "501")
    told = {(item.reason, item.series_id) for item in prediction.rejections}
    assert (Reason.BAD_PIXELS, "11") in told
    assert prediction.rejected == (not isinstance(grader, BlindGrader))


def test_why_nothing_of_a_study_could_be_used_is_listed(images: Path) -> None:
    for path in (images / "501").rglob("*.dcm"):
        path.write_text("this is no DICOM")
    bad, good = stand_in_pipeline().predict(images)
    assert bad.rejected and not good.rejected
    assert sum(item.reason is Reason.NOT_DICOM for item in bad.rejections) == 15


def test_members_of_a_zip_that_were_refused_are_said_by_its_studies(images: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for path in sorted((images / "501").rglob("*.dcm")):
            archive.write(path, path.relative_to(images))
        archive.writestr("more.zip", b"PK\x05\x06" + bytes(18))
    (prediction,) = stand_in_pipeline().predict(tmp_path / "all.zip")
    assert Reason.NESTED_ARCHIVE in {item.reason for item in prediction.rejections}


def test_a_backend_that_cannot_run_is_no_fault_of_a_study(images: Path) -> None:
    class NotHere:
        def grade(self, *_: object) -> dict[Target, Grade]:
            raise BackendUnusable("no")

    with pytest.raises(BackendUnusable):
        Pipeline(StraightSpine(), NotHere()).predict(images / "501")


def test_a_few_slices_beside_a_series_of_their_kind_make_no_study_degraded(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a scout: nobody grades them."""
    monkeypatch.setattr("pipeline.study_flags.are_edited", lambda _: False)  # noise looks so
    study = find_studies(images / "501")[0].load()

    def doubts(*, slices: int, **change: str) -> tuple[str, ...]:
        given = study.of_kind(SeriesKind.SAGITTAL_T2)[0]
        series = replace(given, traits=PLAIN, **change)  # type: ignore[arg-type]
        coarse = replace(PLAIN, is_degraded=True)
        few = replace(given, series_id="99", stacks=(given.main_stack[:slices],), traits=coarse)
        changed = replace(study, series=(series, few))
        return doubts_of_images(changed, {}, degraded=is_degraded(changed))

    assert "degraded_input" not in doubts(slices=2) and "degraded_input" in doubts(slices=3)
    assert "series_kind_guessed" in doubts(slices=2, kind_source="assumed")
    assert "series_kind_guessed" not in doubts(slices=2)
