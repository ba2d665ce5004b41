"""Makes the pictures of OHIF and the printed reports in ``docs`` again, with the models of today.

    python -m tests.pipeline.viewers.pictures [--real FOLDER]

Needs what the tests of this folder need. The pictures show the synthetic patient of ``lumbar demo`` alone;
FOLDER holds the two complete RSNA studies, whose reports are printed, without a picture.
"""

from __future__ import annotations

import argparse
import re
import shutil
import tempfile
from pathlib import Path

import pydicom
from playwright.sync_api import Page, expect, sync_playwright

from data_prep.phantom import write_dataset
from data_prep.read.find import find_studies
from data_prep.vocabulary import TARGETS
from pipeline.grade import Pipeline
from pipeline.results.dicom import ResultObject
from pipeline.results.dicom.write import DicomResults
from pipeline.service.dicomweb import Archive, store
from tests.dicom_tools import dsrdump
from tests.pipeline.viewers.viewers import CHROMIUM_FLAGS, Orthanc, served_ohif

DOCS = Path(__file__).resolve().parents[3] / "docs"
SEED = 200_127
# Line of the list that is clicked on, and the picture.
PICTURES = {"L4/L5 canal: ": "ohif-sagittal.png", "L4/L5 left recess: ": "ohif-axial.png"}


def results_of(images: Path, pipeline: Pipeline, folder: Path) -> tuple[Path, ...]:
    """All objects of a study; its report is printed into ``docs``."""
    (entry,) = find_studies(images)
    prediction, study = pipeline.predict_entry(entry)
    results = DicomResults(set(ResultObject) - {ResultObject.COMPREHENSIVE_SR})
    assert results.write(study, prediction, folder) is None
    paths = results.paths(prediction, folder)
    (report,) = (path for path in paths if path.parent.name == "sr")
    (DOCS / "dsrdump" / f"{entry.study_id}.txt").write_text(dsrdump(report), encoding="utf-8")
    return paths


def take(page: Page, address: str) -> None:
    """Open the report, and a picture after each of two clicks."""
    page.set_default_timeout(240_000)
    page.goto(address)
    page.get_by_text("Skip all").click()
    page.get_by_text("lumbar stenosis grades").first.dblclick()
    page.locator("[data-cy=trackedMeasurements-btn]").click()
    rows = page.locator("[data-cy=data-row-title]")
    expect(rows.filter(has_text=re.compile("(canal|foramen|recess): "))).to_have_count(len(TARGETS))
    for words, name in PICTURES.items():
        rows.filter(has_text=words).click()
        page.wait_for_timeout(10_000)  # the slice follows the click
        page.screenshot(path=DOCS / name)


def main() -> None:
    """Grade, store, show, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--real", type=Path, help="Folder of the studies 4003253 and 100206310.")
    given = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    pipeline = Pipeline.load()
    with tempfile.TemporaryDirectory() as name, Orthanc(Path(name) / "archive") as archive:
        folder = Path(name)
        if given.real:
            for study in ("4003253", "100206310"):
                results_of(given.real / study, pipeline, folder / study)
        write_dataset(folder / "data", studies=1, seed=SEED, headers="pacs")
        images = next((folder / "data" / "train_images").iterdir())
        for path in images.rglob("*.dcm"):
            archive.upload(path)
        for path in results_of(images, pipeline, folder / "results"):
            store(Archive(archive.dicomweb), pydicom.dcmread(path))
        uid = pydicom.dcmread(next(images.rglob("*.dcm")), stop_before_pixels=True).StudyInstanceUID
        with served_ohif(archive.http_port) as address, sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
            take(
                browser.new_page(viewport={"width": 1500, "height": 900}),
                f"{address}/viewer?StudyInstanceUIDs={uid}",
            )
            browser.close()


if __name__ == "__main__":
    main()
