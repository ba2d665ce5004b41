"""Quirks of which series is which: several of one kind, several images at one place, a neck beside."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from data_prep.vocabulary import SeriesKind
from tests.hostile.quirks.clinic import clinical, scaled
from tests.hostile.quirks.files import Rng, added
from tests.hostile.quirks.stored import Quirk, StoredImage, StoredStudy

T1, T2, AXIAL = SeriesKind.SAGITTAL_T1, SeriesKind.SAGITTAL_T2, SeriesKind.AXIAL_T2
# As scanners name the images of a Dixon sequence: in the name of the series, or in ImageType alone.
_SIEMENS = {name: (f"T2 TSE DIXON SAG_{name}", "M") for name in ("in", "opp", "F", "W")}
_GE = {
    "in": ("InPhase: SAG T2 FLEX", "M"),
    "opp": ("OutPhase: SAG T2 FLEX", "M"),
    "F": ("FAT: SAG T2 FLEX", "M"),
    "W": ("WATER: SAG T2 FLEX", "M"),
}
_PHILIPS = {
    "in": ("sT2W mDIXON TSE", "IP"),
    "opp": ("sT2W mDIXON TSE", "OP"),
    "F": ("sT2W mDIXON TSE", "F"),
    "W": ("sT2W mDIXON TSE", "W"),
}
NAMINGS = {"Siemens": _SIEMENS, "GE": _GE, "Philips": _PHILIPS}


def fat_image(image: StoredImage) -> StoredImage:
    """Bright where the image is dark: as the fat beside the water."""
    pixels = image.pixels().astype(np.float64)
    return image.with_pixels(np.percentile(pixels, 98) - pixels)


def water_image(image: StoredImage) -> StoredImage:
    """Fluid as bright as in phase, everything else darker: as without its fat."""
    pixels = image.pixels().astype(np.float64)
    brightest = max(float(np.percentile(pixels, 99.5)), 1.0)
    return image.with_pixels(brightest * (pixels / brightest) ** 1.4)


def same_image(image: StoredImage) -> StoredImage:
    return image


def dixon(order: tuple[str, ...], naming: str = "Siemens", *, one_series: bool = False) -> Quirk:
    """Sagittal T2 as a Dixon sequence, its images in this order: a series each, or all in one series.

    What is graded, in phase or water, shows what the T2 showed; the fat image is its opposite, the opposed
    phase a mixture.
    """

    def quirk(study: StoredStudy, rng: Rng) -> StoredStudy:
        study = clinical(study)
        (series_id, *_) = study.ids_of(T2)
        best = "in" if "in" in order else "W"
        images: list[StoredImage] = []
        for number, component in enumerate(order):
            description, code = NAMINGS[naming][component]
            changes: dict[str, Any] = {"SeriesDescription": description}
            if naming == "Philips" or one_series:
                changes["ImageType"] = [
                    "DERIVED",
                    "PRIMARY",
                    "DIXON",
                    code if code != "M" else component.upper(),
                ]
            change = same_image if component == best else water_image if component == "W" else fat_image
            made = added(study, series_id, 1 + number, change, **changes)
            if one_series:
                made = [_numbered(image, 1000 * (number + 1), study) for image in made]
            images += made
        kept = tuple(image for image in study.images if image.series_id != series_id)
        return replace(study, images=(*images, *kept)).without_table()

    return quirk


def _numbered(image: StoredImage, first: int, study: StoredStudy) -> StoredImage:
    """In the folder and under the identifier of one series, with numbers of its own."""
    number = first + int(image.dataset.InstanceNumber)
    uid = f"{study.study_id}.1"
    changed = image.changed(SeriesInstanceUID=uid, InstanceNumber=number, SOPInstanceUID=f"{uid}.{number}")
    return replace(changed, series_id="1", path=f"{study.folder}/1/{number}.dcm")


def with_contrast_agent(name: str, kind: SeriesKind = T1, *, first: bool = False) -> Quirk:
    """A series after contrast agent, its fat suppressed, beside the one of its kind; ``first`` by its id."""

    def quirk(study: StoredStudy, rng: Rng) -> StoredStudy:
        study = clinical(study)
        (series_id, *_) = study.ids_of(kind)
        number = 1 if first else 990_000_000
        times = {"RepetitionTime": 600, "EchoTime": 10, "ContrastBolusAgent": "GADOTERATE"}
        made = added(study, series_id, number, fat_image, SeriesDescription=name, **times)
        return study.plus(*made).without_table()

    return quirk


def beside(name: str, **elements: object) -> Quirk:
    """Another sagittal series of the lumbar spine, none of the kinds, before all others by its id."""

    def quirk(study: StoredStudy, rng: Rng) -> StoredStudy:
        study = clinical(study)
        (series_id, *_) = study.ids_of(T2)
        made = added(study, series_id, 1, fat_image, SeriesDescription=name, **elements)
        return study.plus(*made).without_table()

    return quirk


def echoes(*times_ms: float, told_by: str = "EchoTime") -> Quirk:
    """Several echoes of T2 in one series: the last, which is the T2, and others at each of its places.

    ``told_by``: by EchoTime, EchoNumbers, or nothing with "" to tell them apart.
    """

    def quirk(study: StoredStudy, rng: Rng) -> StoredStudy:
        study = clinical(study)
        (series_id, *_) = study.ids_of(T2)
        last = len(times_ms) - 1

        def told(number: int) -> dict[str, object]:
            times = {"EchoTime": times_ms[number]} if told_by == "EchoTime" else {"EchoTime": None}
            return times | ({"EchoNumbers": number + 1} if told_by == "EchoNumbers" else {})

        # Of an inverted one a short echo is a STIR, too.
        spin_echo = {"ScanningSequence": "SE", "InversionTime": None}
        study = study.each(lambda image: image.changed(**spin_echo, **told(last)), (series_id,))
        made = [
            fat_image(image)
            .changed(
                **told(echo),
                InstanceNumber=int(image.dataset.InstanceNumber) + 500 * (echo + 1),
                SOPInstanceUID=f"{image.dataset.SOPInstanceUID}.{echo + 1}",
            )
            .at(f"{study.folder}/{series_id}/{500 * (echo + 1) + number}.dcm")
            for echo in range(last)
            for number, image in enumerate(study.of(series_id))
        ]
        return study.plus(*made).without_table()

    return quirk


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


def region_beside(scale: float, dz_mm: float, name: str = "SAG T2 TSE") -> Quirk:
    """A sagittal T2 of the neck or chest with more slices, before the lumbar one by its id."""

    def quirk(study: StoredStudy, rng: Rng) -> StoredStudy:
        study = clinical(study)
        (series_id, *_) = study.ids_of(T2)
        made = added(study, series_id, 1, lambda image: scaled(image, scale, dz_mm), SeriesDescription=name)
        extra = [
            image.in_geometry(image.position_mm + [200.0, 0.0, 0.0])
            .changed(InstanceNumber=800 + number, SOPInstanceUID=f"{image.dataset.SOPInstanceUID}.8")
            .at(f"{study.folder}/1/{800 + number}.dcm")
            for number, image in enumerate(made[:2])
        ]
        return study.plus(*made, *extra).without_table()

    return quirk


def two_stations(study: StoredStudy, rng: Rng) -> StoredStudy:
    """Upper and lower spine in one series, slices of both in turn."""
    study = clinical(study)
    (series_id, *_) = study.ids_of(T2)
    images = study.of(series_id)
    made = []
    for number, image in enumerate(images):
        for station, item in enumerate((scaled(image, 0.6, 330.0), image)):
            place = 2 * number + station + 1
            uid = f"{image.dataset.SeriesInstanceUID}.{place}"
            changed = item.changed(InstanceNumber=place, SOPInstanceUID=uid)
            made.append(changed.at(f"{study.folder}/{series_id}/{place}.dcm"))
    kept = tuple(image for image in study.images if image.series_id != series_id)
    return replace(study, images=(*made, *kept)).without_table()
