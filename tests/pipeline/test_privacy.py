"""The canary: a name in every text element and path, then everything is run and everything is searched."""

from __future__ import annotations

import base64
import io
import json
import logging
import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from PIL import Image
from pydicom.datadict import DicomDictionary
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.grade import Pipeline
from tests.pipeline.stand_in import stand_in_pipeline
from tests.pipeline.warm_program import run_warm

NAME, BIRTH_DATE, ADDRESS = "CANARY^JOHN\x1b[31m", "19340123", "7 CANARY STREET"
# Any case, since names are compared and identifiers are cut; a date may be written in several ways.
TRACES = re.compile(rb"canary|19340123|1934-01-23|23\.0?1\.1934", re.IGNORECASE)
_TEXT_VRS = {"LO": 64, "SH": 16, "PN": 64, "ST": 1024, "LT": 10240, "UT": 1024, "UC": 64, "AE": 16, "CS": 16}
# Codes that say what an image is.
_NEEDED = ("SpecificCharacterSet", "ImageType", "Modality", "PhotometricInterpretation", "ScanningSequence")
# docs/dicom.md: an archive files by these, so SR and SC carry them, and nothing else of the kind.
_IN_DICOM_RESULTS = {
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "StudyID",
    "ReferringPhysicianName",
    "StudyDescription",
}

pytestmark = [
    pytest.mark.filterwarnings("ignore:Invalid value for VR"),
    pytest.mark.filterwarnings("ignore:Found unknown escape sequence"),
]


def canary_elements() -> Dataset:
    """Every text element of the dictionary, birth dates, private elements and nested ones."""
    canary = Dataset()
    for tag, (vr, _, _, _, keyword) in DicomDictionary.items():
        if not 0x0008 <= tag >> 16 < 0x5000 or keyword in _NEEDED:
            continue
        if vr in _TEXT_VRS:
            text = ADDRESS if "Address" in keyword else NAME
            # A control character is no valid text.
            canary[tag] = DataElement(tag, vr, text[: _TEXT_VRS[vr]], validation_mode=pydicom.config.IGNORE)
        elif vr == "DA" and "Birth" in keyword:
            canary[tag] = DataElement(tag, vr, BIRTH_DATE)
    # PatientID has to be a valid value, or there are no DICOM results to search.
    canary.PatientID, canary.PatientName, canary.PatientSex = "CANARY-1", "CANARY^JOHN", "M"
    block = canary.private_block(0x0011, "CANARY PRIVATE", create=True)
    block.add_new(0x01, "LO", NAME)
    block.add_new(0x02, "UN", NAME.encode())
    block.add_new(0x03, "PN", NAME)
    inner = Dataset()
    inner.PatientName, inner.PatientID, inner.PatientBirthDate = "CANARY^JOHN", "CANARY-2", BIRTH_DATE
    canary.OtherPatientIDsSequence = [inner]
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, canary, implicit_vr=False, little_endian=True)
    # Read again, the elements are bytes, which are copied into every file as they are.
    return pydicom.dcmread(io.BytesIO(stream.getvalue()), force=True)


@pytest.fixture
def planted(data: Path, tmp_path: Path) -> Path:
    """A synthetic study below folders with the patient's name; some of its files have to be rejected."""
    folder = tmp_path / "CANARY^JOHN 19340123" / "images"
    folder.parent.mkdir()
    data.rename(folder)
    shutil.rmtree(min((folder / "train_images").iterdir()))
    canary = canary_elements()
    assert len(canary) > 1000
    for path in (folder / "train_images").rglob("*.dcm"):
        dataset = pydicom.dcmread(path)
        description = dataset.get("SeriesDescription", "")
        dataset._dict.update(canary._dict)
        # What types a series without a table; everything else names the patient.
        dataset.SeriesDescription = f"{description} CANARY"
        dataset.save_as(path)
    paths = sorted((folder / "train_images").rglob("*.dcm"))
    paths[0].write_bytes(paths[0].read_bytes()[:-100])
    paths[1].write_text(NAME)
    (paths[2].parent / "CANARY^JOHN \x1b[31m.dcm").write_text(NAME)
    shutil.copy(paths[3], paths[3].parent / "Canary_John_0001.dcm")
    return folder


def parts_of(path: Path) -> Iterator[tuple[str, bytes]]:
    """The bytes of a file, and those that are packed in it."""
    content = path.read_bytes()
    yield path.name, content
    if path.suffix in (".zip", ".npz"):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                yield f"{path.name}/{name}", name.encode() + archive.read(name)
    if path.suffix == ".png":
        with Image.open(path) as image:
            yield f"{path.name}/text", repr(image.info).encode()
    if path.suffix == ".html":
        for number, coded in enumerate(re.findall(rb"base64,([A-Za-z0-9+/=]+)", content)):
            yield f"{path.name}/{number}", base64.b64decode(coded)


def traces_in(folder: Path) -> list[str]:
    """Names of files, or of parts of them, that say who the patient is, beyond what DICOM results may say."""
    found = []
    for path in sorted(folder.rglob("*")):
        if TRACES.search(path.name.encode()):
            found.append(path.name)
        if path.is_file():
            parts = [(path.name, searchable(path))] if path.suffix == ".dcm" else parts_of(path)
            found += [name for name, content in parts if TRACES.search(content)]
    return found


def searchable(path: Path) -> bytes:
    """A DICOM result without the elements that it copies on purpose."""
    dataset = pydicom.dcmread(path)
    assert dataset.PatientName == "CANARY^JOHN" and dataset.PatientID == "CANARY-1"
    for keyword in _IN_DICOM_RESULTS:
        if keyword in dataset:
            delattr(dataset, keyword)
    stream = io.BytesIO()
    dataset.save_as(stream)
    return stream.getvalue()


def test_the_program_itself_names_nobody(planted: Path, tmp_path: Path) -> None:
    """A process of its own: what libraries write past Python is seen, and every warning is on."""
    (study,) = (planted / "train_images").iterdir()
    out = tmp_path / "out"
    arguments = ["predict", str(study), "-o", str(out), "--sr", "--sc", "--json", "--verbose"]
    done = run_warm("pipeline", arguments)
    assert done.returncode == 3, done.stderr
    assert not TRACES.search(done.stdout) and not TRACES.search(done.stderr)
    assert b"\x1b[31m" not in done.stdout + done.stderr
    figures = json.loads(done.stdout)
    assert {item["reason"] for item in figures["rejections"]} >= {"truncated", "not_dicom"}
    assert traces_in(out) == []
    suffixes = {path.suffix for path in out.rglob("*") if path.is_file()}
    assert suffixes == {".csv", ".json", ".html", ".png", ".dcm"}
    assert len(list(out.rglob("*.dcm"))) == 2


def test_no_command_names_anybody(
    planted: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Pipeline, "load", classmethod(lambda cls, **_: stand_in_pipeline()))
    caplog.set_level(logging.DEBUG)
    out = tmp_path / "out"
    images = planted / "train_images"
    # A study as an archive exports it: no RSNA layout, so that the headers say what belongs together.
    packed = planted / "export.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for number, path in enumerate(sorted(images.rglob("*.dcm"))):
            archive.write(path, f"CANARY JOHN/IM{number:04}" if number else "CANARY JOHN/CANARY.dcm")
    (planted / "empty").mkdir()
    (planted / "broken.zip").write_text(NAME)
    (planted / "table.csv").write_text(f"study_id,series_id,series_description\n{NAME},1,{NAME}\n")
    for exit_code, *arguments in (
        (3, "predict", packed, "-o", out / "zip", "--no-pictures", "--verbose"),
        (3, "show", images, "-o", out / "show", "--truth", "beside", "--verbose"),
        (3, "detector", "predict", images, "-o", out / "levels.csv", "--verbose"),
        (3, "check", planted, "--verbose"),
        (3, "annotations", "export", planted, "-o", out / "annotations"),
        # What fails.
        (1, "predict", planted / "empty", "-o", out / "none"),
        (1, "predict", planted / "broken.zip", "-o", out / "none"),
        (1, "predict", images, "-o", out / "none", "--series-table", planted / "table.csv"),
        (2, "predict", planted / "not there", "-o", out / "none"),
        (2, "predict", images, "-o", out / "none", "--series-table", planted / "no table"),
        (1, "score", planted / "table.csv", planted / "table.csv"),
    ):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == exit_code, (arguments, result.output)
        assert not TRACES.search(result.output.encode()), arguments
        assert "\x1b[31m" not in result.output
    said = capfd.readouterr()
    assert not TRACES.search((said.out + said.err + caplog.text).encode())
    assert traces_in(out) == []
    assert {path.suffix for path in out.rglob("*")} >= {".csv", ".json", ".html", ".png", ".txt"}


def test_the_search_finds_what_is_hidden(tmp_path: Path) -> None:
    """A search that finds nothing anywhere would pass every test above."""
    image = Image.new("L", (8, 8))
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_text("Comment", "Canary", zip=True)
    image.save(tmp_path / "a.png", pnginfo=text)
    assert b"anary" not in (tmp_path / "a.png").read_bytes()
    with zipfile.ZipFile(tmp_path / "b.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x", "born 1934-01-23 " * 20)
    coded = base64.b64encode(b"Exif CANARY").decode()
    (tmp_path / "c.html").write_text(f"<img src='data:image/jpeg;base64,{coded}'>")
    (tmp_path / "clean.csv").write_text("study_id\n")
    assert traces_in(tmp_path) == ["a.png/text", "b.npz/x", "c.html/0"]
