"""What is measured, in which unit, and what is usual; definitions and sources: docs/measurements.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from data_prep.geometry import FloatArray
from data_prep.vocabulary import ConditionGroup, Level, Side


class Quantity(StrEnum):
    """A measured quantity."""

    CANAL_DEPTH = "canal_depth"
    SAC_AREA = "sac_area"
    CSF_SHARE = "csf_share"
    DISC_HEIGHT = "disc_height"
    DISC_HEIGHT_INDEX = "disc_height_index"
    FORAMEN_HEIGHT = "foramen_height"
    FORAMEN_WIDTH = "foramen_width"
    FORAMEN_DIFFERENCE = "foramen_difference"
    SLIP = "slip"
    LORDOSIS = "lordosis"


FORAMEN: Final = frozenset({Quantity.FORAMEN_HEIGHT, Quantity.FORAMEN_WIDTH, Quantity.FORAMEN_DIFFERENCE})

Range = tuple[float | None, float | None]


@dataclass(frozen=True)
class Kind:
    """How a quantity is called and judged.

    Attributes:
        words: for people; ``short`` for tables.
        ucum: unit as UCUM writes it; unit: as people do.
        decimals: that are worth showing.
        beside: graders whose grade it stands beside; None: the disc or the whole spine.
        usual: lowest and highest usual value, None where there is no limit; the same at every level.
        usual_at: instead of it, by level.
        source: of the usual range.
    """

    words: str
    short: str
    ucum: str
    unit: str
    decimals: int
    beside: ConditionGroup | None
    usual: Range = (None, None)
    usual_at: Mapping[Level, Range] | None = None
    source: str = ""

    def figure(self, value: float) -> str:
        """A value with the decimals that are worth showing, and a minus that is one."""
        return f"{value:.{self.decimals}f}".replace("-", "−")

    def with_unit(self, figures: str) -> str:
        """Figures as people write them: ``9.4 mm``, ``43°``, and without a unit where there is none."""
        space = "" if self.unit in ("", "°") else " "
        return f"{figures}{space}{self.unit}"


# Disc heights in the middle, healthy adults on MRI, ± 2 sd (2 mm), over a vertebral height of 27.8 mm.
_DISC_MM: Final = dict(zip(Level, (10.0, 11.6, 12.5, 13.8, 13.0), strict=True))
_BODY_MM: Final = 27.8
# Nine of ten foramina that readers call Normal/Mild have a higher room: RSNA 2024, annotated T1 slices of 169
# studies (validation part; docs/measurements.md).
_FORAMEN_MM: Final = dict(zip(Level, (11.0, 11.0, 9.5, 9.0, 9.0), strict=True))
_READ_AS_NORMAL: Final = "nine of ten that readers call Normal/Mild (RSNA 2024)"
_SPINAL, _FORAMINAL = ConditionGroup.SPINAL, ConditionGroup.FORAMINAL

KINDS: Final[Mapping[Quantity, Kind]] = {
    Quantity.CANAL_DEPTH: Kind(
        "dural sac, front to back", "sac depth", "mm", "mm", 1, _SPINAL, (10.0, None),
        source="below 10 mm counts as stenosis (Steurer 2011)",
    ),
    Quantity.SAC_AREA: Kind(
        "dural sac, cross-sectional area", "sac area", "mm2", "mm²", 0, _SPINAL, (100.0, None),
        source="below 100 mm² relative, below 75 mm² absolute stenosis (Schönström 1985)",
    ),
    Quantity.CSF_SHARE: Kind(
        "CSF in the sac at the disc, share of that beside the vertebrae", "CSF share", "%", "%", 0, _SPINAL,
        source="no published range",
    ),
    Quantity.DISC_HEIGHT: Kind(
        "disc height", "disc height", "mm", "mm", 1, None,
        usual_at={level: (mm - 4.0, mm + 4.0) for level, mm in _DISC_MM.items()},
        source="healthy adults, mean ± 2 sd",
    ),
    Quantity.DISC_HEIGHT_INDEX: Kind(
        "disc height over the height of the vertebrae beside it", "disc height index", "1", "", 2, None,
        usual_at={
            level: ((mm - 4.0) / _BODY_MM, (mm + 4.0) / _BODY_MM) for level, mm in _DISC_MM.items()
        },
        source="healthy adults, mean ± 2 sd, over 27.8 mm",
    ),
    Quantity.FORAMEN_HEIGHT: Kind(
        "neural foramen, height of its fat and root", "height", "mm", "mm", 1, _FORAMINAL,
        usual_at={level: (mm, None) for level, mm in _FORAMEN_MM.items()}, source=_READ_AS_NORMAL,
    ),
    Quantity.FORAMEN_WIDTH: Kind(
        "neural foramen, width of its fat and root", "width", "mm", "mm", 1, _FORAMINAL, (5.5, None),
        source=_READ_AS_NORMAL,
    ),
    Quantity.FORAMEN_DIFFERENCE: Kind(
        "neural foramina, height of fat and root, right minus left", "right − left", "mm", "mm", 1, None,
        (-6.5, 6.5), source="nine of ten pairs that readers call Normal/Mild (RSNA 2024)",
    ),
    Quantity.SLIP: Kind(
        "slip of the upper vertebra to the front", "slip", "mm", "mm", 1, None, (-3.0, 3.0),
        source="3 mm and more counts as listhesis",
    ),
    Quantity.LORDOSIS: Kind(
        "lordosis, lower endplate of L1 to upper endplate of S1", "lordosis", "deg", "°", 0, None,
        (26.0, 74.0), source="L1–S1 50 ± 12°, mean ± 2 sd",
    ),
}  # fmt: skip


# Fat parts the sac from the sacrum: its border does not follow the rear wall there.
NOT_MEASURED: Final = frozenset({(Quantity.SLIP, Level.L5_S1)})
NOT_MEASURED_WORDS: Final = "Slip is not measured at L5/S1"


@dataclass(frozen=True, eq=False)
class Measured:
    """One measurement.

    Attributes:
        level, side: where; None: of the whole spine, or of no side. The PATIENT's side.
        value, uncertainty: in the unit of the quantity; the uncertainty is one standard deviation.
        series_id, instance_number: the slice that it was read from.
        ends_mm: (2, 3) patient points that it was measured between, where there are two.
    """

    quantity: Quantity
    value: float
    uncertainty: float
    level: Level | None = None
    side: Side | None = None
    series_id: str | None = None
    instance_number: int | None = None
    ends_mm: FloatArray | None = None

    @property
    def kind(self) -> Kind:
        return KINDS[self.quantity]

    @property
    def usual(self) -> Range:
        by_level = self.kind.usual_at
        return self.kind.usual if by_level is None or self.level is None else by_level[self.level]

    @property
    def verdict(self) -> str:
        """``low``, ``usual``, ``high``, or ``""`` where nothing is known to be usual."""
        low, high = self.usual
        if low is not None and self.value < low:
            return "low"
        if high is not None and self.value > high:
            return "high"
        return "" if low is None and high is None else "usual"

    @property
    def words(self) -> str:
        """Value with unit and uncertainty: ``9.4 ± 0.8 mm``, ``43 ± 8°``."""
        kind = self.kind
        return kind.with_unit(f"{kind.figure(self.value)} ± {kind.figure(self.uncertainty)}")
