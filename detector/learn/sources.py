"""Where training slices and evaluation cases come from: RSNA layout, external slices, phantoms."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from data_prep.geometry import FloatArray
from data_prep.partition import Part, part_of
from data_prep.phantom import PHANTOM_VERSION, make_study
from data_prep.pixel_cache import PixelCache
from data_prep.rsna.annotations import contradict_themselves
from data_prep.study import Study
from data_prep.synthetic import FIRST_CHOOSING_SEED
from detector.finder import sagittal_series
from detector.learn.numbering import NumberedCase, numbered_case
from detector.learn.point_slices import (
    external_study,
    labelled_point_slices,
    patient_id,
    point_slice_cases,
)
from detector.learn.slice_cache import cached_slices
from detector.learn.slices import (
    AnnotatedStudy,
    ExternalSlices,
    LabelledSlice,
    SlicesUnusable,
    slice_table,
    split_patients,
)
from detector.learn.study_slices import (
    MIXTURE,
    LeftOut,
    annotated_studies,
    canal_objects,
    foraminal_levels,
    hard_phantom,
    phantom_slices,
    rsna_key,
    rsna_slices,
)
from detector.predict import LevelDetector
from detector.spec import SAGITTAL, DetectorKind

HARD_SEEDS_ON = 10_000  # how far the seeds of hard phantoms lie above those of the usual ones


@dataclass(frozen=True)
class SliceSources:
    """What a detector learns from. A source weighs as the square root of its slices: none drowns another.

    Attributes:
        data: folders in the RSNA layout.
        external: a folder of sagittal slices with tissue maps (``images/``, ``masks/``, ``level_points.csv``,
            ``split.csv``), and the size of its pixels.
        slices: folders of single sagittal slices with points, see ``detector.learn.point_slices``.
        phantoms, seed: synthetic studies, and the seed of the first.
    """

    data: tuple[Path, ...] = ()
    external: Path | None = None
    external_mm_per_px: float = 0.47
    slices: tuple[Path, ...] = ()
    phantoms: int = 0
    seed: int = 0


WeightedSlices = list[tuple[float, list[LabelledSlice]]]


def training_slices(
    wanted: SliceSources,
    kind: DetectorKind,
    *,
    jobs: int = 1,
    progress: Callable[[int, int], None] = lambda *_: None,
    cache: Path | None = None,
    left_out: LeftOut | None = None,
) -> tuple[WeightedSlices, list[LabelledSlice]]:
    """Training slices by source, each with its weight, and validation slices of other patients.

    Studies of the test part (``data_prep.partition``) are in neither. Beside annotated studies, slices of
    other sets count levels alone: each set has its canal points elsewhere, and the studies' are wanted.

    Args:
        cache: folder that keeps what was read and rendered for the next training; None keeps nothing.
        left_out: what of studies that are read now cannot be used is added here.
    """
    if kind is not DetectorKind.SAGITTAL and (wanted.external is not None or wanted.slices):
        raise SlicesUnusable("these slices are sagittal: leave --external and --slices out for this detector")
    sources: list[list[LabelledSlice]] = []
    validation: list[LabelledSlice] = []
    if wanted.external is not None:
        training, chosen = _training_and_validation(wanted.external, wanted.external_mm_per_px)
        for average in (1, 4):  # as they are, and as thick as clinical slices
            found = external_slices(wanted.external, wanted.external_mm_per_px, average)
            sources.append(_counting(found.load(training), wanted))
        validation += external_slices(wanted.external, wanted.external_mm_per_px, 4).load(chosen)
    for folder in wanted.slices:
        kept_out = frozenset() if wanted.external is None else frozenset(_split(wanted.external, "report"))
        shown = _without(labelled_point_slices(folder, Part.TRAIN), folder, kept_out)
        sources.append(_counting(shown, wanted))
        validation += _without(labelled_point_slices(folder, Part.VALIDATION), folder, kept_out)
    if wanted.phantoms:

        def rendered(count: int, first: int) -> list[LabelledSlice]:
            key = f"{kind.value}-phantom-{PHANTOM_VERSION}-{MIXTURE}-{first}-{count}"
            return cached_slices(
                cache, key, lambda: phantom_slices(kind, studies=count, seed=first, jobs=jobs)
            )

        sources.append(rendered(wanted.phantoms, wanted.seed))
        validation += rendered(max(4, wanted.phantoms // 40), FIRST_CHOOSING_SEED + wanted.seed)
    for data in wanted.data:
        try:
            read = partial(rsna_slices, data, kind, progress=progress, left_out=left_out)
            found_there = cached_slices(cache, rsna_key(data, kind), read)
        except SlicesUnusable:
            if len(wanted.data) == 1:
                raise
            continue  # of several data sets, some lack the kind of series that this detector looks at
        sources.append(_of_part(found_there, Part.TRAIN))
        validation += _of_part(found_there, Part.VALIDATION)
    return [(math.sqrt(len(slices)), slices) for slices in sources if slices], validation


def _counting(slices: list[LabelledSlice], wanted: SliceSources) -> list[LabelledSlice]:
    """Slices whose canal points count levels alone where annotated studies say where the canal is."""
    canal = (SAGITTAL.keypoints.index("canal"),)
    return [replace(item, counting=canal) for item in slices] if wanted.data else slices


def _of_part(slices: list[LabelledSlice], part: Part) -> list[LabelledSlice]:
    return [item for item in slices if part_of(item.patient) is part]


def _without(slices: list[LabelledSlice], folder: Path, patients: frozenset[str]) -> list[LabelledSlice]:
    """Slices but those of patients that another folder of the same source reports on."""
    names = {patient_id(folder, patient) for patient in patients}
    return [item for item in slices if item.patient not in names]


def external_slices(folder: Path, mm_per_px: float, average: int) -> ExternalSlices:
    """The external slices of a folder, averaged over ``average`` neighbours."""
    return ExternalSlices(folder, folder / "level_points.csv", mm_per_px, average_slices=average)


def _split(folder: Path, part: str) -> tuple[str, ...]:
    """Patients of a part of ``split.csv`` (columns patient, part)."""
    table = slice_table(
        folder / "split.csv", ("patient", "part"), "name each patient's part (train or report)"
    )
    return tuple(table.loc[table["part"] == part, "patient"])


def _training_and_validation(folder: Path, mm_per_px: float) -> tuple[frozenset[str], frozenset[str]]:
    """The training part in two, without patients whose levels were counted wrong."""
    wrong = external_slices(folder, mm_per_px, 1).misnumbered()
    training, validation = split_patients(_split(folder, "train"))
    return training - wrong, validation - wrong


def external_cases(folder: Path, mm_per_px: float, part: str) -> list[AnnotatedStudy]:
    """Patients of a part of ``split.csv`` as studies with annotated canal points.

    ``choosing`` is the share of the training part that no training sees.
    """
    source = external_slices(folder, mm_per_px, 4)
    return [
        external_study(source, patient, slice_gap_mm=0.9, every=4)
        for patient in patients_of(folder, mm_per_px, part)
    ]


def patients_of(folder: Path, mm_per_px: float, part: str) -> tuple[str, ...]:
    """Patients of a part of ``split.csv``, or of ``choosing``."""
    if part == "choosing":
        return tuple(sorted(_training_and_validation(folder, mm_per_px)[1]))
    return _split(folder, part)


def annotated_cases(
    data: Path | None, part: Part | None = None, left_out: LeftOut | None = None
) -> list[AnnotatedStudy]:
    """Studies of a data set in the RSNA layout that have both images and annotated points.

    Args:
        part: of the studies; None for all.
        left_out: what cannot be used is added here.
    """
    if data is None:
        raise SlicesUnusable("give DATA, a folder in the RSNA layout, or --external or --slices")
    cases = list(annotated_studies(data, left_out or LeftOut(), part=part))
    if not cases:
        of_part = "" if part is None else f" of the {part} part"
        told = "" if part is None else "; a study's identifier decides its part, without --part all are used"
        raise SlicesUnusable(f"{data.name}: no study{of_part} has both images and annotated points{told}")
    return cases


def numbering_cases(
    detector: LevelDetector,
    *,
    phantoms: int,
    hard: int,
    seed: int,
    external: Path | None,
    mm_per_px: float,
    data: Sequence[Path] = (),
    slices: Sequence[Path] = (),
    progress: Callable[[str, int], None] = lambda *_: None,
) -> list[NumberedCase]:
    """Chains with known numbering: phantoms, hard phantoms, and real patients that trained nothing.

    Args:
        phantoms, seed: usual studies, from this seed.
        hard: of ``hard_phantom``, from ``seed + HARD_SEEDS_ON``.
        data: data sets in the RSNA layout; studies of their validation part count.
        slices: folders of single slices (``detector.learn.point_slices``); likewise.
        progress: called after each study with its name and how many there are in all.

    Real patients, each source together, weigh as much as the phantoms; flags are wanted for them as for hard
    phantoms. Of those whose annotations contradict themselves nobody knows the numbers: they are left out.
    """
    real = [] if external is None else [external_cases(external, mm_per_px, "choosing")]
    real += [annotated_cases(folder, Part.VALIDATION) for folder in data]
    real += [point_slice_cases(folder, Part.VALIDATION) for folder in slices]
    count = phantoms + hard + sum(map(len, real))
    cases: list[NumberedCase | None] = []
    first_hard = seed + HARD_SEEDS_ON
    for number in (*range(seed, seed + phantoms), *range(first_hard, first_hard + hard)):
        is_hard = number >= first_hard
        phantom = hard_phantom(number) if is_hard else make_study(number)
        canal = {disc.name: disc.canal_mm for disc in phantom.discs}
        cases.append(_numbered(detector, phantom.study, canal, 1.0, hard=is_hard))
        progress(phantom.study.study_id, count)
    for source in real:
        weight = max(1.0, (phantoms + hard) / max(len(source), 1))
        for study, points in source:
            if contradict_themselves(points):
                progress(study.study_id, count)
                continue
            known = [*canal_objects(points), *foraminal_levels(points)]
            canal = {item.name: item.keypoints_mm[1] for item in known}
            cases.append(_numbered(detector, study, canal, weight, hard=True, real=True))
            progress(study.study_id, count)
    return [case for case in cases if case is not None]


def _numbered(
    detector: LevelDetector,
    study: Study,
    canal: dict[str, FloatArray],
    weight: float,
    *,
    hard: bool = False,
    real: bool = False,
) -> NumberedCase | None:
    series = sagittal_series(PixelCache(study).study)
    if not series:  # as of a data set that holds axial slices alone
        return None
    sighting = detector.finder.look(series)
    return numbered_case(
        sighting.discs, detector.config.chain, sighting.view_z_mm, canal, weight=weight, hard=hard, real=real
    )
