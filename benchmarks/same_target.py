"""Whether a target gets the same grade from its full series as from what public derivatives keep of it.

    python -m benchmarks.same_target DATA [--models research] [-o FOLDER]

DATA is a folder in the RSNA layout with whole studies. Graded at the annotated points: foramina on their T1
slice stretched to 250 × 250 pixels of 8 bits without neighbours; canals on their T2 slice, longest side 448,
likewise; recesses on their axial slice and its neighbours, cropped to some 65 × 40 mm and laid into black.
Prints per condition group the mean and the largest difference of a probability.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from classifier.predict import Grader
from data_prep.levels import LevelPoint, SpineLevels
from data_prep.pixel_cache import PixelCache
from data_prep.read.find import find_studies
from data_prep.rsna.annotations import annotated_points
from data_prep.rsna.tables import read_tables
from data_prep.study import Series, Slice, Study
from data_prep.vocabulary import ConditionGroup, Target
from pipeline.commands import console
from pipeline.models import model_folders

T1_SIDE_PX, T2_LONGEST_PX = 250, 448
# Of axial crops: half their width, and how far they reach in front of and behind the point.
CROP_HALF_WIDTH_MM, CROP_HALF_HEIGHT_MM = 32.0, 19.0
WHITE_PERCENTILE = 99.8


def as_8_bits(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """An affine function of the pixels in whole numbers of 0–255."""
    black, white = float(pixels.min()), float(np.percentile(pixels, WHITE_PERCENTILE))
    return np.rint(np.clip((pixels - black) / max(white - black, 1e-6), 0, 1) * 255).astype(np.float32)


def shrunk(item: Slice, shape: tuple[int, int]) -> Slice:
    """The slice on another number of pixels (rows, columns) of the same field of view."""
    rows, columns = item.plane.shape
    factor = columns / shape[1], rows / shape[0]
    spacing = item.plane.spacing_mm[0] * factor[0], item.plane.spacing_mm[1] * factor[1]
    corner = ((factor[0] - 1) / 2, (factor[1] - 1) / 2)
    plane = replace(item.plane, origin_mm=item.plane.to_mm(corner), spacing_mm=spacing, shape=shape)
    pixels = as_8_bits(cv2.resize(item.pixels(), shape[::-1], interpolation=cv2.INTER_AREA))
    return replace(item, plane=plane, read_pixels=partial(np.array, pixels))


def alone_t1(series: Series, item: Slice, _: LevelPoint) -> Series:
    return replace(series, stacks=((shrunk(item, (T1_SIDE_PX, T1_SIDE_PX)),),))


def alone_t2(series: Series, item: Slice, _: LevelPoint) -> Series:
    longest = max(item.plane.shape)
    shape = tuple(round(side * min(1.0, T2_LONGEST_PX / longest)) for side in item.plane.shape)
    return replace(series, stacks=((shrunk(item, (shape[0], shape[1])),),))


def cropped_axial(series: Series, item: Slice, point: LevelPoint) -> Series:
    stack = series.stack_of(item)
    place = stack.index(item)
    kept = stack[max(0, place - 1) : place + 2]
    return replace(series, stacks=(tuple(_cropped(one, point) for one in kept),))


def _cropped(item: Slice, point: LevelPoint) -> Slice:
    x, y = item.plane.to_px(point.xyz_mm)
    dx, dy = CROP_HALF_WIDTH_MM / item.plane.spacing_mm[0], CROP_HALF_HEIGHT_MM / item.plane.spacing_mm[1]
    shown = as_8_bits(item.pixels())
    black = np.zeros_like(shown)
    rows = slice(max(0, round(y - dy)), max(0, round(y + dy)))
    columns = slice(max(0, round(x - dx)), max(0, round(x + dx)))
    black[rows, columns] = shown[rows, columns]
    return replace(item, read_pixels=partial(np.array, black))


REDUCED: dict[ConditionGroup, Callable[[Series, Slice, LevelPoint], Series]] = {
    ConditionGroup.FORAMINAL: alone_t1,
    ConditionGroup.SPINAL: alone_t2,
    ConditionGroup.SUBARTICULAR: cropped_axial,
}


def grade_at(grader: Grader, study: Study, point: LevelPoint) -> NDArray[np.float64] | None:
    """Probabilities (3,) of the point's target; None if it could not be looked at."""
    grades = grader.grade(study, SpineLevels(study.study_id, points=(point,)))
    grade = grades[Target(point.condition, point.level)]
    return None if grade.flags else np.asarray(grade.probabilities)


def differences(grader: Grader, study: Study, points: tuple[LevelPoint, ...]) -> dict[str, list[float]]:
    """Per condition group: mean |difference| over the three probabilities of each target."""
    found: dict[str, list[float]] = {}
    for point in points:
        if point.sight is None:
            continue
        series, item = study.slice_at(point.sight)
        group = point.condition.group
        # The same kind alone: no second view joins in.
        full = replace(study, series=(series,))
        less = replace(study, series=(REDUCED[group](series, item, point),))
        whole, part = grade_at(grader, full, point), grade_at(grader, less, point)
        if whole is None or part is None:
            found.setdefault(f"{group.value} not graded from both", []).append(1.0)
        else:
            found.setdefault(group.value, []).append(float(np.abs(whole - part).mean()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--models", default="research", help="research, open, or a folder")
    parser.add_argument("-o", "--output", type=Path, help="folder for same_target.json")
    arguments = parser.parse_args()
    grader = Grader.load(model_folders(arguments.models)["classifier"], threads=1)
    coordinates = read_tables(arguments.data).coordinates
    found: dict[str, list[float]] = {}
    for entry in find_studies(arguments.data):
        if entry.is_only_listed:
            continue
        study = PixelCache(entry.load()).study
        points, _ = annotated_points(study, coordinates)
        for group, values in differences(grader, study, points).items():
            found.setdefault(group, []).extend(values)
    figures = {
        group: {"targets": len(v), "mean": round(float(np.mean(v)), 4), "largest": round(max(v), 4)}
        for group, v in found.items()
    }
    console.print_json(figures)
    if arguments.output is not None:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "same_target.json").write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
