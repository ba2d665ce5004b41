"""Quirks of files: their order, names and folders, copies, strangers among them, and missing series."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from pydicom.uid import generate_uid

from data_prep.vocabulary import SeriesKind
from tests.hostile.quirks.stored import Quirk, StoredImage, StoredStudy, in_space

Rng = np.random.Generator
STRANGER = "555000111"  # study, patient and folder of the second patient


def numbered(choose: Callable[[int, Rng], np.ndarray]) -> Quirk:
    """Other instance numbers, in headers and as file names: ``choose(count, rng)`` in spatial order."""

    def quirk(study: StoredStudy, rng: Rng) -> StoredStudy:
        def renumber(images: list[StoredImage]) -> list[StoredImage]:
            numbers = choose(len(images), rng)
            return [
                image.changed(InstanceNumber=int(number)).called(f"{int(number)}.dcm")
                for image, number in zip(images, numbers, strict=True)
            ]

        return study.each_series(renumber)

    return quirk


instances_shuffled = numbered(lambda count, rng: rng.permutation(count) + 1)
instances_with_gaps = numbered(
    lambda count, rng: 5046 - np.cumsum(rng.choice([1, 1, 2, 5], size=count))[::-1]
)


def slices_reversed(study: StoredStudy, rng: Rng) -> StoredStudy:
    """Every series acquired in the other direction."""

    def reverse(images: list[StoredImage]) -> list[StoredImage]:
        names = [(image.name, image.dataset.InstanceNumber) for image in reversed(images)]
        return [
            image.changed(InstanceNumber=number).called(name)
            for image, (name, number) in zip(images, names, strict=True)
        ]

    return study.each_series(reverse)


def instances_missing(study: StoredStudy, rng: Rng) -> StoredStudy:
    """No InstanceNumber, and file names that are no numbers, in random order."""
    names = iter(rng.permutation(len(study.images)))
    bare = study.each(lambda image: image.changed(InstanceNumber=None)).as_tree()
    return bare.each(lambda image: image.called(f"{next(names):05x}.bin"))


def instances_equal(study: StoredStudy, rng: Rng) -> StoredStudy:
    """The same InstanceNumber everywhere, as some exports write."""
    return study.each(lambda image: image.changed(InstanceNumber=1)).as_tree()


def no_table(study: StoredStudy, rng: Rng) -> StoredStudy:
    """The RSNA layout without its series table."""
    return study.without_table()


def export_tree(study: StoredStudy, rng: Rng) -> StoredStudy:
    """As an archive exports it: a folder per series, names without meaning, no extension."""
    return study.as_tree()


def one_folder(study: StoredStudy, rng: Rng) -> StoredStudy:
    """All series of the study in one folder."""
    return study.as_tree(one_folder=True)


def series_in_one_rsna_folder(study: StoredStudy, rng: Rng) -> StoredStudy:
    """The sagittal series of a study in the RSNA layout together in the folder of the first of them."""
    first, *others = [series_id for series_id, kind in study.kinds.items() if kind is not SeriesKind.AXIAL_T2]
    numbers = iter(range(1001, 2000))
    return study.each(
        lambda image: image.at(f"{study.folder}/{first}/{next(numbers)}.dcm"), tuple(others)
    ).without_table()


def two_patients_one_folder(study: StoredStudy, rng: Rng) -> StoredStudy:
    """Another patient's files among this one's, all in one folder."""
    return replace(study, images=(*study.images, *stranger_of(study).images)).as_tree(one_folder=True)


def two_patients_one_study(study: StoredStudy, rng: Rng) -> StoredStudy:
    """The RSNA folder of the study also holds the sagittal series of another patient."""
    sagittal = (s for s, kind in study.kinds.items() if kind is not SeriesKind.AXIAL_T2)
    strange = [
        image.at(f"{study.folder}/{image.series_id}/{image.name}")
        for image in stranger_of(study, *sagittal).images
    ]
    return study.plus(*strange).without_table()


def two_patients_one_series(study: StoredStudy, rng: Rng) -> StoredStudy:
    """Slices of another patient in the folder of the sagittal T2 series."""
    (series_id, *_) = study.ids_of(SeriesKind.SAGITTAL_T2)
    strange = [
        image.at(f"{study.folder}/{series_id}/{900 + number}.dcm")
        for number, image in enumerate(stranger_of(study, series_id).images)
    ]
    return study.plus(*strange)


def stranger_of(study: StoredStudy, *series_ids: str) -> StoredStudy:
    """Another patient with these series, or all: other identifiers, 40 mm nearer to the head."""

    def another(image: StoredImage) -> StoredImage:
        moved = image.in_geometry(image.position_mm + [0, 5, 40]).changed(
            StudyInstanceUID=STRANGER,
            PatientID=STRANGER,
            SeriesInstanceUID=f"{STRANGER}.9{image.series_id}",
            SOPInstanceUID=f"{STRANGER}.9{image.series_id}.{image.dataset.InstanceNumber}",
        )
        return replace(moved, series_id=f"9{image.series_id}")

    return replace(study, images=study.of(*(series_ids or study.kinds))).each(another)


def copies(*, same_identifier: bool) -> Quirk:
    """Every third file twice; ``same_identifier``: as a copy of the file, else as an image sent anew."""

    def quirk(study: StoredStudy, rng: Rng) -> StoredStudy:
        doubled = []
        for number, image in enumerate(study.images[::3]):
            copy = image.called(f"{2000 + number}.dcm")
            if not same_identifier:
                copy = copy.changed(SOPInstanceUID=generate_uid(entropy_srcs=[image.path]))
            doubled.append(copy)
        return study.plus(*doubled)

    return quirk


def series_sent_twice(study: StoredStudy, rng: Rng) -> StoredStudy:
    """The sagittal T2 series once more, under another identifier."""
    (series_id, *_) = study.ids_of(SeriesKind.SAGITTAL_T2)
    return _with_series(study, series_id, lambda image: image)


def second_t1(study: StoredStudy, rng: Rng) -> StoredStudy:
    """A second sagittal T1 series, noisier than the first (7 real studies have two)."""
    (series_id, *_) = study.ids_of(SeriesKind.SAGITTAL_T1)

    def again(image: StoredImage) -> StoredImage:
        pixels = image.pixels().astype(np.float64)
        return image.with_pixels(pixels + rng.normal(0, 0.06 * np.percentile(pixels, 99), pixels.shape))

    return _with_series(study, series_id, again)


def added(
    study: StoredStudy,
    series_id: str,
    number: int,
    change: Callable[[StoredImage], StoredImage],
    **elements: object,
) -> list[StoredImage]:
    """A series once more, changed, with identifiers of its own."""
    new_id = str(number)
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


def _with_series(
    study: StoredStudy, series_id: str, change: Callable[[StoredImage], StoredImage]
) -> StoredStudy:
    number = int(series_id) + 1
    more = study.plus(*added(study, series_id, number, change))
    return replace(more, kinds={**study.kinds, str(number): study.kinds[series_id]})


def axial_in_parts(parts: int) -> Quirk:
    """The axial slices divided into ``parts`` series along the spine (335 real studies have 2-4)."""

    def quirk(study: StoredStudy, rng: Rng) -> StoredStudy:
        axial = tuple(study.ids_of(SeriesKind.AXIAL_T2))
        images = sorted(study.of(*axial), key=lambda image: float(_centre_mm(image)[2]))
        moved, kinds = [], {k: v for k, v in study.kinds.items() if k not in axial}
        for part, group in enumerate(np.array_split(np.arange(len(images)), parts)):
            new_id = str(7000 + part)
            kinds[new_id] = SeriesKind.AXIAL_T2
            moved += [
                replace(
                    images[index].changed(SeriesInstanceUID=f"{study.study_id}.{new_id}"),
                    series_id=new_id,
                    path=f"{study.folder}/{new_id}/{number}.dcm",
                )
                for number, index in enumerate(group, start=1)
            ]
        kept = tuple(image for image in study.images if image.series_id not in axial)
        return replace(study, images=(*kept, *moved), kinds=kinds)

    return quirk


def _centre_mm(image: StoredImage) -> np.ndarray:
    steps = np.array([image.dataset.Columns, image.dataset.Rows]) / 2 * image.spacing_mm[::-1]
    return np.asarray(image.position_mm + steps @ image.axes)


def without(*kinds: SeriesKind) -> Quirk:
    """A study that lacks series of some kinds (2 real studies lack T1, 1 lacks T2)."""

    def quirk(study: StoredStudy, rng: Rng) -> StoredStudy:
        gone = tuple(series_id for series_id, kind in study.kinds.items() if kind in kinds)
        kept = {series_id: kind for series_id, kind in study.kinds.items() if series_id not in gone}
        return replace(study.each(lambda _: None, gone), kinds=kept)

    return quirk


def localiser(study: StoredStudy, rng: Rng) -> StoredStudy:
    """A three-plane localiser beside the series."""
    planes = ([0, 1, 0, 0, 0, -1], [1, 0, 0, 0, 0, -1], [1, 0, 0, 0, 1, 0])
    model = study.of(study.ids_of(SeriesKind.SAGITTAL_T2)[0])[0]
    added = [
        model.in_geometry(
            np.array([-100.0, -100.0, 100.0]) + 3 * number, np.array(plane, float).reshape(2, 3)
        )
        .changed(
            SeriesInstanceUID=f"{study.study_id}.1",
            SOPInstanceUID=f"{study.study_id}.1.{number}",
            SeriesDescription="LOCALIZER",
            ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
        )
        .at(f"{study.folder}/1/{number}.dcm")
        for number, plane in enumerate(planes, start=1)
    ]
    return study.plus(*(replace(image, series_id="1") for image in added))


def other_objects(study: StoredStudy, rng: Rng) -> StoredStudy:
    """A report without pixels and a screenshot without geometry in folders of their own."""
    model = study.images[0]
    names = ("PixelData", "Rows", "Columns", "ImagePositionPatient", "ImageOrientationPatient")
    report = model.changed(**dict.fromkeys(names), SOPInstanceUID="1.2.3.1", SeriesInstanceUID="1.2.3")
    places = dict.fromkeys(("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"))
    shot = model.changed(**places, SOPInstanceUID="1.2.4.1", SeriesInstanceUID="1.2.4")
    return study.plus(report.at(f"{study.folder}/2/1.dcm"), shot.at(f"{study.folder}/3/1.dcm"))


def other_series(study: StoredStudy, rng: Rng) -> StoredStudy:
    """An axial T1 and a coronal T2 series, which nobody grades, and no table that says so."""
    (axial, *_) = study.ids_of(SeriesKind.AXIAL_T2)
    (sagittal, *_) = study.ids_of(SeriesKind.SAGITTAL_T2)
    coronal = np.array([[1.0, 0, 0], [0, 0, -1.0]])
    added = [
        image.changed(SeriesDescription="T1", SeriesInstanceUID=f"{study.study_id}.5", EchoTime=None).at(
            f"{study.folder}/5/{image.name}"
        )
        for image in study.of(axial)
    ] + [
        image.in_geometry(np.array([-100.0, 20.0 + 4 * number, 100.0]), coronal)
        .changed(SeriesInstanceUID=f"{study.study_id}.6", SOPInstanceUID=f"{study.study_id}.6.{number}")
        .at(f"{study.folder}/6/{image.name}")
        for number, image in enumerate(study.of(sagittal))
    ]
    return study.plus(*added).without_table()


def litter(study: StoredStudy, rng: Rng) -> StoredStudy:
    """What file managers and viewers leave behind."""
    content = {
        f"{study.folder}/.DS_Store": b"\0\0\0\1Bud1",
        f"{study.images[0].path.rsplit('/', 1)[0]}/Thumbs.db": b"\xd0\xcf\x11\xe0",
        f"{study.folder}/notes.txt": b"please look at L4/L5",
        "__MACOSX/._x.dcm": b"\0\5\x16\7",
        f"{study.folder}/DICOMDIR": bytes(128) + b"DICM",
    }
    return study.plus(others=content)


def spoilt_files(study: StoredStudy, rng: Rng) -> StoredStudy:
    """Of every series one file ends too early, and one holds text."""
    bad = {}
    for series_id in study.kinds:
        images = in_space(list(study.of(series_id)))
        cut, text = images[1], images[-2]
        bad |= {cut.path: cut.content()[:-500], text.path: b"no image"}
    return study.holding(bad)


def multi_frame(study: StoredStudy, rng: Rng) -> StoredStudy:
    """Several frames in one file, as enhanced MR has them: one file per series."""

    def joined(images: list[StoredImage]) -> list[StoredImage]:
        frames = b"".join(image.dataset.PixelData for image in images)
        return [images[0].changed(NumberOfFrames=len(images), PixelData=frames)]

    return study.each_series(joined)
