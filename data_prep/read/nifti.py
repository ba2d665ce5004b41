"""NIfTI volumes as series: geometry from the affine, kind from name and sidecar, voxels only when asked.

nibabel reads the header and the voxels; what it is given is bounded first. A file becomes one series, whose
slices lie along its thickest axis (or the one that the header calls the slice axis). NIfTI counts in RAS+
millimetres (NIfTI-1, section 'orientation'); everything here is DICOM's LPS+.
"""

from __future__ import annotations

import gzip
import io
import json
import logging
import math
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from data_prep.crops import display_axes
from data_prep.geometry import FloatArray, SlicePlane
from data_prep.problems import DicomRejected, Reason, Rejection
from data_prep.read.dicom_limits import DEFAULT_LIMITS, ReadLimits, Refused
from data_prep.read.slice_header import SliceHeader

SUFFIXES = (".nii", ".nii.gz")
HOW_TO_INSTALL = "NIfTI needs nibabel: pip install 'lumbar[nifti]'"

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])
_HEADER_BYTES = {348: "Nifti1Header", 540: "Nifti2Header"}
_BYTE_ORDERS: tuple[Literal["little", "big"], ...] = ("little", "big")
_MAX_OFFSET_BYTES = 1024 * 1024
_MAX_SIDECAR_BYTES = 1024 * 1024
_MAX_DISTANCE_MM = 10_000.0
_MIN_SPACING_MM, _MAX_SPACING_MM = 0.01, 100.0
# The slice axis of a clinical series is several times as thick as a pixel is wide.
_CLEARLY_THICKER = 1.2
_MM_PER_UNIT = {"meter": 1000.0, "micron": 0.001}
_SEGMENTATION = re.compile(r"(^|_)(mask|dseg|probseg|seg|labels?|segmentation)$|(^|_)label-", re.IGNORECASE)
_AXIAL_WORDS = re.compile(r"(^|[^a-z])(ax|axial|tra|trans|transversal)([^a-z]|$)", re.IGNORECASE)
_BROKEN = (EOFError, gzip.BadGzipFile, zlib.error)

# nibabel logs what it mends in a header.
logging.getLogger("nibabel.global").propagate = False


@dataclass(frozen=True, eq=False)
class Layout:
    """How the slices of a volume lie in its array.

    Attributes:
        slice_axis, row_axis, column_axis: of the array; an image's rows follow each other along
            ``row_axis``.
        turned: whether rows and columns are counted from the far end, so that every slice is upright:
            sagittal head up and front left, axial front up and the patient's right on the left.
    """

    slice_axis: int
    row_axis: int
    column_axis: int
    turned: tuple[bool, bool]


def is_nifti(path: Path) -> bool:
    """Whether a file is a NIfTI volume by its name."""
    return path.name.lower().endswith(SUFFIXES)


def stem_of(path: Path) -> str:
    """The name without ``.nii`` or ``.nii.gz``."""
    return re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)


def read_volume(
    path: Path, *, limits: ReadLimits = DEFAULT_LIMITS, study_id: str = "", series_id: str = ""
) -> tuple[tuple[SliceHeader, ...], tuple[Rejection, ...]]:
    """The slices of a volume; no voxel is read.

    The series is described by the file's name and by its JSON sidecar, if there is one.

    Returns:
        A header per slice, numbered from 1 along the slice axis of the array; and what was not used, which
        is a sidecar that cannot be read.

    Raises:
        DicomRejected: for every failure, with the reason.
    """
    with _rejecting(path, study_id, series_id, Reason.UNREADABLE):
        if _SEGMENTATION.search(stem_of(path)):
            raise Refused(Reason.UNKNOWN_KIND, "a segmentation by its name, not an image")
        claims = _claims(path, limits)
        sidecar = _read_sidecar(path)
        told = dict(sidecar or {})
        affine = _affine(claims.header)
        layout = _layout(affine, claims, stem_of(path))
        described = _description(path, told)
        read = partial(read_voxels, path, claims, limits=limits, study_id=study_id, series_id=series_id)
        headers = []
        for index in range(claims.shape[layout.slice_axis]):
            reader = partial(read, layout=layout, index=index)
            headers.append(
                SliceHeader(
                    path=path,
                    plane=_plane(affine, claims.shape, layout, index),
                    instance_number=index + 1,
                    series_uid=series_id,
                    reader=reader,
                    **described,
                )
            )
    unused: tuple[Rejection, ...] = ()
    if sidecar is None:
        message = "its JSON sidecar cannot be read and was not used"
        unused = (Rejection.of(path, Reason.UNREADABLE, message, study_id=study_id, series_id=series_id),)
    return tuple(headers), unused


@dataclass(frozen=True, eq=False)
class Claims:
    """What the header of a volume says, checked against the limits.

    Attributes:
        header: of nibabel.
        shape: (3,) voxels along the axes of the array.
        offset: first byte of the voxels in the file as it unpacks.
    """

    header: Any
    shape: tuple[int, int, int]
    offset: int


def read_voxels(
    path: Path,
    claims: Claims,
    *,
    layout: Layout,
    index: int,
    limits: ReadLimits = DEFAULT_LIMITS,
    study_id: str = "",
    series_id: str = "",
) -> NDArray[np.float32]:
    """One slice as float32 (rows, columns), scaled as the header says.

    Raises:
        DicomRejected: for every failure, with the reason.
    """
    with _rejecting(path, study_id, series_id, Reason.BAD_PIXELS):
        status = path.stat()
        changed = status.st_size, status.st_mtime_ns
        dtype = claims.header.get_data_dtype()
        stored = _stored(path, changed, claims.shape, dtype, claims.offset, limits.max_file_bytes)
        image = stored.take(index, axis=layout.slice_axis)
        if layout.row_axis > layout.column_axis:
            image = image.T
        rows, columns = layout.turned
        image = image[:: -1 if rows else 1, :: -1 if columns else 1].astype(np.float32, order="C")
        slope, intercept = claims.header.get_slope_inter()
        if slope is not None:
            image *= np.float32(slope)
            image += np.float32(intercept or 0.0)
        if not np.isfinite(image).all():
            raise Refused(Reason.BAD_PIXELS, "voxel values are not finite")
        return image


@lru_cache(maxsize=3)
def _stored(
    path: Path,
    _changed: tuple[int, int],
    shape: tuple[int, int, int],
    dtype: np.dtype[Any],
    offset: int,
    max_file_bytes: int,
) -> NDArray[Any]:
    """The voxels as they are stored; the few volumes that were read last are remembered."""
    from nibabel.arrayproxy import ArrayProxy

    end = offset + math.prod(shape) * dtype.itemsize
    content = _unpacked(path, end, max_file_bytes)
    if len(content) < end:
        raise Refused(Reason.TRUNCATED, "the file ends within its voxels")
    stored = np.asarray(ArrayProxy(io.BytesIO(content), (shape, dtype, offset, 1.0, 0.0)).get_unscaled())
    stored.flags.writeable = False
    return stored


def _unpacked(path: Path, size: int, max_file_bytes: int) -> bytes:
    """The first bytes of a file, unpacked if it is compressed: never more than asked for."""
    stored_size = path.stat().st_size
    if stored_size > max_file_bytes:
        raise Refused(Reason.TOO_LARGE, f"{stored_size} bytes; the limit is {max_file_bytes} bytes")
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if not packed:
            return file.read(size)
        with gzip.GzipFile(fileobj=file) as stream:
            content = stream.read(size)
            stream.read(1)  # at the end, its checksum is looked at
            return content


def _claims(path: Path, limits: ReadLimits) -> Claims:
    try:
        import nibabel
        from nibabel.spatialimages import HeaderDataError
    except ImportError:
        raise Refused(Reason.UNREADABLE, HOW_TO_INSTALL) from None

    start = _unpacked(path, max(_HEADER_BYTES), limits.max_file_bytes)
    length = next(
        (n for n in _HEADER_BYTES for order in ("little", "big") if _starts_with(start, n, order)), 0
    )
    if not length or len(start) < length:
        raise Refused(Reason.UNREADABLE, "not a NIfTI file")
    try:
        header = getattr(nibabel, _HEADER_BYTES[length]).from_fileobj(io.BytesIO(start[:length]))
    except HeaderDataError:
        raise Refused(Reason.UNREADABLE, "not a NIfTI file") from None
    if not bytes(header["magic"].tobytes()).startswith(b"n+"):
        raise Refused(Reason.UNREADABLE, "a NIfTI header without its voxels: give one .nii or .nii.gz file")
    shape = tuple(int(side) for side in header.get_data_shape())
    if len(shape) < 3 or min(shape) < 1:
        raise Refused(Reason.NO_PIXELS, "not a volume: it has fewer than three axes")
    if any(side > 1 for side in shape[3:]):
        raise Refused(Reason.MULTI_FRAME, f"{math.prod(shape[3:])} volumes in one file are not supported")
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf":
        raise Refused(Reason.BAD_PIXELS, "not a greyscale volume")
    voxels = math.prod(shape[:3])
    if voxels > limits.max_voxels or max(shape[:3]) > limits.max_side:
        claimed = " x ".join(map(str, shape[:3]))
        raise Refused(Reason.TOO_LARGE, f"claims {claimed} voxels; the limit is {limits.max_voxels}")
    offset = float(header.get_data_offset())
    if not length <= offset <= _MAX_OFFSET_BYTES:
        raise Refused(Reason.UNREADABLE, "the voxels lie at an impossible place")
    return Claims(header, shape[:3], int(offset))  # type: ignore[arg-type]


def _starts_with(start: bytes, number: int, order: Literal["little", "big"]) -> bool:
    return int.from_bytes(start[:4], order) == number


def _affine(header: Any) -> FloatArray:
    """(4, 4) voxel → patient LPS millimetres."""
    if int(header["sform_code"]) <= 0 and int(header["qform_code"]) <= 0:
        raise Refused(Reason.MISSING_GEOMETRY, "neither sform nor qform says where the voxels lie")
    affine = np.array(header.get_best_affine(), dtype=np.float64)
    affine[:3] = _RAS_TO_LPS @ affine[:3] * _MM_PER_UNIT.get(header.get_xyzt_units()[0], 1.0)
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or np.abs(affine[:3, 3]).max() > _MAX_DISTANCE_MM:
        raise Refused(
            Reason.BAD_GEOMETRY, f"the volume lies farther than {_MAX_DISTANCE_MM:g} mm from the isocentre"
        )
    if sides.min() < _MIN_SPACING_MM or sides.max() > _MAX_SPACING_MM:
        message = f"voxels must have sides of {_MIN_SPACING_MM:g} to {_MAX_SPACING_MM:g} mm"
        raise Refused(Reason.BAD_GEOMETRY, message)
    if abs(float(np.linalg.det(affine[:3, :3] / sides))) < 0.5:
        raise Refused(Reason.BAD_GEOMETRY, "the axes of the volume are not independent")
    return affine


def _layout(affine: FloatArray, claims: Claims, name: str) -> Layout:
    axis = _slice_axis(affine, claims, name)
    column_axis, row_axis = (other for other in range(3) if other != axis)
    plain = Layout(axis, row_axis, column_axis, (False, False))
    plane = _plane(affine, claims.shape, plain, 0)
    rightwards, downwards = display_axes(plane)
    if abs(float(rightwards @ plane.x_axis)) < 0.5:
        row_axis, column_axis = column_axis, row_axis
    columns = affine[:3, column_axis] @ rightwards < 0
    rows = affine[:3, row_axis] @ downwards < 0
    return Layout(axis, row_axis, column_axis, (bool(rows), bool(columns)))


def _slice_axis(affine: FloatArray, claims: Claims, name: str) -> int:
    """The thickest axis; of voxels as thick as wide, what the header or the name says, else left to right."""
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    thinner, thickest = np.sort(sides)[1:]
    if thickest > _CLEARLY_THICKER * thinner:
        return int(np.argmax(sides))
    stated = claims.header.get_dim_info()[2]
    if stated is not None and min(claims.shape) == claims.shape[stated]:
        return int(stated)
    wanted = 2 if _AXIAL_WORDS.search(name) else 0  # up, else left, in LPS
    return int(np.argmax(np.abs(affine[wanted, :3]) / sides))


def _plane(affine: FloatArray, shape: tuple[int, int, int], layout: Layout, index: int) -> SlicePlane:
    first = np.zeros(3)
    first[layout.slice_axis] = index
    steps = []
    for axis, turned in zip((layout.row_axis, layout.column_axis), layout.turned, strict=True):
        first[axis] = shape[axis] - 1 if turned else 0
        steps.append(affine[:3, axis] * (-1.0 if turned else 1.0))
    down, right = (float(np.linalg.norm(step)) for step in steps)
    try:
        return SlicePlane(
            origin_mm=affine[:3, :3] @ first + affine[:3, 3],
            x_axis=steps[1] / right,
            y_axis=steps[0] / down,
            spacing_mm=(right, down),
            shape=(shape[layout.row_axis], shape[layout.column_axis]),
        )
    except ValueError as error:
        raise Refused(Reason.BAD_GEOMETRY, str(error)) from None


def _read_sidecar(path: Path) -> Mapping[str, Any] | None:
    """The JSON file beside a volume; empty if there is none, None if it cannot be read."""
    place = sidecar_of(path)
    try:
        if not place.is_file():
            return {}
        if place.stat().st_size > _MAX_SIDECAR_BYTES:
            return None
        told = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return told if isinstance(told, dict) else None


def sidecar_of(path: Path) -> Path:
    """Where the JSON file of a volume lies, if it has one (BIDS, 'Common principles')."""
    return path.with_name(f"{stem_of(path)}.json")


def _description(path: Path, told: Mapping[str, Any]) -> dict[str, Any]:
    """What name and sidecar say of the series, as ``SliceHeader`` takes it. BIDS counts in seconds."""
    stated = (told.get(key) for key in ("SeriesDescription", "ProtocolName", "SequenceName"))
    texts = [text for text in stated if isinstance(text, str)]

    def milliseconds(key: str) -> float | None:
        value = told.get(key)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return float(value) * 1e3 if is_number and math.isfinite(value) else None  # type: ignore[arg-type]

    def codes(key: str) -> tuple[str, ...]:
        value = told.get(key)
        parts = re.split(r"[_\\]", value) if isinstance(value, str) else value
        return tuple(str(part).upper() for part in parts) if isinstance(parts, list) else ()

    return {
        "description": " ".join([*texts, stem_of(path).replace("_", " ")]),
        "image_type": codes("ImageType"),
        "scanning_sequence": codes("ScanningSequence"),
        "repetition_time_ms": milliseconds("RepetitionTime"),
        "echo_time_ms": milliseconds("EchoTime"),
        "inversion_time_ms": milliseconds("InversionTime"),
    }


@contextmanager
def _rejecting(path: Path, study_id: str, series_id: str, otherwise: Reason) -> Iterator[None]:
    """Turn whatever is raised inside into DicomRejected; only our own messages are passed on."""
    try:
        yield
        return
    except Refused as refused:
        reason, message = refused.reason, str(refused)
    except _BROKEN:
        reason, message = Reason.TRUNCATED, "the compressed file is damaged or ends too early"
    except Exception as error:
        reason, message = otherwise, f"cannot be read ({type(error).__name__})"
    raise DicomRejected(Rejection.of(path, reason, message, study_id=study_id, series_id=series_id)) from None
