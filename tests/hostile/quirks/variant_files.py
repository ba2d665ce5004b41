"""Variants of files, folders, links and archives."""

from __future__ import annotations

import gzip
import io
import os
import struct
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
from pydicom.fileset import FileSet
from pydicom.uid import MRImageStorage

from data_prep.base.uids import derived_uid
from data_prep.vocabulary import SeriesKind
from tests.hostile.quirks.clinic import clinical
from tests.hostile.quirks.files import Rng, stranger_of
from tests.hostile.quirks.stored import Quirk, StoredStudy

T1, T2, AXIAL = SeriesKind.SAGITTAL_T1, SeriesKind.SAGITTAL_T2, SeriesKind.AXIAL_T2


def deep(study: StoredStudy, rng: Rng) -> StoredStudy:
    """Twelve folders with names of 200 letters around everything, more than 2,400 in all."""
    made = clinical(study).as_tree()
    around = "/".join(f"{number:02d}" + "e" * 198 for number in range(12))
    return made.each(lambda image: image.at(f"{around}/{image.path}"))


def names_in_two_cases(study: StoredStudy, rng: Rng) -> StoredStudy:
    """Every third file is there twice, as IM1 and as im1."""
    made = clinical(study).as_tree()
    made = made.each(lambda image: image.at(image.path.upper()))
    return made.plus(
        *(image.at(image.path.lower().replace("export/", "EXPORT/")) for image in made.images[::3])
    )


def exported(study: StoredStudy, rng: Rng) -> StoredStudy:
    """An export."""
    return clinical(study).as_tree()


def loops(out: Path) -> None:
    """Links to the folder around, to itself, and a second way to one series."""
    export = out / "export"
    (export / "SE000" / "up").symlink_to(export)
    (export / "self").symlink_to(export / "self")
    (export / "again").symlink_to(export / "SE001")


def pipe(out: Path) -> None:
    """A named pipe, which would be waited for without end."""
    os.mkfifo(out / "export" / "SE000" / "IM0_9999.dcm")


def dicomdir_of_more(out: Path) -> None:
    """A DICOMDIR of everything; every third axial image did not come along."""
    made = FileSet()
    paths = sorted(path for path in (out / "export").rglob("*") if path.is_file())
    for path in paths:
        dataset = pydicom.dcmread(path)
        dataset.SOPClassUID = MRImageStorage
        # Real anonymisers have given one identifier to several images, which a DICOMDIR would hold once.
        dataset.SOPInstanceUID = derived_uid("disc", path.as_posix())
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        for keyword, value in (
            ("PatientID", "P77"),
            ("PatientName", "P77"),
            ("StudyDate", "20200101"),
            ("StudyTime", "101010"),
            ("StudyID", "1"),
            ("SeriesNumber", "1"),
            ("Modality", "MR"),
        ):
            if not dataset.get(keyword):
                setattr(dataset, keyword, value)
        made.add(dataset)
    target = out / "cd"
    made.write(target)
    for path in paths:
        path.unlink()
    images = sorted(path for path in target.rglob("*") if path.is_file() and path.name != "DICOMDIR")
    axial = [path for path in images if "AX" in str(pydicom.dcmread(path).get("SeriesDescription"))]
    for path in axial[::3]:
        path.unlink()


def cut_short(kind: str) -> Quirk:
    """Every third axial file is what an interrupted copy leaves, and its name has no ending."""

    def quirk(study: StoredStudy, rng: Rng) -> StoredStudy:
        made = clinical(study).as_tree()
        own = made.of(*study.ids_of(AXIAL))[::3]
        left = {"empty": lambda size: b"", "zeros": lambda size: bytes(size)}[kind]
        files = {image.path: left(len(image.content())) for image in own}
        return made.holding(files)

    return quirk


def gzipped(study: StoredStudy, rng: Rng) -> StoredStudy:
    """The files of the axial series are packed one by one."""
    made = clinical(study).as_tree()
    own = made.of(*study.ids_of(AXIAL))
    files = {f"{image.path}.dcm.gz": gzip.compress(image.content(), 1) for image in own}
    return made.each(lambda image: None, tuple(study.ids_of(AXIAL))).plus(others=files)


def _zip(members: list[tuple[str, bytes]], **options: bool) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in members:
            with archive.open(zipfile.ZipInfo(name), "w", force_zip64=bool(options.get("zip64"))) as member:
                member.write(content)
    return stream.getvalue()


def packed(name_of: Callable[[str], str], *, zip64: bool = False) -> Quirk:
    """The study in a zip whose members have odd names."""

    def quirk(study: StoredStudy, rng: Rng) -> StoredStudy:
        made = clinical(study).as_tree()
        members = [(name_of(image.path), image.content()) for image in made.images]
        return replace(made, images=(), others={"export.zip": _zip(members, zip64=zip64)})

    return quirk


def beside_in_zip(change: Callable[[bytes], bytes], name: str = "export-2.zip") -> Quirk:
    """Another patient in an archive beside the study, spoilt or of another kind."""

    def quirk(study: StoredStudy, rng: Rng) -> StoredStudy:
        other = stranger_of(study)
        content = _zip([(f"{image.series_id}/{image.name}", image.content()) for image in other.images])
        return clinical(study).as_tree().plus(others={name: change(content)})

    return quirk


def with_password(content: bytes) -> bytes:
    """Every member is marked as encrypted."""
    made = bytearray(content)
    for signature, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = made.find(signature)
        while place >= 0:
            made[place + at] |= 1
            place = made.find(signature, place + 4)
    return bytes(made)


def half(content: bytes) -> bytes:
    """The first half."""
    return content[: len(content) // 2]


def as_tar_in_zip(content: bytes) -> bytes:
    """A zip that holds one tar."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        info = tarfile.TarInfo("export.bin")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return _zip([("backup/images.tar", stream.getvalue())])


def as_zip_in_zip(content: bytes) -> bytes:
    """A zip that holds one zip, under a name that does not say so."""
    return _zip([("backup/images.bin", content)])


def by_another_method(content: bytes) -> bytes:
    """Members packed with a method that browsers do not know."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(stream, "w", zipfile.ZIP_LZMA) as new:
        for name in old.namelist()[:5]:
            new.writestr(name, old.read(name))
    return stream.getvalue()


def one_name_twice(study: StoredStudy, rng: Rng) -> StoredStudy:
    """A zip in which two members have each name: those of two patients, written one after the other."""
    made, other = clinical(study).as_tree(), stranger_of(study).as_tree()
    members = [(image.path, image.content()) for image in (*made.images, *other.images)]
    return replace(made, images=(), others={"export.zip": _zip(members)})


def names_that_meet(study: StoredStudy, rng: Rng) -> StoredStudy:
    """A zip with folders whose names differ in odd letters alone."""
    made = clinical(study).as_tree()
    odd = {"SE000": "S\u00c4", "SE001": "S\u00d6", "SE002": "S?"}
    members = []
    for number, image in enumerate(made.images):
        folder = odd.get(image.path.split("/")[1], "S*")
        members.append((f"{folder}/{number}\u00e4", image.content()))
    return replace(made, images=(), others={"export.zip": _zip(members)})


def pictures_of_every_kind(study: StoredStudy, rng: Rng) -> StoredStudy:
    """What other programs make of images, each with its own beginning."""
    others = {
        "export/volume.mha": b"ObjectType = Image\nNDims = 3\n" + bytes(400),
        "export/volume.nrrd": b"NRRD0004\n" + bytes(400),
        "export/images.7z": b"7z\xbc\xaf\x27\x1c" + bytes(400),
        "export/scan.hdr": struct.pack("<I", 348) + bytes(344),
        "export/page.pdf": b"%PDF-1.7\n" + bytes(400),
        "export/shot.bmp": b"BM" + struct.pack("<IHHI", 4000, 0, 0, 54) + struct.pack("<I", 40) + bytes(400),
        "export/view.webp": b"RIFF\x10\x20\x00\x00WEBPVP8 " + bytes(400),
        "export/film.avi": b"RIFF\x10\x20\x00\x00AVI LIST" + bytes(400),
        "export/cd.iso": bytes(32769) + b"CD001" + bytes(4000),
    }
    return clinical(study).as_tree().plus(others=others)


def noise(study: StoredStudy, rng: Rng) -> StoredStudy:
    """Every third axial file holds random bytes: encrypted, or from a broken disk."""
    made = clinical(study).as_tree()
    own = made.of(*study.ids_of(AXIAL))[::3]
    files = {image.path: np.random.default_rng(1).bytes(40_000) for image in own}
    return made.holding(files)
