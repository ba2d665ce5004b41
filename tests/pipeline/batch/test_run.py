"""A batch on disk: always 25 rows, the same bytes after an interruption, nothing of the patient."""

from __future__ import annotations

import csv
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_prep.problems import Reason, Rejection
from data_prep.read.find import find_studies
from data_prep.vocabulary import TARGETS, Flag, SeriesKind
from pipeline.batch.run import BatchReport, run_batch
from pipeline.grade import Pipeline
from pipeline.results.bids import write_derivatives
from pipeline.results.report.study_report import write_report
from pipeline.results.submission import read_submission, validate_submission
from tests.pipeline.stand_in import (
    CANARY,
    BrokenGrader,
    StraightSpine,
    contents,
    stand_in_pipeline,
    write_studies,
)

STUDIES = ["501", "502", "503"]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_studies(tmp_path / "test_images", STUDIES)


def run(pipeline: Pipeline, images: Path, out: Path) -> BatchReport:
    return run_batch(pipeline, find_studies(images), out)


def test_a_batch_writes_valid_files(images: Path, tmp_path: Path) -> None:
    report = run(stand_in_pipeline(), images, tmp_path / "out")
    assert (report.n_studies, report.n_resumed, report.n_rejected, report.n_graded) == (3, 0, 0, 3)
    validate_submission(read_submission(report.submission), STUDIES)
    predictions = json.loads(report.predictions.read_text())
    assert [study["study_id"] for study in predictions["studies"]] == STUDIES
    assert [len(study["targets"]) for study in predictions["studies"]] == [25] * 3
    assert predictions["provenance"]["models"] == {"stand-in": "0"}
    assert predictions["provenance"]["software"]["lumbar"]


def test_the_submission_is_weighted_and_the_json_is_not(images: Path, tmp_path: Path) -> None:
    report = run(stand_in_pipeline(), images, tmp_path / "out")
    p = json.loads(report.predictions.read_text())["studies"][0]["targets"][7]
    row_id = f"501_{p['condition']}_{p['level']}"
    q = read_submission(report.submission).set_index("row_id").loc[row_id]
    normal, severe = p["probabilities"]["normal_mild"], p["probabilities"]["severe"]
    assert q["severe"] / q["normal_mild"] == pytest.approx(4 * severe / normal, rel=1e-5)


def test_an_interrupted_run_ends_with_the_same_bytes_and_redoes_only_what_is_missing(
    images: Path, tmp_path: Path
) -> None:
    undisturbed, interrupted = tmp_path / "undisturbed", tmp_path / "interrupted"
    run(stand_in_pipeline(), images, undisturbed)

    def killed(_: float, study_id: str) -> None:
        if study_id == "502":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_batch(stand_in_pipeline(), find_studies(images), interrupted, on_stage=killed)
    # What a kill in the middle of writing leaves behind.
    (interrupted / "studies" / ".503.json.partial").write_text('{"marker": ')

    detector = StraightSpine()
    again = stand_in_pipeline()
    report = run(Pipeline(detector, again.grader, again.provenance), images, interrupted)
    assert report.n_resumed == 2
    assert detector.studies == ["503"]
    assert contents(interrupted) == contents(undisturbed)


@pytest.mark.parametrize("change", ["image", "models", "damage", "targets"])
def test_what_changed_is_done_again(images: Path, tmp_path: Path, change: str) -> None:
    out = tmp_path / "out"
    run(stand_in_pipeline(), images, out)
    models = {}
    if change == "image":
        (images / "502" / "11" / "1.dcm").unlink()
    elif change == "models":
        models = {"detector": "1"}
    elif change == "damage":
        (out / "studies" / "502.json").write_text('{"marker": "')
    else:
        stored = json.loads((out / "studies" / "502.json").read_text())
        stored["study"]["targets"].pop()
        (out / "studies" / "502.json").write_text(json.dumps(stored))
    report = run(stand_in_pipeline(**models), images, out)
    assert report.n_resumed == (0 if change == "models" else 2)


@pytest.mark.parametrize(
    "found_otherwise",
    [
        {"kinds": {"11": SeriesKind.SAGITTAL_T1, "12": SeriesKind.SAGITTAL_T2, "13": SeriesKind.AXIAL_T2}},
        {"only_series": frozenset({"11"})},
        {"flags": (Flag.IDENTIFIERS_MISSING,)},
        {"rejections": (Rejection(Reason.STUDY_DIVIDED, "its images have two dates"),)},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_a_study_that_is_found_otherwise_is_done_again(
    images: Path, tmp_path: Path, found_otherwise: dict[str, Any]
) -> None:
    entries = [*find_studies(images)]
    run_batch(stand_in_pipeline(), entries, tmp_path)
    entries[1] = replace(entries[1], **found_otherwise)
    assert run_batch(stand_in_pipeline(), entries, tmp_path).n_resumed == 2


def test_images_under_the_names_sizes_and_times_of_others_are_graded_anew(
    images: Path, tmp_path: Path
) -> None:
    for path in images.rglob("*.dcm"):
        os.utime(path, (10**9, 10**9))
    run(stand_in_pipeline(), images, tmp_path / "out")
    for path in (images / "502").rglob("*.dcm"):
        path.write_bytes((images / "503" / path.relative_to(images / "502")).read_bytes())
        os.utime(path, (10**9, 10**9))
    again = run(stand_in_pipeline(), images, tmp_path / "out")
    assert again.n_resumed == 2
    fresh = run(stand_in_pipeline(), images, tmp_path / "fresh")
    assert again.submission.read_bytes() == fresh.submission.read_bytes()


def test_a_rejected_study_has_its_rows_and_its_reason(images: Path, tmp_path: Path) -> None:
    for path in (images / "502").rglob("*.dcm"):
        path.write_bytes(b"")
    report = run(stand_in_pipeline(), images, tmp_path / "out")
    assert (report.n_rejected, report.n_graded) == (1, 2)
    validate_submission(read_submission(report.submission), STUDIES)
    record = json.loads(report.predictions.read_text())["studies"][1]
    assert record["rejected"]
    assert record["rejections"][-1]["reason"] == "no_usable_series"
    assert {target["source"] for target in record["targets"]} == {"prior"}
    assert len(record["targets"]) == len(TARGETS)


def test_a_study_that_failed_is_tried_again(images: Path, tmp_path: Path) -> None:
    stages = stand_in_pipeline()
    failing = Pipeline(stages.detector, BrokenGrader("502"), stages.provenance)
    assert run(failing, images, tmp_path / "out").n_rejected == 1
    again = run(stages, images, tmp_path / "out")
    assert (again.n_resumed, again.n_rejected) == (2, 0)


def test_a_failing_picture_costs_a_flag_and_no_grade(images: Path, tmp_path: Path) -> None:
    def draw(study: object, prediction: object, path: Path) -> None:
        raise RuntimeError(CANARY)

    report = run_batch(stand_in_pipeline(), find_studies(images / "501"), tmp_path / "out", draw=draw)
    record = json.loads(report.predictions.read_text())["studies"][0]
    assert record["flags"] == ["level_absent", "degraded_input", "picture_failed"]
    assert not record["rejected"]


def test_a_failing_report_costs_a_flag_and_no_grade(images: Path, tmp_path: Path) -> None:
    def broken(study: object, prediction: object, path: Path) -> None:
        raise RuntimeError(CANARY)

    report = run_batch(stand_in_pipeline(), find_studies(images / "501"), tmp_path / "out", report=broken)
    record = json.loads(report.predictions.read_text())["studies"][0]
    assert record["flags"] == ["level_absent", "degraded_input", "report_failed"]
    assert (
        report.reports == ()
        and "href=" not in (tmp_path / "out" / "index.html").read_text().split("<tbody>")[1]
    )


def test_nothing_of_the_patient_or_of_the_disk_is_written(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (images / "501" / "11" / "1.dcm").write_text(CANARY)
    write_all(images, out, stand_in_pipeline())
    for name, content in contents(out).items():
        assert b"CANARY" not in content, name
        assert str(tmp_path).encode() not in content, name


def write_all(images: Path, out: Path, pipeline: Pipeline, **options: Any) -> BatchReport:
    return run_batch(pipeline, find_studies(images), out, report=write_report, **options)


def test_an_interrupted_run_with_reports_ends_with_the_same_bytes(images: Path, tmp_path: Path) -> None:
    undisturbed, interrupted = tmp_path / "undisturbed", tmp_path / "interrupted"
    report = write_all(images, undisturbed, stand_in_pipeline())
    assert [path.relative_to(undisturbed).as_posix() for path in report.reports] == [
        f"reports/{study}/report.html" for study in STUDIES
    ]

    def killed(completed: float, name: str) -> None:
        if name == "502: drawing":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_all(images, interrupted, stand_in_pipeline(), on_stage=killed)
    assert not (interrupted / "index.html").exists()
    # Half a report, as a kill leaves it, and the whole one of a study whose record was never written.
    (interrupted / "reports" / "502").mkdir(parents=True)
    (interrupted / "reports" / "502" / ".report.html.partial").write_text("<!doctype")
    whole = "<!doctype html><title>Study 502, lumbar report</title>"
    (interrupted / "reports" / "502" / "report.html").write_text(whole)
    detector = StraightSpine()
    again = stand_in_pipeline()
    report = write_all(images, interrupted, Pipeline(detector, again.grader, again.provenance))
    assert (report.n_resumed, detector.studies) == (1, ["502", "503"])
    assert contents(interrupted) == contents(undisturbed)


def test_a_missing_report_is_written_and_no_finished_one_is_redone(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = write_all(images, out, stand_in_pipeline())
    before = contents(out)
    first.reports[1].unlink()
    assert write_all(images, out, stand_in_pipeline()).n_resumed == 2
    assert contents(out) == before
    assert run(stand_in_pipeline(), images, out).n_resumed == 3


def test_stages_tell_how_much_is_over(images: Path, tmp_path: Path) -> None:
    told: list[tuple[float, str]] = []
    write_all(images, tmp_path / "out", stand_in_pipeline(), on_stage=lambda *now: told.append(now))
    shares = [share for share, _ in told]
    assert shares == sorted(shares) and shares[-1] == 3.0
    stages = ["501: reading", "501: detection", "501: grading", "501: drawing", "501"]
    assert [name for _, name in told[:5]] == stages


def test_what_is_not_made_again_is_gone_when_grades_may_have_changed(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run_batch(stand_in_pipeline(), find_studies(images), out, report=write_report)
    tables = write_derivatives(json.loads(done.predictions.read_text()), out / "bids")
    assert all(table.is_file() for table in tables) and (out / "index.html").is_file()
    run(stand_in_pipeline(), images, out)  # the same grades
    assert all(table.is_file() for table in tables)
    shutil.rmtree(images / "502" / "12")
    run(stand_in_pipeline(), images, out)
    assert [table.is_file() for table in tables] == [True, True, False, False, True, True]
    assert not (out / "index.html").exists() and not list((out / "reports" / "502").glob("*.html"))


def test_what_cannot_be_made_again_leaves_nothing_of_an_earlier_run(images: Path, tmp_path: Path) -> None:
    """The folder may hold another patient by now."""
    out = tmp_path / "out"

    def fail(*_: Any) -> None:
        raise ValueError("broken report")

    run_batch(stand_in_pipeline(), find_studies(images), out, report=write_report)
    assert all(list((out / "reports" / study_id).glob("*.html")) for study_id in STUDIES)
    shutil.rmtree(images / "502" / "12")
    run_batch(stand_in_pipeline(), find_studies(images), out, report=fail)

    assert [bool(list((out / "reports" / study_id).glob("*.html"))) for study_id in STUDIES] == [
        True,
        False,
        True,
    ]


def test_a_page_of_another_program_stays(images: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "index.html").write_text("<title>mine</title>")
    run(stand_in_pipeline(), images, tmp_path / "out")
    assert (tmp_path / "out" / "index.html").read_text() == "<title>mine</title>"


def test_files_of_somebody_else_under_the_names_of_results_stay(images: Path, tmp_path: Path) -> None:
    others = [tmp_path / "out" / place for place in ("pictures/501.png", "sc/501.dcm", "gsps/501/11.dcm")]
    for path in others:
        path.parent.mkdir(parents=True)
        path.write_bytes(b"mine")
    run(stand_in_pipeline(), images, tmp_path / "out")
    assert [path.read_bytes() for path in others] == [b"mine"] * 3


def test_tables_of_two_studies_never_have_one_name_and_grade_nothing_unseen(
    images: Path, tmp_path: Path
) -> None:
    content = json.loads(run(stand_in_pipeline(), images, tmp_path / "out").predictions.read_text())
    names = set()
    for study_id in ("1.2.34", "1.23.4", "1234"):
        record = content["studies"][0] | {"study_id": study_id}
        tables = write_derivatives(content | {"studies": [record]}, tmp_path / "bids")
        names |= set(tables)
    assert len(names) == 6
    (grades,) = [table for table in tables if table.name.endswith("_grades.tsv")]
    with grades.open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    unseen = [row for row in rows if row["source"] == "prior"]
    assert len(unseen) == 5 and {row["severity"] for row in unseen} == {"n/a"}
    assert "n/a" not in {row["severity"] for row in rows if row["source"] != "prior"}
