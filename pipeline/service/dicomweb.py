"""Studies from a DICOMweb archive, and results back to it: QIDO-RS, WADO-RS and STOW-RS (PS3.18).

Everything that an archive sends is bounded while it arrives, in bytes, files and seconds. What is fetched is
written as files, and read like any other input, with the limits of that.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pydicom
import requests
from dicomweb_client.api import DICOMwebClient
from pydicom.dataset import Dataset
from requests.adapters import HTTPAdapter

from data_prep.base.files import atomic_write
from data_prep.base.uids import is_usable_uid
from data_prep.problems import LumbarError

# Asked for by name, so that an archive sends neither deflated files nor what cannot be decoded here.
_UNCOMPRESSED: Final = (("application/dicom", "1.2.840.10008.1.2.1"),)
_QUERY_KEYS: Final = frozenset(
    {"StudyInstanceUID", "AccessionNumber", "StudyDate", "PatientID", "StudyDescription", "StudyID"}
)
_SERIES: Final = "0020000E"
_STUDY: Final = "0020000D"
_MODALITY: Final = "00080060"
_IMAGES: Final = "00201209"


class ArchiveFailed(LumbarError):
    """An archive could not be asked, refused, or sent more than is allowed. The text names no patient.

    Attributes:
        is_unreachable: the next try would fail in the same way.
    """

    def __init__(self, text: str, *, is_unreachable: bool = False) -> None:
        super().__init__(text)
        self.is_unreachable = is_unreachable


@dataclass(frozen=True)
class Archive:
    """A DICOMweb archive and how to reach it.

    Attributes:
        url: of the service, ``https://pacs.example/dicom-web``; without user and password.
        authority: certificates (PEM) that sign the archive's; None: those of the system.
        certificate, key: of this program (PEM), for archives that ask for one.
        token: sent as ``Authorization: Bearer``.
        timeout_s: between two pieces of an answer.
        max_answer_bytes: of one answer; a longer one ends it.
        max_studies, max_series: that are fetched at once, and of a study.

    Raises:
        ValueError: no http or https address, one with a password in it, or a key without its certificate.
    """

    url: str
    authority: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    token: str = field(default="", repr=False)
    timeout_s: float = 60.0
    max_answer_bytes: int = 4 * 1024**3
    max_studies: int = 100
    max_series: int = 200

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("an archive is written https://host[:port]/path")
        if parts.username or parts.password:
            raise ValueError("give a token in a file, no password in the address")
        if self.key is not None and self.certificate is None:
            raise ValueError("a key needs the certificate that it belongs to")

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """For the log."""
        return str(urlsplit(self.url).hostname)

    @property
    def is_open(self) -> bool:
        """Whether patients would travel unencrypted to another machine."""
        parts = urlsplit(self.url)
        return parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "::1", "localhost")

    def client(self) -> DICOMwebClient:
        """A client whose answers are bounded, and which tries nothing twice by itself."""
        session = requests.Session()
        session.trust_env = False
        session.verify = True if self.authority is None else str(self.authority)
        if self.certificate is not None:
            session.cert = (str(self.certificate), str(self.key)) if self.key else str(self.certificate)
        if self.token:
            session.headers["Authorization"] = f"Bearer {self.token}"
        adapter = _Bounded(self.max_answer_bytes, self.timeout_s)
        session.mount("https://", adapter)
        session.mount("http://", adapter)
        client = DICOMwebClient(self.url.rstrip("/"), session=session)
        client.set_http_retry_params(retry=False)
        return client


class _Bounded(HTTPAdapter):
    """Ends an answer that is longer than allowed, and one that stands still."""

    def __init__(self, max_bytes: int, timeout_s: float) -> None:
        super().__init__()
        self._max_bytes, self._timeout_s = max_bytes, timeout_s

    def send(self, request: requests.PreparedRequest, *positional: Any, **options: Any) -> requests.Response:
        options["timeout"] = self._timeout_s
        response = super().send(request, *positional, **options)
        told = response.headers.get("Content-Length", "0")
        if told.isdigit() and int(told) > self._max_bytes:
            response.close()
            raise ArchiveFailed("the archive's answer is larger than allowed")
        stream, left = response.raw.stream, [self._max_bytes]

        def bounded(*arguments: Any, **keywords: Any) -> Iterator[bytes]:
            for chunk in stream(*arguments, **keywords):
                left[0] -= len(chunk)
                if left[0] < 0:
                    response.close()
                    raise ArchiveFailed("the archive's answer is larger than allowed")
                yield chunk

        response.raw.stream = bounded
        return response


@contextmanager
def _named(what: str) -> Iterator[None]:
    """Failures of the network and of the archive in words that quote nothing of the answer."""
    try:
        yield
    except LumbarError:
        raise
    except requests.HTTPError as error:
        status = getattr(error.response, "status_code", "?")
        raise ArchiveFailed(f"{what}: the archive answered {status}") from None
    except requests.exceptions.SSLError:
        why = f"{what}: the archive's certificate is not trusted; see --tls-ca"
        raise ArchiveFailed(why, is_unreachable=True) from None
    except (requests.RequestException, OSError) as error:
        why = f"{what}: the archive cannot be reached ({type(error).__name__}): check its address"
        raise ArchiveFailed(why, is_unreachable=True) from None
    except Exception as error:  # a malformed answer fails in many ways
        raise ArchiveFailed(f"{what}: the archive's answer cannot be read ({type(error).__name__})") from None


def parse_query(texts: Sequence[str]) -> dict[str, str]:
    """``StudyDate=20260101-20260131`` … as search filters. Raises ValueError."""
    found = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not sign or key not in _QUERY_KEYS or not value:
            raise ValueError(f"a query is KEY=VALUE, with KEY one of {', '.join(sorted(_QUERY_KEYS))}")
        found[key] = value
    return found


def find_study_uids(archive: Archive, query: Mapping[str, str]) -> tuple[str, ...]:
    """Studies with MR images that a query finds, in the order of their identifiers.

    Raises:
        ArchiveFailed: it failed, found none, or more than are allowed at once.
    """
    with _named("search"):
        filters = {**query, "ModalitiesInStudy": "MR"}
        search = partial(archive.client().search_for_studies, search_filters=filters)
        found = sorted(_all_of(search, _STUDY, archive.max_studies))
    if not found:
        raise ArchiveFailed("the archive has no MR study that the query finds")
    if len(found) > archive.max_studies:
        raise ArchiveFailed(f"the query finds more than {archive.max_studies} studies: narrow it")
    return tuple(found)


def fetch_study(archive: Archive, study_uid: str, folder: Path) -> int:
    """Write the MR images of a study as files below a folder; returns how many.

    Raises:
        ArchiveFailed: it failed, or sent more than is allowed.
    """
    client, count = archive.client(), 0
    with _named("search for series"):
        found = _all_of(partial(client.search_for_series, study_uid), _SERIES, archive.max_series)
    if len(found) > archive.max_series:
        raise ArchiveFailed(f"a study has more than {archive.max_series} series")
    # One that names no modality may be of images that do.
    series = sorted(uid for uid, row in found.items() if _text(row, _MODALITY) in ("MR", ""))
    for place, uid in enumerate(series):
        before = count
        with _named("retrieval"):
            for number, dataset in enumerate(client.iter_series(study_uid, uid, media_types=_UNCOMPRESSED)):
                if str(dataset.get("StudyInstanceUID", "")).strip(" \0") != study_uid:
                    raise ArchiveFailed(
                        "retrieval: the archive sent an image of another study than was asked for"
                    )
                path = folder / f"study{_short(study_uid)}" / f"{place:03d}" / f"{number:05d}.dcm"
                path.parent.mkdir(parents=True, exist_ok=True)
                with atomic_write(path, binary=True) as stream:
                    pydicom.dcmwrite(stream, dataset, enforce_file_format=True)
                count += 1
        told = _text(found[uid], _IMAGES)
        if told.isdigit() and count - before < int(told):
            raise ArchiveFailed(f"retrieval: {count - before} of the {told} images of a series arrived")
    if not count:
        raise ArchiveFailed("a study has no MR image")
    return count


@contextmanager
def fetched(archive: Archive, study_uids: Sequence[str]) -> Iterator[Path]:
    """Studies in a folder that is removed afterwards; nobody else may read it."""
    with tempfile.TemporaryDirectory(prefix="lumbar-") as name:
        for uid in study_uids:
            fetch_study(archive, uid, Path(name))
        yield Path(name)


def store(archive: Archive, dataset: Dataset) -> None:
    """Send one result.

    Raises:
        ArchiveFailed: the archive did not confirm it.
    """
    with _named("storing"):
        answer = archive.client().store_instances([dataset])
        refused = answer.get("FailedSOPSequence", ())
        stored = {str(item.ReferencedSOPInstanceUID) for item in answer.get("ReferencedSOPSequence", ())}
    if refused:
        raise ArchiveFailed(f"storing: refused (0x{int(refused[0].get('FailureReason', 0)):04X})")
    if str(dataset.SOPInstanceUID) not in stored:
        raise ArchiveFailed("storing: the archive did not confirm the object")


def _all_of(
    search: Callable[..., Iterable[Mapping[str, Any]]], tag: str, most: int
) -> dict[str, Mapping[str, Any]]:
    """Rows of a search by their identifier, page by page: an archive may answer with fewer than it has.

    One more than ``most`` at least, if there are so many. Raises ArchiveFailed for an identifier that nothing
    can be asked for by.
    """
    found: dict[str, Mapping[str, Any]] = {}
    asked = 0
    while len(found) <= most:
        rows = list(search(limit=most + 1, offset=asked or None))
        new = {_text(row, tag): row for row in rows if _text(row, tag) not in found}
        if not all(map(is_usable_uid, new)):
            raise ArchiveFailed("search: the archive names something that is no identifier")
        if not new:  # the end, or an archive that answers with all at once
            break
        found |= new
        asked += len(rows)
    return found


def _text(row: Mapping[str, Any], tag: str) -> str:
    values = row.get(tag, {}).get("Value", [])
    return str(values[0]).strip() if values else ""


def _short(uid: str) -> str:
    """A name for a folder: identifiers may be longer than a path."""
    return sha256(uid.encode()).hexdigest()[:16]
