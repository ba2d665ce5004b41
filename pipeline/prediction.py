"""What is known about a study at the end of the line, and how it is written."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from classifier.grade import Grade
from classifier.measure.agreement import contradictions
from classifier.measure.quantities import Measured, Quantity
from data_prep.base.version import version_of
from data_prep.levels import SpineLevels, level_of, level_record, point_of, point_record
from data_prep.problems import Rejection
from data_prep.vocabulary import LEVELS, SEVERITIES, TARGETS, Condition, GradeSource, Level, Side, Target
from detector.spine.levels import frames_along
from pipeline import __version__
from pipeline.models import learned_words
from pipeline.series_seen import SeriesRow

_PACKAGES = ("torch", "ultralytics", "onnxruntime", "timm", "numpy", "opencv-python", "pydicom")
_PROBABILITY_DECIMALS = 9
_DECIMALS = 3  # of millimetres and pixels


@dataclass(frozen=True)
class Provenance:
    """What made a prediction.

    Attributes:
        models: name of a weights file → SHA-256.
        configuration: settings that shape the result.
        software: package → version.
        learned: what the manifest of the graders says that they learned from, and the licence.
    """

    models: Mapping[str, str] = field(default_factory=dict)
    configuration: Mapping[str, Any] = field(default_factory=dict)
    software: Mapping[str, str] = field(default_factory=lambda: installed_versions())
    learned: Mapping[str, str] = field(default_factory=dict)

    @property
    def learned_from(self) -> str:
        """What the graders learned from and the licence, in words, for every place that shows a result."""
        return learned_words(self.models, self.learned)

    def to_dict(self) -> dict[str, Any]:
        return {
            "software": dict(self.software),
            "models": dict(sorted(self.models.items())),
            "configuration": dict(self.configuration),
            "learned_from": self.learned_from,
        }


def installed_versions() -> dict[str, str]:
    """Versions of this program, Python and the packages that shape a result."""
    versions = {"lumbar": __version__, "python": platform.python_version()}
    return versions | {name: found for name in _PACKAGES if (found := version_of(name))}


@dataclass(frozen=True, eq=False)
class StudyPrediction:
    """The 25 grades of a study and where they came from.

    Attributes:
        study_id: of the folder, the series table or the headers.
        grades: all 25 targets; calibrated, unweighted probabilities.
        levels: what the detector found, or None when it did not get so far.
        flags: codes for the study as a whole, such as ``numbering_uncertain``.
        rejections: files and series that were not used; the study itself, when it was rejected.
        rejected: nothing of the study could be graded: every grade is the level prior.
        measurements: what was measured at the levels that were found.
        series: what each series was seen as and used for.
        provenance: models, configuration, software.

    Raises:
        ValueError: a target has no grade.
    """

    study_id: str
    grades: Mapping[Target, Grade]
    levels: SpineLevels | None = None
    flags: tuple[str, ...] = ()
    rejections: tuple[Rejection, ...] = ()
    rejected: bool = False
    series: tuple[SeriesRow, ...] = ()
    provenance: Provenance = field(default_factory=Provenance)
    measurements: tuple[Measured, ...] = ()

    def __post_init__(self) -> None:
        missing = [target.column for target in TARGETS if target not in self.grades]
        if missing:
            raise ValueError(f"study {self.study_id} has no grade for {', '.join(missing)}")

    @property
    def found(self) -> SpineLevels:
        """What the detector found; nothing when it did not get so far."""
        return self.levels or SpineLevels(self.study_id)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: levels in millimetres and pixels, calibrated p, flags, rejections; no provenance.

        Probabilities have nine decimals, millimetres and pixels three.
        """
        found = self.found
        return {
            "study_id": self.study_id,
            "rejected": self.rejected,
            "flags": list(self.flags),
            "numbering_confidence": round(found.numbering_confidence, 4),
            "other_readings": [
                {"shift": shift, "probability": round(share, 4)}
                for shift, share in found.other_readings.items()
            ],
            "voters": list(found.voters),
            "levels": {
                level.value: None if (at := found.levels.get(level)) is None else level_record(at, _DECIMALS)
                for level in LEVELS
            },
            "targets": [_target_record(target, self.grades[target], found) for target in TARGETS],
            "measurements": [_measurement_record(item) for item in self.measurements],
            "contradictions": [
                {
                    "condition": item.target.condition.value,
                    "level": item.target.level.value,
                    "severity": item.severity.value,
                    "quantity": item.measured.quantity.value,
                }
                for item in contradictions(self.grades, self.measurements)
            ],
            "series": [row.to_dict() for row in self.series],
            "rejections": [asdict(rejection) for rejection in self.rejections],
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> StudyPrediction:
        """The prediction that ``to_dict`` wrote, without provenance; its own record is the same again.

        Raises:
            KeyError, TypeError, ValueError: it is no such record.
        """
        grades = {
            Target(Condition(row["condition"]), Level(row["level"])): Grade(
                np.array([row["probabilities"][severity.column] for severity in SEVERITIES]),
                GradeSource(row["source"]),
                tuple(row["flags"]),
            )
            for row in record["targets"]
        }
        return cls(
            record["study_id"],
            grades,
            _levels_in(record),
            tuple(record["flags"]),
            tuple(map(Rejection.from_record, record["rejections"])),
            rejected=record["rejected"],
            measurements=tuple(map(_measurement_in, record["measurements"])),
            series=tuple(map(SeriesRow.from_dict, record["series"])),
        )


def probabilities_in(record: Mapping[str, Any]) -> dict[Target, list[float]]:
    """Target → calibrated p of ``StudyPrediction.to_dict``, in the order of SEVERITIES."""
    by_column = {f"{row['condition']}_{row['level']}": row["probabilities"] for row in record["targets"]}
    return {target: [by_column[target.column][s.column] for s in SEVERITIES] for target in TARGETS}


def _target_record(target: Target, grade: Grade, found: SpineLevels) -> dict[str, Any]:
    point = found.point(target.condition, target.level)
    return {
        "condition": target.condition.value,
        "level": target.level.value,
        "severity": grade.severity.value,
        "probabilities": {
            severity.column: round(float(p), _PROBABILITY_DECIMALS)
            for severity, p in zip(SEVERITIES, grade.probabilities, strict=True)
        },
        "source": grade.source.value,
        "flags": list(grade.flags),
        "point": None if point is None else point_record(point, _DECIMALS),
    }


def _levels_in(record: Mapping[str, Any]) -> SpineLevels:
    """What the record says of levels and points; flags are the study's."""
    seen = {Level(name): row for name, row in record["levels"].items() if row is not None}
    frames = (
        frames_along(*(np.array([row[key] for row in seen.values()]) for key in ("canal_mm", "disc_mm")))
        if seen
        else []
    )
    points = [
        point_of(row["point"], Condition(row["condition"]), Level(row["level"]))
        for row in record["targets"]
        if row["point"] is not None
    ]
    return SpineLevels(
        record["study_id"],
        {level: level_of(row, frame) for (level, row), frame in zip(seen.items(), frames, strict=True)},
        tuple(points),
        record["numbering_confidence"],
        other_readings={row["shift"]: row["probability"] for row in record["other_readings"]},
        voters=tuple(record["voters"]),
    )


def _measurement_in(row: Mapping[str, Any]) -> Measured:
    return Measured(
        Quantity(row["quantity"]),
        row["value"],
        row["uncertainty"],
        None if row["level"] is None else Level(row["level"]),
        None if row["side"] is None else Side(row["side"]),
        row["series_id"],
        row["instance_number"],
        None if row["ends_mm"] is None else np.array(row["ends_mm"]),
    )


def _measurement_record(item: Measured) -> dict[str, Any]:
    low, high = item.usual
    return {
        "quantity": item.quantity.value,
        "level": None if item.level is None else item.level.value,
        "side": None if item.side is None else item.side.value,
        "value": round(item.value, _DECIMALS),
        "uncertainty": round(item.uncertainty, _DECIMALS),
        "unit": item.kind.ucum,
        "usual_low": None if low is None else round(low, _DECIMALS),
        "usual_high": None if high is None else round(high, _DECIMALS),
        "series_id": item.series_id,
        "instance_number": item.instance_number,
        "ends_mm": None if item.ends_mm is None else np.round(item.ends_mm, _DECIMALS).tolist(),
    }
