"""Grades the 25 targets of a study at the points that the localiser found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from classifier.compiled import CROPS_OF_A_PASS, CompiledGrader, can_be_compiled, compiled_grader
from classifier.grade import Grade, GradeSource
from classifier.prior import level_prior, prior_grade
from classifier.storage import BUNDLED_WEIGHTS, StoredGrader, load_grader, read_grader
from classifier.target_crops import SECOND_VIEW, target_crop
from data_prep.base.backend import Backend, resolve_backend
from data_prep.crops import Crop
from data_prep.pixel_cache import PixelCache
from data_prep.study import PointSource, SpineLevels, Study
from data_prep.vocabulary import TARGETS, Condition, ConditionGroup, Target

# A target, its crop, and that of the other view of its level if there is one.
Shown = tuple[Target, Crop, Crop | None]
Probabilities = dict[Target, NDArray[np.float64]]

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
            backend: see ``data_prep.base.backend``. Torch runs graders that look at neighbouring levels, too.

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
        grades: dict[Target, Grade] = {}
        # All are begun before any is waited for: crops of one group are cut while another is graded.
        begun = [self._begin(group, self._shown(study, levels, group, grades)) for group in self.graders]
        for finish in begun:
            for target, probabilities in finish().items():
                point = levels.point(target.condition, target.level)
                assert point is not None
                grades[target] = Grade(probabilities, _SOURCE[point.source])
        return {target: grades[target] for target in TARGETS}

    def _shown(
        self, study: Study, levels: SpineLevels, group: ConditionGroup, grades: dict[Target, Grade]
    ) -> Iterator[Shown]:
        """The targets of a group that can be looked at; the others get the level prior in ``grades``."""
        config = self.graders[group].config.crop
        for target in TARGETS:
            if target.condition.group is not group:
                continue
            point = levels.point(target.condition, target.level)
            if point is None:
                flag = NO_POINT if target.level in levels.levels else LEVEL_ABSENT
                grades[target] = prior_grade(target, flag)
                continue
            crop = target_crop(study, point, config)
            if isinstance(crop, str):
                grades[target] = prior_grade(target, crop)
                continue
            other = target_crop(study, point, config, kind=SECOND_VIEW[group]) if config.second_view else ""
            yield target, crop, None if isinstance(other, str) else other

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
        second = second or {}
        out: Probabilities = {}
        for group in self.graders:
            targets = [target for target in crops if target.condition.group is group]
            out |= self._begin(group, ((target, crops[target], second.get(target)) for target in targets))()
        return out

    def _begin(self, group: ConditionGroup, shown: Iterable[Shown]) -> Callable[[], Probabilities]:
        """Draw the crops of a group and grade them; what is returned waits for the probabilities."""
        grader, compiled = self.graders[group], self.compiled.get(group)
        targets: list[Target] = []

        def passes(size: int | None) -> Iterator[tuple[NDArray, ...]]:
            rest = iter(shown)
            while some := list(islice(rest, size)):
                targets.extend(target for target, *_ in some)
                yield _arrays(some, second_view=grader.config.crop.second_view)

        if compiled is not None:
            finish = compiled.start(passes(CROPS_OF_A_PASS))
        else:
            # In one pass: a grader may look at the neighbouring levels.
            finish = partial(_torch_logits, grader, list(passes(None)), targets, self.threads)

        def finished() -> Probabilities:
            if not targets:
                return {}
            log_prior = np.log([level_prior(target) for target in targets])
            return dict(zip(targets, grader.calibration.probabilities(finish(), log_prior), strict=True))

        return finished


def _arrays(shown: Sequence[Shown], *, second_view: bool) -> tuple[NDArray, ...]:
    """Pixels (B, S, H, W), valid (B, S), level (B,); pixels and valid of the second view, if asked for."""
    views = [[crop for _, crop, _ in shown]]
    if second_view:
        views.append([_or_nothing(other, crop) for _, crop, other in shown])
    arrays = [
        np.stack(part) for view in views for part in ([c.pixels for c in view], [c.valid for c in view])
    ]
    level = np.array([target.level.index for target, *_ in shown])
    return *arrays[:2], level, *arrays[2:]


def _or_nothing(crop: Crop | None, like: Crop) -> Crop:
    """The crop, or one of which no slice is valid."""
    if crop is not None:
        return crop
    return replace(like, pixels=np.zeros_like(like.pixels), valid=np.zeros_like(like.valid))


def _torch_logits(
    grader: StoredGrader, passes: Sequence[Sequence[NDArray]], targets: Sequence[Target], threads: int | None
) -> NDArray[np.float64]:
    """Logits (B, 3) of the targets of one study, in its only pass; the reference."""
    import torch

    pixels, valid, level, *others = (torch.from_numpy(array) for array in passes[0])
    side = torch.tensor([list(Condition).index(target.condition) for target in targets])
    with torch_threads(threads), torch.inference_mode():
        logits = grader.network(pixels, valid, level, side, *others)
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
