"""A service that listens nowhere yet, its spool, and a study."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from pipeline.results.dicom import ResultObject
from pipeline.service.config import Peer, ServiceConfig
from pipeline.service.spool import Spool
from tests.pipeline.service.parts import STUDY, free_port
from tests.pipeline.stand_in import write_study


@pytest.fixture
def config(tmp_path: Path) -> ServiceConfig:
    peer = Peer("PACS", "127.0.0.1", free_port())
    return ServiceConfig(
        tmp_path / "spool", peer, port=free_port(), quiet_s=0.0, retry_s=0.1, objects=(ResultObject.SR,)
    )


@pytest.fixture
def spool(config: ServiceConfig) -> Iterator[Spool]:
    held = Spool(config.spool, max_bytes=config.max_spool_bytes)
    yield held
    held.close()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Dataset]:
    """The 15 images of a study whose every text element names the canary."""
    study = write_study(tmp_path_factory.mktemp("images"), "501")
    found = []
    for number, path in enumerate(sorted(study.rglob("*.dcm"))):
        dataset = pydicom.dcmread(path)
        dataset.StudyInstanceUID = STUDY
        dataset.SeriesInstanceUID = f"{STUDY}.{path.parent.name}"
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{STUDY}.5.{number + 1}"
        # So that the kind of a series is known without a table.
        dataset.RepetitionTime, dataset.EchoTime = (500, 10) if path.parent.name == "12" else (3000, 100)
        dataset.SeriesDescription = ""
        found.append(dataset)
    return found
