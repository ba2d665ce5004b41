"""Labelled slices from studies in patient space: phantoms, and data in the RSNA layout."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from data_prep.base.workers import in_order
from data_prep.geometry import FloatArray
from data_prep.levels import RECESSES, LevelPoint
from data_prep.partition import Part, part_of
from data_prep.phantom import PhantomStudy, make_study
from data_prep.problems import DicomRejected, Rejection
from data_prep.read.find import find_studies
from data_prep.rsna.annotations import annotated_points, contradict_themselves
from data_prep.rsna.decoded_cache import inputs_digest
from data_prep.rsna.table_quirks import studies_left_out
from data_prep.rsna.tables import read_tables
from data_prep.study import Series, Slice, Study
from data_prep.synthetic import Appearance, Size
from data_prep.vocabulary import LEVELS, ConditionGroup, Level, SeriesKind
from detector.learn.slices import AnnotatedStudy, LabelledSlice, SlicesUnusable
from detector.look.canonical import canonical_image
from detector.spec import AXIAL, FORAMEN, SAGITTAL, SPECS, UNLABELLED, DetectorKind, DetectorSpec
from detector.spine.levels import OFFSETS

SAGITTAL_KINDS = (SeriesKind.SAGITTAL_T2, SeriesKind.SAGITTAL_T1)
MIXTURE = 2  # of the studies that phantom_slices makes; what was cached of another one is made anew
MAX_DISTANCE_MM = {DetectorKind.SAGITTAL: 11.0, DetectorKind.AXIAL: 4.5, DetectorKind.FORAMEN: 3.5}
# A foramen that was annotated this near to a slice may be seen there, too: it is neither an example nor a
# counter-example.
PERHAPS_SEEN_MM = 9.0
# Rules by which objects are made of a study's points; what was cached by others is made anew.
_RULES = 2
# Discs of slices beside the canal, whose level is known from the foramina alone.
_BESIDE_MM = 26.0


@dataclass(frozen=True, eq=False)
class LabelledObject:
    """An object in patient space.

    Attributes:
        name: of its class.
        keypoints_mm: (k, 3) in the order of the spec, NaN when unknown.
        reach_mm: how far from a slice's plane it may lie to be seen there; None: ``MAX_DISTANCE_MM``.
    """

    name: str
    keypoints_mm: FloatArray
    reach_mm: float | None = None


def slices_of_study(
    study: Study, objects: list[LabelledObject], spec: DetectorSpec, kinds: Iterable[SeriesKind]
) -> list[LabelledSlice]:
    """Slices of a study that show at least one object near enough, with all such objects.

    An object belongs to a slice when its keypoints lie within ``MAX_DISTANCE_MM`` of the slice's plane
    (axial: about one slice gap; sagittal: as far as disc and canal are still seen).
    """
    shown = ((series, item) for kind in kinds for series in study.of_kind(kind) for item in series.slices)
    labelled = (_labelled(study, series, item, objects, spec) for series, item in shown)
    return [item for item in labelled if item is not None]


def _labelled(
    study: Study, series: Series, item: Slice, objects: list[LabelledObject], spec: DetectorSpec
) -> LabelledSlice | None:
    away_mm = [float(np.nanmax(np.abs(item.plane.distance_mm(entry.keypoints_mm)))) for entry in objects]
    near = [
        entry
        for entry, away in zip(objects, away_mm, strict=True)
        if away <= (entry.reach_mm or MAX_DISTANCE_MM[spec.kind])
    ]
    if not near:
        return None
    if spec.kind is DetectorKind.FORAMEN:
        near += [
            LabelledObject(UNLABELLED, entry.keypoints_mm)
            for entry, away in zip(objects, away_mm, strict=True)
            if MAX_DISTANCE_MM[spec.kind] < away <= PERHAPS_SEEN_MM
        ]
    try:
        pixels = item.pixels()
    except DicomRejected:
        return None
    canonical = canonical_image(item.plane, pixels, mm_per_px=spec.mm_per_px, max_side_px=spec.max_canvas_px)
    keypoints = canonical.plane.to_px(np.stack([entry.keypoints_mm for entry in near]))
    inside = np.asarray(canonical.plane.contains_px(keypoints))
    keypoints[~inside] = np.nan
    keep = np.atleast_1d(inside.any(axis=1))
    if not keep.any():
        return None
    return LabelledSlice(
        image=canonical.image,
        names=tuple(entry.name for entry, kept in zip(near, keep.tolist(), strict=True) if kept),
        keypoints_px=keypoints[keep],
        patient=study.study_id,
        name=f"{study.study_id}/{series.series_id}/{item.instance_number}",
    )


def phantom_slices(kind: DetectorKind, *, studies: int, seed: int, jobs: int = 1) -> list[LabelledSlice]:
    """Labelled slices of synthetic studies of seeds ``seed … seed + studies − 1``, made in memory.

    Every second study has tissues of random brightness, every fourth the matrix of a real scanner. 15 % of
    the views are cut, and a tenth of the patients has transitional anatomy; for the sagittal detector every
    third study is hard to number (``hard_phantom``).
    """
    work = partial(_slices_of_phantom, kind)
    return [item for found in in_order(work, range(seed, seed + studies), jobs) for item in found]


def hard_phantom(seed: int, *, size: Size = "small", appearance: Appearance = "physics") -> PhantomStudy:
    """A synthetic study that is hard to number: a cut view (even seeds) or transitional anatomy (odd)."""
    if seed % 2 == 0:
        return make_study(seed, size=size, appearance=appearance, view="cut", transitional="never")
    return make_study(seed, size=size, appearance=appearance, transitional="always")


def _slices_of_phantom(kind: DetectorKind, seed: int) -> list[LabelledSlice]:
    size: Size = "full" if seed % 4 == 0 else "small"
    appearance: Appearance = "randomised" if seed % 2 else "physics"
    if kind is DetectorKind.SAGITTAL and seed % 3 == 2:
        phantom = hard_phantom(seed, size=size, appearance="mixed")
    else:
        phantom = make_study(seed, size=size, appearance=appearance, view="mixed")
    if kind is DetectorKind.SAGITTAL:
        return slices_of_study(phantom.study, phantom_discs(phantom), SAGITTAL, SAGITTAL_KINDS)
    return _slices_with_points(phantom.study, phantom.points, kind)


def _slices_with_points(
    study: Study, points: tuple[LevelPoint, ...], kind: DetectorKind
) -> list[LabelledSlice]:
    """Slices of a study for a detector that learns from annotated points alone."""
    if kind is DetectorKind.AXIAL:
        return slices_of_study(study, recess_pairs(points), AXIAL, (SeriesKind.AXIAL_T2,))
    if kind is DetectorKind.FORAMEN:
        return slices_of_study(study, foramina(points), FORAMEN, (SeriesKind.SAGITTAL_T1,))
    return slices_of_study(
        study, [*canal_objects(points), *foraminal_levels(points)], SAGITTAL, SAGITTAL_KINDS
    )


def phantom_discs(phantom: PhantomStudy) -> list[LabelledObject]:
    """Discs that the sagittal detector knows by name."""
    return [
        LabelledObject(disc.name, np.stack([disc.disc_mm, disc.canal_mm]))
        for disc in phantom.discs
        if disc.name in SAGITTAL.level_names
    ]


def recess_pairs(points: tuple[LevelPoint, ...]) -> list[LabelledObject]:
    """Levels whose two recesses are both annotated, as axial objects (right, left)."""
    by_level: dict[str, dict[str, FloatArray]] = defaultdict(dict)
    for point in points:
        if point.condition.group is ConditionGroup.SUBARTICULAR:
            by_level[point.level.label][point.condition.value] = point.xyz_mm
    return [
        LabelledObject("level", np.stack([pair[condition.value] for condition in RECESSES]))
        for pair in by_level.values()
        if len(pair) == len(RECESSES)
    ]


def foramina(points: tuple[LevelPoint, ...]) -> list[LabelledObject]:
    """Annotated foramina as objects, either side."""
    return [
        LabelledObject("foramen", point.xyz_mm[None])
        for point in points
        if point.condition.group is ConditionGroup.FORAMINAL
    ]


def canal_objects(points: tuple[LevelPoint, ...]) -> list[LabelledObject]:
    """Annotated canal points as sagittal objects whose disc centre is unknown."""
    unknown = np.full(3, np.nan)
    return [
        LabelledObject(point.level.label, np.stack([unknown, point.xyz_mm]))
        for point in points
        if point.condition.group is ConditionGroup.SPINAL
    ]


def foraminal_levels(points: tuple[LevelPoint, ...]) -> list[LabelledObject]:
    """Levels of a study without canal points, from the middle of their two foramina: for slices beside it.

    The canal point lies from there as the anatomy says (``detector.spine.levels``), good to about 3 mm.
    Where left and right are numbered a level apart the middle lies in a vertebra: nothing is learned from it.
    """
    has_canal = any(point.condition.group is ConditionGroup.SPINAL for point in points)
    if has_canal or contradict_themselves(points):
        return []
    middles: dict[Level, list[FloatArray]] = defaultdict(list)
    for point in points:
        if point.condition.group is ConditionGroup.FORAMINAL:
            middles[point.level].append(point.xyz_mm)
    levels = [level for level in LEVELS if len(middles[level]) == 2]
    if len(levels) < 3:
        return []
    middle_mm = np.array([np.mean(middles[level], axis=0) for level in levels])
    up = -np.gradient(middle_mm, np.array([level.index for level in levels], dtype=float), axis=0)
    up[:, 0] = 0.0
    up /= np.linalg.norm(up, axis=1, keepdims=True)
    back = np.cross(up, [1.0, 0.0, 0.0])
    objects = []
    for level, at, upwards, backwards in zip(levels, middle_mm, up, back, strict=True):
        _, higher, behind = OFFSETS[level].foramen
        canal = at - higher * upwards - behind * backwards
        objects.append(LabelledObject(level.label, np.stack([np.full(3, np.nan), canal]), _BESIDE_MM))
    return objects


def rsna_key(data: Path, kind: DetectorKind) -> str:
    """Name of the cached slices of a data set: its points, its images and the canonical scale decide.

    Raises:
        SlicesUnusable: no coordinates.
    """
    table = data / "train_label_coordinates.csv"
    if not table.is_file():
        raise SlicesUnusable(f"{data.name}/{table.name} is missing: a detector learns from it")
    digest = hashlib.sha256(table.read_bytes())
    for entry in find_studies(data):
        digest.update(f"{entry.study_id} {inputs_digest(entry)}".encode())
    spec = SPECS[kind]
    digest.update(
        f"{spec.mm_per_px} {spec.max_canvas_px} {MAX_DISTANCE_MM[kind]} {MIXTURE} {_RULES}".encode()
    )
    return f"{kind.value}-rsna-{digest.hexdigest()[:12]}"


@dataclass(frozen=True)
class LeftOut:
    """What slices or cases of data sets were made without.

    Attributes:
        rejections: files, series and studies that cannot be used.
        problems: of annotated points, see ``annotated_points``.
        studies: that lack images or points, and what makes all points doubtful, in words.
    """

    rejections: list[Rejection] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    studies: list[str] = field(default_factory=list)


def annotated_studies(
    data: Path,
    left_out: LeftOut,
    *,
    part: Part | None = None,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Iterator[AnnotatedStudy]:
    """Studies of a data set in the RSNA layout that can be used, and that have annotated points.

    Args:
        left_out: what cannot be used is added here.
        part: of the studies; None for all.
        progress: called with (studies done, studies in all).

    Raises:
        SlicesUnusable: no coordinates.
    """
    tables = read_tables(data)
    if tables.coordinates is None:
        raise SlicesUnusable(f"{data.name}/train_label_coordinates.csv is missing")
    entries = [entry for entry in find_studies(data) if not entry.is_only_listed]
    have = {
        "images": [entry.study_id for entry in entries],
        "points": tables.coordinates["study_id"].tolist(),
    }
    left_out.studies.extend((*tables.alarming, *(lacking.said for lacking in studies_left_out(have))))
    for number, entry in enumerate(entries, start=1):
        if part is not None and part_of(entry.study_id) is not part:
            continue
        try:
            study = entry.load()
        except DicomRejected as rejected:
            left_out.rejections.extend((*rejected.rejections, rejected.rejection))
        else:
            points, problems = annotated_points(study, tables.coordinates)
            left_out.rejections.extend(study.rejections)
            left_out.problems.extend(problems)
            if points:
                yield study, points
        progress(number, len(entries))


def rsna_slices(
    data: Path,
    kind: DetectorKind,
    *,
    progress: Callable[[int, int], None] = lambda *_: None,
    left_out: LeftOut | None = None,
) -> list[LabelledSlice]:
    """Labelled slices of a data set in the RSNA layout with ``train_label_coordinates.csv``.

    Sagittal: canal points on T2 and, because patient coordinates agree, on T1. Axial: recess pairs.
    Foramen: foramina on T1.

    Args:
        left_out: what cannot be used is added here.

    Raises:
        SlicesUnusable: no coordinates, or no study whose images and points can be used together.
    """
    found = annotated_studies(data, left_out or LeftOut(), progress=progress)
    labelled = [item for study, points in found for item in _slices_with_points(study, points, kind)]
    if not labelled:
        raise SlicesUnusable(f"{data.name}: no study has both images and annotated points")
    return labelled
