"""How well lengths and areas are measured, and whether a flag contradicts right grades.

    python -m benchmarks.measurements --phantoms 100 [--spider FOLDER] [--sudirman FOLDER] [--rsna DATA]

Phantoms are of seeds that nothing was trained or chosen on, their points shifted by 1 mm at random; what is
true is what was drawn. SPIDER, against the masks: one slice of each patient (``--part report`` or
``train``), or three of those that networks are chosen on (``apart``). Sudirman: T2 slices of one half of
the patients (``--half report`` or ``develop``, by the SHA-256 of their identifiers), an expert's boxes;
points lie on the rear edge of the disc and are moved 7 mm back. Slices are also measured on pixels of
another size, shifted by a part of a pixel. RSNA: foramina as ``lumbar predict`` finds and measures them,
beside readers' grades, on the studies of one part of a data set with sagittal T1 (``--rsna-part``). Prints
JSON, or writes it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from classifier.grade import Grade
from classifier.measure.agreement import contradictions, target_of
from classifier.measure.foramen_samples import phantom_foramina, share_in, upright
from classifier.measure.foramina import room_of
from classifier.measure.planar import PlanarSlice
from classifier.measure.quantities import FORAMEN, Quantity
from classifier.measure.sagittal import SagittalReading, read_sagittal
from classifier.measure.strips import between
from classifier.measure.study import measure_study
from classifier.measure.tissue_training import APART
from classifier.measure.training import inside_of
from data_prep.crops import resample
from data_prep.geometry import FloatArray, SlicePlane
from data_prep.levels import SpineFrame, SpineLevel, SpineLevels
from data_prep.partition import Part, studies_of
from data_prep.phantom.posture import FIRST_LUMBAR
from data_prep.phantom.study import PhantomDisc, PhantomStudy, make_study
from data_prep.read.find import find_all_studies
from data_prep.rsna.tables import LABELS_FILE
from data_prep.vocabulary import (
    LEVELS,
    SEVERITIES,
    TARGETS,
    ConditionGroup,
    GradeSource,
    Level,
    SeriesKind,
    Severity,
    Side,
    Target,
)
from pipeline.commands import console
from pipeline.grade import Pipeline

FIRST_SEED = 410_000
SPIDER_SPACING_MM = 0.47
SUDIRMAN_SPACING_MM, SUDIRMAN_BACK_MM = 0.6875, 7.0
SHIFT_MM = 1.0
# Of a phantom's disc in its middle plane: places to front and back, and across it.
ALONG_MM, ACROSS_MM = np.arange(-9.0, 9.01, 1.0), np.arange(-13.0, 13.01, 0.1)
Key = tuple[Quantity, Level | None, Side | None]
# What is to tell a stenosis by itself.
_TELLING = (Quantity.CSF_SHARE, Quantity.CANAL_DEPTH)


@dataclass
class Pairs:
    """Measured and true values of one quantity from one source, and the stated uncertainties."""

    measured: list[float] = field(default_factory=list)
    true: list[float] = field(default_factory=list)
    uncertainty: list[float] = field(default_factory=list)
    missing: int = 0

    def add(self, measured: float, true: float, uncertainty: float) -> None:
        self.measured.append(measured)
        self.true.append(true)
        self.uncertainty.append(uncertainty)

    def figures(self) -> dict[str, float]:
        measured, true = np.array(self.measured), np.array(self.true)
        off = measured - true
        return {
            "n": len(off),
            "missing": self.missing,
            "error": float(np.abs(off).mean()),
            "error_percent": float(100 * np.abs(off).mean() / np.abs(true).mean()),
            "bias": float(off.mean()),
            "icc": agreement(measured, true),
            "off_over_uncertainty": float(np.sqrt(np.mean((off / np.array(self.uncertainty)) ** 2))),
        }


def agreement(first: FloatArray, second: FloatArray) -> float:
    """Intraclass correlation, two-way random effects, absolute agreement, single measures (ICC(2,1))."""
    table = np.stack([first, second], axis=1)
    count, raters = table.shape
    mean = table.mean()
    rows = raters * np.sum((table.mean(axis=1) - mean) ** 2) / (count - 1)
    columns = count * np.sum((table.mean(axis=0) - mean) ** 2) / (raters - 1)
    rest = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + mean
    error = np.sum(rest**2) / ((count - 1) * (raters - 1))
    return float((rows - error) / (rows + (raters - 1) * error + raters * (columns - error) / count))


def auc(score: FloatArray, is_positive: NDArray[np.bool_]) -> float:
    """Area under the ROC curve, ties half."""
    ones = int(is_positive.sum())
    ranks = float(rankdata(score)[is_positive].sum())
    return (ranks - ones * (ones + 1) / 2) / (ones * (len(score) - ones))


# --- phantoms ---


def disc_of(phantom: PhantomStudy, level: Level) -> tuple[PhantomDisc, SpineFrame]:
    """The disc of a level, and its frame in the patient."""
    spine, plane = phantom.body.spine, FIRST_LUMBAR + level.index
    (disc,) = (disc for disc in phantom.discs if disc.name == level.label)
    return disc, SpineFrame(*(spine.rotation @ axis[plane] for axis in (spine.up, spine.left, spine.back)))


def shifted_levels(phantom: PhantomStudy, rng: np.random.Generator) -> SpineLevels:
    """The true levels as a detector would give them: off by a little."""
    found = {}
    for level in LEVELS:
        disc, frame = disc_of(phantom, level)
        disc_mm, canal_mm = (at + rng.normal(0, SHIFT_MM, 3) for at in (disc.disc_mm, disc.canal_mm))
        found[level] = SpineLevel(disc_mm, canal_mm, frame, 1.0, 1.0)
    points = (replace(item, xyz_mm=item.xyz_mm + rng.normal(0, SHIFT_MM, 3)) for item in phantom.points)
    return SpineLevels(phantom.study.study_id, found, tuple(points), 1.0)


def _shown_disc(phantom: PhantomStudy, level: Level) -> NDArray[np.bool_]:
    """(along, across) whether the disc is there: in its middle plane, the middle 18 mm."""
    disc, frame = disc_of(phantom, level)
    at = disc.disc_mm + ALONG_MM[:, None, None] * frame.back + ACROSS_MM[None, :, None] * frame.up
    return inside_of(phantom.body, "disc")(at.reshape(-1, 3)).reshape(at.shape[:2])


def true_disc_height(phantom: PhantomStudy, level: Level) -> float:
    """Mean over the middle 18 mm of the disc in its middle plane."""
    return float(_shown_disc(phantom, level).sum(axis=1).mean() * 0.1)


def true_depth_of(phantom: PhantomStudy, level: Level) -> float:
    """Of the sac as it was drawn, across the canal in its middle plane, mean over 4 mm at the disc."""
    return float(_sac(phantom, level, np.zeros(1), np.arange(-2.0, 2.01, 1.0)).sum() * 0.1 / 5)


def true_area(phantom: PhantomStudy, level: Level) -> float:
    """Of the sac as it was drawn, across the canal at the disc."""
    step = 0.25
    return float(_sac(phantom, level, np.arange(-18.0, 18.01, step), np.zeros(1)).sum() * 0.1 * step)


def _sac(phantom: PhantomStudy, level: Level, left: FloatArray, up: FloatArray) -> NDArray[np.bool_]:
    """(points,) whether the sac is there: steps to the left, up, and of 0.1 mm to the back of its point."""
    disc, frame = disc_of(phantom, level)
    steps = np.meshgrid(left, up, np.arange(-16.0, 16.01, 0.1), indexing="ij")
    axes = (frame.left, frame.up, frame.back)
    at = disc.canal_mm + sum(step[..., None] * axis for step, axis in zip(steps, axes, strict=True))
    return inside_of(phantom.body, "sac")(at.reshape(-1, 3))


def true_lordosis(phantom: PhantomStudy) -> float:
    """Angle between the lower endplate of L1 and the upper one of S1: lines over their middle 18 mm."""
    lines = []
    for level, edge in ((LEVELS[0], -1), (LEVELS[-1], 0)):
        _, frame = disc_of(phantom, level)
        edges = [ACROSS_MM[np.flatnonzero(row)[edge]] for row in _shown_disc(phantom, level)]
        slope = np.polynomial.Polynomial.fit(ALONG_MM, edges, 1).deriv()(0.0)
        line = frame.back + slope * frame.up
        lines.append(line / np.linalg.norm(line))
    return float(np.degrees(np.arccos(np.clip(lines[0] @ lines[1], -1, 1))))


def true_foramina(phantom: PhantomStudy) -> dict[Key, float]:
    """Height and width of each foramen's room as it is drawn on its slice, and right minus left."""
    found: dict[Key, float] = {}
    for item in phantom_foramina(phantom):
        room = room_of(share_in(item, upright(item)))
        if room is not None:
            found[Quantity.FORAMEN_HEIGHT, item.level, item.side] = room.height_mm
            found[Quantity.FORAMEN_WIDTH, item.level, item.side] = room.width_mm
    for level in LEVELS:
        right, left = (found.get((Quantity.FORAMEN_HEIGHT, level, side)) for side in (Side.RIGHT, Side.LEFT))
        if right is not None and left is not None:
            found[Quantity.FORAMEN_DIFFERENCE, level, None] = right - left
    return found


def measure_phantoms(count: int) -> dict[str, object]:
    """Errors, and how often a grade that is right is contradicted."""
    pairs: dict[str, Pairs] = defaultdict(Pairs)
    flagged_studies = flags = 0
    for seed in range(FIRST_SEED, FIRST_SEED + count):
        phantom = make_study(seed)
        measured = measure_study(phantom.study, shifted_levels(phantom, np.random.default_rng(seed)))
        found = {(item.quantity, item.level, item.side): item for item in measured}
        truth: dict[Key, float] = {(Quantity.LORDOSIS, None, None): true_lordosis(phantom)}
        truth |= true_foramina(phantom)
        for level in LEVELS:
            truth[Quantity.CANAL_DEPTH, level, None] = true_depth_of(phantom, level)
            truth[Quantity.DISC_HEIGHT, level, None] = true_disc_height(phantom, level)
            if phantom.study.of_kind(SeriesKind.AXIAL_T2):
                truth[Quantity.SAC_AREA, level, None] = true_area(phantom, level)
        for key, value in truth.items():
            item = found.get(key)
            if item is None:
                pairs[key[0].value].missing += 1
            else:
                pairs[key[0].value].add(item.value, value, item.uncertainty)
        right = {target: _sure(severity.index) for target, severity in phantom.severities.items()}
        against = contradictions(right, measured)
        flags += len(against)
        flagged_studies += bool(against)
    return {
        "quantities": {name: item.figures() for name, item in sorted(pairs.items())},
        "right_grades_contradicted": {"studies": flagged_studies, "of": count, "flags": flags},
    }


def _sure(severity: int) -> Grade:
    probabilities = np.full(3, 0.05)
    probabilities[severity] = 0.9
    return Grade(probabilities, GradeSource.SEEN)


# --- single slices ---


@dataclass(frozen=True, eq=False)
class OneSlice:
    """A sagittal slice with the points of its levels, in-plane millimetres."""

    planar: PlanarSlice
    canal_mm: FloatArray
    disc_mm: FloatArray
    labels: tuple[str, ...]
    mask: NDArray[np.uint8] | None = None
    stenoses: NDArray[np.bool_] | None = None

    def read(self) -> SagittalReading:
        return read_sagittal(self.planar, self.canal_mm, self.disc_mm)

    def on_another_grid(self) -> OneSlice:
        """On pixels of 1/0.9 of the size, shifted by a part of a pixel."""
        old = self.planar.plane
        spacing = old.spacing_mm[0] / 0.9, old.spacing_mm[1] / 0.9
        shape = int(old.shape[0] * 0.9), int(old.shape[1] * 0.9)
        new = SlicePlane(old.to_mm([0.43, 0.27]), old.x_axis, old.y_axis, spacing, shape)
        planar = PlanarSlice(new, resample(self.planar.pixels, old, new))
        moved = (planar.to_mm2(self.planar.to_patient(points)) for points in (self.canal_mm, self.disc_mm))
        return replace(self, planar=planar, canal_mm=next(moved), disc_mm=next(moved))


def _planar(pixels: NDArray[np.uint8], spacing_mm: float) -> PlanarSlice:
    rows, columns = pixels.shape
    plane = SlicePlane(
        np.zeros(3), np.array([0.0, 1, 0]), np.array([0.0, 0, -1]), (spacing_mm, spacing_mm), (rows, columns)
    )
    return PlanarSlice(plane, pixels.astype(np.float32))


def spider_slices(folder: Path, part: str) -> Iterator[OneSlice]:
    """Of those that show most levels the middle one a patient (``apart``: three); points a little off."""
    split = pd.read_csv(folder / "split.csv")
    points = pd.read_csv(folder / "level_points.csv").dropna()
    points = points[points["level"].isin([level.label for level in LEVELS])]
    patients = APART if part == "apart" else set(split[split["part"] == part]["patient"])
    for patient in sorted(patients):
        rows = points[points["patient"] == patient]
        counts = rows.groupby("file").size()
        full = sorted(counts[counts == counts.max()].index)
        quarters = (1, 2, 3) if part == "apart" else (2,)
        for name in (full[len(full) * quarter // 4] for quarter in quarters):
            yield _spider_slice(folder, name, rows[rows["file"] == name].sort_values("disc_y"))


def _spider_slice(folder: Path, name: str, found: pd.DataFrame) -> OneSlice:
    rng = np.random.default_rng(int(found["patient"].iloc[0]))
    canal, disc = (
        found[[f"{what}_x", f"{what}_y"]].to_numpy() * SPIDER_SPACING_MM
        + rng.normal(0, SHIFT_MM, (len(found), 2))
        for what in ("canal", "disc")
    )
    image, mask = (
        np.asarray(cv2.imread(str(folder / what / name), cv2.IMREAD_GRAYSCALE), dtype=np.uint8)
        for what in ("images", "masks")
    )
    return OneSlice(_planar(image, SPIDER_SPACING_MM), canal, disc, tuple(found["level"]), mask)


def half_of(patient: str) -> str:
    """``develop`` or ``report``: five tenths each, by the SHA-256 of the identifier."""
    tenth = int.from_bytes(hashlib.sha256(patient.encode()).digest()[:8], "big") % 10
    return "develop" if tenth < 5 else "report"


def sudirman_slices(folder: Path, half: str) -> Iterator[OneSlice]:
    """T2 slices on which both annotators number alike, with four levels or more."""
    points = pd.read_csv(folder / "level_points.csv", dtype={"patient": str})
    boxes = pd.read_csv(folder / "discs.csv", dtype={"patient": str})
    for name, rows in points[points["modality"] == "T2"].groupby("slice"):
        if half_of(rows["patient"].iloc[0]) != half or (rows["numbering_vs_counted_boxes"] != "same").any():
            continue
        at = rows.drop_duplicates("level").set_index("level")
        box = boxes[boxes["slice"] == name].drop_duplicates("level").set_index("level")
        labels = [level.label for level in LEVELS if level.label in at.index and level.label in box.index]
        image = cv2.imread(str(folder / "images" / str(name)), cv2.IMREAD_GRAYSCALE)
        if len(labels) < 4 or image is None:
            continue
        rear = at.loc[labels, ["canal_x", "canal_y"]].to_numpy(dtype=np.float64) * SUDIRMAN_SPACING_MM
        disc = box.loc[labels, ["disc_x", "disc_y"]].to_numpy(dtype=np.float64) * SUDIRMAN_SPACING_MM
        each = (rear - disc) / np.linalg.norm(rear - disc, axis=1, keepdims=True)
        back = each + each.mean(axis=0)
        canal = rear + SUDIRMAN_BACK_MM * back / np.linalg.norm(back, axis=1, keepdims=True)
        stenoses = box.loc[labels, "stenosis"].to_numpy() == 1
        yield OneSlice(
            _planar(np.asarray(image, dtype=np.uint8), SUDIRMAN_SPACING_MM),
            canal, disc, tuple(labels), stenoses=stenoses,
        )  # fmt: skip


def true_depth(item: OneSlice, reading: SagittalReading, place: int) -> float | None:
    """Of the mask, across the canal, mean over 4 mm at the disc; None where the mask is not there."""
    assert item.mask is not None
    strip, row = reading.strip, float(reading.level_rows[place])
    across = np.arange(-16.0, 18.01, 0.1)
    rows = row + np.array([-2.0, 0.0, 2.0]) / reading.step_mm
    centres, backwards = between(strip.centres_mm, rows), between(strip.across, rows)
    at = centres[:, None] + across[None, :, None] * backwards[:, None]
    found = []
    for line in _sampled(item.mask == 3, at):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], (line > 0.5).astype(np.int8), [0]]))).reshape(
            -1, 2
        )
        if len(edges):
            found.append(float((edges[:, 1] - edges[:, 0]).max() * 0.1))
    return float(np.mean(found)) if len(found) == len(rows) else None


def true_mask_disc(item: OneSlice, place: int) -> float:
    """Of the mask nearest to the point: mean over the middle 18 mm, across its own long axis."""
    assert item.mask is not None
    count, labels, statistics, centres = cv2.connectedComponentsWithStats((item.mask == 1).astype(np.uint8))
    large = [n for n in range(1, count) if statistics[n, cv2.CC_STAT_AREA] > 150]
    point = item.disc_mm[place] / SPIDER_SPACING_MM
    nearest = min(large, key=lambda n: float(np.linalg.norm(centres[n] - point)))
    pixels = np.argwhere(labels == nearest)[:, ::-1] * SPIDER_SPACING_MM
    middle = pixels.mean(axis=0)
    along = np.linalg.svd(pixels - middle, full_matrices=False)[2][0]
    across = np.array([-along[1], along[0]])
    steps, heights = np.arange(-9.0, 9.01, 0.5), np.arange(-14.0, 14.01, 0.1)
    at = middle + steps[:, None, None] * along + heights[None, :, None] * across
    return float((_sampled(labels == nearest, at) > 0.5).sum(axis=1).mean() * 0.1)


def _sampled(mask: NDArray[np.bool_], at_mm: FloatArray) -> NDArray[np.float32]:
    at = (at_mm / SPIDER_SPACING_MM).astype(np.float32)
    return np.asarray(cv2.remap(mask.astype(np.float32), at[..., 0], at[..., 1], cv2.INTER_LINEAR))


def against_masks(slices: list[OneSlice]) -> dict[str, object]:
    """Depth of the canal and height of the discs against masks of people."""
    pairs: dict[Quantity, Pairs] = defaultdict(Pairs)
    for item in slices:
        reading = item.read()
        for place in range(len(item.labels)):
            found = reading.at_level(place)
            truths = {
                Quantity.CANAL_DEPTH: true_depth(item, reading, place),
                Quantity.DISC_HEIGHT: true_mask_disc(item, place),
            }
            for quantity, truth in truths.items():
                if truth is not None and quantity in found:
                    pairs[quantity].add(found[quantity].value, truth, found[quantity].uncertainty)
                else:
                    pairs[quantity].missing += 1
    return {quantity.value: item.figures() for quantity, item in pairs.items()}


def stenosis(slices: list[OneSlice]) -> dict[str, object]:
    """AUC of each quantity for an expert's box, by level; what is not measured counts as widest."""
    table = []
    for item in slices:
        assert item.stenoses is not None
        reading = item.read()
        for place, label in enumerate(item.labels):
            found = reading.at_level(place)
            row = {
                q.value: found[q].value if q in found else np.inf
                for q in (Quantity.CSF_SHARE, Quantity.CANAL_DEPTH)
            }
            table.append({"level": label, "stenosis": bool(item.stenoses[place]), **row})
    rows = pd.DataFrame(table)
    figures: dict[str, object] = {"slices": len(slices)}
    for quantity in (item.value for item in _TELLING):
        by_level = {}
        for level in LEVELS:
            here = rows[rows["level"] == level.label]
            score = -here[quantity].to_numpy(dtype=np.float64)
            by_level[level.label] = auc(score, here["stenosis"].to_numpy(dtype=bool))
        figures[quantity] = by_level
        figures[f"{quantity}_not_measured"] = int(np.isinf(rows[quantity]).sum())
    figures["stenoses"] = {str(k): int(v) for k, v in rows.groupby("level")["stenosis"].sum().items()}
    return figures


# --- readers' grades ---


def foramina_of_readers(data: Path, part: Part) -> dict[str, object]:
    """How the room of foramina goes with readers' grades: all as ``lumbar predict`` finds it.

    AUC for moderate or worse and for severe; percentiles of each grade; how often, of two sides that readers
    grade differently, the worse has the lower room; grades that are contradicted, by what the reader said.
    """
    train = pd.read_csv(data / LABELS_FILE, dtype=str).set_index("study_id")
    labels = {
        str(study_id): {
            target: Severity(row[target.column])
            for target in TARGETS
            if target.condition.group is ConditionGroup.FORAMINAL and isinstance(row[target.column], str)
        }
        for study_id, row in train.iterrows()
    }
    wanted = studies_of(labels, part)
    pipeline = Pipeline.load(threads=1)
    rows: list[tuple[str, str, Target, int, float]] = []
    against: list[bool] = []
    entries = [e for e in find_all_studies([data / "train_images"]) if e.study_id in wanted]
    for entry in entries:
        prediction, _ = pipeline.predict_entry(entry)
        truth = labels[entry.study_id]
        for item in prediction.measurements:
            target = target_of(item)
            if item.quantity in FORAMEN and target is not None and target in truth:
                rows.append((entry.study_id, item.quantity.value, target, truth[target].index, item.value))
        against += [
            item.severity is truth[item.target]
            for item in contradictions(prediction.grades, prediction.measurements)
            if item.measured.quantity in FORAMEN and item.target in truth
        ]
    table = pd.DataFrame(rows, columns=["study", "quantity", "target", "label", "value"])
    result: dict[str, object] = {"part": part, "studies": len(entries)}
    for quantity, rows_of in table.groupby("quantity"):
        score, label = -rows_of["value"].to_numpy(), rows_of["label"].to_numpy()
        result[str(quantity)] = {
            "n": len(rows_of),
            "auc": [auc(score, label >= 1), auc(score, label == 2)],
            "percentiles_5_10_50_90": {
                severity.value: np.percentile(-score[label == severity.index], (5, 10, 50, 90))
                .round(1)
                .tolist()
                for severity in SEVERITIES
            },
        }
    result["worse_side_is_lower"] = _worse_is_lower(table[table["quantity"] == Quantity.FORAMEN_HEIGHT.value])
    result["contradicted"] = {"n": len(against), "reader_agrees_with_the_grade": sum(against)}
    return result


def _worse_is_lower(heights: pd.DataFrame) -> dict[str, float]:
    pairs = heights.assign(level=[target.level for target in heights["target"]]).groupby(["study", "level"])
    sides = [group.sort_values("label") for _, group in pairs if group["label"].nunique() == 2]
    lower = [group["value"].iloc[1] < group["value"].iloc[0] for group in sides]
    return {"n": len(lower), "share": float(np.mean(lower))}


def repeated(slices: list[OneSlice]) -> dict[str, object]:
    """Share of values that stay within their stated uncertainty on another grid."""
    inside: dict[str, list[bool]] = defaultdict(list)
    for item in slices:
        first, again = item.read(), item.on_another_grid().read()
        for place in range(len(item.labels)):
            one, two = first.at_level(place), again.at_level(place)
            for quantity in one.keys() & two.keys():
                inside[quantity.value].append(
                    abs(one[quantity].value - two[quantity].value) <= one[quantity].uncertainty
                )
    return {
        name: {"n": len(found), "within": float(np.mean(found))} for name, found in sorted(inside.items())
    }


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--phantoms", type=int, default=0)
    parser.add_argument("--spider", type=Path)
    parser.add_argument("--part", choices=("report", "train", "apart"), default="report")
    parser.add_argument("--sudirman", type=Path)
    parser.add_argument("--half", choices=("report", "develop"), default="report")
    parser.add_argument("--rsna", type=Path)
    parser.add_argument("--rsna-part", type=Part, choices=tuple(Part), default=Part.TEST)
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()
    results: dict[str, object] = {}
    if given.phantoms:
        results["phantoms"] = measure_phantoms(given.phantoms)
    if given.spider:
        slices = list(spider_slices(given.spider, given.part))
        results["spider"] = {"part": given.part, **against_masks(slices), "repeated": repeated(slices)}
    if given.sudirman:
        slices = list(sudirman_slices(given.sudirman, given.half))
        results["sudirman"] = {"half": given.half, **stenosis(slices), "repeated": repeated(slices)}
    if given.rsna:
        results["rsna"] = foramina_of_readers(given.rsna, given.rsna_part)
    if given.output:
        given.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    console.print_json(results)


if __name__ == "__main__":
    main()
