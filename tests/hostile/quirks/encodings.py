"""Quirks of encoding: transfer syntaxes, stored values, header elements. What the image shows stays."""

from __future__ import annotations

import copy
import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from data_prep.base.uids import derived_uid
from data_prep.vocabulary import SeriesKind
from tests.hostile.quirks.stored import Quirk, StoredImage, StoredStudy

Rng = np.random.Generator
HTJ2K_LOSSLESS = "1.2.840.10008.1.2.4.201"


class ToolMissing(RuntimeError):
    """A quirk needs a program that is not installed."""


def native(syntax: UID) -> Quirk:
    """Uncompressed pixels in another order of bytes or way of writing elements, or deflated."""

    def convert(image: StoredImage) -> StoredImage:
        pixels = image.dataset.PixelData
        if syntax == ExplicitVRBigEndian:
            pixels = image.pixels().astype(">u2").tobytes()
        # A new dataset: one that was read as little endian is not written as big endian.
        dataset = Dataset()
        for element in image.dataset:
            dataset.add(copy.copy(element))  # what is set below is not to change the study as it was read
        dataset.file_meta = copy.deepcopy(image.dataset.file_meta)
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.PixelData = pixels
        dataset["PixelData"].VR = "OW"
        return replace(image, dataset=dataset)

    return lambda study, rng: study.each(convert)


def compressed(syntax: UID, **options: Any) -> Quirk:
    """Encapsulated by the encoders that come with the environment, with options of ``Dataset.compress``."""

    def convert(image: StoredImage) -> StoredImage:
        dataset = copy.deepcopy(image.dataset)
        dataset.compress(syntax, generate_instance_uid=False, **options)
        return replace(image, dataset=dataset)

    return lambda study, rng: study.each(convert)


def dcmtk(*options: str) -> Quirk:
    """Encapsulated by ``dcmcjpeg`` of dcmtk with these options.

    Raises:
        ToolMissing: dcmtk is not installed.
    """

    def quirk(study: StoredStudy, rng: Rng) -> StoredStudy:
        program = shutil.which("dcmcjpeg")
        if program is None:
            raise ToolMissing("needs dcmtk: apt-get install dcmtk")
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder, "plain.dcm"), Path(folder, "jpeg.dcm")

            def convert(image: StoredImage) -> StoredImage:
                image.dataset.save_as(source, enforce_file_format=True)
                subprocess.run([program, *options, source, target], check=True, capture_output=True)
                dataset = pydicom.dcmread(target)
                # What only the codec changes: dcmcjpeg gives new identifiers after a loss.
                dataset.SOPInstanceUID = image.dataset.SOPInstanceUID
                return replace(image, dataset=dataset)

            return study.each(convert)

    return quirk


def eight_bits(study: StoredStudy, rng: Rng) -> StoredStudy:
    """Stored in 8 bits, scaled as each series' window says."""

    def reduce(images: list[StoredImage]) -> list[StoredImage]:
        white = max(float(np.percentile(image.pixels(), 99.9)) for image in images)
        return [_eight_bit(image, white) for image in images]

    return study.each_series(reduce)


def _eight_bit(image: StoredImage, white: float) -> StoredImage:
    values = np.clip(np.rint(image.pixels() * (255.0 / max(white, 1.0))), 0, 255).astype(np.uint8)
    content = values.tobytes()
    return image.changed(
        PixelData=content + bytes(len(content) % 2), BitsAllocated=8, BitsStored=8, HighBit=7
    )


def jpeg_baseline(study: StoredStudy, rng: Rng) -> StoredStudy:
    """8 bits and JPEG baseline at quality 90."""
    return dcmtk("+eb", "+q", "90")(eight_bits(study, rng), rng)


def signed(study: StoredStudy, rng: Rng) -> StoredStudy:
    """Two's complement in 16 bits, half of the values below zero, with the intercept that undoes it."""

    def shift(image: StoredImage) -> StoredImage:
        values = (image.pixels().astype(np.int16) - 400).astype("<i2")
        return image.changed(
            PixelData=values.tobytes(),
            PixelRepresentation=1,
            BitsStored=16,
            HighBit=15,
            RescaleIntercept="400",
            RescaleSlope="1",
        )

    return study.each(shift)


def signed_twelve_bits(study: StoredStudy, rng: Rng) -> StoredStudy:
    """Two's complement in 12 of 16 bits, the upper four bits zero instead of the sign's."""

    def shift(image: StoredImage) -> StoredImage:
        values = np.minimum(image.pixels().astype(np.int32), 2447) - 400
        return image.changed(
            PixelData=(values & 0x0FFF).astype("<u2").tobytes(), PixelRepresentation=1, RescaleIntercept="400"
        )

    return study.each(shift)


def rescaled(study: StoredStudy, rng: Rng) -> StoredStudy:
    """A slope and an intercept for every series, as vendors write them."""
    return study.each(lambda image: image.changed(RescaleSlope="2.7394", RescaleIntercept="-150"))


def inverted(image: StoredImage) -> StoredImage:
    """As MONOCHROME1: bright tissue has low values."""
    return image.with_pixels(4095 - image.pixels().astype(np.int32), PhotometricInterpretation="MONOCHROME1")


def monochrome1(study: StoredStudy, rng: Rng) -> StoredStudy:
    """Every image inverted."""
    return study.each(inverted)


def overlay_bits(study: StoredStudy, rng: Rng) -> StoredStudy:
    """A drawing in the four bits that the image does not use (retired, still on old disks)."""

    def draw(image: StoredImage) -> StoredImage:
        values = image.pixels().copy()
        values[::7, ::3] |= 0x1000
        values[::11] |= 0x8000
        return image.changed(PixelData=values.tobytes())

    return study.each(draw)


def sixteen_bits(study: StoredStudy, rng: Rng) -> StoredStudy:
    """All 16 bits are used."""
    return study.each(
        lambda image: image.changed(
            PixelData=(image.pixels() * np.uint16(16)).astype("<u2").tobytes(), BitsStored=16, HighBit=15
        )
    )


def mixed_syntaxes(study: StoredStudy, rng: Rng) -> StoredStudy:
    """Another transfer syntax from slice to slice."""
    ways = [compressed(RLELossless), compressed(JPEG2000Lossless), compressed(JPEGLSLossless)]
    ways += [native(ImplicitVRLittleEndian), lambda study, rng: study]
    images = []
    for number, image in enumerate(study.images):
        images += ways[number % len(ways)](replace(study, images=(image,)), rng).images
    return replace(study, images=tuple(images))


def not_accepted(study: StoredStudy, rng: Rng) -> StoredStudy:
    """High-throughput JPEG 2000, which is not on the list."""
    made = compressed(JPEG2000Lossless)(study, rng)
    for image in made.images:
        image.dataset.file_meta.TransferSyntaxUID = UID(HTJ2K_LOSSLESS)
    return made


def colour(study: StoredStudy, rng: Rng) -> StoredStudy:
    """The axial series as colour pictures."""

    def paint(image: StoredImage) -> StoredImage:
        grey = np.clip(image.pixels() // 16, 0, 255).astype(np.uint8)
        content = np.repeat(grey[..., None], 3, axis=2).tobytes()
        return image.changed(
            PixelData=content,
            SamplesPerPixel=3,
            PlanarConfiguration=0,
            PhotometricInterpretation="RGB",
            BitsAllocated=8,
            BitsStored=8,
            HighBit=7,
        )

    return study.each(paint, tuple(study.ids_of(SeriesKind.AXIAL_T2)))


def undecodable(study: StoredStudy, rng: Rng) -> StoredStudy:
    """Every second axial slice has a sound header before RLE data that cannot be decoded."""
    (series_id, *_) = study.ids_of(SeriesKind.AXIAL_T2)
    bad = {image.path for image in study.of(series_id)[::2]}

    def spoil(image: StoredImage) -> StoredImage:
        if image.path not in bad:
            return image
        dataset = copy.deepcopy(image.dataset)
        dataset.file_meta.TransferSyntaxUID = RLELossless
        dataset.PixelData = encapsulate([b"\x01\0\0\0\x40\0\0\0" + b"\xff" * 200])
        dataset["PixelData"].VR = "OB"
        return replace(image, dataset=dataset)

    return study.each(spoil)


def lacking(*keywords: str, tree: bool = False, only: SeriesKind | None = None) -> Quirk:
    """Elements left out of every image, or of those of a kind; ``tree``: in the layout of an export."""

    def quirk(study: StoredStudy, rng: Rng) -> StoredStudy:
        series = None if only is None else tuple(study.ids_of(only))
        bare = study.each(lambda image: image.changed(**dict.fromkeys(keywords)), series)
        return bare.as_tree() if tree else bare

    return quirk


def lacking_in_one_folder(*keywords: str) -> Quirk:
    """Elements left out, all files of the study in one folder."""
    return lambda study, rng: lacking(*keywords)(study, rng).as_tree(one_folder=True)


def lacking_in_one_slice(keyword: str) -> Quirk:
    """An element left out of the first image of every series."""

    def quirk(study: StoredStudy, rng: Rng) -> StoredStudy:
        return study.each_series(lambda images: [images[0].changed(**{keyword: None}), *images[1:]])

    return quirk


def silent_headers(study: StoredStudy, rng: Rng) -> StoredStudy:
    """Neither a table nor a description nor a time says how a series is weighted."""
    keywords = ("SeriesDescription", "RepetitionTime", "EchoTime", "InversionTime", "ScanningSequence")
    return lacking(*keywords, tree=True)(study, rng)


def bare_headers(study: StoredStudy, rng: Rng) -> StoredStudy:
    """Nothing but geometry and pixels, in the RSNA layout."""
    needed = {"Rows", "Columns", "PixelSpacing", "PixelData", "BitsAllocated", "BitsStored", "HighBit"}
    needed |= {"PixelRepresentation", "SamplesPerPixel", "PhotometricInterpretation"}
    needed |= {"ImagePositionPatient", "ImageOrientationPatient"}

    def strip(image: StoredImage) -> StoredImage:
        keywords = [element.keyword for element in image.dataset if element.keyword not in needed]
        return image.changed(**dict.fromkeys(keywords))

    return study.each(strip)


def valid_identifiers(study: StoredStudy, rng: Rng) -> StoredStudy:
    """UIDs of a registered root, one frame of reference for the study, SOP class in the dataset."""

    def complete(image: StoredImage) -> StoredImage:
        return image.changed(
            StudyInstanceUID=derived_uid("study", study.study_id),
            SeriesInstanceUID=derived_uid("series", image.series_id),
            SOPInstanceUID=derived_uid("image", image.path),
            FrameOfReferenceUID=derived_uid("frame", study.study_id),
            SOPClassUID=image.dataset.file_meta.MediaStorageSOPClassUID,
            Modality="MR",
        )

    return study.each(complete)


deflated = native(DeflatedExplicitVRLittleEndian)
