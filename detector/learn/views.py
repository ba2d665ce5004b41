"""Views that a scanner or a technician could have made of the same patient.

Cut views and appearance changes did most for transfer to other scanners: the network has to find its
level from whatever is in view, in whatever contrast.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from data_prep.geometry import FloatArray
from detector.learn.slices import LabelledSlice
from detector.learn.synthesis import SynthesisConfig, synthesised
from detector.spec import UNLABELLED, DetectorSpec

IGNORED = -1  # class of an object that a training neither learns from nor against


@dataclass(frozen=True)
class AugmentConfig:
    """Sizes of the random changes. Probabilities are per slice.

    Attributes:
        scale: uniform range of the zoom around canonical scale.
        stretch: largest relative difference between the two axes.
        rotation_deg, shift_fraction: largest rotation and shift (of the canvas).
        cut_probability: share of views that do not show all that the slice shows.
        deep_cut_probability: share of cut views whose cut goes through the lumbar levels.
        synthesis: other shapes and contrasts of slices that have a tissue map.
    """

    scale: tuple[float, float] = (0.78, 1.28)
    stretch: float = 0.08
    rotation_deg: float = 12.0
    shift_fraction: float = 0.15
    cut_probability: float = 0.65
    deep_cut_probability: float = 0.25
    bias_strength: float = 0.6
    gamma: tuple[float, float] = (0.5, 1.8)
    white_percentile: tuple[float, float] = (96.5, 100.0)
    coarsest_resolution: float = 0.35
    noise: float = 0.06
    synthesis: SynthesisConfig = field(default_factory=SynthesisConfig)


@dataclass(frozen=True, eq=False)
class View:
    """A training image: uint8 (rows, columns), class per object, keypoints (n, k, 2) px, NaN when unseen.

    The class of an object that is neither an example nor a counter-example is ``IGNORED``.
    """

    image: NDArray[np.uint8]
    classes: NDArray[np.int64]
    keypoints_px: FloatArray
    box_px: float


def augmented_view(
    item: LabelledSlice, spec: DetectorSpec, config: AugmentConfig, rng: np.random.Generator
) -> View:
    """One random view of a labelled slice on the training canvas."""
    if item.labels is not None:
        item = synthesised(item, config.synthesis, rng)
    image = item.image.astype(np.float32)
    names, keypoints = np.array(item.names), item.keypoints_px
    window_px, ambiguous = _cut_window(item, spec, config, rng)
    canvas_width, canvas_height = spec.train_canvas_px
    matrix, zoom = _random_affine(window_px, spec, config, rng)
    cut = np.zeros_like(image)
    x0, y0, x1, y1 = window_px
    cut[y0:y1, x0:x1] = image[y0:y1, x0:x1]
    flags = cv2.INTER_LINEAR if zoom > 0.8 else cv2.INTER_AREA
    view = np.asarray(cv2.warpAffine(cut, matrix, spec.train_canvas_px, flags=flags), dtype=np.float32)
    inside = _inside(keypoints, window_px)
    moved = keypoints @ matrix[:, :2].T + matrix[:, 2]
    inside &= _inside(moved, (0, 0, canvas_width, canvas_height))
    moved[~inside] = np.nan
    keep = inside.any(axis=1) if spec.disc_class is not None else inside.all(axis=1)
    classes = _class_indices(names, spec, ambiguous)
    return View(
        image=_appearance(view, config, rng),
        classes=classes[keep],
        keypoints_px=moved[keep],
        box_px=spec.box_mm / spec.mm_per_px * zoom,
    )


def plain_view(item: LabelledSlice, spec: DetectorSpec) -> View:
    """The slice as it is, in the middle of the training canvas."""
    canvas_width, canvas_height = spec.train_canvas_px
    rows, columns = item.image.shape
    shift = np.array([(canvas_width - columns) / 2, (canvas_height - rows) / 2]).round()
    matrix = np.array([[1.0, 0, shift[0]], [0, 1.0, shift[1]]])
    image = cv2.warpAffine(item.image, matrix, (canvas_width, canvas_height))
    return View(
        image=image.astype(np.uint8),
        classes=_class_indices(np.array(item.names), spec, ambiguous=False),
        keypoints_px=item.keypoints_px + shift,
        box_px=spec.box_mm / spec.mm_per_px,
    )


def _class_indices(names: NDArray[np.str_], spec: DetectorSpec, ambiguous: bool) -> NDArray[np.int64]:
    if spec.disc_class is not None and ambiguous:
        return np.full(len(names), spec.disc_class, dtype=np.int64)
    known = {name: index for index, name in enumerate(spec.class_names)} | {UNLABELLED: IGNORED}
    return np.array([known[str(name)] for name in names], dtype=np.int64)


def _inside(keypoints: FloatArray, box: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    x0, y0, x1, y1 = box
    with np.errstate(invalid="ignore"):
        return (
            (keypoints[..., 0] >= x0)
            & (keypoints[..., 0] < x1)
            & (keypoints[..., 1] >= y0)
            & (keypoints[..., 1] < y1)
        )


def _cut_window(
    item: LabelledSlice, spec: DetectorSpec, config: AugmentConfig, rng: np.random.Generator
) -> tuple[tuple[int, int, int, int], bool]:
    """The part of the slice that is shown, (x0, y0, x1, y1) px, and whether no cue to numbering is left."""
    rows, columns = item.image.shape
    whole = (0, 0, columns, rows)
    if rng.random() >= config.cut_probability or len(item.names) < 3 or spec.disc_class is None:
        return whole, False
    disc, canal = item.keypoints_px[:, 0], item.keypoints_px[:, 1]
    centres = np.where(np.isfinite(disc), disc, canal)  # RSNA tables know the canal point alone
    order = np.argsort(centres[:, 1])
    ys, xs = centres[order, 1], centres[order, 0]
    names = [item.names[i] for i in order]
    gap = float(np.mean(np.diff(ys)))
    deep = rng.random() < config.deep_cut_probability
    top_discs = int(rng.integers(0, 5 if deep else 3))  # discs lost above
    lost_below = int(rng.integers(0, 3)) if deep and rng.random() < 0.6 else 0
    top_discs = min(top_discs, len(ys) - 2)  # two discs at least stay in view
    if top_discs + lost_below > len(ys) - 2:
        lost_below = 0
    above = ys[top_discs - 1] if top_discs else 0.0
    y0 = int(rng.uniform(above, ys[top_discs] - 0.3 * gap)) if ys[top_discs] - 0.3 * gap > above else 0
    if lost_below:
        last = len(ys) - 1 - lost_below
        lowest = ys[last] + 0.3 * gap
        y1 = int(rng.uniform(lowest, max(lowest, ys[last + 1])))  # two discs may lie nearer than others
    else:
        y1 = int(rng.uniform(min(ys[-1] + 0.7 * gap, rows), rows)) if rng.random() < 0.6 else rows
    x0 = int(rng.uniform(0, max(1.0, xs.min() - 0.9 * gap))) if rng.random() < 0.5 else 0
    right = min(float(columns), xs.max() + 2.2 * gap)
    x1 = int(rng.uniform(right, columns)) if rng.random() < 0.5 and right < columns else columns
    sacrum_cut = lost_below > 0 and "L5/S1" in names[len(names) - lost_below :]
    top_cue = y0 < ys[names.index("T12/L1")] - 0.3 * gap if "T12/L1" in names else False
    return (max(0, x0), max(0, y0), min(columns, x1), min(rows, max(y1, y0 + 8))), sacrum_cut and not top_cue


def _random_affine(
    window_px: tuple[int, int, int, int],
    spec: DetectorSpec,
    config: AugmentConfig,
    rng: np.random.Generator,
) -> tuple[FloatArray, float]:
    """(2, 3) slice → canvas, and its mean zoom. The window's middle goes near the canvas's middle."""
    canvas = np.array(spec.train_canvas_px, dtype=float)
    x0, y0, x1, y1 = window_px
    zoom = float(rng.uniform(*config.scale))
    stretch = 1 + rng.uniform(-config.stretch, config.stretch)
    angle = np.radians(rng.uniform(-config.rotation_deg, config.rotation_deg))
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = rotation @ np.diag([zoom * stretch, zoom / stretch])
    room = np.abs(canvas - zoom * np.array([x1 - x0, y1 - y0])) / 2 + 0.3 * config.shift_fraction * canvas
    limit = np.minimum(room, config.shift_fraction * canvas)
    target = canvas / 2 + rng.uniform(-1, 1, 2) * limit
    centre = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
    return np.concatenate([linear, (target - linear @ centre)[:, None]], axis=1), zoom


def _appearance(
    view: NDArray[np.float32], config: AugmentConfig, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Coil shading, window, gamma, resolution and noise. Returns uint8 of the same shape."""
    rows, columns = view.shape
    seen = view > 0
    if rng.random() < 0.7:
        view = view * _bias_field(view.shape, config.bias_strength, rng)
    if rng.random() < 0.5:
        factor = rng.uniform(config.coarsest_resolution, 1.0)
        squeeze = rng.uniform(0.7, 1.0)
        small = (max(8, int(columns * factor)), max(8, int(rows * factor * squeeze)))
        coarse = cv2.resize(view, small, interpolation=cv2.INTER_AREA)
        view = np.asarray(cv2.resize(coarse, (columns, rows)), dtype=np.float32)
    white = np.percentile(view[seen][::7], rng.uniform(*config.white_percentile)) if seen.any() else 255.0
    view = np.clip(view / max(float(white), 1e-3), 0, 1) ** rng.uniform(*config.gamma)
    if rng.random() < 0.7:
        level = rng.uniform(0, config.noise)
        noise = rng.standard_normal((2, rows, columns), dtype=np.float32) * level
        view = np.hypot(view + noise[0], noise[1])  # magnitude images carry Rician noise
    view = view * rng.uniform(0.85, 1.0)
    return np.clip(view * 255, 0, 255).astype(np.uint8)


def _bias_field(shape: tuple[int, ...], strength: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Smooth gain, mean about 1: a random quadratic in the image coordinates."""
    y, x = np.meshgrid(
        np.linspace(-1, 1, shape[0], dtype=np.float32),
        np.linspace(-1, 1, shape[1], dtype=np.float32),
        indexing="ij",
    )
    a = rng.uniform(-strength, strength, 5).astype(np.float32)
    return np.exp(a[0] * x + a[1] * y + a[2] * x * x + a[3] * y * y + a[4] * x * y)
