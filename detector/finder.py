"""The spine in the sagittal series of a study: which of them show it, its discs in a chain, its bends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_prep.geometry import FloatArray, SlicePlane
from data_prep.levels import SpineLevel
from data_prep.study import Series, Slice, Study, from_middle_mm, places_mm
from data_prep.vocabulary import Level, SeriesKind
from detector.config import PredictConfig
from detector.look.candidates import DiscCandidate, merge_candidates
from detector.look.canonical import strip
from detector.look.inference import SlicePredictor
from detector.look.sightings import Part, SliceSighting, look_at
from detector.spine.aside import aside_by_level, beyond_mm, fading, leaning, outer_slices, seen_across
from detector.spine.chain import ChainDisc, NumberedChain, best_chain
from detector.spine.levels import straightened
from detector.spine.region import is_named_otherwise, lumbar_evidence, views_of
from detector.spine.voting import join_votes

# How far beside the middle of a series foramina lie.
_FORAMINA_MM = 8.0, 28.0
# Of 12 synthetic patients (seeds 208000 …) a view of the whole lumbar spine has 1.33 times the evidence and
# more of one that lacks a level; of two that both show it, 1.08 at most.
_CLEARLY_MORE = 1.2
# Coordinates are often written with two decimals.
_TIE_MM = 0.05
# Slices of 3-D acquisitions lie 0.5 to 1 mm apart: five of them would show one side of the canal.
_APART_MM = 3.0
_SAGITTAL = SeriesKind.SAGITTAL_T2, SeriesKind.SAGITTAL_T1


@dataclass(frozen=True, eq=False)
class Sighting:
    """What the sagittal series of a study show.

    Attributes:
        discs: the chain, head to foot; empty when nothing is seen.
        view_z_mm: lowest and highest z of the leading series' images.
        disagreeing: ids of series that show the spine elsewhere.
        looked_at: what each of the leading series' central slices shows.
    """

    discs: tuple[ChainDisc, ...]
    view_z_mm: tuple[float, float] | None
    disagreeing: tuple[str, ...]
    looked_at: tuple[SliceSighting, ...]


@dataclass(frozen=True, eq=False)
class LumbarView:
    """The sagittal series that show the lumbar spine best.

    Attributes:
        series: the leading one first.
        sighting: what they show.
        set_aside: ids of series that show other parts of the patient.
    """

    series: tuple[Series, ...]
    sighting: Sighting
    set_aside: tuple[str, ...]


class SpineFinder:
    """Finds the spine with the sagittal detector."""

    def __init__(self, predictor: SlicePredictor, config: PredictConfig) -> None:
        self.predictor, self.config = predictor, config

    def lumbar_view(self, study: Study) -> LumbarView | None:
        """The lumbar spine of a study; None without a sagittal series.

        Where they show several parts of the patient, a neck beside a lumbar spine or more of it, each view is
        looked at; another than the first one leads where it shows clearly more. A series that cannot be
        decoded, or is black, makes way for the others.
        """
        kinds = (SeriesKind.SAGITTAL_T2, SeriesKind.SAGITTAL_T1)
        sagittal = [item for kind in kinds for item in study.of_kind(kind)]
        shown = [item for item in sagittal if self._shows_something(item)] or sagittal
        views = views_of(shown)
        best, most = None, -1.0
        for view in views:
            series = deciding(view)
            seen = self.look(series)
            evidence = 0.0
            if len(views) > 1:
                own = best_chain(self._discs(list(seen.looked_at)), self.config.chain)
                evidence = lumbar_evidence(own) * (0.5 if is_named_otherwise(series) else 1.0)
            if best is None or evidence > _CLEARLY_MORE * most:
                aside = tuple(item.series_id for item in shown if item not in view)
                best, most = LumbarView(series, seen, aside), evidence
        return best

    def look(self, series: tuple[Series, ...]) -> Sighting:
        """The chain of discs seen in sagittal series of one study, not yet numbered; the first leads."""
        leading, *others = self.see(series)
        discs = self._discs(leading)
        disagreeing = []
        for item, seen in zip(series[1:], others, strict=True):
            discs, agrees = join_votes(discs, self._discs(seen), self.config.voting)
            if not agrees:
                disagreeing.append(item.series_id)
        across = series[0].normal
        chain = straightened(best_chain(discs, self.config.chain), across)
        if sum(disc.candidate.score for disc in chain if disc.candidate) < self.config.min_evidence:
            chain = ()
        return Sighting(chain, _view_z_mm(leading), tuple(disagreeing), tuple(leading))

    def see(self, series: tuple[Series, ...]) -> list[list[SliceSighting]]:
        """What the central slices of each series show, slice by slice.

        The leading series' middle slice is looked at as a whole, all others in a strip around the spine that
        it shows; where another series does not show it there, it is looked at in the same way by itself.
        """
        central = [(item, self._looked_at(item, series[0])) for item in series]
        seen = self._middle_and_beside(*central)
        for one, slices in central[1:]:
            middle = seen.get(id(slices[len(slices) // 2]))
            if middle is not None and _spine_mm(middle, self.config) is None:
                seen |= self._middle_and_beside((one, slices))
        return [[seen[id(item)] for item in slices if id(item) in seen] for _, slices in central]

    def _middle_and_beside(
        self, own: tuple[Series, list[Slice]], *others: tuple[Series, list[Slice]]
    ) -> dict[int, SliceSighting]:
        """The middle slice of a series as a whole; its neighbours and others' slices around what it shows."""
        series, slices = own
        middle = slices[len(slices) // 2]
        beside = [(one, item) for one, items in (own, *others) for item in items if item is not middle]
        later = [item for one, items in others for item in _wanted_later(one, items)]
        sightings = self._look_at([(series, middle)], ahead=[*(item for _, item in beside), *later])
        shown_mm = _spine_mm(sightings[0], self.config) if sightings else None

        def around_spine(_: Slice, grid: SlicePlane) -> SlicePlane:
            return grid if shown_mm is None else strip(grid, shown_mm, self.config.strip_mm)

        return {id(seen.item): seen for seen in (*sightings, *self._look_at(beside, around_spine))}

    def followed(
        self, chain: NumberedChain, levels: dict[Level, SpineLevel], view: LumbarView, *, has_axial: bool
    ) -> tuple[dict[Level, SpineLevel], bool, bool]:
        """The levels, followed across the slices where the spine leaves the central ones.

        They are moved where enough discs say so. Without axial slices smaller bends are looked for, too.

        Returns:
            The levels, whether the spine leaves the central slices, and whether discs seem to lie beyond all
            of them.
        """
        config, leading = self.config, view.series[0]
        central = central_slices(leading, config.central_slices, config.max_offset_mm)
        instances = [item.instance_number for item in central]
        faded = fading(chain, instances, leading.series_id, config.aside)
        if not levels:
            return levels, False, False
        stack = leading.main_stack
        spine_mm = np.stack([point for level in levels.values() for point in (level.disc_mm, level.canal_mm)])
        known = {id(seen.item): seen for seen in view.sighting.looked_at}

        def seen_on(slices: Sequence[Slice]) -> list[SliceSighting]:
            new = [(leading, item) for item in slices if id(item) not in known]
            found = self._look_at(new, lambda _, grid: strip(grid, spine_mm, config.strip_mm))
            known.update((id(seen.item), seen) for seen in found)
            return [known[id(item)] for item in slices if id(item) in known]

        if faded < config.aside.faded_discs:
            outer = [] if has_axial else seen_on(outer_slices(stack, config.aside))
            if len(outer) < 2 or leaning(levels, outer, config.aside) < config.aside.faded_discs:
                return levels, False, False
        seen = seen_across(stack, leading, levels, seen_on, config.aside)
        aside_mm = aside_by_level(levels, seen, config.aside) if seen else {}
        if max(map(abs, aside_mm.values()), default=0.0) < sum(config.crooked_mm) / 2:
            return levels, False, False
        leaves = beyond_mm(levels, seen, config.aside) >= config.aside.left_mm
        if faded < config.aside.moved_discs:
            return levels, True, leaves
        across = stack[0].plane.normal
        levels = {at: level.moved(aside_mm.get(at, 0.0) * across) for at, level in levels.items()}
        return levels, True, leaves

    def _looked_at(self, series: Series, leading: Series) -> list[Slice]:
        """The slices of a series that decide the levels: central ones.

        Of a leading T1 that has none, as where foramina alone were stored, those beside the canal.
        """
        config = self.config
        count = config.central_slices if series.kind is leading.kind else config.voting_slices
        central = central_slices(series, count, config.max_offset_mm)
        if (
            series is leading
            and series.kind is SeriesKind.SAGITTAL_T1
            and len(central) < config.central_slices
        ):
            return central_slices(series, config.beside_slices, config.beside_offset_mm)
        return central

    def _shows_something(self, series: Series) -> bool:
        """Whether one of the central slices shows something; the middle one is asked first."""
        central = central_slices(series, self.config.central_slices, self.config.max_offset_mm)
        middle = len(central) // 2
        return any(
            item.shows_something() for item in (central[middle], *central[:middle], *central[middle + 1 :])
        )

    def _discs(self, sightings: list[SliceSighting]) -> list[DiscCandidate]:
        found = [candidate for seen in sightings for candidate in seen.candidates]
        return merge_candidates(found, self.config.candidates, slices_seen=len(sightings))

    def _look_at(
        self, slices: list[tuple[Series, Slice]], part: Part | None = None, ahead: Sequence[Slice] = ()
    ) -> list[SliceSighting]:
        return look_at(slices, self.predictor, self.config.candidates, part, ahead)


def _wanted_later(series: Series, slices: Sequence[Slice]) -> list[Slice]:
    """Slices of a T1 beside ``slices``, on which foramina will be looked for."""
    if series.kind is not SeriesKind.SAGITTAL_T1:
        return []
    stack = series.main_stack
    known = {id(item) for item in slices}
    low, high = _FORAMINA_MM
    return [
        item
        for item, away_mm in zip(stack, np.abs(from_middle_mm(stack)), strict=True)
        if low <= away_mm <= high and id(item) not in known
    ]


def _spine_mm(seen: SliceSighting, config: PredictConfig) -> FloatArray | None:
    """Discs and canal (n, 3) mm where a slice shows enough of them to tell where the spine is."""
    shown = [item.points_mm for item in seen.candidates if item.score >= config.strip_score]
    return np.concatenate(shown) if len(shown) >= config.strip_discs else None


def _view_z_mm(sightings: list[SliceSighting]) -> tuple[float, float] | None:
    """Lowest and highest z in the middle of the images."""
    if not sightings:
        return None
    plane = sightings[len(sightings) // 2].plane
    rows, columns = plane.shape
    ends = plane.to_mm([[(columns - 1) / 2, 0], [(columns - 1) / 2, rows - 1]])[:, 2]
    return float(ends.min()), float(ends.max())


def central_slices(series: Series, count: int, max_offset_mm: float) -> list[Slice]:
    """Up to ``count`` slices of the largest stack around its middle, none farther than ``max_offset_mm``.

    Of a stack of thin slices every second or third one, and so on: neighbours show the same.
    """
    stack = series.main_stack
    away = np.abs(from_middle_mm(stack))
    # Of an even number, two lie equally near: the first of them, whatever rounding says.
    order = np.argsort(away + _TIE_MM * np.arange(len(stack)), kind="stable")
    gap_mm = float(np.median(np.abs(np.diff(places_mm(stack))))) if len(stack) > 1 else _APART_MM
    step = max(1, int(_APART_MM / max(gap_mm, _TIE_MM)))
    order = order[(order - order[0]) % step == 0]
    chosen = [int(i) for i in order[:count] if away[i] <= max_offset_mm]
    return [stack[i] for i in sorted(chosen or [int(order[0])])]


def sagittal_series(study: Study) -> tuple[Series, ...]:
    """The series that decide the levels, the leading one first."""
    return deciding([item for kind in _SAGITTAL for item in study.of_kind(kind)])


def deciding(series: Sequence[Series]) -> tuple[Series, ...]:
    """Those of some sagittal series, the best of each kind first, that decide the levels."""
    t2, t1 = ([item for item in series if item.kind is kind] for kind in _SAGITTAL)
    return (*t2[:2], *t1[:1]) if t2 else tuple(t1[:2])
