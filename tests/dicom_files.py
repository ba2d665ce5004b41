"""Writes tiny DICOM series for tests: any orientation and transfer syntax, whole or broken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage, RLELossless

from data_prep.read.dicom_file import read_slices
from data_prep.read.slice_header import SliceHeader

SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def tilted_axial(degrees: float) -> tuple[float, ...]:
    """Axial axes turned round the patient's left-right axis."""
    angle = np.radians(degrees)
    return (1.0, 0.0, 0.0, 0.0, float(np.cos(angle)), float(np.sin(angle)))


def ramp(rows: int = 16, columns: int = 12) -> NDArray[np.uint16]:
    """An image whose every pixel is different."""
    return np.arange(rows * columns, dtype=np.uint16).reshape(rows, columns)


def write_slice(
    path: Path,
    pixels: NDArray[Any] | None = None,
    *,
    position: Sequence[float] = (0.0, 0.0, 0.0),
    orientation: Sequence[float] = SAGITTAL,
    spacing: tuple[float, float] = (1.0, 1.0),
    study_uid: str = "1.2.3",
    series_uid: str = "1.2.3.4",
    instance_number: int | None = 1,
    description: str = "T2",
    syntax: str = ExplicitVRLittleEndian,
    without: Sequence[str] = (),
    **elements: Any,
) -> Path:
    """Write one image; ``elements`` are set last by keyword, ``without`` names what to leave out."""
    pixels = ramp() if pixels is None else pixels
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = UID(f"{series_uid}.{instance_number or 0}")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = MRImageStorage
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study_uid, series_uid
    dataset.SeriesDescription = description
    dataset.InstanceNumber = instance_number
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = list(position), list(orientation)
    dataset.PixelSpacing = list(spacing)
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    bits = pixels.dtype.itemsize * 8
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OW" if bits > 8 else "OB"
    if syntax == RLELossless:
        dataset.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    else:
        meta.TransferSyntaxUID = UID(syntax)
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    for keyword in without:
        delattr(dataset, keyword)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_series(
    folder: Path,
    count: int = 5,
    *,
    orientation: Sequence[float] = SAGITTAL,
    start: Sequence[float] = (-8.0, 0.0, 0.0),
    step_mm: float = 4.0,
    first_instance: int = 1,
    numbering: Callable[[int], int] = lambda index: index,
    **options: Any,
) -> list[Path]:
    """Write parallel slices along the direction from right to left, front to back, or foot to head.

    ``numbering`` turns the place in the stack (0 …) into the instance number, less ``first_instance``.
    """
    axes = np.array(orientation).reshape(2, 3)
    normal = np.cross(axes[0], axes[1])
    normal *= np.sign(normal[np.argmax(np.abs(normal))])
    paths = []
    for index in range(count):
        number = first_instance + numbering(index)
        position = (np.array(start) + index * step_mm * normal).tolist()
        paths.append(
            write_slice(
                folder / f"{number}.dcm",
                position=position,
                orientation=orientation,
                instance_number=number,
                **options,
            )
        )
    return paths


def write_study(folder: Path, **options: Any) -> Path:
    """A study of a sagittal T1, a sagittal T2 and an axial T2 series in the RSNA layout: 11, 12, 13."""
    number = folder.name
    for series, orientation, description in (
        ("11", SAGITTAL, "T1"),
        ("12", SAGITTAL, "T2"),
        ("13", AXIAL, "T2"),
    ):
        write_series(
            folder / series,
            orientation=orientation,
            description=description,
            study_uid=number,
            series_uid=f"{number}.{series}",
            **options,
        )
    return folder


def read_slice(path: Path, **options: Any) -> SliceHeader:
    """The header of a file that holds one image; ``options`` are those of ``read_slices``."""
    (header,) = read_slices(path, **options)
    return header
