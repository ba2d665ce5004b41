"""Quirks of clinical folders: anonymised exports, names of series, regions, enhanced objects, padding."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedMRImageStorage

from data_prep.vocabulary import SeriesKind
from tests.hostile.quirks.files import Rng, stranger_of
from tests.hostile.quirks.stored import Quirk, StoredImage, StoredStudy

T1, T2, AXIAL = SeriesKind.SAGITTAL_T1, SeriesKind.SAGITTAL_T2, SeriesKind.AXIAL_T2
_NAMES = {T1: "SAG T1 TSE", T2: "SAG T2 TSE", AXIAL: "AX T2 TSE"}
_TIMES = {T1: (600, 10), T2: (3500, 100), AXIAL: (4000, 100)}


def clinical(study: StoredStudy) -> StoredStudy:
    """The study as a clinic has it: no table, names, times and one frame of reference."""
    kinds = study.kinds

    def named(image: StoredImage) -> StoredImage:
        kind = kinds[image.series_id]
        repetition, echo = _TIMES[kind]
        return image.changed(
            SeriesDescription=_NAMES[kind],
            RepetitionTime=repetition,
            EchoTime=echo,
            ScanningSequence="SE",
            ImageType=["ORIGINAL", "PRIMARY", "M"],
        )

    return study.each(named)


def examination_named(study: StoredStudy, rng: Rng) -> StoredStudy:
    """The name of the examination in the ProtocolName of every series, and no SeriesDescription."""
    study = clinical(study)
    return study.each(
        lambda image: image.changed(SeriesDescription=None, ProtocolName="LUMBAR SPINE T2 ROUTINE WITH STIR")
    ).without_table()


def t1_with_spair(study: StoredStudy, rng: Rng) -> StoredStudy:
    """The only T1 is called after the way in which its fat is suppressed."""
    study = clinical(study)
    own = tuple(study.ids_of(T1))
    name = "t1_tirm_sag_dark-fluid"
    return study.each(lambda image: image.changed(SeriesDescription=name), own).without_table()


def moved_axials(shift_mm: float) -> Quirk:
    """The patient moved along the table before the axial series, which got a frame of its own."""

    def quirk(study: StoredStudy, rng: Rng) -> StoredStudy:
        own = tuple(study.ids_of(AXIAL))
        return study.each(
            lambda image: image.in_geometry(image.position_mm + [0.0, 0.0, shift_mm]).changed(
                FrameOfReferenceUID="1.2.3.99"
            ),
            own,
        )

    return quirk


def of_the_neck(study: StoredStudy, rng: Rng) -> StoredStudy:
    """Every header says that it is the neck."""
    return study.each(lambda image: image.changed(BodyPartExamined="CSPINE"))


def scaled(image: StoredImage, scale: float, dz_mm: float) -> StoredImage:
    """The image as of a smaller spine, farther up."""
    rows, columns = image.spacing_mm
    place = image.position_mm * [1.0, scale, scale] + [0.0, 0.0, dz_mm]
    return image.in_geometry(place).changed(PixelSpacing=[rows * scale, columns * scale])


def region_alone(scale: float, dz_mm: float) -> Quirk:
    """A study of the neck or the chest: every image scaled, and headers that say nothing of it."""
    return lambda study, rng: study.each(lambda image: scaled(image, scale, dz_mm))


def full_width_names(study: StoredStudy, rng: Rng) -> StoredStudy:
    """Names in the full-width letters of Japanese consoles, and no times."""
    names = {
        T1: "\uff34\uff11 \uff33\uff21\uff27",
        T2: "\uff34\uff12 \uff33\uff21\uff27",
        AXIAL: "\uff34\uff12 \uff21\uff38",
    }
    kinds = study.kinds

    def named(image: StoredImage) -> StoredImage:
        image = image.changed(SpecificCharacterSet="ISO_IR 192", RepetitionTime=None, EchoTime=None)
        return image.changed(SeriesDescription=names[kinds[image.series_id]])

    return study.each(named).without_table()


def listed_but_missing(kind: SeriesKind) -> Quirk:
    """The series table lists series that nobody has put there."""
    return lambda study, rng: study.each(lambda image: None, tuple(study.ids_of(kind)))


def off_centre(slices: int) -> Quirk:
    """The sagittal T2 was planned to one side: so many slices of the other side are not there."""
    return lambda study, rng: study.each_series(lambda images: images[slices:], tuple(study.ids_of(T2)))


def other_formats(study: StoredStudy, rng: Rng) -> StoredStudy:
    """Pictures and archives among the series."""
    study = clinical(study).as_tree()
    png = b"\x89PNG\r\n\x1a\n" + bytes(400)
    tar = bytes(257) + b"ustar" + bytes(250)
    return study.plus(others={"export/SE000/1.png": png, "export/SE000/2.png": png, "export/images.tar": tar})


def padded_with(value: int) -> Quirk:
    """A border of padding, far brighter or darker than anything else, in every image."""

    def quirk(study: StoredStudy, rng: Rng) -> StoredStudy:
        def padded(image: StoredImage) -> StoredImage:
            pixels = image.pixels().copy()
            pixels[:6] = pixels[-6:] = int(pixels.min())
            values = np.clip(pixels, 0, 4095).astype("<u2" if value >= 0 else "<i2")
            values[:6] = values[-6:] = value
            made = image.changed(
                PixelData=values.tobytes(), BitsStored=16, HighBit=15, PixelRepresentation=int(value < 0)
            )
            made.dataset.add_new("PixelPaddingValue", "US" if value >= 0 else "SS", value)
            return made

        return study.each(padded)

    return quirk


def anonymous_patients(*, per_series: bool = False, named: bool = False, one_place: bool = False) -> Quirk:
    """Two patients, a folder each, as anonymisers leave them: ANON and no study, or a study per series.

    ``named``: with PatientIDs of their own. ``one_place``: both lay in the same place, slice for slice.
    """

    def quirk(study: StoredStudy, rng: Rng) -> StoredStudy:
        other = stranger_of(study)
        if one_place:
            other = other.each(
                lambda image: image.in_geometry(image.position_mm - [0, 5, 40]).with_pixels(
                    image.pixels()[:, ::-1]
                )
            )

        def bare(image: StoredImage, folder: str) -> StoredImage:
            uid = f"1.2.{folder == 'b':d}.{image.series_id}" if per_series else None
            place = f"export/{folder}/{image.series_id}x/{image.name.removesuffix('.dcm')}"
            patient = f"P{folder}" if named else "ANON"
            return image.changed(PatientID=patient, StudyInstanceUID=uid, FrameOfReferenceUID="1.2.3").at(
                place
            )

        images = [bare(image, "a") for image in study.images] + [bare(image, "b") for image in other.images]
        return replace(study, images=tuple(images)).without_table()

    return quirk


def study_per(what: str) -> Quirk:
    """A StudyInstanceUID of its own for every series or file, of one patient in one folder."""

    def quirk(study: StoredStudy, rng: Rng) -> StoredStudy:
        numbers = iter(range(1, 100_000))

        def divided(image: StoredImage) -> StoredImage:
            own = image.series_id if what == "series" else str(next(numbers))
            return image.changed(StudyInstanceUID=f"1.2.7.{own}", PatientID="P1")

        return study.as_tree(one_folder=True).each(divided)

    return quirk


def enhanced(*, one_per_frame: bool) -> Quirk:
    """Sagittal T2 as Enhanced MR: one object, or one for each frame."""

    def quirk(study: StoredStudy, rng: Rng) -> StoredStudy:
        (series_id, *_) = study.ids_of(T2)

        def joined(images: list[StoredImage]) -> list[StoredImage]:
            if one_per_frame:
                return [_enhanced([image]) for image in images]
            return [_enhanced(images)]

        return study.each_series(joined, (series_id,))

    return quirk


def _enhanced(images: list[StoredImage]) -> StoredImage:
    first = images[0]
    moved = dict.fromkeys(("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"))
    made = first.changed(**moved)
    dataset = copy.deepcopy(made.dataset)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    dataset.NumberOfFrames = len(images)
    shared, measures = Dataset(), Dataset()
    measures.PixelSpacing = first.dataset.PixelSpacing
    shared.PixelMeasuresSequence = [measures]
    dataset.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for image in images:
        group, position, orientation = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = image.dataset.ImagePositionPatient
        orientation.ImageOrientationPatient = image.dataset.ImageOrientationPatient
        group.PlanePositionSequence, group.PlaneOrientationSequence = [position], [orientation]
        groups.append(group)
    dataset.PerFrameFunctionalGroupsSequence = groups
    dataset.PixelData = b"".join(image.dataset.PixelData for image in images)
    return replace(first, dataset=dataset)


def without_preamble(*, file_meta: bool) -> Quirk:
    """Data sets as some archives export them: without preamble, and without File Meta too."""

    def quirk(study: StoredStudy, rng: Rng) -> StoredStudy:
        files = {}
        for image in study.images:
            content = image.content()[132:]
            start = 0 if file_meta else 12 + int.from_bytes(content[8:12], "little")
            files[image.path] = content[start:]
        return replace(study, images=(), others={**study.others, **files})

    return quirk
