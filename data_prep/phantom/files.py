"""Writes phantom studies as a data set in the RSNA layout."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import (
    UID,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    RLELossless,
    generate_uid,
)

from data_prep.base.workers import in_order
from data_prep.geometry import SlicePlane
from data_prep.levels import LevelPoint, Sight
from data_prep.names import input_label
from data_prep.phantom.plan import SeriesPlan
from data_prep.phantom.quirks import Quirks, complete_headers, draw_quirks, renumber
from data_prep.phantom.scanner import MAX_STORED, SCANNER_RANGES
from data_prep.phantom.severity import READER_NOISE
from data_prep.phantom.study import PhantomStudy, make_study, repeat_series
from data_prep.problems import LumbarError
from data_prep.study import Series
from data_prep.synthetic import Appearance, HeaderVariant, QuirkMode, ScannerName, Size, Transitional, View
from data_prep.vocabulary import SEVERITIES, SUBMISSION_COLUMNS, TARGETS, SeriesKind, Target

PHANTOM_VERSION = "2.0"

_Row = dict[str, object]
# A series as it is written, and the instance numbers that its own become.
_Written = tuple[Series, SeriesPlan, dict[int, int]]
_POINT_COLUMNS = ["study_id", "series_id", "instance_number", "condition", "level", "x", "y"]
_SERIES_COLUMNS = ["study_id", "series_id", "series_description"]


class NotSynthetic(LumbarError, ValueError):
    """A folder with the tables of another data set; the message names it."""


def write_dataset(
    out: Path,
    *,
    studies: int,
    seed: int,
    size: Size = "small",
    jobs: int = 1,
    progress: Callable[[int], None] = lambda _: None,
    appearance: Appearance = "physics",
    scanners: ScannerName = "usual",
    transitional: Transitional = "natural",
    view: View = "whole",
    quirks: QuirkMode = "none",
    headers: HeaderVariant = "rsna",
) -> None:
    """Write ``studies`` patients, seeds ``seed`` … ``seed + studies - 1``, as an RSNA-shaped data set.

    Files: ``train.csv``, ``train_label_coordinates.csv``, ``train_series_descriptions.csv``,
    ``sample_submission.csv``, ``oracle.csv`` (row_id and the unweighted probability of each severity),
    ``phantom.json`` and ``train_images/{study}/{series}/{instance}.dcm``. The bytes depend on ``seed``,
    ``studies`` and the options only, not on ``jobs``. ``progress`` is called with the number of studies
    done. Tables are written last. ``appearance``, ``transitional`` and ``view``: see ``make_study``.
    ``scanners``: name of a range in ``SCANNER_RANGES``.
    ``quirks``: the oddities of docs/phantom.md never, at about their real rates, or all of them soon.
    ``headers``: as the anonymiser of the real data left them, or ``pacs``: complete, for an archive.

    Raises:
        ValueError: ``studies`` or ``jobs`` below 1, or a negative seed.
        NotSynthetic: the folder holds labels of another data set, which would be lost.
    """
    if studies < 1 or jobs < 1 or seed < 0:
        raise ValueError(f"need studies ≥ 1, jobs ≥ 1, seed ≥ 0, but got {studies}, {jobs}, {seed}")
    described, labels = out / "phantom.json", out / "train.csv"
    if labels.exists() and not described.is_file():
        name = input_label(out.name)
        raise NotSynthetic(f"'{name}' holds a data set that is not synthetic: choose another folder")
    images = out / "train_images"
    images.mkdir(parents=True, exist_ok=True)
    make = partial(
        make_study,
        size=size,
        appearance=appearance,
        scanners=SCANNER_RANGES[scanners],
        transitional=transitional,
        view=view,
    )
    write = partial(_write_study, images=images, make=make, quirks=quirks, headers=headers)
    tables: list[_StudyRows] = []
    for rows in in_order(write, range(seed, seed + studies), min(jobs, studies)):
        tables.append(rows)
        progress(len(tables))
    parameters = {
        "version": PHANTOM_VERSION,
        "seed": seed,
        "studies": studies,
        "size": size,
        "appearance": appearance,
        "transitional": transitional,
        "view": view,
        "quirks": quirks,
        "headers": headers,
        "scanners": scanners,
        "reader_noise": {group.value: noise for group, noise in READER_NOISE.items()},
    }
    described.write_text(json.dumps(parameters, indent=2) + "\n", encoding="utf-8")
    _write_tables(out, tables)


class _StudyRows:
    """The rows that one study adds to the tables."""

    def __init__(self, phantom: PhantomStudy, written: Sequence[_Written], quirks: Quirks) -> None:
        numbers = {item.series_id: new for item, _, new in written}
        study_id = phantom.study.study_id
        self.labels: _Row = {"study_id": study_id}
        for target in TARGETS:
            label = phantom.severities[target].value
            self.labels[target.column] = None if target in quirks.empty_labels else label
        self.points: list[_Row] = [
            self._point(study_id, point, point.sight, numbers[point.sight.series_id], quirks)
            for point in phantom.points
            if point.sight is not None
            and point.sight.series_id in numbers
            and Target(point.condition, point.level) not in quirks.unlocated
        ]
        self.series: list[_Row] = [
            dict(zip(_SERIES_COLUMNS, (study_id, item.series_id, item.kind), strict=True))
            for item, *_ in written
        ]
        self.oracle: list[_Row] = [
            {
                "row_id": target.row_id(study_id),
                **{s.column: phantom.oracle[target][s.index] for s in SEVERITIES},
            }
            for target in sorted(TARGETS, key=lambda target: target.column)
        ]

    @staticmethod
    def _point(
        study_id: str, point: LevelPoint, sight: Sight, numbers: dict[int, int], quirks: Quirks
    ) -> _Row:
        x, y = sight.xy_px
        if Target(point.condition, point.level) in quirks.misplaced:
            x, y = 5.0 + x % 1.0, 5.0 + y % 1.0
        number = numbers[sight.instance_number]
        place = (study_id, sight.series_id, number, point.condition.label, point.level.label, x, y)
        return dict(zip(_POINT_COLUMNS, place, strict=True))


def _written(phantom: PhantomStudy, quirks: Quirks, rng: np.random.Generator) -> list[_Written]:
    """The series of a study as they are written, and the instance numbers that theirs become there."""
    series = list(zip(phantom.study.series, phantom.plans, strict=True))
    if quirks.repeated is not None:
        first = next(number for number, (item, _) in enumerate(series) if item.kind is quirks.repeated)
        series.append(repeat_series(phantom, first, rng))
    series = [(item, plan) for item, plan in series if item.kind is not quirks.missing]
    numbers = [
        renumber(plan.instance_numbers, rng) if quirks.renumbered else {n: n for n in plan.instance_numbers}
        for _, plan in series
    ]
    return [(*pair, new) for pair, new in zip(series, numbers, strict=True)]


def _write_study(
    seed: int,
    *,
    images: Path,
    make: Callable[[int], PhantomStudy],
    quirks: QuirkMode,
    headers: HeaderVariant,
) -> _StudyRows:
    phantom, odd = make(seed), draw_quirks(seed, quirks)
    rng = np.random.default_rng([seed, 6])
    compressed, full_headers = bool(rng.random() < 0.3), bool(rng.random() < 0.4)
    written = _written(phantom, odd, rng)
    for series, plan, numbers in written:
        folder = images / phantom.study.study_id / series.series_id
        folder.mkdir(parents=True, exist_ok=True)
        for place, item in enumerate(series.slices):
            pixels = item.pixels().astype(np.uint16)
            if odd.mixed_shapes and place == 0:
                pixels = pixels[:-4, :-2]
            number = numbers[item.instance_number]
            dataset = _dicom(phantom.study.study_id, plan, item.plane, number, full_headers)
            if headers == "pacs":
                complete_headers(dataset, phantom.study.study_id, plan, number)
            _set_pixels(dataset, pixels, item.plane, odd.inverted)
            if compressed:
                dataset.compress(RLELossless, generate_instance_uid=False)
            dataset.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    return _StudyRows(phantom, written, odd)


def _dicom(
    study_id: str, plan: SeriesPlan, plane: SlicePlane, number: int, full_headers: bool
) -> FileDataset:
    """One slice with the headers of the real data: bare as the anonymiser left them, or complete."""
    instance_uid = UID(f"{study_id}.{plan.series_id}.{number}")
    sop_class = MRImageStorage if full_headers else EnhancedMRImageStorage
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = instance_uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPInstanceUID = instance_uid
    dataset.SeriesDescription = "T1" if plan.kind is SeriesKind.SAGITTAL_T1 else "T2"
    dataset.PatientID = study_id
    dataset.SliceThickness = f"{plan.thickness_mm:.4g}"
    dataset.SpacingBetweenSlices = f"{plan.spacing_mm:.4g}"
    dataset.PatientPosition = "HFS"
    dataset.StudyInstanceUID = study_id
    dataset.SeriesInstanceUID = f"{study_id}.{plan.series_id}"
    dataset.InstanceNumber = number
    dataset.ImagePositionPatient = [f"{value:.8g}" for value in plane.origin_mm]
    dataset.ImageOrientationPatient = [f"{value:.8f}" for value in (*plane.x_axis, *plane.y_axis)]
    # As the anonymiser of the real data does, every series has a frame of reference of its own.
    dataset.FrameOfReferenceUID = generate_uid(entropy_srcs=[study_id, plan.series_id])
    dataset.SliceLocation = f"{float(plane.origin_mm @ plane.normal):.6g}"
    if full_headers:
        dataset.SOPClassUID = sop_class
        dataset.Modality = "MR"
        dataset.RepetitionTime = f"{plan.contrast.tr_ms:.6g}"
        dataset.EchoTime = f"{plan.contrast.te_ms:.6g}"
        if plan.contrast.ti_ms is not None:
            dataset.InversionTime = f"{plan.contrast.ti_ms:.6g}"
        dataset.MagneticFieldStrength = f"{plan.contrast.field_t:.2g}"
    return dataset


def _set_pixels(dataset: FileDataset, pixels: NDArray[np.uint16], plane: SlicePlane, inverted: bool) -> None:
    if inverted:
        pixels = MAX_STORED - pixels
    white = float(np.percentile(pixels[::2, ::2], 99))
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.PixelSpacing = [f"{plane.spacing_mm[1]:.8g}", f"{plane.spacing_mm[0]:.8g}"]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.WindowCenter = f"{white / 2:.0f}"
    dataset.WindowWidth = f"{max(white, 2.0):.0f}"
    dataset.PixelData = pixels.astype("<u2").tobytes()


def _write_tables(out: Path, tables: list[_StudyRows]) -> None:
    columns = ["study_id", *(target.column for target in TARGETS)]
    _write(pd.DataFrame([rows.labels for rows in tables], columns=columns), out / "train.csv")
    points = [row for rows in tables for row in rows.points]
    _write(pd.DataFrame(points, columns=_POINT_COLUMNS), out / "train_label_coordinates.csv")
    series = [row for rows in tables for row in rows.series]
    _write(pd.DataFrame(series, columns=_SERIES_COLUMNS), out / "train_series_descriptions.csv")
    oracle = pd.DataFrame([row for rows in tables for row in rows.oracle], columns=list(SUBMISSION_COLUMNS))
    sample = oracle.copy()
    sample[list(SUBMISSION_COLUMNS[1:])] = 1.0 / 3.0
    _write(sample, out / "sample_submission.csv")
    _write(oracle, out / "oracle.csv")


def _write(table: pd.DataFrame, path: Path) -> None:
    table.to_csv(path, index=False, float_format="%.10g", lineterminator="\n")
