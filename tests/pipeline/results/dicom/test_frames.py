"""Results of a study in enhanced form point at frames, as those of its classic form point at files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedMRImageStorage

from data_prep.read.find import find_studies
from pipeline.results.dicom import ResultObject
from pipeline.results.dicom.write import DicomResults
from tests.dicom_tools import dciodvfy_errors
from tests.enhanced_files import make_enhanced
from tests.pipeline.stand_in import stand_in_pipeline, write_study, write_table


def study_in(folder: Path, *, enhanced: bool) -> Path:
    """A study of three series with valid identifiers, as classic files or an object each."""
    images = folder / "test_images"
    study = write_study(images, "501")
    write_table(images, ["501"])
    for number, path in enumerate(sorted(study.rglob("*.dcm"))):
        dataset = pydicom.dcmread(path)
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.5", f"1.2.5.{path.parent.name}"
        dataset.FrameOfReferenceUID = "1.2.5.9"
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.5.7.{number + 1}"
        dataset.SliceThickness = 4
        dataset.save_as(path)
    if enhanced:
        for series in sorted(study.iterdir()):
            paths = sorted(series.iterdir())
            planes = [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]
            assert len({tuple(plane.ImageOrientationPatient) for plane in planes}) == 1
            make_enhanced(paths)
    return study


def objects_of(folder: Path, *, enhanced: bool) -> list[Dataset]:
    (entry,) = find_studies(study_in(folder, enhanced=enhanced))
    prediction, study = stand_in_pipeline().predict_entry(entry)
    assert study is not None and not prediction.rejected
    return list(DicomResults(tuple(ResultObject)).build(study, prediction))


def references(item: Dataset) -> Iterator[Dataset]:
    """Every reference to an image that names one."""
    for element in item:
        if element.VR == "SQ":
            for inner in element.value:
                if "ReferencedSOPInstanceUID" in inner:
                    yield inner
                yield from references(inner)


def points(item: Dataset) -> list[tuple[tuple[float, ...], str, int | None]]:
    """Points of a report: coordinates, the object that they are on, and its frame."""
    found = []
    for inner in item.get("ContentSequence", []):
        if inner.ValueType == "SCOORD":
            (source,) = inner.ContentSequence
            reference = source.ReferencedSOPSequence[0]
            frame = reference.get("ReferencedFrameNumber")
            found.append((tuple(inner.GraphicData), reference.ReferencedSOPInstanceUID, frame))
        found += points(inner)
    return found


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Dataset], list[Dataset]]:
    """All objects of the classic and of the enhanced form."""
    folder = tmp_path_factory.mktemp("frames")
    return objects_of(folder / "classic", enhanced=False), objects_of(folder / "enhanced", enhanced=True)


def test_the_same_points_on_the_frames_that_were_those_images(
    both: tuple[list[Dataset], list[Dataset]],
) -> None:
    classic, enhanced = ([item for item in kind if item.Modality == "SR"] for kind in both)
    assert len(classic) == len(enhanced) == 2
    for one, other in zip(classic, enhanced, strict=True):
        found = points(other)
        assert len(found) == len(points(one)) >= 20
        for (xy, uid, no_frame), (same_xy, object_uid, frame) in zip(points(one), found, strict=True):
            assert np.allclose(xy, same_xy) and no_frame is None and frame is not None
            # Identifiers of the classic files count through the study, five to a series.
            number = int(uid.rsplit(".", 1)[1]) - 1
            first = int(object_uid.rsplit(".", 1)[1]) - 1
            assert (first + frame - 1, first % 5) == (number, 0)


def test_every_object_refers_to_objects_that_are_there_and_to_each_once(
    both: tuple[list[Dataset], list[Dataset]],
) -> None:
    _, enhanced = both
    assert {item.Modality for item in enhanced} == {"SR", "OT", "PR", "KO"}
    for item in enhanced:
        named = {(str(r.ReferencedSOPInstanceUID), str(r.ReferencedSOPClassUID)) for r in references(item)}
        assert named <= {(f"1.2.5.7.{number}", EnhancedMRImageStorage) for number in (1, 6, 11)}
        if item.Modality == "SR":
            evidence = [
                str(inner.ReferencedSOPInstanceUID)
                for study in item.CurrentRequestedProcedureEvidenceSequence
                for series in study.ReferencedSeriesSequence
                for inner in series.ReferencedSOPSequence
            ]
            assert sorted(evidence) == sorted(set(evidence)) and evidence


def test_overlays_are_on_their_frames(both: tuple[list[Dataset], list[Dataset]]) -> None:
    classic, enhanced = ([item for item in kind if item.Modality == "PR"] for kind in both)
    assert len(classic) == len(enhanced) == 3
    for one, other in zip(classic, enhanced, strict=True):
        frames = [
            annotation.ReferencedImageSequence[0].ReferencedFrameNumber
            for annotation in other.GraphicAnnotationSequence
        ]
        assert len(frames) == len(set(frames)) == len(one.GraphicAnnotationSequence)


def test_other_tools_find_nothing_wrong(both: tuple[list[Dataset], list[Dataset]], tmp_path: Path) -> None:
    for number, item in enumerate(both[1]):
        path = tmp_path / f"{number}.dcm"
        item.save_as(path, enforce_file_format=True)
        assert dciodvfy_errors(path) == [], item.Modality
