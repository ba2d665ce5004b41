"""A second look at every point that a detector saw: a small network moves it within its slice.

The detectors look at whole slices at 0.7 to 1 mm and learn from sets whose annotators click at different
places of the same structure. The second look sees 48 mm around a point at 0.75 mm, and learned from one set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_prep.base.backend import Backend, resolve_backend
from data_prep.base.graph import SUFFIX
from data_prep.base.manifest import read_listed, read_verified
from data_prep.base.networks import load_network, torch_outputs
from data_prep.crops import Crop, extract_crop
from data_prep.levels import LevelPoint, PointSource, Sight
from data_prep.study import Study
from data_prep.vocabulary import Side
from detector.spec import RefinerSpec

# Crops of one pass.
_TOGETHER = 5
Pass = tuple[NDArray[np.float32], NDArray[np.int64]]
Run = Callable[[Iterator[Pass]], list[NDArray[np.float32]]]


class PointRefiner:
    """A refiner with its spec."""

    def __init__(self, spec: RefinerSpec, run: Run) -> None:
        self.spec, self._run = spec, run

    @classmethod
    def load(
        cls,
        folder: Path,
        spec: RefinerSpec,
        device: str = "cpu",
        *,
        backend: Backend | str = Backend.TORCH,
        threads: int | None = None,
    ) -> PointRefiner:
        """Weights ``{group}_point.safetensors`` of a folder, checked against its manifest.

        Raises:
            WeightsRejected: not there, or not what the manifest says.
            BackendUnusable: the backend cannot run here.
        """
        content = read_verified(folder, f"{spec.stem}.safetensors")
        if resolve_backend(backend, device=device) is Backend.ONNX:
            graph = read_listed(folder, f"{spec.stem}{SUFFIX}")
            return cls(spec, load_network(content, graph, lambda: _converted(spec, content), threads=threads))
        from detector.look.refiner_network import refiner_from_bytes

        return cls(spec, partial(torch_outputs, refiner_from_bytes(spec, content).to(device)))

    def refine(self, study: Study, points: tuple[LevelPoint, ...]) -> tuple[LevelPoint, ...]:
        """The points, those of the spec's group that were seen moved to where the second look sees them.

        So are the same targets on other slices (``also``).

        A point stays on its slice and moves no farther than ``limit_mm``. One that was not seen, or whose
        slice cannot be decoded, stays where it is.
        """
        everywhere = [reading for point in points for reading in (point, *point.also)]
        moved = iter(self._refined(study, everywhere))
        return tuple(
            replace(next(moved), also=tuple(next(moved) for _ in point.also)) if point.also else next(moved)
            for point in points
        )

    def _refined(self, study: Study, points: Sequence[LevelPoint]) -> list[LevelPoint]:
        crops: list[tuple[int, Crop]] = []

        def passes() -> Iterator[Pass]:
            made = ((place, self._crop(study, point)) for place, point in enumerate(points))
            shown = ((place, crop) for place, crop in made if crop is not None)
            while waiting := list(islice(shown, _TOGETHER)):
                crops.extend(waiting)
                yield _arrays(waiting, points)

        found = self._run(passes())
        moved = list(points)
        offsets = np.concatenate(found) if found else np.zeros((0, 2))
        for (place, crop), offset_mm in zip(crops, offsets, strict=True):
            moved[place] = self._moved(study, points[place], crop, offset_mm)
        return moved

    def _crop(self, study: Study, point: LevelPoint) -> Crop | None:
        if point.condition.group is not self.spec.group or point.source is not PointSource.SEEN:
            return None
        return point_crop(study, point, self.spec)

    def _moved(
        self, study: Study, point: LevelPoint, crop: Crop, offset_mm: NDArray[np.float32]
    ) -> LevelPoint:
        grid = crop.planes[0]
        length = float(np.hypot(*offset_mm))
        if grid is None or not np.isfinite(length):
            return point
        right, down = offset_mm.astype(np.float64) * min(1.0, self.spec.limit_mm / max(length, 1e-6))
        xyz = point.xyz_mm + right * grid.x_axis + down * grid.y_axis
        assert point.sight is not None
        series, item = study.slice_at(point.sight)
        sight = Sight.of(series, item, xyz)
        if not item.plane.contains_px(sight.xy_px):
            return point
        return replace(point, xyz_mm=xyz, sight=sight)


def point_crop(study: Study, point: LevelPoint, spec: RefinerSpec, *, margin: bool = False) -> Crop | None:
    """What a refiner sees of a point: one slice, right sides mirrored onto the left.

    Args:
        margin: cut the larger crop that training jitters in, with all of its rows.

    Returns:
        None for a point that lies on no slice of the spec's kind, or on one that cannot be decoded.
    """
    series = next((item for item in study.series if point.is_on(item)), None)
    if series is None or point.sight is None or series.kind is not spec.series_kind:
        return None
    item = series.by_instance(point.sight.instance_number)
    size_px = spec.size_px + (2 * spec.margin_px if margin else 0)
    crop = extract_crop(
        series,
        point.xyz_mm,
        size_mm=size_px * spec.step_mm,
        size_px=size_px,
        slices=1,
        mirror=point.condition.side is Side.RIGHT,
        resolution_mm=spec.resolution_mm,
        seen_height_mm=None if margin else spec.seen_height_mm,
        nearest=(item, abs(float(item.plane.distance_mm(point.xyz_mm)))),
    )
    return crop if crop.valid[0] else None


def _arrays(waiting: Sequence[tuple[int, Crop]], points: Sequence[LevelPoint]) -> Pass:
    pixels = np.stack([crop.pixels for _, crop in waiting])
    return pixels, np.array([points[place].level.index for place, _ in waiting], dtype=np.int64)


def _converted(spec: RefinerSpec, content: bytes) -> bytes:
    from detector.look.refiner_network import converted_refiner

    return converted_refiner(spec, content)
