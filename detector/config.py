"""What shapes the detection of levels: what is looked at and what is believed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from data_prep.base.manifest import read_verified
from detector.look.candidates import CandidateConfig
from detector.spine.agreement import AgreementConfig
from detector.spine.aside import AsideConfig
from detector.spine.axial import AxialConfig
from detector.spine.bows import BowConfig
from detector.spine.chain import ChainConfig
from detector.spine.foramina import ForamenConfig
from detector.spine.in_plane import InPlaneConfig
from detector.spine.orientation import OrientationConfig
from detector.spine.region import RegionConfig
from detector.spine.voting import VotingConfig
from detector.spine.ways_round import CrossingConfig

NUMBERING_FILE = "numbering.json"  # weights of the numbering, fitted by `lumbar detector calibrate`


@dataclass(frozen=True)
class PredictConfig:
    """What is looked at and what is believed.

    Attributes:
        central_slices: sagittal slices looked at, around the middle of the leading series
            and of another one of its kind.
        voting_slices: the same for a T1 that votes beside a T2.
        max_offset_mm: of those, none farther than this from the middle.
        beside_slices, beside_offset_mm: the same for a T1 that leads and has few central slices.
        strip_mm: how far before and behind the spine these slices are looked at.
        strip_discs, strip_score: the middle slice must show as many discs with this score to say where the
            spine is; else its neighbours are looked at as a whole, too.
        uncertain_below: numbering confidence under which ``numbering_uncertain`` is flagged; it also is where
            the images are noisy or their orientation is doubtful.
        crooked_mm: canal points follow the axial slices sideways from the first of these on, and wholly from
            the second one; midway between them a spine is said to leave the central slices.
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
    voting_slices: int = 3
    max_offset_mm: float = 18.0
    beside_slices: int = 8
    beside_offset_mm: float = 32.0
    strip_mm: float = 28.0
    strip_discs: int = 3
    strip_score: float = 0.3
    uncertain_below: float = 0.8
    crooked_mm: tuple[float, float] = (5.0, 9.0)
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
    region: RegionConfig = field(default_factory=RegionConfig)
    agreement: AgreementConfig = field(default_factory=AgreementConfig)
    crossings: CrossingConfig = field(default_factory=CrossingConfig)
    in_plane: InPlaneConfig = field(default_factory=InPlaneConfig)
    aside: AsideConfig = field(default_factory=AsideConfig)
    bows: BowConfig = field(default_factory=BowConfig)


def read_config(folder: Path) -> PredictConfig:
    """The configuration of a folder of detectors: what was fitted for them. Raises WeightsRejected."""
    if not (folder / NUMBERING_FILE).is_file():
        return PredictConfig()
    fitted = json.loads(read_verified(folder, NUMBERING_FILE))
    return PredictConfig(
        chain=ChainConfig(weights=tuple(fitted["weights"]), sureness=float(fitted.get("sureness", 1.0))),
        uncertain_below=float(fitted.get("uncertain_below", PredictConfig.uncertain_below)),
    )
