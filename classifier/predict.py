"""Grades the 25 targets of a study at the points that the localiser found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from classifier import BUNDLED_WEIGHTS
from classifier.config import GROUP_GRADERS, CropConfig, GraderName
from classifier.expected import Expectations, read_expectations
from classifier.grade import Grade, GradeSource
from classifier.prior import level_prior, prior_grade
from classifier.readings import Probabilities, averaged, other_readings
from classifier.room_evidence import RoomEvidence, heights_of, read_room_evidence
from classifier.storage import (
    CROPS_OF_A_PASS,
    StoredGrader,
    compiled_grader,
    graders_of,
    load_grader,
    read_grader,
)
from classifier.target_crops import grader_point, reading_point, target_crop
from data_prep.base.backend import Backend, resolve_backend
from data_prep.base.manifest import DEFAULT_BUNDLE, Bundle
from data_prep.base.networks import CompiledNetwork, torch_outputs
from data_prep.crops import Crop
from data_prep.levels import PointSource, SpineLevels
from data_prep.pixel_cache import PixelCache
from data_prep.study import Study
from data_prep.vocabulary import TARGETS, ConditionGroup, Flag, Target

Shown = tuple[Target, Crop]
Arrays = tuple[NDArray, ...]
Logits = dict[Target, NDArray[np.float64]]

# A point that a person set is as good as one that a detector saw.
_SOURCE: dict[PointSource, GradeSource] = {
    PointSource.SEEN: GradeSource.SEEN,
    PointSource.ANNOTATED: GradeSource.SEEN,
    PointSource.PREDICTED: GradeSource.PREDICTED,
}


@dataclass(frozen=True, eq=False)
class Grader:
    """The graders of a weights folder.

    Attributes:
        graders: one per condition group, and the one that looks at the canal on axial slices if there is one.
        compiled: of these graders, those that ONNX Runtime runs; torch runs the others.
        expectations: of what is not seen, from what is.
        rooms: how the measured room of a foramen is joined with its grader's evidence; None: it is not.
    """

    graders: Mapping[GraderName, StoredGrader]
    compiled: Mapping[GraderName, tuple[CompiledNetwork, ...]] = field(default_factory=dict)
    expectations: Expectations = field(default_factory=Expectations)
    rooms: RoomEvidence | None = None

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        threads: int | None = None,
        backend: Backend | str = Backend.AUTO,
        device: str = "cpu",
    ) -> Grader:
        """Load all graders of a folder.

        Args:
            threads: of ONNX Runtime; None for all that this process may use.
            device: of torch.
            backend: see ``data_prep.base.backend``.

        Raises:
            WeightsRejected: missing, or not what the manifest says.
            BackendUnusable: the backend cannot run here.
        """
        names = graders_of(Path(folder))
        expectations, rooms = read_expectations(Path(folder)), read_room_evidence(Path(folder))
        if resolve_backend(backend, device=device) is Backend.TORCH:
            loaded = {name: load_grader(Path(folder), name) for name in names}
            for stored in loaded.values():
                stored.network.to(device)
            return cls(loaded, expectations=expectations, rooms=rooms)
        graders = {name: read_grader(Path(folder), name) for name in names}
        compiled = {
            name: tuple(compiled_grader(member, threads) for member in stored.members)
            for name, stored in graders.items()
        }
        return cls(graders, compiled, expectations, rooms)

    @classmethod
    def load_bundled(
        cls,
        bundle: Bundle = DEFAULT_BUNDLE,
        *,
        threads: int | None = None,
        backend: Backend | str = Backend.AUTO,
    ) -> Grader:
        """Load the graders that come with the project. Raises WeightsRejected."""
        return cls.load(BUNDLED_WEIGHTS[bundle], threads=threads, backend=backend)

    def grade(self, study: Study, levels: SpineLevels) -> dict[Target, Grade]:
        """Grade all 25 targets of one study.

        A target that cannot be looked at gets a flag, and what is expected from the other grades of its level
        (``classifier.expected``); the level prior where the weights say nothing of it, nothing of the level
        was graded, or the numbering is uncertain. Flags: ``level_absent`` (its level is not in the image),
        ``no_point``, ``no_series`` (of the kind that shows it), ``no_slice`` (near the point), ``no_signal``
        (at the point: a blank slice, or a void as near metal). A canal that only axial slices show is graded
        there and flagged ``axial_only``. A target that several slices show equally well
        (``LevelPoint.also``) is read on each, beside the best by the grader's first member alone, and their
        probabilities are averaged by their shares.

        Args:
            levels: where to look; points alone suffice.

        Returns:
            One grade per target, in the order of TARGETS, with calibrated unweighted probabilities. The same
            study gives the same bytes whatever else is graded.
        """
        study = PixelCache(study).study
        unseen: dict[Target, Grade] = {}
        # All are begun before any is waited for: crops of one grader are cut while another grades.
        begun = {name: self._begin_views(name, study, levels, unseen) for name in self.graders}
        others = [self._begin_reading(study, reading) for reading in other_readings(levels)]
        logits = {name: finish() for name, finish in begun.items()}
        found = averaged(levels, self._joined(logits), [finish() for finish in others])
        found |= self._with_rooms(study, levels, logits.get(GraderName.FORAMINAL, {}))
        grades = {}
        for target in TARGETS:
            if target not in found:
                grades[target] = unseen[target]
                continue
            point = levels.point(target.condition, target.level)
            alone = (
                target.condition.group is ConditionGroup.SPINAL and target not in logits[GraderName.SPINAL]
            )
            source = _SOURCE[point.source] if point is not None else GradeSource.PREDICTED
            grades[target] = Grade(found[target], source, (Flag.AXIAL_ONLY,) if alone else ())
        # What is usual at a level that may be another one would mislead.
        return grades if Flag.NUMBERING_UNCERTAIN in levels.flags else self.expectations.completed(grades)

    def logits(self, name: GraderName, study: Study, levels: SpineLevels) -> Logits:
        """(3,) evidence of a grader for each target that it can look at, before calibration."""
        return self._begin_views(name, PixelCache(study).study, levels, {})()

    def _with_rooms(self, study: Study, levels: SpineLevels, logits: Logits) -> Probabilities:
        """Foramina whose room was measured, where that is joined with the grader's evidence."""
        heights = {} if self.rooms is None else heights_of(study, levels)
        measured = [target for target in logits if target in heights]
        if self.rooms is None or not measured:
            return {}
        p = self.rooms.probabilities(
            np.stack([logits[target] for target in measured]),
            [heights[target] for target in measured],
            np.log([level_prior(target) for target in measured]),
        )
        return dict(zip(measured, p, strict=True))

    def _begin_reading(self, study: Study, reading: SpineLevels) -> Callable[[], Probabilities]:
        """Look at the points of some targets alone; what is returned waits for their probabilities."""
        groups = {point.condition.group for point in reading.points}
        begun = {
            name: self._begin_views(name, study, reading, {}, alone=True)
            for name in self.graders
            if name.group in groups and name in GROUP_GRADERS
        }

        def finished() -> Probabilities:
            found: Probabilities = {}
            for name, finish in begun.items():
                found |= self._calibrated(name, finish())
            return found

        return finished

    def _views(self, name: GraderName) -> dict[CropConfig, list[int]]:
        """The crops that a grader's members look at, with the places of these members; the first's first."""
        views: dict[CropConfig, list[int]] = {}
        for place, member in enumerate(self.graders[name].members):
            looked_at = replace(member.config.crop, margin_px=0, margin_slices=0)
            views.setdefault(looked_at, []).append(place)
        return views

    def _begin_views(
        self,
        name: GraderName,
        study: Study,
        levels: SpineLevels,
        unseen: dict[Target, Grade],
        *,
        alone: bool = False,
    ) -> Callable[[], Logits]:
        """Look at a study with all members of a grader; what is returned waits for their mean logits.

        The first member's crops say which targets can be looked at; ``alone`` leaves it at that member.
        """
        begun = []
        views = self._views(name)
        if alone:
            views = {next(iter(views)): [0]}
        for number, (crop, places) in enumerate(views.items()):
            told = unseen if number == 0 else {}
            begun.append(self._begin(name, places, self._shown(study, levels, name, crop, told)))

        def finished() -> Logits:
            first, *others = [finish() for finish in begun]
            return {
                target: np.mean([*found, *(one for other in others for one in other.get(target, ()))], axis=0)
                for target, found in first.items()
            }

        return finished

    def _shown(
        self,
        study: Study,
        levels: SpineLevels,
        name: GraderName,
        config: CropConfig,
        unseen: dict[Target, Grade],
    ) -> Iterator[Shown]:
        """The targets that a grader can look at; the others get the level prior in ``unseen``."""
        for target in TARGETS:
            if target.condition.group is not name.group:
                continue
            point = reading_point(name, levels, target)
            if point is None:
                flag = Flag.NO_POINT if target.level in levels.levels else Flag.LEVEL_ABSENT
                unseen.setdefault(target, prior_grade(target, flag))
                continue
            crop = target_crop(study, point, config, kind=name.series_kind)
            marked = grader_point(name, levels, target)
            if crop == Flag.NO_SLICE and marked is not None:  # where it should be read no slice lies
                crop = target_crop(study, marked, config, kind=name.series_kind)
            if isinstance(crop, str):
                unseen.setdefault(target, prior_grade(target, crop))
                continue
            yield target, crop

    def _joined(self, logits: Mapping[GraderName, Logits]) -> Probabilities:
        """Calibrated probabilities of every target that some grader saw."""
        found: Probabilities = {}
        for name in GROUP_GRADERS:
            found |= self._calibrated(name, logits.get(name, {}))
        axial = logits.get(GraderName.SPINAL_AXIAL, {})
        if not axial:
            return found
        found |= {
            target: p
            for target, p in self._calibrated(GraderName.SPINAL_AXIAL, axial).items()
            if target not in found
        }
        joint = self.graders[GraderName.SPINAL_AXIAL].joint
        sagittal = logits.get(GraderName.SPINAL, {})
        both = [target for target in axial if target in sagittal]
        if joint is not None and both:
            p = joint.probabilities(
                np.stack([sagittal[target] for target in both]),
                np.stack([axial[target] for target in both]),
                np.log([level_prior(target) for target in both]),
            )
            found |= dict(zip(both, p, strict=True))
        return found

    def _calibrated(self, name: GraderName, logits: Logits) -> Probabilities:
        if not logits:
            return {}
        log_prior = np.log([level_prior(target) for target in logits])
        p = self.graders[name].calibration.probabilities(np.stack(list(logits.values())), log_prior)
        return dict(zip(logits, p, strict=True))

    @property
    def any_severe_pull(self) -> float:
        """For the submission, see ``classifier.any_severe``."""
        return self.graders[GraderName.SPINAL].calibration.any_severe_pull

    def _begin(
        self, name: GraderName, places: Sequence[int], shown: Iterable[Shown]
    ) -> Callable[[], dict[Target, NDArray[np.float64]]]:
        """Draw crops and look at them with the members at these places; what is returned waits for logits.

        Returns:
            Per target: (members, 3).
        """
        targets: list[Target] = []

        def passes(size: int | None) -> Iterator[tuple[NDArray, ...]]:
            rest = iter(shown)
            while some := list(islice(rest, size)):
                targets.extend(target for target, _ in some)
                yield _arrays(some)

        compiled = self.compiled.get(name)
        finish: list[Callable[[], list[NDArray[np.float32]]]]
        if compiled is None:
            whole = list(passes(None))
            members = self.graders[name].members
            finish = [partial(torch_outputs, members[place].network, whole) for place in places]
        else:
            drawn: list[Arrays] = []
            # The first member grades while crops are still being cut, the others what was cut for it.
            finish = [compiled[places[0]].start(_kept(passes(CROPS_OF_A_PASS), drawn))]
            finish += [compiled[place].start(drawn) for place in places[1:]]

        def finished() -> dict[Target, NDArray[np.float64]]:
            if not targets:
                return {}
            logits = np.stack([np.concatenate(wait()) for wait in finish], axis=1).astype(np.float64)
            return dict(zip(targets, logits, strict=True))

        return finished


def _kept(passes: Iterable[Arrays], drawn: list[Arrays]) -> Iterator[Arrays]:
    """The same passes, each appended to ``drawn`` as it is drawn."""
    for one in passes:
        drawn.append(one)
        yield one


def _arrays(shown: Sequence[Shown]) -> tuple[NDArray, ...]:
    """Pixels (B, S, H, W), valid (B, S), level (B,)."""
    pixels = np.stack([crop.pixels for _, crop in shown])
    valid = np.stack([crop.valid for _, crop in shown])
    return pixels, valid, np.array([target.level.index for target, _ in shown])
