"""Protects: what an archive has of a study is fetched whole, or it is said that it was not."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pydicom
import pytest

from pipeline.service.dicomweb import (
    Archive,
    ArchiveFailed,
    fetch_study,
    fetched,
    find_study_uids,
    parse_query,
)
from tests.dicom_files import write_series

STUDIES = {
    f"1.2.{number}": {f"1.2.{number}.{series}": "MR" for series in range(1, 6)} for number in range(1, 4)
}


@contextmanager
def archive_of(
    folder: Path,
    *,
    page: int | None = 2,
    modalities: dict[str, str] | None = None,
    lost: int = 0,
    strange: str = "",
    told: object = 3,
    token: str = "",
    says_length: bool = True,
    seen: list[tuple[str, str]] | None = None,
) -> Iterator[Archive]:
    """An archive that answers a search with a page at most; None: with everything, whatever is asked.

    ``lost`` images of the last series of each study are listed, and do not come; in the place of those of
    ``strange`` come images of another study. ``told``: how many images it says that a series has.
    ``token``: without it nothing is answered. ``seen``: gets what is asked for, and in which form.
    """
    of_series: dict[str, list[bytes]] = {}
    for study, all_series in STUDIES.items():
        for series in all_series:
            paths = write_series(folder / series, 3, study_uid=study, series_uid=series, Modality="MR")
            of_series[series] = [path.read_bytes() for path in paths]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if seen is not None:
                seen.append((self.path, self.headers["Accept"]))
            if token and self.headers["Authorization"] != f"Bearer {token}":
                return self.send_error(401)
            address = urlsplit(self.path)
            parts, asked = address.path.strip("/").split("/"), parse_qs(address.query)
            if parts[-1] == "studies":
                return self.rows([{"0020000D": {"vr": "UI", "Value": [uid]}} for uid in STUDIES], asked)
            if parts[-1] == "series":
                return self.rows([self.series(uid) for uid in STUDIES[parts[-2]]], asked)
            kept = of_series["1.2.3.1" if parts[-1] == strange else parts[-1]]
            self.images(kept[: len(kept) - lost] if parts[-1].endswith(".5") else kept)

        def series(self, uid: str) -> dict[str, object]:
            modality = (modalities or {}).get(uid, "MR")
            return {
                "0020000E": {"vr": "UI", "Value": [uid]},
                "00080060": {"vr": "CS", **({"Value": [modality]} if modality else {})},
                "00201209": {"vr": "IS", "Value": [told]},
            }

        def rows(self, rows: list[dict[str, object]], asked: dict[str, list[str]]) -> None:
            if page is not None:
                start = int(asked.get("offset", ["0"])[0])
                rows = rows[start : start + min(page, int(asked.get("limit", ["99"])[0]))]
            self.answer(json.dumps(rows).encode(), "application/dicom+json")

        def images(self, contents: list[bytes]) -> None:
            body = b"".join(
                b"--part\r\nContent-Type: application/dicom\r\n\r\n" + item + b"\r\n" for item in contents
            )
            self.answer(body + b"--part--\r\n", 'multipart/related; type="application/dicom"; boundary=part')

        def answer(self, body: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            if says_length:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield Archive(f"http://127.0.0.1:{server.server_address[1]}")
        server.shutdown()


@pytest.mark.parametrize("page", [1, 2, 3, None])
def test_every_page_of_a_search_is_asked_for(tmp_path: Path, page: int | None) -> None:
    with archive_of(tmp_path / "archive", page=page) as archive:
        assert find_study_uids(archive, {}) == tuple(STUDIES)
        assert fetch_study(archive, "1.2.2", tmp_path / "out") == 15
    series = {pydicom.dcmread(path).SeriesInstanceUID for path in (tmp_path / "out").rglob("*.dcm")}
    assert series == set(STUDIES["1.2.2"])


def test_a_series_that_names_no_modality_is_fetched_and_one_of_another_is_not(tmp_path: Path) -> None:
    with archive_of(tmp_path / "archive", modalities={"1.2.1.3": "", "1.2.1.4": "CT"}) as archive:
        assert fetch_study(archive, "1.2.1", tmp_path / "out") == 12


def test_mr_is_searched_for_and_asked_for_uncompressed_and_studies_stay_apart(tmp_path: Path) -> None:
    seen: list[tuple[str, str]] = []
    with archive_of(tmp_path / "archive", page=None, seen=seen) as archive:
        find_study_uids(archive, {"PatientID": "7"})
        with fetched(archive, ["1.2.1", "1.2.2"]) as folder:
            images = [pydicom.dcmread(path).StudyInstanceUID for path in folder.rglob("*.dcm")]
        assert not folder.exists()
    assert sorted(images) == ["1.2.1"] * 15 + ["1.2.2"] * 15
    asked = parse_qs(urlsplit(seen[0][0]).query)
    assert asked["ModalitiesInStudy"] == ["MR"] and asked["PatientID"] == ["7"]
    retrieved = [accept for path, accept in seen if "/series/" in path]
    assert len(retrieved) == 10
    assert all("transfer-syntax=1.2.840.10008.1.2.1" in accept.replace('"', "") for accept in retrieved)


def test_what_is_no_identifier_is_never_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, str]] = []
    monkeypatch.setitem(STUDIES, "1.2.9/../../other", {})
    with (
        archive_of(tmp_path / "archive", page=None, seen=seen) as archive,
        pytest.raises(ArchiveFailed, match="no identifier"),
    ):
        find_study_uids(archive, {})
    assert len(seen) == 1


def test_a_study_without_an_mr_image_is_said(tmp_path: Path) -> None:
    with (
        archive_of(tmp_path / "archive", modalities=dict.fromkeys(STUDIES["1.2.1"], "CT")) as archive,
        pytest.raises(ArchiveFailed, match="no MR image"),
    ):
        fetch_study(archive, "1.2.1", tmp_path / "out")


def test_images_that_are_listed_and_do_not_come_are_said(tmp_path: Path) -> None:
    with (
        archive_of(tmp_path / "archive", lost=1) as archive,
        pytest.raises(ArchiveFailed, match="2 of the 3 images of a series arrived"),
    ):
        fetch_study(archive, "1.2.3", tmp_path / "out")


def test_an_archive_need_not_say_how_many_images_a_series_has(tmp_path: Path) -> None:
    with archive_of(tmp_path / "archive", told="") as archive:
        assert fetch_study(archive, "1.2.3", tmp_path / "out") == 15


@pytest.mark.parametrize("says_length", [True, False])
def test_an_answer_that_is_larger_than_allowed_is_ended(tmp_path: Path, says_length: bool) -> None:
    with archive_of(tmp_path / "archive", says_length=says_length) as archive:
        small = replace(archive, max_answer_bytes=1000)
        assert find_study_uids(small, {}) == tuple(STUDIES)
        with pytest.raises(ArchiveFailed, match="larger than allowed"):
            fetch_study(small, "1.2.1", tmp_path / "out")
        with pytest.raises(ArchiveFailed, match="more than 2 studies"):
            find_study_uids(replace(archive, max_studies=2), {})
        with pytest.raises(ArchiveFailed, match="more than 4 series"):
            fetch_study(replace(archive, max_series=4), "1.2.1", tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.dcm"))


def test_the_token_goes_to_the_archive_and_whoever_the_environment_names_gets_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login a password b")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with archive_of(tmp_path / "archive", token="secret") as archive:
        assert find_study_uids(replace(archive, token="secret"), {}) == tuple(STUDIES)
        with pytest.raises(ArchiveFailed, match="the archive answered 401"):
            find_study_uids(archive, {})
    assert "secret" not in repr(replace(archive, token="secret"))


@pytest.mark.timeout(30)
def test_an_archive_that_stands_still_or_is_away_is_given_up() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        archive = Archive(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.2)
        with pytest.raises(ArchiveFailed, match="cannot be reached") as failed:
            find_study_uids(archive, {})
        assert failed.value.is_unreachable
    with pytest.raises(ArchiveFailed, match="cannot be reached") as failed:
        find_study_uids(archive, {})
    assert failed.value.is_unreachable


def test_images_of_another_study_are_refused(tmp_path: Path) -> None:
    with (
        archive_of(tmp_path / "archive", strange="1.2.1.2") as archive,
        pytest.raises(ArchiveFailed, match="an image of another study"),
    ):
        fetch_study(archive, "1.2.1", tmp_path / "out")


def test_a_query_that_would_find_other_studies_than_were_meant_is_refused() -> None:
    assert parse_query(["StudyDate=20260101-20260131", "StudyID=a=b"]) == {
        "StudyDate": "20260101-20260131",
        "StudyID": "a=b",
    }
    for text in ("PatientID=", "PatientID", "PatientName=A"):
        with pytest.raises(ValueError, match="KEY=VALUE"):
            parse_query([text])


def test_what_is_no_address_of_an_archive_is_refused() -> None:
    for url in (
        "https:///dicom-web",
        "ftp://pacs/dicom-web",
        "pacs/dicom-web",
        "https://a@pacs/x",
        "https://:b@pacs/x",
    ):
        with pytest.raises(ValueError, match=r"an archive is written|no password"):
            Archive(url)
    urls = ("http://pacs/x", "http://127.0.0.1:80/x", "https://pacs/x")
    assert [Archive(url).is_open for url in urls] == [True, False, False]
