"""NIfTI volumes as series: geometry from the affine, kind from name and sidecar, voxels only when asked.

nibabel reads the header and the voxels; what it is given is bounded first. A file becomes one series, whose
slices lie along its thickest axis (or the one that the header calls the slice axis).
"""

from __future__ import annotations

import gzip
import io
import logging
import math
import re
import zlib
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from data_prep.problems import DicomRejected, Reason, Rejection
from data_prep.read.dicom_limits import DEFAULT_LIMITS, KnownErrors, ReadLimits, Refused, rejecting
from data_prep.read.nifti_layout import Claims, Layout, affine_of, layout_of, plane_of
from data_prep.read.nifti_sidecar import description_of, read_sidecar, stem_of
from data_prep.read.slice_header import SliceHeader

HOW_TO_INSTALL = "NIfTI needs nibabel: pip install 'lumbar[nifti]'"
_HEADER_BYTES = {348: "Nifti1Header", 540: "Nifti2Header"}
_MAX_OFFSET_BYTES = 1024 * 1024
_SEGMENTATION = re.compile(
    r"(^|[_.-])(\w*mask|[dp]?seg|probseg|softseg|labels?|label(l?ed|map)|segmentations?|centerline)$"
    r"|(^|_)(label|labels|seg)-|_(seg|label)_label",
    re.IGNORECASE,
)
# NIfTI-1, 'intent codes': values are those of labels.
_INTENT_LABEL = 1002
# Grey values of an image are many more, and those of a map of labels hardly ever.
_MOST_LABELS, _LABELS_LOOKED_AT = 32, (0.5, 0.35, 0.65)
_BROKEN = "the compressed file is damaged or ends too early"
_KNOWN: KnownErrors = (((EOFError, gzip.BadGzipFile, zlib.error), Reason.TRUNCATED, _BROKEN),)
# Of the way from the darkest value to the 95th percentile. Around masks that hold the whole body 0 to 1 % of
# the border is brighter (slices of two patients); around broken strips, bands and blocks that reach the spine
# 7 to 100 %, with such a mask beside them, too.
_BRIGHT_FROM = 0.2
_MOST_BRIGHT = 0.02
_REPLACE = "if they are background, put its grey value in their place"


def read_volume(
    path: Path,
    *,
    limits: ReadLimits = DEFAULT_LIMITS,
    series_id: str = "",
    folder_name: str = "",
) -> tuple[tuple[SliceHeader, ...], tuple[Rejection, ...]]:
    """The slices of a volume; no voxel is read.

    The series is described by the file's name, by its JSON sidecar, if there is one, and by ``folder_name``.

    Returns:
        A header per slice, numbered from 1 along the slice axis of the array; and what was not used, which
        is a sidecar that cannot be read.

    Raises:
        DicomRejected: for every failure, with the reason.
    """
    with rejecting(path, Reason.UNREADABLE, _KNOWN):
        if _SEGMENTATION.search(stem_of(path)):
            raise Refused(Reason.UNKNOWN_KIND, "a segmentation by its name, not an image")
        claims = _claims(path, limits)
        if int(claims.header["intent_code"]) == _INTENT_LABEL:
            raise Refused(Reason.UNKNOWN_KIND, "labels by its header, not an image")
        sidecar = read_sidecar(path)
        told = dict(sidecar or {})
        affine = affine_of(claims.header)
        layout = layout_of(affine, claims, stem_of(path))
        described = description_of(path, told, folder_name)
        headers = tuple(
            SliceHeader(
                path=path,
                plane=plane_of(affine, claims.shape, layout, index),
                instance_number=index + 1,
                series_uid=series_id,
                reader=partial(read_voxels, path, claims, layout, index, limits),
                **described,
            )
            for index in range(claims.shape[layout.slice_axis])
        )
    unused: tuple[Rejection, ...] = ()
    if sidecar is None:
        message = "its JSON sidecar cannot be read and was not used"
        unused = (Rejection.of(path, Reason.UNREADABLE, message),)
    return headers, unused


def holds_labels(headers: Sequence[SliceHeader]) -> bool:
    """Whether slices of a volume hold a few values alone, as segmentations do, and as no image does."""
    values: set[float] = set()
    for share in _LABELS_LOOKED_AT:
        reader = headers[int(share * len(headers))].reader
        try:
            values.update(np.unique(reader()).tolist() if reader is not None else ())
        except DicomRejected:
            return False
        if len(values) > _MOST_LABELS:
            return False
    return len(values) > 1


def read_voxels(
    path: Path, claims: Claims, layout: Layout, index: int, limits: ReadLimits
) -> NDArray[np.float32]:
    """One slice as float32 (rows, columns), scaled as the header says.

    Raises:
        DicomRejected: for every failure, with the reason.
    """
    with rejecting(path, Reason.BAD_PIXELS, _KNOWN):
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
        return without_nan(image)


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

    # It logs what it mends in a header, by a handler of its own that its import adds.
    logger = logging.getLogger("nibabel.global")
    logger.handlers[:], logger.propagate = [logging.NullHandler()], False
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


def without_nan(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """The image with the grey of the background where it has NaN around the body.

    NaN is background where it comes in from the edge of the slice, leaves the middle third free, and ends in
    the dark around the body. Nothing broken that reaches the spine does: it ends in tissue, or in the middle.

    Args:
        image: (rows, columns) one slice.

    Raises:
        Refused: infinite values, NaN alone, NaN within the image, or NaN that ends in tissue.
    """
    if np.isfinite(image).all():
        return image
    nan = np.isnan(image)
    found = image[~nan]
    if not len(found) or not np.isfinite(found).all():
        raise Refused(Reason.BAD_PIXELS, "voxel values are not finite")
    padded = np.pad(nan, 1, constant_values=True).astype(np.uint8)
    parts = cv2.connectedComponents(padded, connectivity=4)[1]
    rows, columns = (slice(size // 3, size - size // 3) for size in image.shape)
    if nan[rows, columns].any() or (nan & (parts[1:-1, 1:-1] != parts[0, 0])).any():
        raise Refused(Reason.BAD_PIXELS, f"voxels within the image are not a number: {_REPLACE}")
    beside = cv2.dilate(nan.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & ~nan
    darkest, bright = float(found.min()), float(np.percentile(found, 95))
    border = image[beside]
    if (border > darkest + _BRIGHT_FROM * (bright - darkest)).mean() > _MOST_BRIGHT:
        raise Refused(Reason.BAD_PIXELS, f"voxels are not a number as far as into tissue: {_REPLACE}")
    return np.where(nan, np.median(border), image).astype(np.float32)
