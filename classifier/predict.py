"""Grades the 25 targets of a study at the points that the localiser found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from classifier.compiled import CompiledGrader, can_be_compiled, compiled_grader
from classifier.grade import Grade, GradeSource
from classifier.prior import level_prior, prior_grade
from classifier.storage import BUNDLED_WEIGHTS, StoredGrader, load_grader, read_grader
from classifier.target_crops import SECOND_VIEW, target_crop
from data_prep.backend import Backend, resolve_backend
from data_prep.crops import Crop
from data_prep.pixel_cache import PixelCache
from data_prep.study_types import PointSource, SpineLevels, Study
from data_prep.vocabulary import TARGETS, Condition, ConditionGroup, Target

LEVEL_ABSENT = "level_absent"
NO_POINT = "no_point"
# A point that a person set is as good as one that a detector saw.
_SOURCE: dict[PointSource, GradeSource] = {
    PointSource.SEEN: "seen",
    PointSource.ANNOTATED: "seen",
    PointSource.PREDICTED: "predicted",
}


@dataclass(frozen=True, eq=False)
class Grader:
    """The three graders of a weights folder.

    Attributes:
        graders: one per condition group.
        threads: while grading; what torch had before is restored. None leaves it, and gives OpenVINO all that
            this process may use.
        compiled: of these graders, those that OpenVINO runs; torch runs the others.
    """

    graders: Mapping[ConditionGroup, StoredGrader]
    threads: int | None = None
    compiled: Mapping[ConditionGroup, CompiledGrader] = field(default_factory=dict)

    @classmethod
    def load(
        cls, folder: str | Path, *, threads: int | None = None, backend: Backend | str = Backend.AUTO
    ) -> Grader:
        """Load all three graders of a folder.

        Args:
            backend: see ``data_prep.backend``. Torch runs graders that look at neighbouring levels, too.

        Raises:
            WeightsRejected: missing, or not what the manifest says.
            BackendUnusable: the backend cannot run here.
        """
        if resolve_backend(backend) is Backend.TORCH:
            return cls({group: load_grader(Path(folder), group) for group in ConditionGroup}, threads)
        graders = {group: read_grader(Path(folder), group) for group in ConditionGroup}
        compiled = {
            group: compiled_grader(stored, threads)
            for group, stored in graders.items()
            if can_be_compiled(stored.config)
        }
        return cls(graders, threads, compiled)

    @classmethod
    def load_bundled(cls, *, threads: int | None = None, backend: Backend | str = Backend.AUTO) -> Grader:
        """Load the graders that come with the project. Raises WeightsRejected."""
        return cls.load(BUNDLED_WEIGHTS, threads=threads, backend=backend)

    @property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of each weights file by name, for the record of a prediction."""
        return {f"{group.value}.safetensors": item.sha256 for group, item in self.graders.items()}

    def grade(self, study: Study, levels: SpineLevels) -> dict[Target, Grade]:
        """Grade all 25 targets of one study.

        A target that cannot be looked at gets the level prior and a flag: ``level_absent`` (its level is not
        in the image), ``no_point``, ``no_series`` (of the kind that shows it), ``no_slice`` (near the point),
        ``no_signal`` (at the point: a blank slice, or a void as near metal).

        Args:
            levels: where to look; points alone suffice.

        Returns:
            One grade per target, in the order of TARGETS, with calibrated unweighted probabilities. The same
            study gives the same bytes whatever else is graded.
        """
        study = PixelCache(study).study
        crops: dict[Target, Crop] = {}
        second: dict[Target, Crop] = {}
        grades: dict[Target, Grade] = {}
        for target in TARGETS:
            point = levels.point(target.condition, target.level)
            if point is None:
                flag = NO_POINT if target.level in levels.levels else LEVEL_ABSENT
                grades[target] = prior_grade(target, flag)
                continue
            config = self.graders[target.condition.group].config.crop
            crop = target_crop(study, point, config)
            if isinstance(crop, str):
                grades[target] = prior_grade(target, crop)
                continue
            crops[target] = crop
            if config.second_view:
                other = target_crop(study, point, config, kind=SECOND_VIEW[target.condition.group])
                if not isinstance(other, str):
                    second[target] = other
        for target, probabilities in self.grade_crops(crops, second).items():
            point = levels.point(target.condition, target.level)
            assert point is not None
            grades[target] = Grade(probabilities, _SOURCE[point.source])
        return {target: grades[target] for target in TARGETS}

    @property
    def any_severe_pull(self) -> float:
        """For the submission, see ``classifier.any_severe``."""
        return self.graders[ConditionGroup.SPINAL].calibration.any_severe_pull

    def grade_crops(
        self, crops: Mapping[Target, Crop], second: Mapping[Target, Crop] | None = None
    ) -> dict[Target, NDArray[np.float64]]:
        """Calibrated unweighted probabilities (3,) of one study, grader after grader.

        Args:
            second: the other view of the targets that have one, for graders that look at it.
        """
        out: dict[Target, NDArray[np.float64]] = {}
        for group, grader in self.graders.items():
            targets = [target for target in crops if target.condition.group is group]
            if not targets:
                continue
            arrays = _arrays([crops[target] for target in targets])
            if grader.config.crop.second_view:
                shown = arrays[0][0]
                nothing = np.zeros_like(shown)
                absent = Crop(nothing, np.zeros(len(shown), bool), (), 0.0, False, nothing[0])
                arrays += _arrays([(second or {}).get(target, absent) for target in targets])
            level = np.array([target.level.index for target in targets])
            side = np.array([list(Condition).index(target.condition) for target in targets])
            compiled = self.compiled.get(group)
            if compiled is not None:
                logits = compiled(arrays, level)
            else:
                logits = _torch_logits(grader, arrays, level, side, self.threads)
            log_prior = np.log([level_prior(target) for target in targets])
            probabilities = grader.calibration.probabilities(logits, log_prior)
            out |= dict(zip(targets, probabilities, strict=True))
        return out


def _arrays(crops: Sequence[Crop]) -> tuple[NDArray, ...]:
    """Pixels (B, S, H, W) and valid (B, S)."""
    return np.stack([crop.pixels for crop in crops]), np.stack([crop.valid for crop in crops])


def _torch_logits(
    grader: StoredGrader,
    arrays: tuple[NDArray, ...],
    level: NDArray[np.int64],
    side: NDArray[np.int64],
    threads: int | None,
) -> NDArray[np.float64]:
    """Logits (B, 3) of the targets of one study, in one forward pass; the reference."""
    import torch

    pixels, valid, *others = (torch.from_numpy(array) for array in arrays)
    with torch_threads(threads), torch.inference_mode():
        logits = grader.network(pixels, valid, torch.from_numpy(level), torch.from_numpy(side), *others)
    return np.asarray(logits.double().numpy())


@contextmanager
def torch_threads(threads: int | None) -> Iterator[None]:
    """Run a block with another number of torch threads."""
    import torch

    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        if threads is not None:
            torch.set_num_threads(before)
