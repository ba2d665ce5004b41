"""Quirks of geometry: how a slice lies in the patient and in its file, how many there are, what they show."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from data_prep.vocabulary import SeriesKind
from tests.hostile.quirks.stored import Quirk, StoredImage, StoredStudy

Rng = np.random.Generator
Array = NDArray[np.float64]
ROTATION_DEG = (14.0, 9.0, 6.0)  # about the axes to the left, to the back and to the head


def rotation() -> Array:
    """(3, 3) of a patient who lies askew."""
    x, y, z = np.radians(ROTATION_DEG)
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x)


def rotated_patient(study: StoredStudy, rng: Rng) -> StoredStudy:
    """The whole acquisition turned in the scanner: all planes oblique, the same pixels."""
    turn = rotation()
    return study.each(lambda image: image.in_geometry(turn @ image.position_mm, image.axes @ turn.T))


def turned_in_plane(degrees: float) -> Quirk:
    """Every slice acquired at an angle within its plane; the pixels are read anew."""

    def turn(image: StoredImage) -> StoredImage:
        angle = np.radians(degrees)
        right, down = image.axes
        axes = np.array(
            [np.cos(angle) * right + np.sin(angle) * down, -np.sin(angle) * right + np.cos(angle) * down]
        )
        rows, columns = image.pixels().shape
        side = min(image.spacing_mm)
        middle = to_mm(image, (columns - 1) / 2, (rows - 1) / 2)
        shape = round(rows * image.spacing_mm[0] / side), round(columns * image.spacing_mm[1] / side)
        corner = middle - ((shape[1] - 1) / 2 * axes[0] + (shape[0] - 1) / 2 * axes[1]) * side
        return _on_grid(image, corner, axes, (side, side), shape)

    return lambda study, rng: study.each(turn)


def stored_mirrored(study: StoredStudy, rng: Rng) -> StoredStudy:
    """Columns from the other side, and geometry that says so: image-left is patient-left on axial slices."""

    def mirror(image: StoredImage) -> StoredImage:
        right, down = image.axes
        corner = to_mm(image, image.dataset.Columns - 1, 0)
        return image.with_pixels(image.pixels()[:, ::-1]).in_geometry(corner, np.array([-right, down]))

    return study.each(mirror)


def stored_on_side(study: StoredStudy, rng: Rng) -> StoredStudy:
    """Rows and columns swapped, with the geometry that says so."""

    def swap(image: StoredImage) -> StoredImage:
        rows, columns = image.spacing_mm
        turned = image.with_pixels(image.pixels().T, PixelSpacing=[columns, rows])
        return turned.in_geometry(image.position_mm, image.axes[::-1])

    return study.each(swap)


def turned_round(image: StoredImage) -> StoredImage:
    """Stored from the other corner: both directions reversed, the same picture."""
    corner = to_mm(image, image.dataset.Columns - 1, image.dataset.Rows - 1)
    return image.with_pixels(image.pixels()[::-1, ::-1]).in_geometry(corner, -image.axes)


def feet_first(study: StoredStudy, rng: Rng) -> StoredStudy:
    """The patient lies feet first: images stored upside down and from the other side, coordinates right."""
    return study.each(lambda image: turned_round(image).changed(PatientPosition="FFS"))


def wrongly_registered(signs: tuple[int, int, int], position: str) -> Quirk:
    """The patient was registered in another position than he lies in: all coordinates are turned."""
    turn = np.diag(signs).astype(float)

    def apply(image: StoredImage) -> StoredImage:
        moved = image.in_geometry(turn @ image.position_mm, image.axes @ turn)
        return moved.changed(PatientPosition=position)

    return lambda study, rng: study.each(apply)


def moved_between_series(study: StoredStudy, rng: Rng) -> StoredStudy:
    """The patient moved 14 mm forward between T2 and T1."""
    t1 = tuple(study.ids_of(SeriesKind.SAGITTAL_T1))
    return study.each(lambda image: image.in_geometry(image.position_mm - [0, 14, 0]), t1)


def rounded(decimals: int) -> Quirk:
    """Positions and orientations written with few decimals."""

    def apply(image: StoredImage) -> StoredImage:
        return image.changed(
            ImagePositionPatient=[f"{value:.{decimals}f}" for value in image.position_mm],
            ImageOrientationPatient=[f"{value:.{decimals}f}" for value in image.axes.ravel()],
            PixelSpacing=[f"{value:.{decimals}f}" for value in image.spacing_mm],
        )

    return lambda study, rng: study.each(apply)


def positions_equal(study: StoredStudy, rng: Rng) -> StoredStudy:
    """All slices of a series claim the place of the middle one."""
    return study.each_series(
        lambda images: [image.in_geometry(images[len(images) // 2].position_mm) for image in images]
    )


def bad_geometry(study: StoredStudy, rng: Rng) -> StoredStudy:
    """T1 without spacing between rows, axial slices whose axes are not perpendicular."""
    t1, axial = study.ids_of(SeriesKind.SAGITTAL_T1), study.ids_of(SeriesKind.AXIAL_T2)
    flat = study.each(lambda image: image.changed(PixelSpacing=["0", "0.9"]), tuple(t1))
    skew = ["1", "0", "0", "0.7", "0.7", "0"]
    return flat.each(lambda image: image.changed(ImageOrientationPatient=skew), tuple(axial))


def matrix(*, rows: float = 1.0, columns: float = 1.0, longest: int | None = None, every: int = 1) -> Quirk:
    """Another matrix over the same field of view.

    Args:
        rows, columns: share of the pixels along each side that is left.
        longest: pixels along the longer side instead.
        every: only every n-th slice.
    """

    def resize(image: StoredImage) -> StoredImage:
        old = image.pixels().shape
        share = (longest / max(old),) * 2 if longest else (rows, columns)
        shape = max(8, round(old[0] * share[0])), max(8, round(old[1] * share[1]))
        spacing = tuple(s * n / m for s, n, m in zip(image.spacing_mm, old, shape, strict=True))
        shift = (np.array(spacing) - image.spacing_mm) / 2
        corner = image.position_mm + shift[1] * image.axes[0] + shift[0] * image.axes[1]
        smaller = shape[0] * shape[1] < old[0] * old[1]
        pixels = cv2.resize(
            image.pixels().astype(np.float32),
            shape[::-1],
            interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR,
        )
        return image.with_pixels(pixels, PixelSpacing=[f"{s:.8g}" for s in spacing]).in_geometry(corner)

    return lambda study, rng: study.each_series(
        lambda images: [resize(image) if n % every == 0 else image for n, image in enumerate(images)]
    )


def padded(study: StoredStudy, rng: Rng) -> StoredStudy:
    """Black borders of different width around every slice: sizes differ within a series."""

    def pad(image: StoredImage) -> StoredImage:
        top, bottom, left, right = (int(n) for n in rng.integers(0, 24, 4))
        pixels = np.pad(image.pixels(), ((top, bottom), (left, right)))
        return image.with_pixels(pixels).in_geometry(to_mm(image, -left, -top))

    return study.each(pad)


def cut(
    *,
    rows: tuple[float, float] = (0.0, 1.0),
    columns: tuple[float, float] = (0.0, 1.0),
    kinds: tuple[SeriesKind, ...] = tuple(SeriesKind),
) -> Quirk:
    """Part of the field of view: shares of the rows and columns that are kept."""

    def crop(image: StoredImage) -> StoredImage:
        height, width = image.pixels().shape
        top, bottom = (round(height * share) for share in rows)
        left, right = (round(width * share) for share in columns)
        return image.with_pixels(image.pixels()[top:bottom, left:right]).in_geometry(to_mm(image, left, top))

    def quirk(study: StoredStudy, rng: Rng) -> StoredStudy:
        series = [series_id for kind in kinds for series_id in study.ids_of(kind)]
        return study.each(crop, tuple(series))

    return quirk


def left_half(study: StoredStudy, rng: Rng) -> StoredStudy:
    """Axial slices that show the left half of the body alone: right recesses are out of view."""
    return cut(columns=(0.5, 1.0), kinds=(SeriesKind.AXIAL_T2,))(study, rng)


def slices_kept(
    count: int | None = None, *, step: int = 1, kinds: tuple[SeriesKind, ...] = tuple(SeriesKind)
) -> Quirk:
    """Only the ``count`` middle slices of a series, or every ``step``-th."""

    def keep(images: list[StoredImage]) -> list[StoredImage]:
        if count is None:
            return images[::step]
        first = (len(images) - count) // 2
        return images[max(0, first) : max(0, first) + count]

    def quirk(study: StoredStudy, rng: Rng) -> StoredStudy:
        return study.each_series(keep, tuple(s for kind in kinds for s in study.ids_of(kind)))

    return quirk


def thin_slices(kind: SeriesKind, count: int) -> Quirk:
    """A series of ``count`` thin slices, interpolated within its parallel stacks."""

    def fill(images: list[StoredImage]) -> list[StoredImage]:
        stacks: list[list[StoredImage]] = []
        for image in images:
            if stacks and np.abs(stacks[-1][-1].axes - image.axes).max() < 1e-3:
                stacks[-1].append(image)
            else:
                stacks.append([image])
        shares = [round(count * len(stack) / len(images)) for stack in stacks]
        shares[-1] += count - sum(shares)
        return [
            image
            for stack, n in zip(stacks, shares, strict=True)
            for image in _of_its_step(_between(stack, n))
        ]

    def quirk(study: StoredStudy, rng: Rng) -> StoredStudy:
        (series_id, *_) = study.ids_of(kind)
        new = iter(range(1, count + 1))
        filled = study.each_series(fill, (series_id,))

        def rename(image: StoredImage) -> StoredImage:
            number = next(new)
            path = f"{study.folder}/{series_id}/{number}.dcm"
            uid = f"{study.study_id}.{series_id}.{number}"
            return image.changed(InstanceNumber=number, SOPInstanceUID=uid).at(path)

        return filled.each(rename, (series_id,))

    return quirk


def _of_its_step(stack: list[StoredImage]) -> list[StoredImage]:
    """As a 3-D acquisition says it: slices as thick as they lie apart."""
    step_mm = float(np.linalg.norm(stack[-1].position_mm - stack[0].position_mm)) / max(len(stack) - 1, 1)
    stated = f"{step_mm:.4g}"
    return [image.changed(SliceThickness=stated, SpacingBetweenSlices=stated) for image in stack]


def _between(stack: list[StoredImage], count: int) -> list[StoredImage]:
    """``count`` evenly spaced slices over a stack, in a straight line between neighbours."""
    made = []
    for place in np.linspace(0, len(stack) - 1, count):
        low = min(int(place), len(stack) - 2)
        share = float(place) - low
        a, b = stack[low], stack[low + 1]
        pixels = (1 - share) * a.pixels() + share * b.pixels()
        position = (1 - share) * a.position_mm + share * b.position_mm
        made.append(a.with_pixels(pixels).in_geometry(position))
    return made


def to_mm(image: StoredImage, column: float, row: float) -> Array:
    """(3,) patient LPS of a pixel."""
    between_rows, between_columns = image.spacing_mm
    right, down = image.axes
    return np.asarray(image.position_mm + column * between_columns * right + row * between_rows * down)


def _on_grid(
    image: StoredImage, corner: Array, axes: Array, spacing: tuple[float, float], shape: tuple[int, int]
) -> StoredImage:
    """The image read on another grid of its plane; black outside. ``spacing``: (rows, columns)."""
    corners = np.stack([corner, corner + spacing[1] * axes[0], corner + spacing[0] * axes[1]])
    offset = corners - image.position_mm
    at = np.stack(
        [offset @ image.axes[0] / image.spacing_mm[1], offset @ image.axes[1] / image.spacing_mm[0]], axis=1
    )
    affine = np.stack([at[1] - at[0], at[2] - at[0], at[0]], axis=1)
    pixels = cv2.warpAffine(
        image.pixels().astype(np.float32),
        affine,
        shape[::-1],
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
    )
    turned = image.with_pixels(pixels, PixelSpacing=[f"{s:.8g}" for s in spacing])
    return turned.in_geometry(corner, axes)
