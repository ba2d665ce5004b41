"""Protects: which series is called wrong, and that a right one never is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from data_prep.geometry import FloatArray
from data_prep.phantom import make_study
from data_prep.study import Series, Slice, Study
from data_prep.vocabulary import Condition, SeriesKind
from detector.spine.in_plane import InPlaneConfig
from detector.spine.ways_round import CrossingConfig
from detector.spine.wrong_way import Verdict, WrongWay, judged, wrong_way_round

SEED = 156_003
UNTOLD, AGREES, SIDES = Verdict.UNTOLD, Verdict.AGREES, Verdict.SIDES_DIFFER
TURNED, BOTH = Verdict.AXIAL_TURNED, Verdict.AXIAL_TURNED_SIDES_DIFFER


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"ax": {"t1": AGREES, "t2": AGREES}}, WrongWay()),
        ({"ax": {"t1": UNTOLD, "t2": UNTOLD}}, WrongWay()),
        ({"ax": {"t1": TURNED, "t2": UNTOLD}}, WrongWay(("ax",))),
        ({"ax": {"t1": BOTH, "t2": BOTH}}, WrongWay(("ax",), True)),
        ({"ax": {"t1": SIDES, "t2": SIDES}}, WrongWay(("ax",), True)),
        ({"ax": {"t1": SIDES, "t2": AGREES}}, WrongWay(("t1",))),
        ({"ax": {"t1": AGREES, "t2": SIDES}}, WrongWay(("t2",))),
        ({"ax": {"t1": SIDES, "t2": UNTOLD}}, WrongWay((), True)),
        ({"ax": {"t2": SIDES}}, WrongWay((), True)),
        ({"ax": {"t1": TURNED, "t2": AGREES}}, WrongWay((), True)),
        ({"ax": {"t1": SIDES, "t2": AGREES, "t2 again": TURNED}}, WrongWay((), True)),
        ({"ax": {"t1": TURNED}, "few": {"t1": UNTOLD}}, WrongWay(("ax", "few"))),
        ({"ax": {"t1": TURNED}, "right": {"t1": AGREES}}, WrongWay(("ax",))),
        (
            {"ax": {"t1": SIDES, "t2": AGREES}, "right": {"t1": AGREES, "t2": AGREES}},
            WrongWay((), True),
        ),
    ],
)
def test_who_is_wrong(told: Mapping[str, Mapping[str, Verdict]], expected: WrongWay) -> None:
    assert judged(told) == expected


@cache
def patient() -> tuple[Study, FloatArray]:
    made = make_study(SEED, size="small")
    canal = [p.xyz_mm for p in made.points if p.condition is Condition.SPINAL_CANAL_STENOSIS]
    return made.study, np.stack(canal)


def found(change: Mapping[SeriesKind, object]) -> WrongWay:
    study, canal_mm = patient()
    kinds = (SeriesKind.SAGITTAL_T1, SeriesKind.SAGITTAL_T2, SeriesKind.AXIAL_T2)
    t1, t2, axial = (change.get(kind) or study.of_kind(kind)[0] for kind in kinds)
    assert isinstance(t1, Series) and isinstance(t2, Series) and isinstance(axial, Series)
    return wrong_way_round((t1, t2), (axial,), canal_mm, CrossingConfig(), InPlaneConfig())


def of(kind: SeriesKind) -> Series:
    return patient()[0].of_kind(kind)[0]


def moved(series: Series, by_mm: tuple[float, float, float]) -> Series:
    def shifted(item: Slice) -> Slice:
        return replace(item, plane=replace(item.plane, origin_mm=item.plane.origin_mm + by_mm))

    return series.changed(shifted)


@pytest.mark.parametrize(
    "by_mm", [(0.0, 0.0, 0.0), (0.0, 0.0, 33.0), (0.0, 0.0, -15.0), (-8.0, 0.0, 0.0), (4.0, 4.0, 6.0)]
)
@pytest.mark.parametrize("kind", [SeriesKind.AXIAL_T2, SeriesKind.SAGITTAL_T1])
def test_a_patient_who_moved_lies_right(kind: SeriesKind, by_mm: tuple[float, float, float]) -> None:
    assert found({kind: moved(of(kind), by_mm)}) == WrongWay()


def fine(series: Series) -> Series:
    """With pixels of half the size."""

    def finer(item: Slice) -> Slice:
        x_mm, y_mm = item.plane.spacing_mm
        rows, columns = item.plane.shape
        plane = replace(
            item.plane,
            origin_mm=item.plane.to_mm((-0.25, -0.25)),
            spacing_mm=(x_mm / 2, y_mm / 2),
            shape=(2 * rows, 2 * columns),
        )
        return replace(item, plane=plane, read_pixels=lambda: item.pixels().repeat(2, 0).repeat(2, 1))

    return replace(series, stacks=tuple(tuple(map(finer, stack)) for stack in series.stacks))


def in_reverse(series: Series) -> Series:
    """The images of each slice are those of the one as far on the other side."""
    others = dict(zip(map(id, series.slices), reversed(series.slices), strict=True))

    def swapped(item: Slice) -> Slice:
        return replace(item, read_pixels=others[id(item)].pixels)

    return replace(series, stacks=tuple(tuple(map(swapped, stack)) for stack in series.stacks))


def stored(series: Series, change: Callable[..., NDArray[np.float32]], *how: int) -> Series:
    """Each image changed, under the header that it had."""

    def changed(item: Slice) -> Slice:
        return replace(item, read_pixels=lambda: change(item.pixels(), *how))

    return replace(series, stacks=tuple(tuple(map(changed, stack)) for stack in series.stacks))


@pytest.mark.parametrize("kind", [SeriesKind.SAGITTAL_T1, SeriesKind.SAGITTAL_T2])
def test_a_sagittal_series_in_reverse_beside_one_that_lies_right(kind: SeriesKind) -> None:
    """Of either kind, and of pixels that are made coarser before anything is compared."""
    wrong = WrongWay((of(kind).series_id,))
    assert found({kind: in_reverse(of(kind))}) == found({kind: in_reverse(fine(of(kind)))}) == wrong


def test_axial_images_whose_rows_are_columns_and_such_that_are_mirrored_in_reverse() -> None:
    """The second lies the right way up, but its left is right; of the third everything is the other way."""
    axial = of(SeriesKind.AXIAL_T2)
    assert found({axial.kind: stored(axial, np.transpose)}) == WrongWay((axial.series_id,))
    mirrored = stored(in_reverse(axial), np.fliplr)
    assert found({axial.kind: mirrored}) == WrongWay((axial.series_id,), sides_doubtful=True)
    turned = stored(in_reverse(axial), np.rot90, 2)
    assert found({axial.kind: turned}) == WrongWay((axial.series_id,))


def test_stacks_each_in_reverse() -> None:
    axial = of(SeriesKind.AXIAL_T2)
    middle = len(axial.slices) // 2
    stacks = axial.slices[:middle], axial.slices[middle:]
    swapped = tuple(
        tuple(replace(item, read_pixels=other.pixels) for item, other in zip(s, s[::-1], strict=True))
        for s in stacks
    )
    assert found({axial.kind: replace(axial, stacks=stacks)}) == WrongWay()
    assert found({axial.kind: replace(axial, stacks=swapped)}) == WrongWay((axial.series_id,))


@pytest.mark.parametrize("count", [1, 4])
def test_few_slices_say_nothing(count: int) -> None:
    axial = of(SeriesKind.AXIAL_T2)
    few = [replace(item, read_pixels=lambda item=item: item.pixels()[::-1]) for item in axial.slices[:count]]
    assert found({axial.kind: replace(axial, stacks=(tuple(few),))}) == WrongWay()


def test_black_images_say_nothing() -> None:
    axial = of(SeriesKind.AXIAL_T2)
    black = tuple(
        replace(item, read_pixels=lambda shape=item.plane.shape: np.zeros(shape, np.float32))
        for item in axial.slices
    )
    assert found({axial.kind: replace(axial, stacks=(black,))}) == WrongWay()


@pytest.mark.parametrize("seed", range(156_010, 156_014))
def test_images_of_one_half_of_the_body_say_nothing(seed: int) -> None:
    """Mirrored, such an image shows nothing where the sagittal slices lie."""
    made = make_study(seed, size="small")
    canal_mm = np.stack([p.xyz_mm for p in made.points if p.condition is Condition.SPINAL_CANAL_STENOSIS])

    def half(item: Slice) -> Slice:
        rows, columns = item.plane.shape
        first = columns // 2
        origin = item.plane.to_mm([first, 0])
        plane = replace(item.plane, origin_mm=origin, shape=(rows, columns - first))
        return replace(item, plane=plane, read_pixels=lambda: item.pixels()[:, first:])

    kinds = (SeriesKind.SAGITTAL_T1, SeriesKind.SAGITTAL_T2, SeriesKind.AXIAL_T2)
    t1, t2, axial = (made.study.of_kind(kind)[0] for kind in kinds)
    assert (
        wrong_way_round((t1, t2), (axial.changed(half),), canal_mm, CrossingConfig(), InPlaneConfig())
        == WrongWay()
    )
