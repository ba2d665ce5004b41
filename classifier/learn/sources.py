"""Where labelled studies come from: a folder in the RSNA layout, or phantoms made in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from classifier.learn.crop_cache import LabelledStudy, Source
from data_prep.phantom import PHANTOM_VERSION, SCANNER_RANGES, PhantomStudy, SeriesPlan, make_study, render
from data_prep.read.entry import StudyEntry
from data_prep.read.find import find_studies
from data_prep.rsna.annotations import annotated_points
from data_prep.rsna.decoded_cache import inputs_digest
from data_prep.rsna.table_quirks import studies_left_out
from data_prep.rsna.tables import read_tables
from data_prep.study import Series, Slice, Study
from data_prep.synthetic import Size
from data_prep.vocabulary import TARGETS, Severity, Target

PhantomSize = Literal["small", "full", "mixed"]

# Grade scale of the phantom: 1 and 2 are the boundaries between the severities.
_ENRICHED_LATENT = (-0.75, 2.75)
# Half a cached crop (36 mm for the canal) and a little for the scanner's blur.
_RENDERED_AROUND_MM = 40.0


def phantom_sources(
    studies: int,
    first_seed: int,
    *,
    enriched: bool = False,
    size: PhantomSize = "mixed",
    scanners: str = "usual",
) -> list[Source]:
    """Synthetic studies of consecutive seeds, made when loaded.

    Args:
        enriched: stenosis is drawn evenly over the whole grade scale, independently for every target,
            instead of as often as in patients: many more moderate and severe examples per study.
        size: ``full`` has the matrix sizes of real scanners and takes about four times as long as ``small``;
            ``mixed`` makes every third study full.
        scanners: name of a range in ``SCANNER_RANGES``.
    """
    return [
        Source(
            f"{seed:06d}{'e' if enriched else ''}",
            partial(_load_phantom, seed, enriched, _size(seed, size), scanners),
            f"phantom {PHANTOM_VERSION} {_size(seed, size)} {scanners}",
        )
        for seed in range(first_seed, first_seed + studies)
    ]


def _size(seed: int, size: PhantomSize) -> Size:
    if size == "mixed":
        return "full" if seed % 3 == 0 else "small"
    return size


def _load_phantom(seed: int, enriched: bool, size: Size, scanners: str) -> LabelledStudy:
    latents = None
    if enriched:
        drawn = np.random.default_rng((seed, 77)).uniform(*_ENRICHED_LATENT, len(TARGETS))
        latents = dict(zip(TARGETS, drawn.tolist(), strict=True))
    phantom = make_study(seed, size=size, latents=latents, scanners=SCANNER_RANGES[scanners])
    return LabelledStudy(
        study=_rendered_near_points(phantom),
        points=phantom.points,
        truth={target: np.asarray(p, dtype=np.float64) for target, p in phantom.oracle.items()},
        labels={target: severity.index for target, severity in phantom.severities.items()},
    )


def _rendered_near_points(phantom: PhantomStudy) -> Study:
    """The phantom's study with every image cut down to what the crops show: about three times as fast.

    The scanner's shading is a function of the patient's space, so only the draw of the noise differs.
    """
    return Study(
        phantom.study.study_id,
        tuple(
            _series_near_points(phantom, series, plan)
            for series, plan in zip(phantom.study.series, phantom.plans, strict=True)
        ),
    )


def _series_near_points(phantom: PhantomStudy, series: Series, plan: SeriesPlan) -> Series:
    points = [point.xyz_mm for point in phantom.points if point.condition.series_kind is plan.kind]
    stacks = []
    for stack in series.stacks:
        mine = [point for point in points if series.nearest(point)[0] in stack] or points
        stacks.append(tuple(_slice_near_points(phantom, plan, item, np.array(mine)) for item in stack))
    return replace(series, stacks=tuple(stacks))


def _slice_near_points(
    phantom: PhantomStudy, plan: SeriesPlan, item: Slice, points_mm: NDArray[np.float64]
) -> Slice:
    plane = item.plane
    places = plane.to_px(points_mm)
    margin_px = _RENDERED_AROUND_MM / np.array(plane.spacing_mm)
    rows, columns = plane.shape
    first = np.clip(np.floor(places.min(axis=0) - margin_px), 0, (columns - 1, rows - 1)).astype(int)
    last = np.clip(np.ceil(places.max(axis=0) + margin_px), 0, (columns - 1, rows - 1)).astype(int)
    part = replace(
        plane, origin_mm=plane.to_mm(first), shape=(last[1] - first[1] + 1, last[0] - first[0] + 1)
    )
    read = partial(
        render,
        phantom.body,
        part,
        plan.contrast,
        scanner=plan.scanner,
        thickness_mm=plan.thickness_mm,
        noise_seed=item.instance_number,
    )
    return Slice(part, item.instance_number, read)


def rsna_sources(data: Path, say: Callable[[str], None] = lambda _: None) -> list[Source]:
    """Studies of a folder in the RSNA layout that have images, labels and points.

    Args:
        say: told how many lack one of these, and what makes all points doubtful.

    Raises:
        ValueError: the labels or the coordinates are missing, or no study has all three.
        TablesInvalid: the tables cannot be used.
        DicomRejected: no study is there.
    """
    tables = read_tables(data)
    if tables.train is None or tables.coordinates is None:
        raise ValueError(
            f"'{data.name}' needs train.csv and train_label_coordinates.csv: a grader learns from both"
        )
    labels = {str(row["study_id"]): row for _, row in tables.train.iterrows()}
    points = {str(name): rows for name, rows in tables.coordinates.groupby("study_id")}
    entries = [entry for entry in find_studies(data) if not entry.is_only_listed]
    found: list[Source] = [
        Source(
            entry.study_id,
            partial(_load_rsna, entry, points[entry.study_id], labels[entry.study_id]),
            _made_of(entry, points[entry.study_id], labels[entry.study_id]),
        )
        for entry in entries
        if entry.study_id in points and entry.study_id in labels
    ]
    have = {"images": [entry.study_id for entry in entries], "labels": labels, "points": points}
    for text in (*tables.alarming, *(lacking.said for lacking in studies_left_out(have))):
        say(text)
    if not found:
        raise ValueError(f"'{data.name}' has no study with images, labels and points: try `lumbar check`")
    return found


def _made_of(entry: StudyEntry, points: pd.DataFrame, labels: pd.Series) -> str:
    """Digest of the images, points and labels of a study."""
    content = f"{inputs_digest(entry)} {points.to_csv(index=False)} {labels.fillna('').tolist()}"
    return hashlib.sha256(content.encode()).hexdigest()


def _load_rsna(entry: StudyEntry, coordinates: pd.DataFrame, labels: pd.Series) -> LabelledStudy:
    study = entry.load()
    points, problems = annotated_points(study, coordinates)
    return LabelledStudy.of_labels(study, points, severities_in(labels), problems)


def labels_in(data: Path) -> dict[str, dict[Target, int]]:
    """Study → target → severity index, of the ``train.csv`` in a folder.

    Raises:
        ValueError: there is none.
        TablesInvalid: the tables cannot be used.
    """
    table = read_tables(data).train
    if table is None:
        raise ValueError(f"'{data.name}' has no train.csv")
    return {str(row["study_id"]): severities_in(row) for _, row in table.iterrows()}


def severities_in(row: pd.Series) -> dict[Target, int]:
    """The severity index of every labelled target in a row of ``train.csv``."""
    return {
        target: Severity(str(row[target.column])).index for target in TARGETS if pd.notna(row[target.column])
    }
