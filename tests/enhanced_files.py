"""Turns classic single-frame files into Enhanced MR objects: one with all frames, or one per frame."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedMRImageStorage

_MOVED = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RepetitionTime", "EchoTime")


def functional_group(image: Dataset, *, shared: bool, oriented: bool) -> Dataset:
    """What a frame says of itself, or what all do (``shared``); with how it lies (``oriented``)."""
    group = Dataset()
    if oriented:
        orientation = Dataset()
        orientation.ImageOrientationPatient = image.ImageOrientationPatient
        group.PlaneOrientationSequence = [orientation]
    if shared:
        measures, times = Dataset(), Dataset()
        measures.PixelSpacing = image.PixelSpacing
        group.PixelMeasuresSequence = [measures]
        if "RepetitionTime" in image:
            times.RepetitionTime = float(image.RepetitionTime)
            group.MRTimingAndRelatedParametersSequence = [times]
        return group
    position, echo, kind = Dataset(), Dataset(), Dataset()
    position.ImagePositionPatient = image.ImagePositionPatient
    group.PlanePositionSequence = [position]
    if "EchoTime" in image:
        echo.EffectiveEchoTime = float(image.EchoTime)
        group.MREchoSequence = [echo]
    if "ImageType" in image:
        kind.FrameType = image.ImageType
        group.MRImageFrameTypeSequence = [kind]
    return group


def enhanced(images: Sequence[Dataset]) -> Dataset:
    """One enhanced object of uncompressed images of one size, frames in their order."""
    made = copy.deepcopy(images[0])
    for keyword in _MOVED:
        made.pop(keyword, None)
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    made.NumberOfFrames = len(images)
    # Blocks of axial slices along the discs lie each in its own way.
    alike = len({str(image.ImageOrientationPatient) for image in images}) == 1
    made.SharedFunctionalGroupsSequence = [functional_group(images[0], shared=True, oriented=alike)]
    made.PerFrameFunctionalGroupsSequence = [
        functional_group(image, shared=False, oriented=not alike) for image in images
    ]
    made.PixelData = b"".join(image.PixelData for image in images)
    return made


def make_enhanced(paths: Sequence[Path], *, one_per_frame: bool = False) -> list[Path]:
    """Replace classic files of a series by enhanced ones; the files that there are then."""
    images = [pydicom.dcmread(path) for path in paths]
    for image in images:
        if image.file_meta.TransferSyntaxUID.is_compressed:
            image.decompress()
    if one_per_frame:
        for path, image in zip(paths, images, strict=True):
            enhanced([image]).save_as(path, enforce_file_format=True)
        return list(paths)
    made = enhanced(images)
    for path in paths:
        path.unlink()
    made.save_as(paths[0], enforce_file_format=True)
    return [paths[0]]
