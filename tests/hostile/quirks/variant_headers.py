"""Variants of what headers say of patient, study and place, and of how values and elements are written."""

from __future__ import annotations

import copy
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless

from data_prep.vocabulary import SeriesKind
from tests.hostile.quirks.clinic import clinical
from tests.hostile.quirks.files import Rng, stranger_of
from tests.hostile.quirks.stored import Quirk, StoredImage, StoredStudy

T1, T2, AXIAL = SeriesKind.SAGITTAL_T1, SeriesKind.SAGITTAL_T2, SeriesKind.AXIAL_T2
PLACE = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")


def raw(image: StoredImage, keyword: str, vr: str, value: bytes) -> StoredImage:
    """The image with an element as it would never be written on purpose: its VR and its bytes."""
    changed = image.changed()
    value += b" " * (len(value) % 2)
    changed.dataset[keyword] = RawDataElement(Tag(keyword), vr, len(value), value, 0, False, True)
    return changed


def per_series(**choices: Any) -> Quirk:
    """Other elements in each series of an export: a list by keyword, in the order of the series."""

    def quirk(study: StoredStudy, rng: Rng) -> StoredStudy:
        series = list(dict.fromkeys(image.series_id for image in study.images))
        tree = clinical(study).as_tree()
        return tree.each(
            lambda image: image.changed(
                **{
                    key: values[series.index(image.series_id) % len(values)]
                    for key, values in choices.items()
                }
            )
        )

    return quirk


def names_as(*encoded: tuple[bytes, bytes]) -> Quirk:
    """The name of one patient in another encoding from series to series: (character set, name)."""

    def quirk(study: StoredStudy, rng: Rng) -> StoredStudy:
        series = list(dict.fromkeys(image.series_id for image in study.images))
        made = clinical(study).as_tree().each(lambda image: image.changed(PatientID="P77"))
        return _in_bytes(
            made, "PatientName", lambda image: encoded[series.index(image.series_id) % len(encoded)]
        )

    return quirk


def described_as(charset: bytes, names: dict[SeriesKind, bytes]) -> Quirk:
    """Names of series as bytes in some character set."""

    def quirk(study: StoredStudy, rng: Rng) -> StoredStudy:
        kinds = study.kinds
        made = clinical(study).as_tree()
        return _in_bytes(made, "SeriesDescription", lambda image: (charset, names[kinds[image.series_id]]))

    return quirk


def _in_bytes(
    study: StoredStudy, keyword: str, said: Callable[[StoredImage], tuple[bytes, bytes]]
) -> StoredStudy:
    """Character set and one text put into the files as bytes: no library would write them."""
    files = {}
    for image in study.images:
        charset, text = (value + b" " * (len(value) % 2) for value in said(image))
        mark = b"Q" * len(text)
        marked = raw(image.changed(SpecificCharacterSet="ISO_IR 100"), keyword, "LO", mark)
        content = marked.content()
        old = b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100"
        assert old in content and mark in content
        new = b"\x08\x00\x05\x00CS" + struct.pack("<H", len(charset)) + charset
        files[image.path] = content.replace(old, new, 1).replace(mark, text, 1)
    return replace(study, images=(), others=files)


def one_series_uid(study: StoredStudy, rng: Rng) -> StoredStudy:
    """Every series has one SeriesInstanceUID and SeriesNumber, and numbers its images from 1; one folder."""
    made = clinical(study).as_tree(one_folder=True)
    return made.each(lambda image: image.changed(SeriesInstanceUID="1.2.3.4", SeriesNumber=1))


def dates_per_file(study: StoredStudy, rng: Rng) -> StoredStudy:
    """An anonymiser has moved the dates of every file by another number of days."""
    made = clinical(study).as_tree()
    return made.each(
        lambda image: image.changed(StudyDate=f"2019{rng.integers(1, 13):02d}{rng.integers(1, 29):02d}")
    )


def two_with_one_identity(study: StoredStudy, rng: Rng) -> StoredStudy:
    """Two patients, a folder each, ANON, with the same StudyInstanceUID and series identifiers."""
    series = list(dict.fromkeys(image.series_id for image in study.images))

    def anonymous(image: StoredImage, folder: str) -> StoredImage:
        number = series.index(image.series_id.removeprefix("9") if folder == "b" else image.series_id)
        uid = f"1.2.3.{number}"
        changed = image.changed(
            PatientID="ANON",
            StudyInstanceUID="1.2.3",
            SeriesInstanceUID=uid,
            SOPInstanceUID=f"{uid}.{image.dataset.InstanceNumber}",
            FrameOfReferenceUID="1.2.3.99",
        )
        return changed.at(f"export/{folder}/SE{number}/{image.name}")

    mine = clinical(study)
    other = stranger_of(mine)
    images = [anonymous(image, "a") for image in mine.images]
    images += [anonymous(image, "b") for image in other.images]
    return replace(study, images=tuple(images)).without_table()


def places_as_unknown(study: StoredStudy, rng: Rng) -> StoredStudy:
    """A router has written every element of the geometry, and the times, with VR UN."""

    def unknown(image: StoredImage) -> StoredImage:
        for keyword in (*PLACE, "EchoTime", "RepetitionTime", "SeriesDescription"):
            value = image.dataset[keyword].value
            values = [value] if isinstance(value, (str, float)) else value
            image = raw(image, keyword, "UN", "\\".join(map(str, values)).encode())
        return image

    return clinical(study).as_tree().each(unknown)


def slopes_per_slice(study: StoredStudy, rng: Rng) -> StoredStudy:
    """Every slice is scaled to its own range, and its slope undoes that."""

    def scaled(image: StoredImage) -> StoredImage:
        pixels = image.pixels().astype(np.float64)
        factor = 4095.0 / max(float(pixels.max()), 1.0) * rng.uniform(0.4, 1.0)
        return image.with_pixels(pixels * factor, RescaleSlope=f"{1 / factor:.9g}", RescaleIntercept="0")

    return clinical(study).as_tree().each(scaled)


def every_second(change: Callable[[StoredImage], StoredImage]) -> Quirk:
    """A change of every second slice of each series."""

    def quirk(study: StoredStudy, rng: Rng) -> StoredStudy:
        made = clinical(study).as_tree()
        return made.each_series(
            lambda images: [change(image) if place % 2 else image for place, image in enumerate(images)]
        )

    return quirk


def signed_with_padding(study: StoredStudy, rng: Rng) -> StoredStudy:
    """Signed pixels; the padding is written with VR US, as 63536, and a range."""

    def padded(image: StoredImage) -> StoredImage:
        pixels = image.pixels().astype("<i2")
        pixels[:, :5] = -2000
        pixels[:3] = -1990
        made = image.changed(PixelData=pixels.tobytes(), BitsStored=16, HighBit=15, PixelRepresentation=1)
        made = raw(made, "PixelPaddingValue", "US", struct.pack("<H", 63536))
        return raw(made, "PixelPaddingRangeLimit", "US", struct.pack("<H", 63546))

    return clinical(study).as_tree().each(padded)


def wider_pixels(dtype: str) -> Quirk:
    """Pixels of 32 bits, whole or float, as post-processing writes them."""

    def quirk(study: StoredStudy, rng: Rng) -> StoredStudy:
        def wide(image: StoredImage) -> StoredImage:
            values = image.pixels().astype(dtype).tobytes()
            if dtype == "<u4":
                return image.changed(PixelData=values, BitsAllocated=32, BitsStored=32, HighBit=31)
            bits = dict.fromkeys(("BitsStored", "HighBit", "PixelRepresentation", "PixelData"))
            return image.changed(FloatPixelData=values, BitsAllocated=32, **bits)

        return clinical(study).as_tree().each(wide, tuple(study.ids_of(AXIAL)))

    return quirk


def syntax_that_lies(study: StoredStudy, rng: Rng) -> StoredStudy:
    """File Meta of the axial slices says JPEG 2000; the pixels are not coded."""
    own = tuple(study.ids_of(AXIAL))
    files = {}
    for image in clinical(study).as_tree().of(*own):
        plain, coded = (str(uid).encode() for uid in (ExplicitVRLittleEndian, JPEG2000Lossless))
        head = b"\x02\x00\x10\x00UI"
        old = head + struct.pack("<H", len(plain) + len(plain) % 2) + plain + b"\0" * (len(plain) % 2)
        new = head + struct.pack("<H", len(coded) + len(coded) % 2) + coded + b"\0" * (len(coded) % 2)
        content = image.content()
        assert old in content
        grown = len(new) - len(old)
        size = struct.unpack("<I", content[140:144])[0] + grown
        files[image.path] = content[:140] + struct.pack("<I", size) + content[144:].replace(old, new, 1)
    return clinical(study).as_tree().each(lambda image: None, own).plus(others=files)


def surplus_pixels(study: StoredStudy, rng: Rng) -> StoredStudy:
    """Pixel data are longer than the picture, as some archives leave them."""
    made = clinical(study).as_tree()
    return made.each(lambda image: image.changed(PixelData=image.dataset.PixelData + bytes(510) + b"Qx"))


def rewritten(change: Callable[[bytes, Dataset], bytes]) -> Quirk:
    """The bytes of every file changed by hand."""

    def quirk(study: StoredStudy, rng: Rng) -> StoredStudy:
        made = clinical(study).as_tree()
        files = {image.path: change(image.content(), image.dataset) for image in made.images}
        return replace(made, images=(), others=files)

    return quirk


def out_of_order(content: bytes, dataset: Dataset) -> bytes:
    """Groups of the header in reverse, pixels last."""
    parts: dict[int, bytes] = {}
    for group in sorted({element.tag.group for element in dataset}):
        own = Dataset()
        for element in dataset:
            if element.tag.group == group:
                own.add(element)
        stream = DicomBytesIO()
        stream.is_little_endian, stream.is_implicit_VR = True, False
        write_dataset(stream, own)
        parts[group] = stream.getvalue()
    meta = 144 + struct.unpack("<I", content[140:144])[0]
    pixels = parts.pop(0x7FE0)
    return content[:meta] + b"".join(parts[group] for group in sorted(parts, reverse=True)) + pixels


def meta_length_wrong(content: bytes, dataset: Dataset) -> bytes:
    """FileMetaInformationGroupLength is not that of File Meta."""
    return content[:140] + struct.pack("<I", 90) + content[144:]


def with_group_lengths(content: bytes, dataset: Dataset) -> bytes:
    """A retired group length before the first element, and trailing padding after the pixels."""
    meta = 144 + struct.unpack("<I", content[140:144])[0]
    length = struct.pack("<HH2sHI", 0x0008, 0x0000, b"UL", 4, 500)
    padding = struct.pack("<HH2sHI", 0xFFFC, 0xFFFC, b"OB", 0, 64) + bytes(64)
    return content[:meta] + length + content[meta:] + padding


def with_icon(study: StoredStudy, rng: Rng) -> StoredStudy:
    """An icon with pixel data of its own, and deep private sequences before the geometry."""

    def adorned(image: StoredImage) -> StoredImage:
        icon = Dataset()
        icon.Rows = icon.Columns = 8
        icon.SamplesPerPixel, icon.PhotometricInterpretation = 1, "MONOCHROME2"
        icon.BitsAllocated = icon.BitsStored = 8
        icon.HighBit, icon.PixelRepresentation = 7, 0
        icon.PixelData = bytes(64)
        inner = Dataset()
        inner.add_new(0x00091001, "LO", "GEMS_IDEN_01")
        inner.ImagePositionPatient = [0, 0, 0]
        inner.PixelSpacing = [9, 9]
        outer = copy.deepcopy(inner)
        outer.ReferencedImageSequence = [inner]
        return image.changed(IconImageSequence=[icon], SourceImageSequence=[outer])

    return clinical(study).as_tree().each(adorned)


def numbers_as_decimals(study: StoredStudy, rng: Rng) -> StoredStudy:
    """InstanceNumber "7.0", AcquisitionNumber "A1" and SeriesNumber "": no whole numbers."""

    def odd(image: StoredImage) -> StoredImage:
        image = raw(image, "InstanceNumber", "IS", f"{image.dataset.InstanceNumber}.0".encode())
        return raw(image, "AcquisitionNumber", "IS", b"A1")

    return clinical(study).as_tree().each(odd)


def commas(study: StoredStudy, rng: Rng) -> StoredStudy:
    """Decimals of the axial geometry written with a comma."""

    def comma(image: StoredImage) -> StoredImage:
        text = "\\".join(f"{value:.3f}".replace(".", ",") for value in image.position_mm)
        return raw(image, "ImagePositionPatient", "DS", text.encode())

    return clinical(study).as_tree().each(comma, tuple(study.ids_of(AXIAL)))


def bare_types(study: StoredStudy, rng: Rng) -> StoredStudy:
    """ImageType of one value, in small letters; a negative spacing between slices."""
    made = clinical(study).as_tree()
    return made.each(lambda image: image.changed(ImageType="original", SpacingBetweenSlices="-4.4"))
