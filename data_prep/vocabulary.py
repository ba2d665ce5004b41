"""The words of the task: levels, conditions, severities, series kinds and the 25 targets of a study.

Spellings follow the RSNA 2024 Lumbar Spine Degenerative Classification tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property


class Level(StrEnum):
    """A graded intervertebral level, spelled as in column names (``l1_l2``), head to foot."""

    L1_L2 = "l1_l2"
    L2_L3 = "l2_l3"
    L3_L4 = "l3_l4"
    L4_L5 = "l4_l5"
    L5_S1 = "l5_s1"

    @property
    def label(self) -> str:
        """Spelling of the coordinate table and of readers: ``L1/L2``."""
        return self.value.upper().replace("_", "/")

    @property
    def index(self) -> int:  # type: ignore[override]
        """0 for L1/L2 … 4 for L5/S1."""
        return LEVELS.index(self)

    @classmethod
    def parse(cls, text: str) -> Level:
        """Read ``L1/L2`` or ``l1_l2``. Raises ValueError naming the text."""
        return cls(str(text).strip().lower().replace("/", "_"))


LEVELS: tuple[Level, ...] = tuple(Level)


class Side(StrEnum):
    """The PATIENT's side. ``RIGHT`` has smaller x in patient LPS than ``LEFT``."""

    LEFT = "left"
    RIGHT = "right"

    @property
    def sign(self) -> int:
        """+1 for left, -1 for right: the direction along LPS x."""
        return 1 if self is Side.LEFT else -1

    @property
    def other(self) -> Side:
        return Side.RIGHT if self is Side.LEFT else Side.LEFT


class ConditionGroup(StrEnum):
    """Left and right pooled: the three terms of the official metric and the three graders."""

    SPINAL = "spinal"
    FORAMINAL = "foraminal"
    SUBARTICULAR = "subarticular"


class SeriesKind(StrEnum):
    """What a series shows, spelled as in ``train_series_descriptions.csv``."""

    SAGITTAL_T1 = "Sagittal T1"
    SAGITTAL_T2 = "Sagittal T2/STIR"
    AXIAL_T2 = "Axial T2"


class Condition(StrEnum):
    """A graded condition, spelled as in column names and row ids."""

    SPINAL_CANAL_STENOSIS = "spinal_canal_stenosis"
    LEFT_NEURAL_FORAMINAL_NARROWING = "left_neural_foraminal_narrowing"
    RIGHT_NEURAL_FORAMINAL_NARROWING = "right_neural_foraminal_narrowing"
    LEFT_SUBARTICULAR_STENOSIS = "left_subarticular_stenosis"
    RIGHT_SUBARTICULAR_STENOSIS = "right_subarticular_stenosis"

    @property
    def label(self) -> str:
        """Spelling of the coordinate table: ``Left Neural Foraminal Narrowing``."""
        return self.value.replace("_", " ").title()

    @cached_property
    def side(self) -> Side | None:
        """The patient's side, or None for the spinal canal."""
        prefix = self.value.split("_", 1)[0]
        return Side(prefix) if prefix in ("left", "right") else None

    @cached_property
    def group(self) -> ConditionGroup:
        return next(group for group in ConditionGroup if group.value in self.value)

    @cached_property
    def series_kind(self) -> SeriesKind:
        """The series on which the condition is annotated in the RSNA data."""
        return _ANNOTATED_ON[self.group]

    @classmethod
    def of(cls, group: ConditionGroup, side: Side | None) -> Condition:
        """The condition of a group on a side (None for the canal). Raises KeyError if there is none."""
        return _BY_GROUP_AND_SIDE[group, side]

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Read ``Spinal Canal Stenosis`` or ``spinal_canal_stenosis``. Raises ValueError naming the text."""
        return cls(str(text).strip().lower().replace(" ", "_"))


CONDITIONS: tuple[Condition, ...] = tuple(Condition)
_ANNOTATED_ON = {
    ConditionGroup.SPINAL: SeriesKind.SAGITTAL_T2,
    ConditionGroup.FORAMINAL: SeriesKind.SAGITTAL_T1,
    ConditionGroup.SUBARTICULAR: SeriesKind.AXIAL_T2,
}
_BY_GROUP_AND_SIDE = {(condition.group, condition.side): condition for condition in Condition}


class Severity(StrEnum):
    """A grade, spelled as in ``train.csv``, mildest first."""

    NORMAL_MILD = "Normal/Mild"
    MODERATE = "Moderate"
    SEVERE = "Severe"

    @property
    def index(self) -> int:  # type: ignore[override]
        return SEVERITIES.index(self)

    @property
    def column(self) -> str:
        """Column of a submission: ``normal_mild``, ``moderate``, ``severe``."""
        return self.value.lower().replace("/", "_")

    @property
    def weight(self) -> int:
        """Sample weight in the official metric: 1, 2, 4."""
        return 2**self.index


SEVERITIES: tuple[Severity, ...] = tuple(Severity)
SUBMISSION_COLUMNS: tuple[str, ...] = ("row_id", *(severity.column for severity in SEVERITIES))


class GradeSource(StrEnum):
    """How a target was graded.

    ``seen``: at a point that a detector saw; ``predicted``: at one that geometry placed; ``expected``: not at
    all, its probabilities are what the other grades of the level let expect; ``prior``: not at all, they are
    how often each grade occurs at the level.
    """

    SEEN = "seen"
    PREDICTED = "predicted"
    EXPECTED = "expected"
    PRIOR = "prior"

    @property
    def is_graded(self) -> bool:
        """Whether an image of the target itself was looked at."""
        return self in (GradeSource.SEEN, GradeSource.PREDICTED)


class Flag(StrEnum):
    """What a reader should know of a study or a grade; ``pipeline.results.words`` has each as a sentence."""

    NUMBERING_UNCERTAIN = "numbering_uncertain"
    TRANSITIONAL_SUSPECTED = "transitional_suspected"
    SERIES_DISAGREE = "series_disagree"
    ORIENTATION_DOUBTFUL = "orientation_doubtful"
    NOISY = "noisy"
    DEGRADED_INPUT = "degraded_input"
    SACRUM_UNSEEN = "sacrum_unseen"
    LEVEL_ABSENT = "level_absent"
    LEVEL_AT_EDGE = "level_at_edge"
    NO_LUMBAR_SPINE = "no_lumbar_spine"
    REGION_DOUBTFUL = "region_doubtful"
    AXIAL_DISAGREES = "axial_disagrees"
    SERIES_TURNED = "series_turned"
    SIDES_DOUBTFUL = "sides_doubtful"
    FEW_SLICES = "few_slices"
    CANAL_AT_EDGE = "canal_at_edge"
    SPINE_CURVED = "spine_curved"
    AXIAL_ONLY = "axial_only"
    NO_SAGITTAL_T2 = "no_sagittal_t2"
    NO_SAGITTAL_T1 = "no_sagittal_t1"
    NO_AXIAL_T2 = "no_axial_t2"
    IDENTIFIERS_MISSING = "identifiers_missing"
    SLICES_MISSING = "slices_missing"
    TRANSFER_INCOMPLETE = "transfer_incomplete"
    NO_SAGITTAL = "no_sagittal"
    NO_LEVEL_FOUND = "no_level_found"
    SERIES_KIND_GUESSED = "series_kind_guessed"
    SERIES_KIND_DOUBTFUL = "series_kind_doubtful"
    KNOWN_STUDY = "known_study"
    STUDY_REJECTED = "study_rejected"
    PICTURE_FAILED = "picture_failed"
    REPORT_FAILED = "report_failed"
    MEASURING_FAILED = "measuring_failed"
    NO_POINT = "no_point"
    NO_SERIES = "no_series"
    NO_SLICE = "no_slice"
    NO_SIGNAL = "no_signal"


@dataclass(frozen=True, order=True)
class Target:
    """One of the 25 things graded in a study: a condition at a level."""

    condition: Condition
    level: Level

    @property
    def column(self) -> str:
        """Column of ``train.csv``: ``spinal_canal_stenosis_l1_l2``."""
        return f"{self.condition.value}_{self.level.value}"

    def row_id(self, study_id: str | int) -> str:
        """Row id of a submission: ``{study_id}_{condition}_{level}``."""
        return f"{study_id}_{self.column}"


TARGETS: tuple[Target, ...] = tuple(Target(condition, level) for condition in CONDITIONS for level in LEVELS)
TARGET_BY_COLUMN: dict[str, Target] = {target.column: target for target in TARGETS}


def split_row_id(row_id: str) -> tuple[str, Target]:
    """Split a row id into study id, which may hold underscores itself, and target.

    Raises ValueError if the text does not end in one of the 25 target columns.

    >>> study_id, target = split_row_id("4003253_left_subarticular_stenosis_l4_l5")
    >>> study_id, target.condition.label, target.level.label
    ('4003253', 'Left Subarticular Stenosis', 'L4/L5')
    """
    text = str(row_id)
    for column, target in TARGET_BY_COLUMN.items():
        study_id = text.removesuffix(f"_{column}")
        if study_id not in ("", text):
            return study_id, target
    raise ValueError(f"row id {row_id!r} is not '{{study_id}}_{{condition}}_{{level}}'")
