"""What a radiologist sees: OHIF's parser, and OHIF on an Orthanc in a browser, show 25 findings in words."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pydicom
import pytest
from typer.testing import CliRunner

from data_prep.phantom import write_dataset
from data_prep.read.find import find_studies
from data_prep.vocabulary import TARGETS
from pipeline.cli import app
from pipeline.grade import Pipeline
from pipeline.prediction import StudyPrediction
from pipeline.results.dicom import ResultObject
from pipeline.results.dicom.write import DicomResults
from pipeline.results.words import place_words, target_words
from pipeline.service.dicomweb import Archive, ArchiveFailed, find_study_uids, store
from tests.dicom_tools import needs
from tests.pipeline.service.parts import free_port
from tests.pipeline.service.test_service_orthanc import Node, wait_for
from tests.pipeline.viewers.viewers import (
    CHROMIUM_FLAGS,
    MODULES,
    Orthanc,
    needs_dicomweb,
    needs_ohif,
    served_ohif,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser

SEED = 200_127


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom")
    write_dataset(folder, studies=1, seed=SEED, headers="pacs")
    return next((folder / "train_images").iterdir())


@pytest.fixture(scope="module")
def graded(
    phantom: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[StudyPrediction, tuple[Path, ...]]:
    """The prediction of the phantom, and its objects: SR of both kinds, key images, overlays."""
    (entry,) = find_studies(phantom)
    prediction, study = Pipeline.load().predict_entry(entry)
    results = DicomResults(set(ResultObject) - {ResultObject.SC})
    folder = tmp_path_factory.mktemp("results")
    assert results.write(study, prediction, folder) is None
    return prediction, results.paths(prediction, folder)


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    needs("Orthanc", "orthanc")
    needs_dicomweb()
    with Orthanc(tmp_path / "orthanc") as archive:
        yield archive


@pytest.fixture
def browser_with_webgl(launch_chromium: Callable[[list[str]], Browser]) -> Iterator[Browser]:
    """Chromium that draws in software what OHIF wants a graphics card for."""
    browser = launch_chromium(CHROMIUM_FLAGS)
    yield browser
    browser.close()


def labels_of(prediction: StudyPrediction) -> set[str]:
    """``L4/L5 left foramen: Severe`` of every graded target."""
    return {
        f"{target.level.label} {place_words(target.condition)}: {grade.severity.value}"
        for target, grade in prediction.grades.items()
        if grade.source.is_graded
    }


def test_the_parser_of_ohif_reads_level_and_grade_of_every_target(
    graded: tuple[StudyPrediction, tuple[Path, ...]],
) -> None:
    node = needs("node", "nodejs")
    if not (MODULES / "@ohif" / "extension-cornerstone-dicom-sr").is_dir():
        pytest.skip("needs OHIF's extension: tests/pipeline/viewers/fetch.sh fetches it with npm")
    prediction, paths = graded
    reports = [path for path in paths if path.parent.name.startswith("sr")]
    done = subprocess.run(
        [node, str(Path(__file__).parent / "ohif_labels.mjs"), str(MODULES), *map(str, reports)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    read = json.loads(done.stdout)
    assert len(read) == 2 and len(labels_of(prediction)) == len(TARGETS)
    for path, found in read.items():
        images = {
            item.ReferencedSOPInstanceUID
            for study in pydicom.dcmread(path).CurrentRequestedProcedureEvidenceSequence
            for series in study.ReferencedSeriesSequence
            for item in series.ReferencedSOPSequence
        }
        measurements, hydrated = found["measurements"], found["hydrated"]
        assert found["rehydratable"] and found["library"] > 0 and found["drawn"] == len(measurements)
        graded_ones = [item for item in measurements if ", probability: " in item["labels"][0]]
        first = {item["labels"][0].split(", probability: ")[0] for item in graded_ones}
        assert first == labels_of(prediction) and len(graded_ones) == len(TARGETS)
        assert all(item["loaded"] and item["image"] in images for item in measurements)
        assert {item["identifier"] for item in graded_ones} == {x.split(":")[0] for x in first}
        # The number shows in the text box beside the point; it must not drown the words.
        assert all(len(item["labels"]) <= 6 for item in measurements)
        assert {re.sub(r" \(.*", "", item["label"]) for item in hydrated} >= labels_of(prediction)


def test_fetched_from_an_archive_it_gets_the_same_grades_and_nothing_is_lost_while_the_archive_is_away(
    phantom: Path, graded: tuple[StudyPrediction, tuple[Path, ...]], orthanc: Orthanc, tmp_path: Path
) -> None:
    """DICOMweb out of Orthanc, the same grades as from files, and STOW back after Orthanc was killed."""
    prediction, paths = graded
    for path in phantom.rglob("*.dcm"):
        orthanc.upload(path)
    archive = Archive(orthanc.dicomweb)
    (study_uid,) = find_study_uids(archive, {})
    arguments = ["predict", "--from", orthanc.dicomweb, "--study", study_uid, "-o", tmp_path / "out"]
    result = CliRunner().invoke(app, [*map(str, arguments), "--no-pictures", "--no-report"])
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "out" / "predictions.json").read_text())
    fetched, local = record["studies"][0]["targets"], prediction.to_dict()["targets"]
    assert [row["probabilities"] for row in fetched] == [row["probabilities"] for row in local]

    before = orthanc.count()
    store(archive, pydicom.dcmread(paths[0]))
    orthanc.stop()
    with pytest.raises(ArchiveFailed, match="cannot be reached"):
        store(archive, pydicom.dcmread(paths[1]))
    orthanc.start()
    for path in paths:
        store(archive, pydicom.dcmread(path))
    assert orthanc.count() == before + len(paths)


def test_a_study_that_an_archive_forwards_comes_back_through_kills_and_is_shown_in_ohif(
    phantom: Path,
    graded: tuple[StudyPrediction, tuple[Path, ...]],
    browser_with_webgl: Browser,
    tmp_path: Path,
) -> None:
    """Out of Orthanc by C-STORE, node and archive killed at every stage, back by STOW-RS, and a browser."""
    needs("Orthanc", "orthanc")
    needs_dicomweb()
    needs_ohif()
    node_port = free_port()
    settings = {"DicomModalities": {"lumbar": ["LUMBAR", "127.0.0.1", node_port]}}
    with Orthanc(tmp_path / "archive", settings) as archive:
        node = Node(tmp_path, ("--stow", archive.dicomweb, "--gsps", "--kos"), node_port)
        try:
            (study,) = {archive.upload(path) for path in phantom.rglob("*.dcm")}
            images = archive.count()
            node.start("listens")
            archive.forward(study, "lumbar")
            node.end(signal.SIGKILL)
            archive.stop()
            node.start()
            wait_for("results that wait", lambda: node.waiting() == 6)  # SR, SC, KOS, three overlays
            wait_for("a failed delivery", lambda: "6 results wait for 127.0.0.1" in node.log)
            node.end(signal.SIGKILL)
            archive.start()
            node.start("listens")
            wait_for("the results", lambda: archive.count() == images + 6 and node.waiting() == 0)
            assert node.log.count("grading") == 1
            assert "Phantom^" not in node.log and "PHANTOM-" not in node.log
        finally:
            if node.process is not None:
                node.end(signal.SIGKILL)
        with served_ohif(archive.http_port) as address:
            uid = str(pydicom.dcmread(next(phantom.rglob("*.dcm")), stop_before_pixels=True).StudyInstanceUID)
            address = f"{address}/viewer?StudyInstanceUIDs={uid}"
            check_findings_in_ohif(browser_with_webgl, address, slices_of(graded[0], phantom))


def slices_of(prediction: StudyPrediction, folder: Path) -> dict[str, tuple[int, int]]:
    """Label of each target → instance number of the slice of its point, and slices in the series."""
    found = {}
    for target, grade in prediction.grades.items():
        point = prediction.levels.point(target.condition, target.level)
        assert point is not None and point.sight is not None
        count = len(list((folder / point.sight.series_id).glob("*.dcm")))
        found[f"{target_words(target)}: {grade.severity.value}"] = point.sight.instance_number, count
    return found


def check_findings_in_ohif(browser: Browser, address: str, expected: dict[str, tuple[int, int]]) -> None:
    """Open the report of a study in OHIF, and click on every finding: each is on its slice."""
    from playwright.sync_api import expect

    assert len(expected) == len(TARGETS)
    page = browser.new_page(viewport={"width": 1100, "height": 640})
    page.set_default_timeout(240_000)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    page.get_by_text("Skip all").click()
    page.get_by_text("lumbar stenosis grades").first.dblclick()
    page.locator("[data-cy=trackedMeasurements-btn]").click()
    rows = page.locator("[data-cy=data-row-title]").filter(has_text=re.compile("(canal|foramen|recess): "))
    expect(rows).to_have_count(len(expected), timeout=240_000)
    assert {re.sub(r" \(.*", "", text.strip()) for text in rows.all_inner_texts()} == expected.keys()
    overlay = page.locator("[data-cy=viewport-overlay-bottom-right]").first
    for row in rows.all():
        row.click()
        instance, count = expected[re.sub(r" \(.*", "", row.inner_text().strip())]
        expect(row).to_have_class(re.compile("text-highlight"), timeout=60_000)
        expect(overlay).to_have_text(re.compile(rf"I:\s*{instance} \(\d+/{count}\)"), timeout=60_000)
    page.close()
    assert errors == []


def test_an_archive_that_is_away_refuses_or_sends_too_much_is_named_without_the_patient(
    orthanc: Orthanc, phantom: Path, tmp_path: Path
) -> None:
    for path in list(phantom.rglob("*.dcm"))[:3]:
        orthanc.upload(path)
    uid = str(pydicom.dcmread(next(phantom.rglob("*.dcm")), stop_before_pixels=True).StudyInstanceUID)
    small = Archive(orthanc.dicomweb, max_answer_bytes=20_000)
    from pipeline.service.dicomweb import fetch_study

    with pytest.raises(ArchiveFailed, match="larger than allowed"):
        fetch_study(small, uid, tmp_path)
    with pytest.raises(ArchiveFailed, match="no MR study"):
        find_study_uids(Archive(orthanc.dicomweb), {"PatientID": "NOBODY-HERE"})
    orthanc.stop()
    away = CliRunner().invoke(app, ["predict", "--from", orthanc.dicomweb, "-o", str(tmp_path / "out")])
    assert away.exit_code == 1 and "cannot be reached" in away.stderr and "PHANTOM-" not in away.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["predict", "-o", "out"], "give INPUT, or an archive"),
        (["predict", "--from", "ftp://x", "-o", "out"], "https://host"),
        (["predict", "--from", "https://u:p@x/dicom-web", "-o", "out"], "no password"),
        (["serve", "spool"], "--to or with --stow"),
        (["serve", "spool", "--to", "A@b:1", "--stow", "https://x"], "--to or with --stow"),
        (["serve", "spool", "--stow", "https://x", "--tls-ca", "missing.pem"], "no file"),
    ],
)
def test_what_makes_no_sense_is_said(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert words in " ".join(re.sub(r"[│\n]", " ", result.output).split())
