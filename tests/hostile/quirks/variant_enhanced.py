"""Variants of enhanced objects: what differs from frame to frame, stacks, concatenations, segmentations."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import (
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    SegmentationStorage,
)

from data_prep.vocabulary import SeriesKind
from tests.hostile.quirks.candidates import fat_image
from tests.hostile.quirks.clinic import clinical
from tests.hostile.quirks.files import Rng
from tests.hostile.quirks.stored import Quirk, StoredImage, StoredStudy, in_space

T1, T2, AXIAL = SeriesKind.SAGITTAL_T1, SeriesKind.SAGITTAL_T2, SeriesKind.AXIAL_T2
Describe = Callable[[Dataset, int], None]


def _nothing(group: Dataset, number: int) -> None:
    pass


def joined(
    images: Sequence[StoredImage],
    describe: Describe = _nothing,
    *,
    sop_class: str = EnhancedMRImageStorage,
    **elements: Any,
) -> StoredImage:
    """The images as frames of one object; ``describe`` adds to the functional groups of each."""
    first = images[0]
    gone = dict.fromkeys(
        (
            "ImagePositionPatient",
            "ImageOrientationPatient",
            "PixelSpacing",
            "EchoTime",
            "RepetitionTime",
            "ScanningSequence",
        )
    )
    dataset = copy.deepcopy(first.changed(**{**gone, **elements}).dataset)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.NumberOfFrames = len(images)
    dataset.SharedFunctionalGroupsSequence = [Dataset()]
    groups = []
    for number, image in enumerate(images):
        group = Dataset()
        place, orientation, measures, timing, echo = (Dataset() for _ in range(5))
        place.ImagePositionPatient = image.dataset.ImagePositionPatient
        orientation.ImageOrientationPatient = image.dataset.ImageOrientationPatient
        measures.PixelSpacing = image.dataset.PixelSpacing
        timing.RepetitionTime = image.dataset.RepetitionTime
        echo.EffectiveEchoTime = float(image.dataset.EchoTime)
        group.PlanePositionSequence, group.PlaneOrientationSequence = [place], [orientation]
        group.PixelMeasuresSequence, group.MREchoSequence = [measures], [echo]
        group.MRTimingAndRelatedParametersSequence = [timing]
        describe(group, number)
        groups.append(group)
    dataset.PerFrameFunctionalGroupsSequence = groups
    dataset.PixelData = b"".join(image.dataset.PixelData for image in images)
    return replace(first, dataset=dataset)


def _replaced(kind: SeriesKind, make: Callable[[list[StoredImage], StoredStudy], list[StoredImage]]) -> Quirk:
    def quirk(study: StoredStudy, rng: Rng) -> StoredStudy:
        own = tuple(study.ids_of(kind))
        named = clinical(study)
        return named.each_series(lambda images: make(images, named), own).as_tree()

    return quirk


def _frame_type(*codes: str) -> Dataset:
    found = Dataset()
    found.FrameType = list(codes)
    return found


def dixon() -> Quirk:
    """T2 as one object whose frames are fat, opposed, water and in phase in turn, told by FrameType."""

    def make(images: list[StoredImage], study: StoredStudy) -> list[StoredImage]:
        parts = ("F", "OP", "W", "IP")
        frames = [image if part == "IP" else fat_image(image) for image in images for part in parts]

        def describe(group: Dataset, number: int) -> None:
            group.MRImageFrameTypeSequence = [_frame_type("DERIVED", "PRIMARY", "DIXON", parts[number % 4])]

        return [joined(frames, describe, ImageType=["DERIVED", "PRIMARY", "DIXON", "MIXED"])]

    return _replaced(T2, make)


def echoes() -> Quirk:
    """T2 as one object with two echoes of each slice, 15 and 100 ms."""

    def make(images: list[StoredImage], study: StoredStudy) -> list[StoredImage]:
        frames = [
            frame
            for image in images
            for frame in (fat_image(image).changed(EchoTime=15), image.changed(EchoTime=100))
        ]
        return [joined(frames)]

    return _replaced(T2, make)


def concatenated(study: StoredStudy, rng: Rng) -> StoredStudy:
    """T2 as two objects of one concatenation, half of the frames in each."""

    def make(images: list[StoredImage], _: StoredStudy) -> list[StoredImage]:
        middle = len(images) // 2
        made = []
        for number, part in enumerate((images[:middle], images[middle:]), start=1):
            uid = f"{images[0].dataset.SeriesInstanceUID}.77"
            elements = {"ConcatenationUID": uid, "InConcatenationNumber": number, "InstanceNumber": 1}
            made.append(joined(part, SOPInstanceUID=f"{uid}.{number}", **elements))
        return made

    return _replaced(T2, make)(study, rng)


def legacy_converted(study: StoredStudy, rng: Rng) -> StoredStudy:
    """All three series as legacy converted enhanced objects, the axial one in its stacks."""
    named = clinical(study)
    return named.each_series(
        lambda images: [joined(images, sop_class=LegacyConvertedEnhancedMRImageStorage)]
    ).as_tree()


def slopes(study: StoredStudy, rng: Rng) -> StoredStudy:
    """T2 as one object whose frames have slopes of their own."""
    factors = rng.uniform(0.3, 1.0, 200)

    def make(images: list[StoredImage], _: StoredStudy) -> list[StoredImage]:
        frames = [
            image.with_pixels(image.pixels().astype(np.float64) * factors[number])
            for number, image in enumerate(images)
        ]

        def describe(group: Dataset, number: int) -> None:
            value = Dataset()
            value.RescaleSlope, value.RescaleIntercept = f"{1 / factors[number]:.9g}", "0"
            group.PixelValueTransformationSequence = [value]

        return [joined(frames, describe)]

    return _replaced(T2, make)(study, rng)


def compressed(syntax: str) -> Quirk:
    """T2 as one object whose frames are coded."""

    def make(images: list[StoredImage], study: StoredStudy) -> list[StoredImage]:
        made = joined(images)
        made.dataset.compress(syntax, generate_instance_uid=False)
        return [made]

    return _replaced(T2, make)


def too_few_groups(study: StoredStudy, rng: Rng) -> StoredStudy:
    """T2 as one object with a functional group less than it has frames."""

    def make(images: list[StoredImage], _: StoredStudy) -> list[StoredImage]:
        made = joined(images)
        made.dataset.PerFrameFunctionalGroupsSequence.pop()
        return [made]

    return _replaced(T2, make)(study, rng)


def without_names(study: StoredStudy, rng: Rng) -> StoredStudy:
    """All series as enhanced objects; no description, AcquisitionContrast alone says what they show."""
    contrast = {T1: "T1", T2: "T2", AXIAL: "T2"}
    kinds = study.kinds
    named = clinical(study)

    def make(images: list[StoredImage]) -> list[StoredImage]:
        said = contrast[kinds[images[0].series_id]]
        bare = [image.changed(SeriesDescription=None) for image in images]

        def describe(group: Dataset, number: int) -> None:
            kind = _frame_type("ORIGINAL", "PRIMARY", "M", "NONE")
            kind.AcquisitionContrast = said
            group.MRImageFrameTypeSequence = [kind]
            del group.MREchoSequence, group.MRTimingAndRelatedParametersSequence

        return [joined(bare, describe)]

    return named.each_series(make).as_tree()


def segmentation(study: StoredStudy, rng: Rng) -> StoredStudy:
    """A segmentation of the sagittal T2, made by another program, before all series."""
    named = clinical(study)
    (series_id, *_) = study.ids_of(T2)
    images = in_space(list(named.of(series_id)))
    uid = f"{study.study_id}.0"
    made = joined(
        images,
        sop_class=SegmentationStorage,
        SeriesInstanceUID=uid,
        SOPInstanceUID=f"{uid}.1",
        SeriesDescription="SAG T2 vertebrae",
        Modality="SEG",
        ImageType=["DERIVED", "PRIMARY"],
        SegmentationType="FRACTIONAL",
        BitsAllocated=8,
        BitsStored=8,
        HighBit=7,
    )
    values = [(image.pixels() > np.percentile(image.pixels(), 80)).astype("u1") * 255 for image in images]
    made.dataset.PixelData = b"".join(value.tobytes() for value in values)
    return named.plus(replace(made, series_id="0").at(f"{study.folder}/0/1.dcm")).as_tree()
