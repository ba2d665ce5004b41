"""SR and SC: what other people's tools say of them, what they carry, and what is refused."""

from __future__ import annotations

import errno
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from highdicom.sr import PlanarROIMeasurementsAndQualitativeEvaluations, srread
from pydicom.dataset import Dataset
from pydicom.sr import _concepts_dict

from classifier.grade import Grade
from classifier.measure.quantities import Measured, Quantity
from classifier.prior import level_prior
from data_prep.levels import PointSource
from data_prep.problems import DicomRejected, Reason
from data_prep.read.find import find_studies
from data_prep.study import Study
from data_prep.vocabulary import LEVELS, SEVERITIES, TARGETS, Condition, Level, Target
from pipeline.batch.run import run_batch
from pipeline.grade import Pipeline
from pipeline.prediction import StudyPrediction
from pipeline.results.dicom import ResultObject, codes
from pipeline.results.dicom.groups import measurement
from pipeline.results.dicom.presentation import build_presentations
from pipeline.results.dicom.source import read_source
from pipeline.results.dicom.structured_report import build_report
from pipeline.results.dicom.write import DicomResults, build_key_images, write_object
from pipeline.results.words import place_words
from tests.command_line import lumbar
from tests.dicom_tools import dciodvfy_errors, dsrdump, is_valid_uid
from tests.pipeline.stand_in import CANARY, stand_in_pipeline, write_study

ROOT = Path(__file__).resolve().parents[4]
NAME = "Müller^Zoë"
PLAIN = ("--no-pictures", "--no-report")


def edit(folder: Path, count: int | None = None, **elements: str) -> None:
    """Set elements in the first ``count`` files below a folder, or in all."""
    for path in sorted(folder.rglob("*.dcm"))[:count]:
        dataset = pydicom.dcmread(path)
        for keyword, value in elements.items():
            setattr(dataset, keyword, value)
        dataset.save_as(path)


def discs(text: str) -> int:
    """How many groups of a printed report are of discs, which are measured and not graded."""
    return text.count("(DISC,99LUMBAR,")


def probabilities_of(group: PlanarROIMeasurementsAndQualitativeEvaluations) -> list[float]:
    """The three probabilities of a group, mildest first: the number's own, and those of its properties."""
    main = group.get_measurements()[0]
    found = {}
    numbers = [main[0], *(item for item in main[0].ContentSequence if item.ValueType == "NUM")]
    for number in numbers:
        (severity,) = [i.value for i in number.ContentSequence if i.name == codes.SEVERITY.code]
        found[severity] = float(number.value) / 100
    return [found[codes.SEVERITY_CODES[severity].code] for severity in SEVERITIES]


def graded(images: Path) -> tuple[StudyPrediction, Study]:
    (entry,) = find_studies(images)
    prediction, study = stand_in_pipeline().predict_entry(entry)
    assert study is not None
    return prediction, study


def every_code() -> list[codes.CodeEntry]:
    """All that the module holds, by themselves or in a mapping; each once."""
    held = [value.values() if isinstance(value, dict) else (value,) for value in vars(codes).values()]
    return [*dict.fromkeys(entry for some in held for entry in some if isinstance(entry, codes.CodeEntry))]


@pytest.mark.parametrize("entry", every_code(), ids=lambda entry: entry.code.value)
def test_every_code_is_in_the_standard_or_marked_private_and_documented(entry: codes.CodeEntry) -> None:
    value, scheme, meaning = entry.code.value, entry.code.scheme_designator, entry.code.meaning
    assert len(value) <= 16 and len(meaning) <= 64
    if scheme == codes.PRIVATE_SCHEME:
        assert entry.source.startswith("private: ")
    elif scheme != "UMLS":  # one code, which a template names itself; the dictionary has no such scheme
        known = [names[value][0] for names in _concepts_dict.concepts[scheme].values() if value in names]
        assert meaning.lower() in {
            re.sub(r" \((attribute|qualifier value)\)$", "", name.lower()) for name in known
        }
    row = f"| {meaning} | `{value}` | {scheme} | {entry.use} | {entry.source} |"
    assert row in (ROOT / "docs" / "dicom.md").read_text(encoding="utf-8")


def test_the_name_of_a_probability_says_all_and_is_a_valid_code() -> None:
    names = {codes.grade_probability(target, severity) for target in TARGETS for severity in SEVERITIES}
    assert len({name.value for name in names}) == len({name.meaning for name in names}) == 75
    assert all(len(name.value) <= 16 and len(name.meaning) <= 64 for name in names)
    severe = codes.grade_probability(
        Target(Condition.LEFT_NEURAL_FORAMINAL_NARROWING, Level.L4_L5), SEVERITIES[2]
    )
    assert (severe.value, severe.meaning) == ("P_L4L5_FOR_L_SEV", "L4/L5 left foramen: Severe, probability")
    assert "`P_L4L5_FOR_L_SEV`" in (ROOT / "docs" / "dicom.md").read_text(encoding="utf-8")


def test_every_target_has_codes_of_its_own() -> None:
    assert {codes.LEVEL_CODES[target.level].code.meaning for target in TARGETS} == {
        f"Level of {level.label} intervertebral disc" for level in LEVELS
    }
    assert len({entry.code for entry in every_code()}) == len(every_code())


@pytest.mark.usefixtures("stand_in")
def test_predict_writes_objects_that_other_tools_accept(images: Path, tmp_path: Path) -> None:
    edit(images, PatientName=NAME, PatientID="ID-7", SpecificCharacterSet="ISO_IR 192")
    result = lumbar("predict", images, "-o", tmp_path / "out", "--sr", "--sc")
    assert result.exit_code == 0, result.output
    report, capture = (tmp_path / "out" / kind / "501.dcm" for kind in ("sr", "sc"))
    assert dciodvfy_errors(report) == [] and dciodvfy_errors(capture) == []
    sr, sc = pydicom.dcmread(report), pydicom.dcmread(capture)
    assert sr.file_meta.MediaStorageSOPClassUID.name == "Comprehensive 3D SR Storage"
    assert sc.file_meta.MediaStorageSOPClassUID.name == "Secondary Capture Image Storage"
    for dataset in (sr, sc):
        assert (str(dataset.PatientName), dataset.PatientID) == (NAME, "ID-7")
    assert sr.StudyInstanceUID == sc.StudyInstanceUID and is_valid_uid(sr.StudyInstanceUID)
    assert sc.pixel_array.shape == (1030, 1540, 3) and sc.PhotometricInterpretation == "RGB"
    text = dsrdump(report)
    assert text.count('"Severity")=') == 25 + 3 * 20  # grades, and what each probability is of
    # On the image of the group, and again with its first number, where some viewers look.
    assert text.count("SCOORD:") == 2 * (20 + discs(text)) and text.count("Not Evaluated") == 5
    assert "not a medical device" in text and "learned from" in text


def test_the_report_says_what_the_prediction_says(images: Path, tmp_path: Path) -> None:
    prediction, study = graded(images)
    source = read_source(study)
    write_object(build_report(source, prediction), tmp_path / "sr.dcm")
    report = srread(tmp_path / "sr.dcm")
    groups = report.content.get_planar_roi_measurement_groups()  # type: ignore[attr-defined]
    graded_groups = [group for group in groups if group.finding_type == codes.FINDING.code]
    assert prediction.levels is not None and len(graded_groups) == 20
    for group in graded_groups:
        (site,) = group.finding_sites
        level = next(
            level for level, entry in codes.LEVEL_CODES.items() if entry.code == site.topographical_modifier
        )
        condition = next(
            condition
            for condition in Condition
            if codes.SITE_CODES[condition.group].code == site.value
            and (site.laterality == codes.SIDE_CODES[condition.side].code if condition.side else True)
        )
        grade, point = prediction.grades[Target(condition, level)], prediction.levels.point(condition, level)
        (evaluation,) = group.get_qualitative_evaluations(codes.SEVERITY.code)
        assert evaluation.value == codes.SEVERITY_CODES[grade.severity].code
        assert probabilities_of(group) == pytest.approx(grade.probabilities, abs=1e-6)
        label = f"{level.label} {place_words(condition)}: {grade.severity.value}"
        assert group.get_measurements()[0].name.meaning == f"{label}, probability"
        first = next(item for item in group[0].ContentSequence if item.name == codes.COMMENT.code)
        assert first.value.startswith(label)
        image = source.image_of(point) if point else None
        assert point is not None and image is not None and point.sight is not None
        region = group.roi
        assert region.value[0] == pytest.approx(np.array(point.sight.xy_px) + 0.5, abs=1e-3)
        (referenced,) = region.ContentSequence
        assert referenced.referenced_sop_instance_uid == image.sop_instance_uid
        assert group.tracking_identifier == f"{level.label} {place_words(condition)}"
    quoted = {
        item.ReferencedSOPInstanceUID
        for study_item in report.CurrentRequestedProcedureEvidenceSequence
        for series_item in study_item.ReferencedSeriesSequence
        for item in series_item.ReferencedSOPSequence
    }
    placed = {group.roi.ContentSequence[0].referenced_sop_instance_uid for group in groups}
    assert quoted == placed and "PertinentOtherEvidenceSequence" not in report
    assert len(report.content.get_image_measurement_groups()) == 0  # none without a place


@pytest.mark.parametrize("flag", ["sacrum_unseen", "numbering_uncertain", "level_absent"])
def test_the_code_of_the_numbering_and_its_words_agree(images: Path, tmp_path: Path, flag: str) -> None:
    prediction, study = graded(images)
    report = build_report(read_source(study), replace(prediction, flags=(flag,)))
    write_object(report, tmp_path / "sr.dcm")
    text = dsrdump(tmp_path / "sr.dcm")
    assert ("numbering in doubt" in text) == ('"Uncertain"' in text) == (flag != "level_absent")


def test_the_same_study_gives_the_same_bytes_and_other_models_other_objects(
    images: Path, tmp_path: Path
) -> None:
    made = []
    pipelines = {"a": stand_in_pipeline(), "b": stand_in_pipeline(), "c": stand_in_pipeline(other="1")}
    for name, pipeline in pipelines.items():
        (entry,) = find_studies(images)
        prediction, study = pipeline.predict_entry(entry)
        results = DicomResults({ResultObject.SR} | ({ResultObject.SC} if name != "c" else set()))
        assert results.write(study, prediction, tmp_path / name) is None
        made.append([path.read_bytes() for path in results.paths(prediction, tmp_path / name)])
    assert made[0] == made[1] and len(made[0]) == 2
    first, other = (pydicom.dcmread(tmp_path / name / "sr" / "501.dcm") for name in ("a", "c"))
    assert first.StudyInstanceUID == other.StudyInstanceUID
    assert first.SeriesInstanceUID != other.SeriesInstanceUID
    assert first.SOPInstanceUID != other.SOPInstanceUID


def test_no_object_has_the_date_of_the_day_on_which_it_is_made(images: Path) -> None:
    """Else a result that is made again on another day would have other bytes under the same UID."""
    edit(images, StudyDate="20240229", StudyTime="101500")
    prediction, study = graded(images)
    for made in DicomResults(set(ResultObject)).build(study, prediction):
        dates = {element.value for element in made.iterall() if element.VR == "DA" and element.value}
        times = {element.value for element in made.iterall() if element.VR == "TM" and element.value}
        assert (dates, times) == ({"20240229"}, {"101500"}), made.SOPClassUID.name
        assert made.InstanceCreationDate == "20240229"
        assert not any(element.VR == "DT" and element.value for element in made.iterall())


def test_bare_headers_are_substituted_and_valid_ones_kept(images: Path) -> None:
    study = images / "501"
    edit(study / "11", StudyInstanceUID="501", SeriesInstanceUID="501.11", FrameOfReferenceUID="1.2.3")
    source = read_source(graded(images)[1])
    assert all(
        is_valid_uid(uid)
        for image in source.images.values()
        for uid in (image.sop_instance_uid, image.series_instance_uid, image.frame_of_reference_uid)
    )
    assert len({image.sop_instance_uid for image in source.images.values()}) == 15
    assert len({image.series_instance_uid for image in source.images.values()}) == 3
    assert source.images["11", 1].frame_of_reference_uid == "1.2.3"
    assert (source.content_date, source.content_time) == ("19700101", "000000")
    edit(study, StudyDate="20240229", StudyTime="101500", StudyInstanceUID="1.2.3.4")
    source = read_source(graded(images)[1])
    assert (source.content_date, source.content_time) == ("20240229", "101500")
    assert source.study_instance_uid == "1.2.3.4"


@pytest.mark.parametrize("written", ["1.2.3.4", ""])
def test_images_that_share_an_identifier_are_told_apart(images: Path, written: str) -> None:
    """Else a finding would refer to any of them."""
    _, study = graded(images)
    edit(images / "501" / "12", SOPInstanceUID=written)
    uids = {key: image.sop_instance_uid for key, image in read_source(study).images.items()}
    assert len(set(uids.values())) == len(uids) == 15
    assert all(map(is_valid_uid, uids.values())) and written not in uids.values()
    assert uids == {key: image.sop_instance_uid for key, image in read_source(study).images.items()}


def test_what_results_quote_of_an_image_is_what_its_file_says(images: Path) -> None:
    edit(images, SliceThickness="4.5", WindowCenter="600", WindowWidth="1200", RescaleSlope="2")
    edit(images / "501" / "12", RescaleIntercept="-7", PhotometricInterpretation="MONOCHROME1")
    edit(images / "501" / "13", SliceThickness="5000", WindowWidth="0.5")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pydicom.config.settings, "writing_validation_mode", pydicom.config.IGNORE)
        edit(images / "501" / "11", RescaleIntercept="-7", RescaleSlope="inf")
    source = read_source(graded(images)[1])
    for (series_id, number), image in source.images.items():
        quoted, file = image.header(), pydicom.dcmread(images / "501" / series_id / f"{number}.dcm")
        for keyword in ("PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient"):
            assert list(quoted[keyword].value) == pytest.approx(list(file[keyword].value)), keyword
        assert (quoted.Rows, quoted.Columns) == (60, 40)
        is_usual = series_id != "13"  # no slice is so thick, and no window so narrow
        assert quoted.get("SliceThickness") == (4.5 if is_usual else None)
        assert quoted.Modality == ("MR" if is_usual else "OT")
        assert (quoted.get("WindowCenter"), quoted.get("WindowWidth")) == (
            (600, 1200) if is_usual else (None,) * 2
        )
        told = quoted.get("RescaleSlope"), quoted.get("RescaleIntercept"), quoted.get("RescaleType")
        assert told == ((2, -7, "US") if series_id == "12" else (None,) * 3)
        assert quoted.get("PhotometricInterpretation") == file.PhotometricInterpretation


def test_what_a_study_does_not_say_is_not_made_up(images: Path) -> None:
    """A time without its day, and attributes that need not be there."""
    edit(images, StudyTime="101500", PatientName="Doe^Jane", StudyDescription="")
    edit(images, 3, PatientName="DOE^JANE^^")  # the same person, as another program writes it
    _, study = graded(images)
    source, filled = read_source(study), Dataset()
    assert (source.content_date, source.content_time) == ("19700101", "000000")
    source.fill(filled)
    assert "IssuerOfPatientID" not in filled and "StudyDescription" not in filled
    assert filled.PatientBirthDate is None and filled.StudyTime == "101500"


@pytest.mark.parametrize("written", ["4003253", "1.2.3 4", ""])
def test_an_identifier_that_no_archive_takes_has_another_in_its_place_and_studies_stay_apart(
    images: Path, written: str
) -> None:
    found = set()
    for other in (written, f"{written}9"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pydicom.config.settings, "writing_validation_mode", pydicom.config.IGNORE)
            patch.setattr(pydicom.config.settings, "reading_validation_mode", pydicom.config.IGNORE)
            edit(images, StudyInstanceUID=other)
            study = replace(graded(images)[1], study_id="501")
            found |= {read_source(study).study_instance_uid for _ in range(2)}
    assert len(found) == 2 and all(map(is_valid_uid, found))


def test_values_that_break_the_standard_do_not_get_into_a_result(images: Path, tmp_path: Path) -> None:
    bad = {"PatientBirthDate": "last year", "PatientSex": "unknown", "AccessionNumber": "A" * 40}
    with pytest.warns(UserWarning):
        edit(images, **bad)
    prediction, study = graded(images)
    results = DicomResults({ResultObject.SR})
    assert results.write(study, prediction, tmp_path) is None
    (path,) = results.paths(prediction, tmp_path)
    assert dciodvfy_errors(path) == []
    dataset = pydicom.dcmread(path)
    assert [str(dataset[keyword].value or "") for keyword in bad] == ["", "", ""]


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientID", "SOMEBODY-ELSE"),
        ("IssuerOfPatientID", "SOMEBODY-ELSE"),
        ("PatientName", "Else^Somebody"),
        ("PatientBirthDate", "19010203"),
        ("StudyInstanceUID", "1.2.840.2"),
    ],
)
def test_images_that_name_two_patients_or_studies_give_no_result(
    images: Path, keyword: str, value: str
) -> None:
    """Whatever let them come so far: here the files have changed since the study was graded."""
    edit(images, StudyInstanceUID="1.2.840.1", PatientBirthDate="19300405", IssuerOfPatientID="HERE")
    _, study = graded(images)
    edit(images, 3, **{keyword: value})
    with pytest.raises(DicomRejected, match=f"{keyword} differs") as refused:
        read_source(study)
    assert refused.value.rejection.reason is Reason.NO_RESULT and value not in str(refused.value)


def test_an_image_that_is_gone_since_it_was_graded_gives_no_result(images: Path) -> None:
    _, study = graded(images)
    gone = min(images.rglob("*.dcm"))
    gone.unlink()
    with pytest.raises(DicomRejected, match="image 1 of series 11 cannot be read again") as refused:
        read_source(study)
    assert refused.value.rejection.reason is Reason.NO_RESULT and str(images) not in str(refused.value)


def test_a_full_disk_ends_the_run_and_is_no_study_without_a_result(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    prediction, study = graded(images)
    monkeypatch.setattr("pipeline.results.dicom.write.write_object", full)
    with pytest.raises(OSError, match="No space"):
        DicomResults([ResultObject.SR]).write(study, prediction, tmp_path)


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(
    ("elements", "count", "named"),
    [
        ({"IssuerOfPatientID": "SOMEBODY-ELSE"}, 1, "IssuerOfPatientID differs"),
        ({"StudyInstanceUID": "1.2.3"}, None, ""),
        ({"PatientID": "X" * 65}, None, "PatientID is no valid value"),
        ({"PatientID": "ONE\\OTHER"}, None, "PatientID is no valid value"),
    ],
)
def test_what_would_go_to_the_wrong_patient_is_refused_and_the_attribute_named(
    images: Path, tmp_path: Path, elements: dict[str, str], count: int | None, named: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pydicom.config.settings, "writing_validation_mode", pydicom.config.IGNORE)
        patch.setattr(pydicom.config.settings, "reading_validation_mode", pydicom.config.IGNORE)
        # One study: images of another one would be left out one by one.
        edit(images, StudyInstanceUID="1.2.840.1", IssuerOfPatientID="HERE")
        edit(images, count, **elements)
    result = lumbar("predict", images, "-o", tmp_path / "out", "--sr", *PLAIN)
    again = lumbar("predict", images, "-o", tmp_path / "out", "--sr", *PLAIN)
    written = (tmp_path / "out" / "sr" / "501.dcm").is_file()
    assert (result.exit_code, written) == ((3, False) if named else (0, True)), result.output
    assert again.exit_code == result.exit_code and "by an earlier run" in again.stdout
    assert (named in result.stderr and "[dicom_result_refused] 501" in result.stderr) or not named
    assert "SOMEBODY" not in result.output and "XXX" not in result.output
    assert (tmp_path / "out" / "submission.csv").is_file()


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("elements", [{"PatientID": "SOMEBODY-ELSE"}, {"PatientName": "Else^Somebody"}])
def test_an_image_of_another_patient_is_left_out_by_name_and_out_of_the_result(
    images: Path, tmp_path: Path, elements: dict[str, str]
) -> None:
    edit(images, StudyInstanceUID="1.2.840.1")
    edit(images, 1, **elements)
    first = min(images.rglob("*.dcm"))
    strange = str(pydicom.dcmread(first).SOPInstanceUID)
    result = lumbar("predict", images, "-o", tmp_path / "out", "--sr", *PLAIN)
    assert result.exit_code == 3, result.output
    assert f"[other_patient] 501/{first.parent.name}/{first.name}" in result.stderr
    assert "SOMEBODY" not in result.output.upper() and CANARY not in result.output
    report = tmp_path / "out" / "sr" / "501.dcm"
    dataset = pydicom.dcmread(report)
    assert (dataset.PatientID, str(dataset.PatientName)) == (CANARY, CANARY)
    quoted = re.findall(r"1\.2\.\d+", dsrdump(report))
    assert quoted and strange not in quoted
    assert "files or series not used: other_patient x 1" in dsrdump(report)


@pytest.mark.usefixtures("stand_in")
def test_the_patient_is_in_the_objects_and_nowhere_else(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = lumbar("predict", images, "-o", out, "--sr", "--sc")
    assert result.exit_code == 0 and CANARY not in result.output
    for path in (path for path in out.rglob("*") if path.is_file()):
        assert "CANARY" not in path.name
        assert (CANARY.encode() in path.read_bytes()) == (path.suffix == ".dcm"), path.name


@pytest.mark.usefixtures("stand_in")
def test_a_missing_object_is_made_again_and_a_rejected_study_gets_none(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_study(images, "502")
    for path in (images / "502").rglob("*.dcm"):
        path.write_bytes(b"no")
    assert lumbar("predict", images, "-o", out, "--sr", *PLAIN).exit_code == 3
    report = out / "sr" / "501.dcm"
    before = report.read_bytes()
    assert [path.name for path in report.parent.iterdir()] == ["501.dcm"]
    report.unlink()
    assert "1 of them by an earlier run" in lumbar("predict", images, "-o", out, "--sr", *PLAIN).stdout
    assert report.read_bytes() == before


def test_a_point_on_no_slice_is_given_in_the_patient(images: Path, tmp_path: Path) -> None:
    prediction, study = graded(images)
    assert prediction.levels is not None
    away = Target(Condition.LEFT_SUBARTICULAR_STENOSIS, Level.L4_L5)
    points = tuple(
        replace(point, sight=None) if Target(point.condition, point.level) == away else point
        for point in prediction.levels.points
    )
    prediction = replace(prediction, levels=replace(prediction.levels, points=points))
    write_object(build_report(read_source(study), prediction), tmp_path / "sr.dcm")
    assert dciodvfy_errors(tmp_path / "sr.dcm") == []
    text = dsrdump(tmp_path / "sr.dcm")
    assert text.count("SCOORD3D:") == 1 and text.count("SCOORD:") == 2 * (19 + discs(text))
    (place,) = (
        item.GraphicData
        for element in pydicom.dcmread(tmp_path / "sr.dcm").iterall()
        if element.VR == "SQ"
        for item in element.value
        if item.get("ValueType") == "SCOORD3D"
    )
    expected = next(p.xyz_mm for p in points if Target(p.condition, p.level) == away)
    assert list(place) == pytest.approx(expected.tolist(), abs=1e-3)
    assert 'L1/L2 canal: not graded (level_absent)"' in text
    older = build_report(read_source(study), prediction, ResultObject.COMPREHENSIVE_SR)
    write_object(older, tmp_path / "older.dcm")
    assert dciodvfy_errors(tmp_path / "older.dcm") == []
    text = dsrdump(tmp_path / "older.dcm")
    assert text.count("SCOORD3D:") == 0 and text.count("SCOORD:") == 2 * (19 + discs(text))
    grade = prediction.grades[away]
    assert f'(,,"Comment")="L4/L5 left recess: {grade.severity.value}' in text


def test_a_measurement_brings_its_uncertainty_and_what_is_usual() -> None:
    measured = Measured(Quantity.DISC_HEIGHT, 7.1234, 0.8, Level.L4_L5)
    (number,) = measurement(measured)
    told = {item.name.value: float(item.value) for item in number.ContentSequence}
    low, high = measured.usual
    assert low is not None and high is not None and low < high
    wanted = ((codes.UNCERTAINTY, 0.8), (codes.USUAL_LOW, low), (codes.USUAL_HIGH, high))
    assert told == {entry.code.value: pytest.approx(value) for entry, value in wanted}
    assert float(number.value) == 7.123
    # Below the lower limit of the depth of the sac, which has no upper one.
    (depth,) = measurement(Measured(Quantity.CANAL_DEPTH, 9.0, 1.4, Level.L4_L5))
    assert len(depth.ContentSequence) == 2


def test_a_point_that_geometry_placed_is_not_called_seen(images: Path) -> None:
    prediction, study = graded(images)
    assert prediction.levels is not None
    first, *others = prediction.levels.points
    points = (replace(first, source=PointSource.PREDICTED), *others)
    predicted = replace(prediction, levels=replace(prediction.levels, points=points))
    methods = [
        [
            element.value
            for element in build_report(read_source(study), one).iterall()
            if element.keyword == "CodeValue"
        ]
        for one in (prediction, predicted)
    ]
    counts = [
        [found.count(entry.code.value) for entry in (codes.POINT_SEEN, codes.POINT_PREDICTED)]
        for found in methods
    ]
    assert counts == [[20, 0], [19, 1]]


def test_a_disc_has_what_was_measured_there_and_no_other(images: Path) -> None:
    prediction, study = graded(images)
    assert prediction.levels is not None
    canal = next(p.sight for p in prediction.levels.points if p.sight is not None)
    heights = {level: 7.1 + level.index for level in LEVELS if level in prediction.levels.levels}
    measured = tuple(
        Measured(Quantity.DISC_HEIGHT, mm, 0.8, level, None, canal.series_id, canal.instance_number)
        for level, mm in heights.items()
    )
    report = build_report(read_source(study), replace(prediction, measurements=measured))
    comments = [element.value for element in report.iterall() if element.keyword == "TextValue"]
    found = [text for text in comments if " disc: " in text]
    assert len(heights) > 1
    assert found == [f"{level.label} disc: disc height {mm:.1f} ± 0.8 mm" for level, mm in heights.items()]


@pytest.mark.parametrize("study_id", ["4003253", "100206310"])
def test_real_studies_without_half_of_the_attributes_give_valid_objects(
    real_rsna: Path, tmp_path: Path, bundled_pipeline: Pipeline, study_id: str
) -> None:
    (entry,) = find_studies(real_rsna / "train_images" / study_id)
    prediction, study = bundled_pipeline.predict_entry(entry)
    results = DicomResults(tuple(ResultObject))
    assert results.write(study, prediction, tmp_path) is None
    paths = results.paths(prediction, tmp_path)
    assert {path.relative_to(tmp_path).parts[0] for path in paths} >= {"sr", "sr-comprehensive", "sc", "gsps"}
    for path in paths:
        assert dciodvfy_errors(path) == []
        assert pydicom.dcmread(path).PatientID == study_id
    assert len(prediction.levels.points) == 25
    text = dsrdump(tmp_path / "sr" / f"{study_id}.dcm")
    assert text.count("SCOORD:") == 2 * (25 + discs(text))
    assert discs(text) == 5 and '"Dural sac, front to back"' in text and '"Disc height"' in text


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(
    ("options", "folders"),
    [
        (["--sr", "--sc"], {"sr", "sc"}),
        (["--sr", "comprehensive", "--no-pictures"], {"sr", "sr-comprehensive"}),
        (["--sr", "3d", "--gsps", "--kos", "--no-pictures"], {"sr", "gsps", "kos"}),
        (["--no-sr", "--sc"], {"sc"}),
    ],
)
def test_each_object_is_written_when_it_is_asked_for(
    images: Path, tmp_path: Path, options: list[str], folders: set[str]
) -> None:
    result = lumbar("predict", images, "-o", tmp_path / "out", "--no-report", *options)
    assert result.exit_code == 0, result.output
    kinds = {"sr", "sr-comprehensive", "sc", "gsps", "kos"}
    assert {path.name for path in (tmp_path / "out").iterdir()} & kinds == folders
    for path in (tmp_path / "out").rglob("*.dcm"):
        assert dciodvfy_errors(path) == []
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.dcm")}
    next(iter(before)).unlink()
    assert lumbar("predict", images, "-o", tmp_path / "out", "--no-report", *options).exit_code == 0
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.dcm")} == before


def test_overlays_put_level_and_grade_on_the_slice_that_shows_them(images: Path) -> None:
    prediction, study = graded(images)
    source = read_source(study)
    states = build_presentations(source, prediction, study)
    assert set(states) == {"11", "12", "13"} and prediction.levels is not None
    shown = {}
    for series_id, state in states.items():
        assert state.PatientID == CANARY and state.SOPClassUID.name.startswith("Grayscale Softcopy")
        (referenced,) = state.ReferencedSeriesSequence
        assert len(referenced.ReferencedImageSequence) == 5
        assert referenced.SeriesInstanceUID == source.images[series_id, 1].series_instance_uid
        for annotation in state.GraphicAnnotationSequence:
            (image,) = annotation.ReferencedImageSequence
            texts, rings = annotation.TextObjectSequence, annotation.GraphicObjectSequence
            # The last one tells of the study: its flags.
            assert texts[-1].UnformattedTextValue == "flags: level_absent, degraded_input"
            for text, ring in zip(texts[:-1], rings, strict=True):
                shown[text.UnformattedTextValue] = (image.ReferencedSOPInstanceUID, ring.GraphicData[:2])
                x, y, edge_x, edge_y = ring.GraphicData
                assert (edge_x - x, edge_y - y) == (pytest.approx(3.0 / 2.5, abs=1e-3), 0)  # 3 mm, to scale
                left, top = text.BoundingBoxTopLeftHandCorner
                right, bottom = text.BoundingBoxBottomRightHandCorner
                assert 1 <= left < right <= 40 and 1 <= top < bottom <= 60
                is_right = " right " in text.UnformattedTextValue
                assert text.BoundingBoxTextHorizontalJustification == ("RIGHT" if is_right else "LEFT")
    assert len(shown) == 20
    for point in prediction.levels.points:
        severity = prediction.grades[Target(point.condition, point.level)].severity.value
        uid, centre = shown[f"{point.level.label} {place_words(point.condition)}: {severity}"]
        image = source.image_of(point)
        assert image is not None and image.sop_instance_uid == uid and point.sight is not None
        assert list(centre) == pytest.approx([value + 1 for value in point.sight.xy_px], abs=1e-3)


def test_overlays_tell_what_was_not_graded_and_leave_a_window_that_is_there(images: Path) -> None:
    edit(images / "501" / "12", WindowCenter="600", WindowWidth="1200")
    prediction, study = graded(images)
    target = Target(Condition.SPINAL_CANAL_STENOSIS, Level.L4_L5)
    grades = {**prediction.grades, target: Grade(level_prior(target), "prior", ("no_signal",))}
    states = build_presentations(read_source(study), replace(prediction, grades=grades), study)
    words = [
        str(element.value) for element in states["11"].iterall() if element.keyword == "UnformattedTextValue"
    ]
    assert "L4/L5 canal: not graded" in words and "L3/L4 canal: not graded" not in words
    windows = {series: state.SoftcopyVOILUTSequence[0] for series, state in states.items()}
    assert (windows["12"].WindowCenter, windows["12"].WindowWidth) == (600, 1200)
    assert windows["11"].WindowWidth > 3000  # noise between 0 and 4095
    assert sorted(int(state.InstanceNumber) for state in states.values()) == [1, 2, 3]
    assert len({state.SOPInstanceUID for state in states.values()}) == 3


def test_key_images_are_those_with_moderate_or_severe(images: Path) -> None:
    prediction, study = graded(images)
    source = read_source(study)
    selection = build_key_images(source, prediction)
    assert selection is not None and prediction.levels is not None
    wanted = set()
    for target, grade in prediction.grades.items():
        point = prediction.levels.point(target.condition, target.level)
        if grade.source.is_graded and grade.severity.value != "Normal/Mild" and point is not None:
            image = source.image_of(point)
            assert image is not None
            wanted.add(image.sop_instance_uid)
    listed = [i for i in selection.ContentSequence if i.ValueType == "IMAGE"]
    assert {item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in listed} == wanted
    words = [i.TextValue for i in selection.ContentSequence if i.ValueType == "TEXT"]
    assert any("flag level_absent: A lumbar level is not in the images." in text for text in words)
    mild = {t: Grade(np.array([0.9, 0.06, 0.04]), "seen") for t in TARGETS}
    assert build_key_images(source, replace(prediction, grades=mild)) is None


def test_an_object_that_could_not_be_made_once_is_made_by_the_next_run(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise MemoryError

    def run() -> list[str]:
        report = run_batch(
            stand_in_pipeline(), find_studies(images), tmp_path, dicom=DicomResults({ResultObject.SR})
        )
        return [item.reason.value for item in report.rejections]

    with monkeypatch.context() as failing:
        failing.setattr("pipeline.results.dicom.write.build_report", fails)
        assert run() == ["internal_failure"]
    assert not (tmp_path / "sr" / "501.dcm").exists()
    assert run() == [] and (tmp_path / "sr" / "501.dcm").is_file()
