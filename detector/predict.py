"""Levels of a study: the spine found, numbered, and points for all 25 targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from data_prep.base.backend import Backend, available_threads
from data_prep.base.manifest import DEFAULT_BUNDLE, Bundle
from data_prep.base.workers import Beside, beside
from data_prep.levels import SpineLevels
from data_prep.pixel_cache import PixelCache
from data_prep.study import TURNED, Study
from data_prep.vocabulary import LEVELS, Flag, SeriesKind
from detector import BUNDLED_WEIGHTS
from detector.config import PredictConfig, read_config
from detector.doubts import (
    axial_neighbours,
    axials_lie_elsewhere,
    canal_at_edge,
    is_shown,
    moved_between_slices,
    series_wrong_way_round,
    view_doubts,
)
from detector.finder import SpineFinder
from detector.look.inference import SlicePredictor
from detector.look.refiner import PointRefiner
from detector.spec import AXIAL, FORAMEN, REFINERS, SAGITTAL, DetectorSpec
from detector.spine.bows import foramina_tell_a_bend, lies_along_a_bow, recesses_tell_a_bend
from detector.spine.chain import NumberedChain, number_chain
from detector.spine.levels import spine_levels
from detector.spine.wrong_way import WrongWay
from detector.target_points import target_points

LEADING_WEIGHTS = f"{SAGITTAL.kind.value}.safetensors"  # without it there is no detector


class LevelDetector:
    """Finds the five levels of a study and the point of every target.

    Sagittal T2 decides; without it sagittal T1 does, flagged. Axial slices refine the recesses, sagittal T1
    the foramina, when detectors for them are given; refiners take a second look at points that were seen.
    """

    def __init__(
        self,
        sagittal: SlicePredictor,
        axial: SlicePredictor | None = None,
        foramen: SlicePredictor | None = None,
        config: PredictConfig | None = None,
        refiners: Sequence[PointRefiner] = (),
        has_threads: bool = False,
    ) -> None:
        self.has_threads = has_threads
        self.sagittal, self.axial, self.foramen, self.refiners = sagittal, axial, foramen, tuple(refiners)
        self.config = config or PredictConfig()
        self.finder = SpineFinder(sagittal, self.config)

    @classmethod
    def load_bundled(
        cls,
        *,
        bundle: Bundle = DEFAULT_BUNDLE,
        backend: Backend | str = Backend.AUTO,
        threads: int | None = None,
    ) -> LevelDetector:
        """The detectors that ship with the project. Raises WeightsRejected."""
        return cls.load(BUNDLED_WEIGHTS[bundle], backend=backend, threads=threads)

    @classmethod
    def load(
        cls,
        folder: Path,
        config: PredictConfig | None = None,
        *,
        device: str = "cpu",
        backend: Backend | str = Backend.AUTO,
        threads: int | None = None,
    ) -> LevelDetector:
        """Detectors of a folder: ``sagittal.safetensors`` and a manifest; the others where they are there.

        Args:
            device: as torch spells it.
            threads: of ONNX Runtime; None for all that this process may use.

        Raises:
            WeightsRejected: no manifest, or a file is not what the manifest says.
            BackendUnusable: the backend cannot run here.
        """

        def loaded(spec: DetectorSpec) -> SlicePredictor:
            return SlicePredictor.load(folder, spec, device, backend=backend, threads=threads)

        def optional(spec: DetectorSpec) -> SlicePredictor | None:
            return loaded(spec) if (folder / f"{spec.kind.value}.safetensors").is_file() else None

        refiners = [
            PointRefiner.load(folder, spec, device, backend=backend, threads=threads)
            for spec in REFINERS
            if (folder / f"{spec.stem}.safetensors").is_file()
        ]
        config = config or read_config(folder)
        several = (threads or available_threads()) > 1
        return cls(loaded(SAGITTAL), optional(AXIAL), optional(FORAMEN), config, refiners, several)

    def predict(self, study: Study) -> SpineLevels:
        """All levels of a study. Never raises for what the images show: what is missing is flagged."""
        with beside(self.has_threads) as thread:
            return self._predict(PixelCache(study).study, thread)

    def _predict(self, study: Study, thread: Beside) -> SpineLevels:
        """Of a study whose slices are decoded once: they are looked at ahead, and by several networks."""
        view = self.finder.lumbar_view(study)
        if view is None:
            return SpineLevels(study.study_id, flags=(Flag.NO_SAGITTAL, Flag.NUMBERING_UNCERTAIN))
        doubts, uncertain = view_doubts(view, self.sagittal, self.config)
        if {Flag.NO_LEVEL_FOUND, Flag.NO_LUMBAR_SPINE} & set(doubts):
            flags = (*doubts, Flag.NUMBERING_UNCERTAIN)
            return SpineLevels(study.study_id, flags=flags, set_aside=view.set_aside)
        config, leading = self.config, view.series[0]
        chain = number_chain(view.sighting.discs, config.chain, view_z_mm=view.sighting.view_z_mm)
        seen = spine_levels(chain, view.series, margin_mm=config.view_margin_mm)
        elsewhere = thread.begin(axials_lie_elsewhere, study, leading, seen, config)
        turned = thread.begin(series_wrong_way_round, study, view.series, seen, config)
        neighbours = thread.begin(axial_neighbours, study)
        said = {
            Flag.SERIES_DISAGREE: view.sighting.disagreeing or moved_between_slices(leading, config),
            Flag.TRANSITIONAL_SUSPECTED: chain.suspects_transition(config.transitional_score),
            Flag.SACRUM_UNSEEN: not chain.reaches_sacrum,
            Flag.NUMBERING_UNCERTAIN: uncertain or chain.confidence < config.uncertain_below,
            Flag.LEVEL_ABSENT: len(seen) < len(LEVELS),
            Flag.LEVEL_AT_EDGE: not all(is_shown(level, leading) for level in seen.values()),
        }
        has_axial = self.axial is not None and bool(study.of_kind(SeriesKind.AXIAL_T2))
        followed, is_curved, leaves = self.finder.followed(chain, seen, view, has_axial=has_axial)
        levels, points = target_points(
            study,
            followed,
            leading,
            config,
            central=seen,
            is_curved=is_curved,
            axial=self.axial,
            foramen=self.foramen,
            refiners=self.refiners,
            thread=thread,
        )
        wrong, axial = turned(), neighbours()
        wrong = replace(wrong, sides_doubtful=wrong.sides_doubtful or axial.sides_change)
        if wrong.series:
            return self._without(wrong, study, thread)
        said[Flag.AXIAL_DISAGREES] = elsewhere() or axial.patient_moved
        said[Flag.SIDES_DOUBTFUL] = wrong.sides_doubtful
        if not is_curved and has_axial:
            across = leading.normal
            is_curved = lies_along_a_bow(levels, across, config.bows) or (
                levels is not followed and recesses_tell_a_bend(levels, points, across, config.bows)
            )
        elif not is_curved and self.foramen is not None:
            is_curved = foramina_tell_a_bend(
                study, levels, leading, self.foramen, config.foramen, config.bows
            )
        said |= {Flag.SPINE_CURVED: is_curved, Flag.CANAL_AT_EDGE: leaves or canal_at_edge(levels, leading)}
        return SpineLevels(
            study_id=study.study_id,
            levels=levels,
            points=points,
            numbering_confidence=chain.confidence,
            other_readings=chain.other_readings(config.least_reading),
            voters=_voters(chain),
            flags=(*doubts, *(flag for flag, holds in said.items() if holds)),
            set_aside=view.set_aside,
        )

    def _without(self, wrong: WrongWay, study: Study, thread: Beside) -> SpineLevels:
        """The levels without series that lie another way round than their headers say."""
        levels = self._predict(study.with_unused(wrong.series, TURNED), thread)
        doubt = (Flag.SIDES_DOUBTFUL,) if wrong.sides_doubtful else ()
        flags = dict.fromkeys((*levels.flags, Flag.SERIES_TURNED, *doubt))
        return replace(levels, flags=tuple(flags), turned=(*wrong.series, *levels.turned))


def _voters(chain: NumberedChain) -> tuple[str, ...]:
    seen = [disc.candidate for disc in chain.discs if disc.candidate is not None]
    return tuple(sorted({member.series_id for candidate in seen for member in candidate.members}))
