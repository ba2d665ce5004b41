"""What tests of the service share: a port, a spool with images, and who sends them."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
)
from pynetdicom import AE

from pipeline.grade import Pipeline
from pipeline.service.config import ServiceConfig
from pipeline.service.run import Worker
from pipeline.service.spool import Spool
from tests.pipeline.stand_in import stand_in_pipeline

STUDY, VERIFICATION = "1.2.3.4", "1.2.840.10008.1.1"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def keep(spool: Spool, images: list[Dataset]) -> None:
    for dataset in images:
        stream = pydicom.filebase.DicomBytesIO()
        pydicom.dcmwrite(stream, dataset, enforce_file_format=True)
        spool.store(STUDY, dataset.SOPInstanceUID, stream.getvalue())


def worker(config: ServiceConfig, spool: Spool, pipeline: Pipeline | None = None) -> Worker:
    return Worker(config, spool, pipeline or stand_in_pipeline(), threading.Event())


def associate(config: ServiceConfig, caller: str = "SCANNER", called: str = "LUMBAR", **syntax: str) -> Any:
    ae = AE(ae_title=caller)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 10
    for sop_class in (MRImageStorage, ComputedRadiographyImageStorage, VERIFICATION):
        ae.add_requested_context(sop_class, syntax.get("syntax", ExplicitVRLittleEndian))
    return ae.associate(config.host, config.port, ae_title=called)


def store(config: ServiceConfig, dataset: Dataset | Path) -> int | None:
    """The status of one C-STORE; None when the association was ended."""
    association = associate(config)
    assert association.is_established
    status = association.send_c_store(dataset).get("Status")
    if association.is_established:
        association.release()
    return status
