"""Viewers of other people that show our results: OHIF on an Orthanc, in a headless Chromium."""

from __future__ import annotations

import json
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from mimetypes import guess_type
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.service.parts import free_port

MODULES = Path(__file__).parent / "node_modules"
OHIF = Path(__file__).parent / ".ohif" / "dist"
# Chromium that draws in software what OHIF wants a graphics card for.
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
]
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
_CONFIG = """window.config = {
  routerBasename: null, extensions: [], modes: [], customizationService: {}, showStudyList: true,
  maxNumberOfWebWorkers: 1, showWarningMessageForCrossOrigin: false, showCPUFallbackMessage: false,
  investigationalUseDialog: { option: 'never' }, disableConfirmationPrompts: true,
  defaultDataSourceName: 'dicomweb',
  dataSources: [{
    namespace: '@ohif/extension-default.dataSourcesModule.dicomweb', sourceName: 'dicomweb',
    configuration: {
      friendlyName: 'Orthanc', name: 'orthanc', wadoUriRoot: '/wado', qidoRoot: '/dicom-web',
      wadoRoot: '/dicom-web', qidoSupportsIncludeField: false, imageRendering: 'wadors',
      thumbnailRendering: 'wadors', enableStudyLazyLoad: true, supportsFuzzyMatching: false,
      supportsWildcard: true, bulkDataURI: { enabled: true }, omitQuotationForMultipartRequest: true,
    },
  }],
};"""


def needs_ohif() -> Path:
    """Where OHIF lies; skips the test without it."""
    if not (OHIF / "index.html").is_file():
        pytest.skip("needs OHIF: tests/pipeline/viewers/fetch.sh fetches it with npm")
    return OHIF


def needs_dicomweb() -> Path:
    """Orthanc's plugin; skips the test without it."""
    if not PLUGIN.is_file():
        pytest.skip("needs the Debian package orthanc-dicomweb")
    return PLUGIN


@contextmanager
def served_ohif(orthanc_port: int) -> Iterator[str]:
    """OHIF at an address of the loopback, with the archive behind the same address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith(("/dicom-web", "/wado")):
                self._forward()
                return
            name = self.path.split("?")[0].lstrip("/")
            if name == "app-config.js":
                self._answer(200, "text/javascript", _CONFIG.encode())
                return
            path = OHIF / name
            if not path.is_file() or OHIF not in path.resolve().parents:
                path = OHIF / "index.html"  # routes of the application
            self._answer(200, guess_type(path.name)[0] or "application/octet-stream", path.read_bytes())

        def _forward(self) -> None:
            request = urllib.request.Request(
                f"http://127.0.0.1:{orthanc_port}{self.path}",
                headers={"Accept": self.headers.get("Accept", "*/*")},
            )
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    self._answer(answer.status, answer.headers["Content-Type"], answer.read())
            except urllib.error.HTTPError as error:
                self._answer(error.code, "text/plain", error.read())

        def _answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            # Volumes are shared between workers of the page.
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def orthanc_configuration(
    folder: Path, http_port: int, dicom_port: int, settings: Mapping[str, object] | None = None
) -> str:
    """Of an Orthanc with DICOMweb that nobody else can reach."""
    return json.dumps(
        {
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "Plugins": [str(PLUGIN)],
            "HttpPort": http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomPort": dicom_port,
            "DicomAet": "ORTHANC",
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "EnableWado": True, "WadoRoot": "/wado"},
            **(settings or {}),
        }
    )


class Orthanc:
    """An Orthanc with DICOMweb, started on free ports of the loopback.

    Args:
        folder: of its own, made when it starts; it keeps what it holds there.
        settings: beyond the usual ones.
    """

    def __init__(self, folder: Path, settings: Mapping[str, object] | None = None) -> None:
        self.folder, self._settings = folder, settings
        self.http_port, self.dicom_port = free_port(), free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def dicomweb(self) -> str:
        return f"{self._address}/dicom-web"

    @property
    def _address(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    def __enter__(self) -> Orthanc:
        self.start()
        return self

    def start(self) -> None:
        """Start it, with what it held when it was stopped."""
        self.folder.mkdir(exist_ok=True)
        configuration = self.folder / "orthanc.json"
        configuration.write_text(
            orthanc_configuration(self.folder, self.http_port, self.dicom_port, self._settings)
        )
        with (self.folder / "orthanc.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["Orthanc", str(configuration)], stdout=log, stderr=subprocess.STDOUT
            )
        until = time.monotonic() + 120
        while time.monotonic() < until:
            try:
                self._ask("/system")
                return
            except OSError:
                time.sleep(0.2)
        raise AssertionError("Orthanc did not start")

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End it; once is enough."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(60)
            self._process = None

    def upload(self, path: Path) -> str:
        """Put a file into the archive; what its study is called there."""
        return str(self._ask("/instances", path.read_bytes())["ParentStudy"])

    def forward(self, study: str, modality: str) -> None:
        """Send a study to a node of ``DicomModalities``, as a rule of an archive does."""
        query = {"Resources": [study], "Synchronous": True}
        answer = self._ask(f"/modalities/{modality}/store", json.dumps(query).encode())
        assert answer["FailedInstancesCount"] == 0

    def count(self) -> int:
        """How many objects it holds."""
        return int(self._ask("/statistics")["CountInstances"])

    def _ask(self, path: str, data: bytes | None = None) -> Any:
        request = urllib.request.Request(f"{self._address}{path}", data=data)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())
