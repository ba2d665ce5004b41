"""DICOM files in every transfer syntax that is read, and ways to damage them."""

from __future__ import annotations

import io
import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import cv2
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.filereader import data_element_generator
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from data_prep.read.dicom_limits import TRANSFER_SYNTAXES

_JPEG = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")
_JPEG_LOSSLESS = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
_JPEG_LS = (JPEGLSLossless, "1.2.840.10008.1.2.4.81")
_JPEG_2000 = (JPEG2000Lossless, "1.2.840.10008.1.2.4.91")
_NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)
# Lengths that readers have stumbled over: undefined, signed and unsigned extremes, odd, one off.
HUGE_LENGTHS = (0xFFFFFFFF, 0xFFFFFFFE, 0x7FFFFFFF, 0x80000000, 0x0000FFFF, 0xFFFF0000, 1)


class Damage(StrEnum):
    """One way to change a file."""

    FLIP = "flip a bit"
    SET = "set a byte"
    DELETE = "delete a block"
    INSERT = "insert a block"
    DUPLICATE = "duplicate a block"
    ZERO = "zero a block"
    TRUNCATE = "truncate"
    LENGTH = "change a length"


# Cut files are soon recognised: the other kinds come more often.
_DRAWN = [*Damage, Damage.FLIP, Damage.SET, Damage.FLIP, Damage.SET, Damage.LENGTH, Damage.ZERO]


@dataclass(frozen=True)
class Mutation:
    """A damage and where: ``place`` is the share of the file (or of its length fields) before it.

    Attributes:
        size: bytes of a block.
        value: of bytes that are set or inserted, bit that is flipped, number of the length that is set.
    """

    damage: Damage
    place: float
    size: int = 1
    value: int = 0


def applied(content: bytes, mutations: Sequence[Mutation]) -> bytes:
    """The file with all changes made, one after the other."""
    for mutation in mutations:
        content = _applied(content, mutation)
    return content


def _applied(content: bytes, mutation: Mutation) -> bytes:
    if not content:
        return content
    at = min(int(mutation.place * len(content)), len(content) - 1)
    end = at + mutation.size
    match mutation.damage:
        case Damage.FLIP:
            return content[:at] + bytes([content[at] ^ (1 << mutation.value % 8)]) + content[at + 1 :]
        case Damage.SET:
            return content[:at] + bytes([mutation.value % 256]) + content[at + 1 :]
        case Damage.DELETE:
            return content[:at] + content[end:]
        case Damage.INSERT:
            return content[:at] + bytes([mutation.value % 256]) * mutation.size + content[at:]
        case Damage.DUPLICATE:
            return content[:end] + content[at:]
        case Damage.ZERO:
            return content[:at] + bytes(len(content[at:end])) + content[end:]
        case Damage.TRUNCATE:
            return content[:at]
        case Damage.LENGTH:
            return _with_length(content, mutation)


def _with_length(content: bytes, mutation: Mutation) -> bytes:
    """Another number in the two or four bytes before a value, or anywhere if the file has none left."""
    fields = length_fields(content) or [min(int(mutation.place * len(content)), max(0, len(content) - 4))]
    at = fields[min(int(mutation.place * len(fields)), len(fields) - 1)]
    length = HUGE_LENGTHS[mutation.value % len(HUGE_LENGTHS)]
    size = 2 if mutation.size % 2 else 4
    coded = struct.pack("<I", length)[-size:] if length != 1 else struct.pack("<I", 1)[:size]
    return content[:at] + coded + content[at + size :]


def length_fields(content: bytes) -> list[int]:
    """Places of the four (or, one two bytes later, two) bytes of length of the top-level elements."""
    stream = io.BytesIO(content)
    stream.seek(132)
    implicit, big = (f"{syntax}\0".encode() in content[:1000] for syntax in _NATIVE[::2])
    values: list[int] = []
    try:
        elements = data_element_generator(stream, False, True, stop_when=lambda tag, *_: tag >> 16 != 2)
        values += [element.value_tell for element in elements]
        elements = data_element_generator(stream, implicit, not big)
        values += [getattr(element, "value_tell", 0) for element in elements]
    except Exception:  # the file is damaged already
        pass
    found = {value - back for value in values for back in (4, 2)}
    return sorted(at for at in found if 0 < at <= len(content) - 4)


def drawn(rng: random.Random) -> tuple[Mutation, ...]:
    """One to four changes; many blocks are short, some long."""
    return tuple(
        Mutation(
            rng.choice(_DRAWN),
            # Headers are a small part of a file, and the part that is parsed.
            rng.random() ** rng.choice((1, 1, 3)),
            rng.choice((1, 2, 4, 8, rng.randrange(1, 200), rng.randrange(1, 20_000))),
            rng.randrange(256),
        )
        for _ in range(rng.choice((1, 1, 1, 2, 3, 4)))
    )


def base_dataset() -> Dataset:
    """A real MR slice of 64 × 64 with its scanner's header: pydicom's MR_small."""
    path = get_testdata_file("MR_small.dcm")
    assert isinstance(path, str)
    return pydicom.dcmread(path)


def recoded(dataset: Dataset, syntax: str) -> bytes:
    """The file in another transfer syntax. The header stays; lossy codings are of the image cut to 8 bits."""
    copy = pydicom.dcmread(io.BytesIO(_saved(dataset)))
    pixels = copy.pixel_array
    if syntax in _NATIVE:
        copy.PixelData = pixels.astype(">i2" if syntax == ExplicitVRBigEndian else "<i2").tobytes()
    elif syntax in (RLELossless, *_JPEG_LS, *_JPEG_2000):
        plain = {**dict.fromkeys(_JPEG_LS, JPEGLSLossless), **dict.fromkeys(_JPEG_2000, JPEG2000Lossless)}
        copy.compress(plain.get(syntax, RLELossless), generate_instance_uid=False)
    elif syntax in _JPEG:
        grey = cv2.normalize(pixels.astype(np.float32), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)  # type: ignore[call-overload]
        done, coded = cv2.imencode(".jpg", grey)
        assert done
        copy.BitsAllocated = copy.BitsStored = 8
        copy.HighBit, copy.PixelRepresentation = 7, 0
        copy.PixelData = encapsulate([coded.tobytes()])
    else:
        copy.PixelData = encapsulate([jpeg_lossless(pixels.astype(np.uint16))])
    copy["PixelData"].VR = "OW" if syntax in _NATIVE else "OB"
    copy.file_meta.TransferSyntaxUID = UID(syntax)
    return _saved(copy)


def every_coding(dataset: Dataset) -> dict[str, bytes]:
    """The file in each transfer syntax that is read."""
    return {syntax: recoded(dataset, syntax) for syntax in TRANSFER_SYNTAXES}


def _saved(dataset: Dataset) -> bytes:
    stream = io.BytesIO()
    syntax = dataset.file_meta.TransferSyntaxUID
    pydicom.dcmwrite(
        stream,
        dataset,
        implicit_vr=syntax.is_implicit_VR,
        little_endian=syntax.is_little_endian,
        force_encoding=True,
    )
    return stream.getvalue()


def jpeg_lossless(pixels: NDArray[np.uint16]) -> bytes:
    """A JPEG lossless image (ITU-T T.81 annex H): 16 bits, predicted by the pixel to the left."""
    rows, columns = pixels.shape
    table = bytes([0, 0, 0, 0, 17, *[0] * 11, *range(17)])  # 17 categories, each a code of five bits
    head = b"".join(
        (
            b"\xff\xd8",
            struct.pack(">2sHBHHBBBB", b"\xff\xc3", 11, 16, rows, columns, 1, 1, 0x11, 0),
            struct.pack(">2sHB", b"\xff\xc4", 3 + len(table), 0) + table,
            struct.pack(">2sHBBBBBB", b"\xff\xda", 8, 1, 1, 0, 1, 0, 0),
        )
    )
    bits = "".join(map(_lossless_code, _differences(pixels)))
    bits += "1" * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8, "big")
    return head + data.replace(b"\xff", b"\xff\0") + b"\xff\xd9"


def _differences(pixels: NDArray[np.uint16]) -> list[int]:
    values = pixels.astype(np.int64)
    before = np.roll(values, 1, axis=1)
    before[1:, 0] = values[:-1, 0]
    before[0, 0] = 1 << 15
    wrapped = (values - before + (1 << 15)) % (1 << 16) - (1 << 15)
    return [int(number) for number in wrapped.ravel()]


def _lossless_code(difference: int) -> str:
    category = abs(difference).bit_length()
    code = f"{category:05b}"
    if category in (0, 16):  # 32768 needs no more bits
        return code
    extra = difference if difference > 0 else difference + (1 << category) - 1
    return code + f"{extra:0{category}b}"
