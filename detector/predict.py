"""Levels of a study: candidates from the slices, one numbered chain, points for all 25 targets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from data_prep.base.backend import Backend
from data_prep.base.bundles import DEFAULT_BUNDLE, Bundle
from data_prep.base.manifest import read_verified
from data_prep.geometry import FloatArray, SlicePlane
from data_prep.pixel_cache import PixelCache
from data_prep.problems import DicomRejected
from data_prep.study import LevelPoint, Series, Slice, SpineLevel, SpineLevels, Study
from data_prep.vocabulary import LEVELS, Level, SeriesKind
from detector.look.candidates import CandidateConfig, DiscCandidate, merge_candidates
from detector.look.canonical import strip
from detector.look.inference import SlicePredictor
from detector.look.refiner import PointRefiner
from detector.look.sightings import Part, SliceSighting, look_at
from detector.spec import AXIAL, FORAMEN, REFINERS, SAGITTAL, DetectorSpec
from detector.spine.agreement import AgreementConfig, shift_between
from detector.spine.aside import AsideConfig, aside_by_level, fading
from detector.spine.axial import AxialConfig, refine_recesses, sideways_mm
from detector.spine.chain import ChainConfig, ChainDisc, NumberedChain, best_chain, number_chain
from detector.spine.foramina import ForamenConfig, refine_foramina
from detector.spine.levels import spine_levels, straightened
from detector.spine.noise import signal_to_noise
from detector.spine.orientation import OrientationConfig, orientation_is_doubtful
from detector.spine.points import all_points, moved_sideways
from detector.spine.region import is_named_otherwise, lumbar_evidence, shows_lumbar_spine, views_apart
from detector.spine.voting import VotingConfig, join_votes

NUMBERING_FILE = "numbering.json"  # weights of the numbering, fitted by `lumbar detector calibrate`
LEADING_WEIGHTS = f"{SAGITTAL.kind.value}.safetensors"  # without it there is no detector
# Fewer slices have no inner ones to speak of.
_FEWEST_WITH_EDGES = 5
BUNDLED_WEIGHTS = {bundle: Path(__file__).parent / "weights" / bundle.value for bundle in Bundle}
_TIE_MM = 1e-3


@dataclass(frozen=True)
class PredictConfig:
    """What is looked at and what is believed.

    Attributes:
        central_slices: sagittal slices looked at, around the middle of the series.
        max_offset_mm: of those, none farther than this from the middle.
        beside_slices, beside_offset_mm: the same for a T1 that leads and has few central slices.
        strip_mm: how far before and behind the spine these slices are looked at.
        strip_discs, strip_score: the middle slice must show as many discs with this score to say where the
            spine is; else its neighbours are looked at as a whole, too.
        uncertain_below: numbering confidence under which ``numbering_uncertain`` is flagged; it also is where
            the images are noisy or their orientation is doubtful.
        crooked_mm: canal points follow the axial slices sideways where most levels lie as far to one side:
            within a slice or two the sagittal images know better.
        least_reading: another numbering that is at least this likely is told, too.
        noisy_below: ratio of signal to noise of the middle slice under which ``noisy`` is flagged. Phantoms
            of choosing seeds have 7.2 and more, those of unusual scanners 3 and more, those with noise of a
            sixth of their signal 5.3 to 7.0.
        least_signal_to_noise: below this the numbering is uncertain, too.
        view_margin_mm: a level that was not seen but must lie at least this far inside the image is
            placed by extrapolation; farther out it is absent.
        min_evidence: a chain whose disc scores add up to less is no spine.
        whole_t1_slices: a T1 that leads and has fewer slices, but more than one, is no whole series.
        few_slices: a leading series with fewer slices is flagged: its middle may not be the spine's.
        transitional_score: a disc below L5/S1 that scores as much suggests a transitional vertebra; many
            people have a rudimentary S1/S2 disc that scores less.
    """

    central_slices: int = 5
    max_offset_mm: float = 18.0
    beside_slices: int = 8
    beside_offset_mm: float = 32.0
    strip_mm: float = 40.0
    strip_discs: int = 3
    strip_score: float = 0.3
    uncertain_below: float = 0.8
    crooked_mm: float = 7.0
    least_reading: float = 0.02
    noisy_below: float = 7.1
    least_signal_to_noise: float = 3.8
    view_margin_mm: float = 8.0
    transitional_score: float = 0.7
    min_evidence: float = 0.8
    whole_t1_slices: int = 11
    few_slices: int = 3
    voting: VotingConfig = field(default_factory=VotingConfig)
    candidates: CandidateConfig = field(default_factory=CandidateConfig)
    chain: ChainConfig = field(default_factory=ChainConfig)
    axial: AxialConfig = field(default_factory=AxialConfig)
    foramen: ForamenConfig = field(default_factory=ForamenConfig)
    orientation: OrientationConfig = field(default_factory=OrientationConfig)
    agreement: AgreementConfig = field(default_factory=AgreementConfig)
    aside: AsideConfig = field(default_factory=AsideConfig)


def read_config(folder: Path) -> PredictConfig:
    """The configuration of a folder of detectors: what was fitted for them. Raises WeightsRejected."""
    if not (folder / NUMBERING_FILE).is_file():
        return PredictConfig()
    fitted = json.loads(read_verified(folder, NUMBERING_FILE))
    return PredictConfig(
        chain=ChainConfig(weights=tuple(fitted["weights"])),
        uncertain_below=float(fitted.get("uncertain_below", PredictConfig.uncertain_below)),
    )


@dataclass(frozen=True, eq=False)
class Sighting:
    """What the sagittal series of a study show.

    Attributes:
        discs: the chain, head to foot; empty when nothing is seen.
        view_z_mm: lowest and highest z of the leading series' images.
        disagreeing: ids of series that show the spine elsewhere.
    """

    discs: tuple[ChainDisc, ...]
    view_z_mm: tuple[float, float] | None
    disagreeing: tuple[str, ...]


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
    ) -> None:
        self.sagittal, self.axial, self.foramen, self.refiners = sagittal, axial, foramen, tuple(refiners)
        self.config = config or PredictConfig()

    @classmethod
    def load_bundled(
        cls,
        config: PredictConfig | None = None,
        *,
        bundle: Bundle = DEFAULT_BUNDLE,
        backend: Backend | str = Backend.AUTO,
        threads: int | None = None,
    ) -> LevelDetector:
        """The detectors that ship with the project. Raises WeightsRejected."""
        return cls.load(BUNDLED_WEIGHTS[bundle], config, backend=backend, threads=threads)

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
            backend: what runs the networks, see ``data_prep.base.backend``.
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
        return cls(loaded(SAGITTAL), optional(AXIAL), optional(FORAMEN), config, refiners)

    def predict(self, study: Study) -> SpineLevels:
        """All levels of a study. Never raises for what the images show: what is missing is flagged."""
        study = PixelCache(study).study  # slices are looked at ahead, and by several networks
        series, flags, sighting, set_aside = self._lumbar_view(study)
        if not series:
            return SpineLevels(study.study_id, flags=("no_sagittal", "numbering_uncertain"))
        if len(series[0].slices) < self.config.few_slices:
            flags = (*flags, "few_slices")
        doubts, uncertain = self._doubts(series[0], sighting.discs)
        flags = (*flags, *doubts)
        if is_named_otherwise(series):
            flags, uncertain = (*flags, "region_doubtful"), True
        if not sighting.discs:
            return SpineLevels(study.study_id, flags=(*flags, "no_level_found", "numbering_uncertain"))
        if not shows_lumbar_spine(series, sighting.discs):
            flags = (*flags, "no_lumbar_spine", "numbering_uncertain")
            return SpineLevels(study.study_id, flags=flags, set_aside=set_aside)
        chain = number_chain(sighting.discs, self.config.chain, view_z_mm=sighting.view_z_mm)
        if sighting.disagreeing:
            flags = (*flags, "series_disagree")
        if chain.suspects_transition(self.config.transitional_score):
            flags = (*flags, "transitional_suspected")
        if not chain.reaches_sacrum:
            flags = (*flags, "sacrum_unseen")
        levels = spine_levels(chain, series, margin_mm=self.config.view_margin_mm)
        uncertain = uncertain or self._sees_beside_the_canal_alone(series[0])
        if uncertain or chain.confidence < self.config.uncertain_below:
            flags = (*flags, "numbering_uncertain")
        if len(levels) < len(LEVELS):
            flags = (*flags, "level_absent")
        if not all(_is_shown(level, series[0]) for level in levels.values()):
            flags = (*flags, "level_at_edge")
        if self._axials_lie_elsewhere(study, series[0], levels):
            flags = (*flags, "axial_disagrees")
        levels, curved = self._followed(chain, levels, series[0])
        levels, points, more = self._refined(study, levels, series[0], is_curved=bool(curved))
        more = (*curved, *more)
        return SpineLevels(
            study_id=study.study_id,
            levels=levels,
            points=points,
            numbering_confidence=chain.confidence,
            other_readings=chain.other_readings(self.config.least_reading),
            voters=_voters(chain),
            flags=(*flags, *more),
            set_aside=set_aside,
        )

    def _lumbar_view(
        self, study: Study
    ) -> tuple[tuple[Series, ...], tuple[str, ...], Sighting, tuple[str, ...]]:
        """The sagittal series that show the lumbar spine best, flags, what they show, and series set aside.

        Where they show several parts of the patient, a neck beside a lumbar spine, each part is looked at.
        """
        kinds = (SeriesKind.SAGITTAL_T2, SeriesKind.SAGITTAL_T1)
        views = views_apart([item for kind in kinds for item in study.of_kind(kind)])
        best: tuple[float, tuple[Series, ...], tuple[str, ...], Sighting] | None = None
        for view in views:
            ids = {item.series_id for item in view}
            series, flags = sagittal_series(
                replace(study, series=tuple(item for item in study.series if item.series_id in ids))
            )
            seen = self.look(series)
            evidence = lumbar_evidence(seen.discs) if len(views) > 1 else 0.0
            evidence *= 0.5 if is_named_otherwise(series) else 1.0
            if best is None or evidence > best[0]:
                best = evidence, series, flags, seen
        if best is None:
            return (), (), Sighting((), None, ()), ()
        chosen = next(view for view in views if best[1][0] in view)
        set_aside = tuple(item.series_id for view in views if view is not chosen for item in view)
        return (*best[1:], set_aside)

    def _axials_lie_elsewhere(self, study: Study, leading: Series, levels: dict[Level, SpineLevel]) -> bool:
        """Whether the axial series show another place than their coordinates say."""
        axial = study.of_kind(SeriesKind.AXIAL_T2)
        if not axial or not levels or leading.kind is not SeriesKind.SAGITTAL_T2:
            return False
        (middle,) = central_slices(leading, 1, self.config.max_offset_mm)
        canal_mm = np.stack([level.canal_mm for level in levels.values()])
        return shift_between(middle, canal_mm, axial, self.config.agreement) != 0.0

    def _followed(
        self, chain: NumberedChain, levels: dict[Level, SpineLevel], leading: Series
    ) -> tuple[dict[Level, SpineLevel], tuple[str, ...]]:
        """The levels, followed across the slices where the spine leaves the central ones; and a flag then.

        They are moved where enough discs say so; fewer only raise the flag.
        """
        config = self.config
        central = central_slices(leading, config.central_slices, config.max_offset_mm)
        instances = [item.instance_number for item in central]
        faded = fading(chain, instances, leading.series_id, config.aside)
        if faded < config.aside.faded_discs:
            return levels, ()
        stack = max(leading.stacks, key=len)
        spine_mm = np.stack([point for level in levels.values() for point in (level.disc_mm, level.canal_mm)])
        seen = self._look_at(
            [(leading, item) for item in stack], lambda _, grid: strip(grid, spine_mm, config.strip_mm)
        )
        aside_mm = aside_by_level(levels, seen, config.aside) if seen else {}
        if max(map(abs, aside_mm.values()), default=0.0) < config.crooked_mm:
            return levels, ()
        if faded < config.aside.moved_discs:
            return levels, ("spine_curved",)
        across = stack[0].plane.normal
        moved = {
            level: replace(
                place,
                disc_mm=place.disc_mm + aside_mm.get(level, 0.0) * across,
                canal_mm=place.canal_mm + aside_mm.get(level, 0.0) * across,
            )
            for level, place in levels.items()
        }
        return moved, ("spine_curved",)

    def _refined(
        self, study: Study, levels: dict[Level, SpineLevel], leading: Series, *, is_curved: bool
    ) -> tuple[dict[Level, SpineLevel], tuple[LevelPoint, ...], tuple[str, ...]]:
        """Points where axial and foramen detector see them, else where geometry puts them; and flags.

        Axial slices also say where the canal lies sideways, of which sagittal ones tell little: canal points
            and foramina are looked for from there.
        """
        points = all_points(study, levels, leading)
        if self.axial is not None:
            points = refine_recesses(study, levels, points, self.axial, self.config.axial)
            aside_mm = sideways_mm(levels, points)
            if is_curved or _is_crooked(tuple(aside_mm.values()), self.config.crooked_mm):
                levels, points = moved_sideways(study, levels, points, leading, aside_mm)
        flags = ("canal_at_edge",) if _at_edge(levels, leading) else ()
        points = self._refined_foramina(study, points)
        for refiner in self.refiners:
            points = refiner.refine(study, points)
        return levels, points, flags

    def _refined_foramina(self, study: Study, points: tuple[LevelPoint, ...]) -> tuple[LevelPoint, ...]:
        if self.foramen is None:
            return points
        return refine_foramina(study, points, self.foramen, self.config.foramen)

    def _doubts(self, leading: Series, chain: tuple[ChainDisc, ...]) -> tuple[tuple[str, ...], bool]:
        """Flags of a leading series that is not what the networks have learned from: noisy, or turned.

        And whether such a series leaves the numbering in doubt.
        """
        config = self.config
        (middle,) = central_slices(leading, 1, config.max_offset_mm)
        try:
            ratio = signal_to_noise(middle.pixels())
        except DicomRejected:
            return (), False
        noisy = ratio < config.noisy_below
        turned = orientation_is_doubtful(
            chain, middle, self.sagittal, config.orientation, config.candidates, config.chain
        )
        flags = (("noisy",) if noisy else ()) + (("orientation_doubtful",) if turned else ())
        return flags, turned or ratio < config.least_signal_to_noise

    def look(self, series: tuple[Series, ...]) -> Sighting:
        """The chain of discs seen in sagittal series of one study, not yet numbered; the first leads."""
        leading, *others = self.see(series)
        discs = self._discs(leading)
        disagreeing = []
        for item, seen in zip(series[1:], others, strict=True):
            discs, agrees = join_votes(discs, self._discs(seen), self.config.voting)
            if not agrees:
                disagreeing.append(item.series_id)
        across = max(series[0].stacks, key=len)[0].plane.normal
        chain = straightened(best_chain(discs, self.config.chain), across)
        if sum(disc.candidate.score for disc in chain if disc.candidate) < self.config.min_evidence:
            chain = ()
        return Sighting(chain, _view_z_mm(leading), tuple(disagreeing))

    def _discs(self, sightings: list[SliceSighting]) -> list[DiscCandidate]:
        found = [candidate for seen in sightings for candidate in seen.candidates]
        return merge_candidates(found, self.config.candidates, slices_seen=len(sightings))

    def see(self, series: tuple[Series, ...]) -> list[list[SliceSighting]]:
        """What the central slices of each series show, slice by slice.

        The middle slice is looked at as a whole, its neighbours in a strip around the spine that it shows.
        """
        central = [(item, self._looked_at(item, leading=item is series[0])) for item in series]
        middle = [(item, slices[len(slices) // 2]) for item, slices in central]
        whole = {id(item) for _, item in middle}
        beside = [(one, item) for one, slices in central for item in slices if id(item) not in whole]
        sightings = self._look_at(middle, ahead=[item for _, item in beside])
        spine_mm = {seen.series.series_id: _spine_mm(seen, self.config) for seen in sightings}
        spine_of = {id(item): spine_mm.get(one.series_id) for one, item in beside}

        def around_spine(item: Slice, grid: SlicePlane) -> SlicePlane:
            shown_mm = spine_of[id(item)]
            return grid if shown_mm is None else strip(grid, shown_mm, self.config.strip_mm)

        seen = {id(found.item): found for found in (*sightings, *self._look_at(beside, around_spine))}
        return [[seen[id(item)] for item in slices if id(item) in seen] for _, slices in central]

    def _sees_beside_the_canal_alone(self, leading: Series) -> bool:
        """Whether a T1 leads that lacks slices, as where those of the foramina alone were stored.

        Where its middle is cannot be told then. Six of a hundred such studies are numbered wrong, half of
        them with a high confidence.
        """
        config, count = self.config, len(leading.slices)
        central = central_slices(leading, config.central_slices, config.max_offset_mm)
        few = len(central) < min(config.central_slices, count) or 1 < count < config.whole_t1_slices
        return leading.kind is SeriesKind.SAGITTAL_T1 and few

    def _looked_at(self, series: Series, *, leading: bool) -> list[Slice]:
        """The slices of a series that decide the levels: central ones.

        Of a leading T1 that has none, as where foramina alone were stored, those beside the canal.
        """
        config = self.config
        central = central_slices(series, config.central_slices, config.max_offset_mm)
        if leading and series.kind is SeriesKind.SAGITTAL_T1 and len(central) < config.central_slices:
            return central_slices(series, config.beside_slices, config.beside_offset_mm)
        return central

    def _look_at(
        self, slices: list[tuple[Series, Slice]], part: Part | None = None, ahead: Sequence[Slice] = ()
    ) -> list[SliceSighting]:
        return look_at(slices, self.sagittal, self.config.candidates, part, ahead)


def _spine_mm(seen: SliceSighting, config: PredictConfig) -> FloatArray | None:
    """Discs and canal (n, 3) mm where a slice shows enough of them to tell where the spine is."""
    shown = [item.points_mm for item in seen.candidates if item.score >= config.strip_score]
    return np.concatenate(shown) if len(shown) >= config.strip_discs else None


def _is_shown(level: SpineLevel, leading: Series) -> bool:
    """Whether disc and canal lie inside the images: beyond their edge the network can only guess."""
    planes = [(point, leading.nearest(point)[0].plane) for point in (level.disc_mm, level.canal_mm)]
    return all(bool(plane.contains_px(plane.to_px(point))) for point, plane in planes)


def _is_crooked(aside_mm: tuple[float, ...], least_mm: float) -> bool:
    """Whether most levels lie at least so far to one side of where the sagittal slices put them."""
    left, right = (sum(sign * aside >= least_mm for aside in aside_mm) for sign in (1, -1))
    return max(left, right) * 2 > len(aside_mm) > 0


def _at_edge(levels: Mapping[Level, SpineLevel], leading: Series) -> bool:
    """Whether the canal of a level lies on the first or last slice of the leading series, or beyond it.

    There its middle may not be in the images. A series of a few slices is flagged as such.
    """
    stack = max(leading.stacks, key=len)
    if len(stack) < _FEWEST_WITH_EDGES:
        return False
    places = [float(item.plane.centre_mm @ stack[0].plane.normal) for item in stack]
    inner = sorted(places)[1], sorted(places)[-2]
    half_gap = leading.gap_mm(stack[0]) / 2
    canal = [float(level.canal_mm @ stack[0].plane.normal) for level in levels.values()]
    return any(not inner[0] - half_gap <= at <= inner[1] + half_gap for at in canal)


def _voters(chain: NumberedChain) -> tuple[str, ...]:
    seen = [disc.candidate for disc in chain.discs if disc.candidate is not None]
    return tuple(sorted({member.series_id for candidate in seen for member in candidate.members}))


def central_slices(series: Series, count: int, max_offset_mm: float) -> list[Slice]:
    """Up to ``count`` slices of the largest stack around its middle, none farther than ``max_offset_mm``."""
    stack = max(series.stacks, key=len)
    normal = stack[0].plane.normal
    places = np.array([float(item.plane.centre_mm @ normal) for item in stack])
    middle = (places.min() + places.max()) / 2
    # Of an even number, two lie equally near: the first of them, whatever rounding says.
    order = np.argsort(np.abs(places - middle) + _TIE_MM * np.arange(len(places)), kind="stable")
    chosen = [int(i) for i in order[:count] if abs(places[i] - middle) <= max_offset_mm]
    return [stack[i] for i in sorted(chosen or [int(order[0])])]


def sagittal_series(study: Study) -> tuple[tuple[Series, ...], tuple[str, ...]]:
    """The series that decide the levels, the leading one first, and flags."""
    t2, t1 = study.of_kind(SeriesKind.SAGITTAL_T2), study.of_kind(SeriesKind.SAGITTAL_T1)
    if t2:
        return (*t2[:2], *t1[:1]), ()
    return t1[:2], ("no_sagittal_t2",)


def _view_z_mm(sightings: list[SliceSighting]) -> tuple[float, float] | None:
    """Lowest and highest z in the middle of the images."""
    if not sightings:
        return None
    plane = sightings[len(sightings) // 2].plane
    rows, columns = plane.shape
    ends = plane.to_mm([[(columns - 1) / 2, 0], [(columns - 1) / 2, rows - 1]])[:, 2]
    return float(ends.min()), float(ends.max())
