"""What the detectors look for, and the scale they look at: importable without torch."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from data_prep.vocabulary import LEVELS, ConditionGroup, SeriesKind

# What may be an object or not: nobody says. It is kept out of a training's loss.
UNLABELLED = "unlabelled"
# Pixels of a cell of the grid on which objects are found, and of the coarsest grid within a network.
STRIDE, COARSEST = 8, 32


class DetectorKind(StrEnum):
    """What a detector finds: discs, recess pairs or foramina. Also the stem of its weight file."""

    SAGITTAL = "sagittal"
    AXIAL = "axial"
    FORAMEN = "foramen"


@dataclass(frozen=True)
class DetectorSpec:
    """Classes, keypoints and canonical scale of one detector.

    Attributes:
        level_names: discs that are told apart, head to foot; the class index is the position.
        class_names: classes of the network. The sagittal network has one more than levels: ``disc``,
            which is true for every disc whatever its level (WHERE and WHICH are separate questions).
        keypoints: names in order.
        mm_per_px: scale of the canonical image.
        train_canvas_px: (width, height) of a training image.
        box_mm: side of the square box around an object.
        max_canvas_px: largest side that is looked at, the middle of larger images.
    """

    kind: DetectorKind
    level_names: tuple[str, ...]
    class_names: tuple[str, ...]
    keypoints: tuple[str, ...]
    mm_per_px: float
    train_canvas_px: tuple[int, int]
    box_mm: float
    max_canvas_px: int
    flip_idx: tuple[int, ...]
    architecture: str = "yolo11n-pose.yaml"

    @property
    def disc_class(self) -> int | None:
        """Index of the class that is true for every disc, or None."""
        return self.class_names.index("disc") if "disc" in self.class_names else None


SAGITTAL_LEVELS: tuple[str, ...] = ("T11/T12", "T12/L1", *(level.label for level in LEVELS))

SAGITTAL = DetectorSpec(
    kind=DetectorKind.SAGITTAL,
    level_names=SAGITTAL_LEVELS,
    class_names=(*SAGITTAL_LEVELS, "disc"),
    keypoints=("disc", "canal"),
    mm_per_px=1.0,
    train_canvas_px=(256, 320),
    box_mm=36.0,
    max_canvas_px=512,
    flip_idx=(0, 1),
)
AXIAL = DetectorSpec(
    kind=DetectorKind.AXIAL,
    level_names=(),
    class_names=("level",),
    keypoints=("right_recess", "left_recess"),
    mm_per_px=0.7,
    train_canvas_px=(256, 256),
    box_mm=40.0,
    max_canvas_px=384,
    flip_idx=(1, 0),
)
FORAMEN = DetectorSpec(
    kind=DetectorKind.FORAMEN,
    level_names=(),
    class_names=("foramen",),
    keypoints=("foramen",),
    mm_per_px=0.8,
    train_canvas_px=(224, 320),
    box_mm=24.0,
    max_canvas_px=512,
    flip_idx=(0,),
)
SPECS: dict[DetectorKind, DetectorSpec] = {spec.kind: spec for spec in (SAGITTAL, AXIAL, FORAMEN)}


@dataclass(frozen=True)
class RefinerSpec:
    """What a second look at a point sees; see ``detector.look.refiner``.

    Attributes:
        group: whose points it moves.
        series_kind: on which slices.
        size_mm, size_px: side of the square crop around the point.
        margin_px: crops to train on are larger by this much on every side, to jitter in.
        resolution_mm: finer images are smoothed to what pixels of this size show; None leaves them.
        seen_height_mm: what lies farther above or below the point than half of this is black.
        limit_mm: a point is moved no farther than this.
        channels, dilations: of the network's convolutions.
        bias_mm: rightwards and downwards, where the detectors put the point beside the annotated one on
            average; crops to train on are moved so, too.
    """

    group: ConditionGroup
    series_kind: SeriesKind
    size_mm: float = 48.0
    size_px: int = 64
    margin_px: int = 14
    resolution_mm: float | None = None
    seen_height_mm: float | None = None
    limit_mm: float = 8.0
    channels: int = 32
    dilations: tuple[int, ...] = (2, 4, 2)
    bias_mm: tuple[float, float] = (0.0, 0.0)

    @property
    def stem(self) -> str:
        """Of its weights file."""
        return f"{self.group.value}_point"

    @property
    def step_mm(self) -> float:
        """Millimetres per pixel."""
        return self.size_mm / self.size_px


# T1 slices are often stored at 1.1 mm; axial crops, as they are published, end 15 mm above and below.
REFINERS: tuple[RefinerSpec, ...] = (
    RefinerSpec(
        ConditionGroup.SPINAL,
        SeriesKind.SAGITTAL_T2,
        dilations=(1, 2, 4, 2),
        bias_mm=(-0.85, -0.18),
    ),
    RefinerSpec(ConditionGroup.FORAMINAL, SeriesKind.SAGITTAL_T1, resolution_mm=1.1),
    RefinerSpec(ConditionGroup.SUBARTICULAR, SeriesKind.AXIAL_T2, seen_height_mm=30.0),
)
