"""Quirks of clinical folders: anonymised exports, several series of one kind, enhanced objects, padding."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
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


def _added(
    study: StoredStudy,
    series_id: str,
    number: int,
    change: Callable[[StoredImage], StoredImage],
    **elements: object,
) -> list[StoredImage]:
    """A series once more, changed, with identifiers of its own."""
    new_id = str(9000 + number)
    return [
        replace(
            change(image).changed(
                SeriesInstanceUID=f"{study.study_id}.{new_id}",
                SOPInstanceUID=f"{study.study_id}.{new_id}.{image.dataset.InstanceNumber}",
                **elements,
            ),
            series_id=new_id,
            path=f"{study.folder}/{new_id}/{image.name}",
        )
        for image in study.of(series_id)
    ]


def _fat(image: StoredImage) -> StoredImage:
    """Bright where the image is dark: as the fat beside the water."""
    pixels = image.pixels().astype(np.float64)
    return image.with_pixels(np.percentile(pixels, 98) - pixels)


def _same(image: StoredImage) -> StoredImage:
    return image


def dixon(order: tuple[str, ...]) -> Quirk:
    """Sagittal T2 as a Dixon sequence: four series whose names end in what they show, none plain."""

    def quirk(study: StoredStudy, rng: Rng) -> StoredStudy:
        study = clinical(study)
        (series_id, *_) = study.ids_of(T2)
        added: list[StoredImage] = []
        for number, component in enumerate(order):
            change = _same if component in ("in", "W") else _fat
            added += _added(
                study, series_id, number, change, SeriesDescription=f"T2 TSE DIXON SAG_{component}"
            )
        kept = tuple(image for image in study.images if image.series_id != series_id)
        return replace(study, images=(*added, *kept)).without_table()

    return quirk


def with_contrast_agent(name: str) -> Quirk:
    """A sagittal T1 after contrast agent, its fat suppressed, beside the plain one."""

    def quirk(study: StoredStudy, rng: Rng) -> StoredStudy:
        study = clinical(study)
        (series_id, *_) = study.ids_of(T1)
        added = _added(study, series_id, 0, _fat, SeriesDescription=name, ContrastBolusAgent="GADOTERATE")
        return study.plus(*added).without_table()

    return quirk


def two_echoes(study: StoredStudy, rng: Rng) -> StoredStudy:
    """PD and T2 in one series: the first echo at every place of the second."""
    study = clinical(study)
    (series_id, *_) = study.ids_of(T2)
    first = [
        _fat(image)
        .changed(
            EchoTime=15,
            InstanceNumber=int(image.dataset.InstanceNumber) + 500,
            SOPInstanceUID=f"{image.dataset.SOPInstanceUID}.1",
        )
        .at(f"{study.folder}/{series_id}/{500 + number}.dcm")
        for number, image in enumerate(study.of(series_id))
    ]
    return study.plus(*first).without_table()


def planning_copy(study: StoredStudy, rng: Rng) -> StoredStudy:
    """A calculated copy of a middle slice with lines burned in, at the place of the slice."""
    study = clinical(study)
    (series_id, *_) = study.ids_of(T2)
    images = study.of(series_id)
    model = images[len(images) // 2]
    pixels = model.pixels().copy()
    pixels[::8] = 4095
    copied = model.with_pixels(pixels).changed(
        ImageType=["DERIVED", "SECONDARY"],
        SOPInstanceUID=f"{model.dataset.SOPInstanceUID}.9",
        InstanceNumber=1900,
    )
    return study.plus(copied.at(f"{study.folder}/{series_id}/1900.dcm")).without_table()


def neck_beside(study: StoredStudy, rng: Rng) -> StoredStudy:
    """A sagittal T2 of a neck with more slices: the lumbar one at half the size, 420 mm farther up."""
    study = clinical(study)
    (series_id, *_) = study.ids_of(T2)

    def neck(image: StoredImage) -> StoredImage:
        rows, columns = image.spacing_mm
        place = image.position_mm * [1.0, 0.5, 0.5] + [0.0, 0.0, 420.0]
        return image.in_geometry(place).changed(PixelSpacing=[rows * 0.5, columns * 0.5])

    added = _added(study, series_id, 0, neck)
    extra = [
        image.in_geometry(image.position_mm + [200.0, 0.0, 0.0])
        .changed(InstanceNumber=800 + number, SOPInstanceUID=f"{image.dataset.SOPInstanceUID}.8")
        .at(f"{study.folder}/9000/{800 + number}.dcm")
        for number, image in enumerate(added[:2])
    ]
    return study.plus(*added, *(replace(image, series_id="9000") for image in extra)).without_table()


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


def padded_with(value: int) -> Quirk:
    """A border of padding, far brighter than anything else, in every image."""

    def quirk(study: StoredStudy, rng: Rng) -> StoredStudy:
        def padded(image: StoredImage) -> StoredImage:
            pixels = image.pixels().copy()
            dark = int(pixels.min())
            pixels[:6] = pixels[-6:] = dark
            plain = image.with_pixels(pixels)
            values = np.frombuffer(plain.dataset.PixelData, "<u2").reshape(pixels.shape).copy()
            values[:6] = values[-6:] = value
            made = plain.changed(PixelData=values.tobytes(), BitsStored=16, HighBit=15)
            made.dataset.add_new("PixelPaddingValue", "US", value)
            return made

        return study.each(padded)

    return quirk


def anonymous_patients(*, per_series: bool) -> Quirk:
    """Two patients, a folder each, as anonymisers leave them: ANON and no study, or a study per series."""

    def quirk(study: StoredStudy, rng: Rng) -> StoredStudy:
        other = stranger_of(study)

        def bare(image: StoredImage, folder: str) -> StoredImage:
            uid = f"1.2.{folder == 'b':d}.{image.series_id}" if per_series else None
            place = f"export/{folder}/{image.series_id}x/{image.name.removesuffix('.dcm')}"
            return image.changed(PatientID="ANON", StudyInstanceUID=uid, FrameOfReferenceUID="1.2.3").at(
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


def without_preamble(study: StoredStudy, rng: Rng) -> StoredStudy:
    """Bare data sets, as some archives export them: neither preamble nor File Meta."""
    files = {}
    for image in study.images:
        stream = io.BytesIO()
        image.dataset.save_as(stream, enforce_file_format=True)
        content = stream.getvalue()[132:]
        files[image.path] = content[12 + int.from_bytes(content[8:12], "little") :]
    return replace(study, images=(), others={**study.others, **files})
