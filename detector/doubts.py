"""What leaves the levels of a study in doubt: images unlike those learned from, and what they do not show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from data_prep.crops import percentiles
from data_prep.levels import SpineLevel
from data_prep.problems import DicomRejected
from data_prep.study import Series, Slice, Study, places_mm
from data_prep.vocabulary import Flag, Level, SeriesKind
from detector.config import PredictConfig
from detector.finder import LumbarView, central_slices
from detector.look.canonical import without_border
from detector.look.inference import SlicePredictor
from detector.spine.agreement import lie_elsewhere
from detector.spine.chain import ChainDisc
from detector.spine.neighbours import Neighbours, neighbours
from detector.spine.orientation import orientation_is_doubtful
from detector.spine.region import Region, is_named_otherwise, region_seen, shows_lumbar_spine
from detector.spine.wrong_way import WrongWay, wrong_way_round

# Fewer slices have no inner ones to speak of.
_FEWEST_WITH_EDGES = 5
# A canal nearer to the last slice, in gaps between slices, may be on it; see docs/robustness.md.
_EDGE_GAPS = 0.75
# Blind to constant, linear and bilinear signal; the sum of its squares is 36. After J. Immerkær, Fast noise
# variance estimation, Computer Vision and Image Understanding 64 (1996) 300–302; with the median instead of
# the mean, because edges are few.
_KERNEL = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float32)
_SIDE_PX = 192  # of the middle of the image, which tells enough
_SD_OF_MEDIAN = 1 / 0.6745  # of a normal distribution, whose median absolute value is 0.6745 sd


def view_doubts(
    view: LumbarView, predictor: SlicePredictor, config: PredictConfig
) -> tuple[tuple[str, ...], bool]:
    """Flags of the view of a study, before its discs are numbered, and whether they leave that in doubt."""
    series, discs = view.series, view.sighting.discs
    leading = series[0]
    (middle,) = central_slices(leading, 1, config.max_offset_mm)
    of_image, uncertain = noisy_or_turned(middle, discs, predictor, config)
    region = region_seen(discs, middle, predictor, config.region, config.candidates, config.chain)
    # Of a patient who lies otherwise than the coordinates say, no size tells the part of the body.
    doubtful = region is Region.DOUBTFUL and Flag.ORIENTATION_DOUBTFUL not in of_image
    said: dict[str, bool] = {
        Flag.NO_SAGITTAL_T2: leading.kind is not SeriesKind.SAGITTAL_T2,
        Flag.FEW_SLICES: len(leading.slices) < config.few_slices,
        **dict.fromkeys(of_image, True),
        Flag.REGION_DOUBTFUL: is_named_otherwise(series) or doubtful,
        Flag.NO_LEVEL_FOUND: not discs,
        Flag.NO_LUMBAR_SPINE: bool(discs) and not shows_lumbar_spine(series, discs, region),
    }
    uncertain |= said[Flag.REGION_DOUBTFUL] or _sees_beside_the_canal_alone(leading, config)
    return tuple(flag for flag, holds in said.items() if holds), uncertain


def noisy_or_turned(
    middle: Slice, chain: tuple[ChainDisc, ...], predictor: SlicePredictor, config: PredictConfig
) -> tuple[tuple[str, ...], bool]:
    """Flags of a leading series that is not what the networks have learned from: noisy, or turned.

    And whether such a series leaves the numbering in doubt. Told by its middle slice.
    """
    try:
        _, pixels = without_border(middle.plane, middle.pixels())
        ratio = signal_to_noise(pixels)
    except DicomRejected:
        return (), False
    noisy = ratio < config.noisy_below
    turned = orientation_is_doubtful(
        chain, middle, predictor, config.orientation, config.candidates, config.chain
    )
    flags = ((Flag.NOISY,) if noisy else ()) + ((Flag.ORIENTATION_DOUBTFUL,) if turned else ())
    return flags, turned or ratio < config.least_signal_to_noise


def _sees_beside_the_canal_alone(leading: Series, config: PredictConfig) -> bool:
    """Whether a T1 leads that lacks slices, as where those of the foramina alone were stored.

    Where its middle is cannot be told then. Six of a hundred such studies are numbered wrong, half of
    them with a high confidence.
    """
    count = len(leading.slices)
    central = central_slices(leading, config.central_slices, config.max_offset_mm)
    few = len(central) < min(config.central_slices, count) or 1 < count < config.whole_t1_slices
    return leading.kind is SeriesKind.SAGITTAL_T1 and few


def axials_lie_elsewhere(
    study: Study, leading: Series, levels: Mapping[Level, SpineLevel], config: PredictConfig
) -> bool:
    """Whether the axial series show another place, or other pixels, than their headers say."""
    axial = study.of_kind(SeriesKind.AXIAL_T2)
    if not axial or not levels or leading.kind is not SeriesKind.SAGITTAL_T2:
        return False
    (middle,) = central_slices(leading, 1, config.max_offset_mm)
    canal_mm = np.stack([level.canal_mm for level in levels.values()])
    return lie_elsewhere(middle, canal_mm, axial, config.agreement)


def series_wrong_way_round(
    study: Study, sagittal: Sequence[Series], levels: Mapping[Level, SpineLevel], config: PredictConfig
) -> WrongWay:
    """Which series lie another way round than their headers say, told where they meet others.

    Args:
        sagittal: those that decided the levels, the leading one first.
    """
    if not levels:
        return WrongWay()
    axial = study.of_kind(SeriesKind.AXIAL_T2)
    first = {series.kind: series for series in reversed(sagittal)}
    # Of T1 more slices are decoded in any case.
    compared = [first[kind] for kind in (SeriesKind.SAGITTAL_T1, SeriesKind.SAGITTAL_T2) if kind in first]
    canal_mm = np.stack([level.canal_mm for level in levels.values()])
    return wrong_way_round(compared, axial, canal_mm, config.crossings, config.in_plane)


def axial_neighbours(study: Study) -> Neighbours:
    """What the axial slices show of their neighbours."""
    return neighbours([stack for item in study.of_kind(SeriesKind.AXIAL_T2) for stack in item.stacks])


def moved_between_slices(leading: Series, config: PredictConfig) -> bool:
    """Whether every second one of the central slices shows the patient elsewhere."""
    central = central_slices(leading, config.central_slices, config.max_offset_mm)
    return neighbours([central], show_sides=False).patient_moved


def is_shown(level: SpineLevel, leading: Series) -> bool:
    """Whether disc and canal lie inside the images: beyond their edge the network can only guess."""
    return all(leading.nearest(point)[0].plane.shows(point) for point in (level.disc_mm, level.canal_mm))


def canal_at_edge(levels: Mapping[Level, SpineLevel], leading: Series) -> bool:
    """Whether the canal of a level lies on the first or last slice of the leading series, or beyond it.

    There its middle may not be in the images. How far to the side it lies is found to within a few mm: most
    of the gap before the last slice counts as that. A series of a few slices is flagged as such.
    """
    stack = leading.main_stack
    if len(stack) < _FEWEST_WITH_EDGES:
        return False
    places, reach = places_mm(stack), _EDGE_GAPS * leading.gap_mm(stack[0])
    first, last = places.min() + reach, places.max() - reach
    canal = [float(level.canal_mm @ stack[0].plane.normal) for level in levels.values()]
    return any(not first <= at <= last for at in canal)


def signal_to_noise(pixels: NDArray[np.float32]) -> float:
    """The 95th percentile of an image over the standard deviation of its noise; infinite without noise.

    Noise is measured in the brighter half of the image: that of magnitude images is smaller in air. Where
    the scanner has interpolated, noise is smooth and counts for less than it is.

    Args:
        pixels: (rows, columns), at least 3 × 3.
    """
    pixels = np.nan_to_num(_middle(pixels))
    rough = np.asarray(cv2.filter2D(pixels, cv2.CV_32F, _KERNEL), dtype=np.float32)[1:-1, 1:-1]
    smooth = np.asarray(cv2.blur(pixels, (5, 5)), dtype=np.float32)[1:-1, 1:-1]
    dark, signal = percentiles(smooth, (50, 95))
    noise = percentiles(np.abs(rough[smooth >= dark]), (50,))[0] * _SD_OF_MEDIAN / 6
    zero = min(0.0, float(smooth.min()))  # a rescale intercept moves it
    return (signal - zero) / noise if noise > 0 else float("inf")


def _middle(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    rows, columns = pixels.shape
    top, left = max(0, rows - _SIDE_PX) // 2, max(0, columns - _SIDE_PX) // 2
    return np.ascontiguousarray(pixels[top : top + _SIDE_PX, left : left + _SIDE_PX])
