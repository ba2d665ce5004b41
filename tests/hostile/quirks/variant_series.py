"""Variants of what a series is and which of several is graded, as scanners and archives name them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from pydicom.uid import CTImageStorage, PositronEmissionTomographyImageStorage, SecondaryCaptureImageStorage

from data_prep.vocabulary import SeriesKind
from tests.hostile.quirks.candidates import fat_image, same_image
from tests.hostile.quirks.clinic import clinical
from tests.hostile.quirks.files import Rng, added
from tests.hostile.quirks.stored import Quirk, StoredImage, StoredStudy

T1, T2, AXIAL = SeriesKind.SAGITTAL_T1, SeriesKind.SAGITTAL_T2, SeriesKind.AXIAL_T2
CT = {"SOPClassUID": CTImageStorage, "Modality": "CT"}
PET = {"SOPClassUID": PositronEmissionTomographyImageStorage, "Modality": "PT"}
CAPTURE = {"SOPClassUID": SecondaryCaptureImageStorage, "Modality": "OT"}
TIMES = ("RepetitionTime", "EchoTime", "ScanningSequence")


def first(name: str, like: SeriesKind = T2, **elements: Any) -> Quirk:
    """A series that is not to be graded, with the opposite of what it should show, before all others."""

    def quirk(study: StoredStudy, rng: Rng) -> StoredStudy:
        study = clinical(study)
        made = _made(study, like, 1, fat_image, SeriesDescription=name, **elements)
        return study.led_by(*made)

    return quirk


def _made(
    study: StoredStudy,
    like: SeriesKind,
    number: int,
    change: Callable[[StoredImage], StoredImage],
    **elements: Any,
) -> list[StoredImage]:
    (series_id, *_) = study.ids_of(like)
    made = added(study, series_id, number, change, **elements)
    for image in made:
        if "SOPClassUID" in elements:
            image.dataset.file_meta.MediaStorageSOPClassUID = elements["SOPClassUID"]
    return made


def untimed(name: str, like: SeriesKind = T2, **elements: Any) -> Quirk:
    """As ``first``, of an anonymiser that leaves no times: the name alone tells."""
    return first(name, like, **dict.fromkeys(TIMES), **elements)


def renamed(names: dict[SeriesKind, str], **elements: Any) -> Quirk:
    """The three series under other names."""

    def quirk(study: StoredStudy, rng: Rng) -> StoredStudy:
        kinds = study.kinds
        study = clinical(study)
        return study.each(
            lambda image: image.changed(
                SeriesDescription=names.get(kinds[image.series_id], image.dataset.SeriesDescription),
                **elements,
            )
        ).without_table()

    return quirk


def called(name: str, other: str) -> Quirk:
    """The plain T1 under a name that denies a contrast agent, and before it one with an agent."""

    def quirk(study: StoredStudy, rng: Rng) -> StoredStudy:
        plain = tuple(study.ids_of(T1))
        made = first(other, T1)(study, rng)
        return made.each(
            lambda image: image.changed(SeriesDescription=name) if image.series_id in plain else image
        ).without_table()

    return quirk


def t1_flair(study: StoredStudy, rng: Rng) -> StoredStudy:
    """The only T1 is a T1 FLAIR, with the times of one."""
    study = clinical(study)
    own = tuple(study.ids_of(T1))
    times = {"RepetitionTime": 2400, "EchoTime": 8, "InversionTime": 860, "ScanningSequence": ["SE", "IR"]}
    return study.each(
        lambda image: image.changed(SeriesDescription="OSag T1 FLAIR", **times), own
    ).without_table()


def scout(study: StoredStudy, rng: Rng) -> StoredStudy:
    """A scout with five slices of each of three planes in one series, TE 80, not called one."""
    study = clinical(study)
    model = study.of(study.ids_of(T2)[0])[0]
    planes = ([0, 1, 0, 0, 0, -1], [1, 0, 0, 0, 0, -1], [1, 0, 0, 0, 1, 0])
    made = []
    for number in range(15):
        plane = np.array(planes[number // 5], float).reshape(2, 3)
        middle = np.cross(*plane) * 12.0 * (number % 5 - 2)
        made.append(
            fat_image(model)
            .in_geometry(middle - plane.sum(axis=0) * 120.0, plane)
            .changed(
                SeriesInstanceUID=f"{study.study_id}.1",
                SOPInstanceUID=f"{study.study_id}.1.{number}",
                SeriesDescription="3-pl SSFSE",
                InstanceNumber=number + 1,
                EchoTime=80,
            )
            .at(f"{study.folder}/1/{number + 1}.dcm")
        )
    return study.plus(*(replace(image, series_id="1") for image in made)).without_table()


def concatenations(*, of_one_series: bool) -> Quirk:
    """Sagittal T2 in two concatenations, odd and even slices: a series each, or two acquisitions of one."""

    def quirk(study: StoredStudy, rng: Rng) -> StoredStudy:
        study = clinical(study)
        (series_id, *_) = study.ids_of(T2)

        def divide(images: list[StoredImage]) -> list[StoredImage]:
            made = []
            for place, image in enumerate(images):
                half, number = place % 2, place // 2 + 1
                if of_one_series:
                    changed = image.changed(AcquisitionNumber=half + 1, InstanceNumber=number)
                    made.append(changed.at(f"{study.folder}/{series_id}/{half}{number:03d}.dcm"))
                else:
                    uid = f"{study.study_id}.{half + 1}"
                    changed = image.changed(
                        SeriesInstanceUID=uid, InstanceNumber=number, SOPInstanceUID=f"{uid}.{number}"
                    )
                    path = f"{study.folder}/{half + 1}/{number}.dcm"
                    made.append(replace(changed.at(path), series_id=str(half + 1)))
            return made

        return study.each_series(divide, (series_id,)).as_tree()

    return quirk


def repeated(study: StoredStudy, rng: Rng) -> StoredStudy:
    """The patient moved during T2; it was acquired again, under the same name, and the first one kept."""
    study = clinical(study)
    (series_id, *_) = study.ids_of(T2)

    def ghosts(image: StoredImage) -> StoredImage:
        pixels = image.pixels().astype(np.float64)
        return image.with_pixels(np.mean([np.roll(pixels, shift, 0) for shift in (-9, 0, 9)], axis=0))

    made = _made(study, T2, 1, ghosts, AcquisitionTime="101500", SeriesNumber=3)
    late = study.each(lambda image: image.changed(AcquisitionTime="104500", SeriesNumber=9), (series_id,))
    return late.led_by(*made)


def phase_in_series(study: StoredStudy, rng: Rng) -> StoredStudy:
    """Magnitude and phase of T2 in one series."""
    study = clinical(study)
    (series_id, *_) = study.ids_of(T2)
    made = [
        fat_image(image)
        .changed(
            ImageType=["ORIGINAL", "PRIMARY", "P"],
            InstanceNumber=500 + number,
            SOPInstanceUID=f"{image.dataset.SOPInstanceUID}.5",
        )
        .at(f"{study.folder}/{series_id}/{500 + number}.dcm")
        for number, image in enumerate(study.of(series_id))
    ]
    return study.led_by(*made)


def over_time(study: StoredStudy, rng: Rng) -> StoredStudy:
    """Sagittal T2 three times in one series, one behind the other, and a number of the time."""
    study = clinical(study)
    (series_id, *_) = study.ids_of(T2)
    made = []
    for time in range(3):
        for number, image in enumerate(study.of(series_id)):
            place = 100 * (time + 1) + number
            pixels = image.pixels() + rng.normal(0, 2.0 + time, image.pixels().shape)
            made.append(
                image.with_pixels(pixels)
                .changed(
                    TemporalPositionIdentifier=time + 1,
                    InstanceNumber=place,
                    SOPInstanceUID=f"{image.dataset.SeriesInstanceUID}.{place}",
                )
                .at(f"{study.folder}/{series_id}/{place}.dcm")
            )
    kept = tuple(image for image in study.images if image.series_id != series_id)
    return replace(study, images=(*made, *kept)).without_table()


def mosaic(study: StoredStudy, rng: Rng) -> StoredStudy:
    """All slices of a diffusion series as tiles of one picture, at the place of the first."""
    study = clinical(study)
    (series_id, *_) = study.ids_of(T2)
    images = study.of(series_id)
    tiles = [fat_image(image).pixels() for image in images[:9]]
    picture = np.block([tiles[:3], tiles[3:6], tiles[6:9]])
    made = []
    for number in range(3):
        elements = {
            "SeriesDescription": "ep2d_sag",
            "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"],
            "SeriesInstanceUID": f"{study.study_id}.1",
            "SOPInstanceUID": f"{study.study_id}.1.{number}",
            "EchoTime": 90,
        }
        made.append(images[0].with_pixels(picture, **elements).at(f"{study.folder}/1/{number + 1}.dcm"))
    return study.led_by(*made)


def dixon_of_t1(study: StoredStudy, rng: Rng) -> StoredStudy:
    """The four images of a T1 VIBE Dixon beside the plain T1."""
    study = clinical(study)
    made: list[StoredImage] = []
    for number, letter in enumerate(("F", "opp", "W", "in"), start=1):
        times = {"RepetitionTime": 7, "EchoTime": 2, "ScanningSequence": "GR"}
        made += _made(study, T1, number, fat_image, SeriesDescription=f"t1_vibe_dixon_sag_{letter}", **times)
    return study.led_by(*made)


def beside_as_it_is(name: str, like: SeriesKind = T2, **elements: Any) -> Quirk:
    """The same images once more under another name: whichever is graded, the grades are the same."""

    def quirk(study: StoredStudy, rng: Rng) -> StoredStudy:
        study = clinical(study)
        made = _made(study, like, 1, same_image, SeriesDescription=name, **elements)
        return study.led_by(*made)

    return quirk
