"""How often a wrong registration is flagged, how often a right one is, and what the look costs.

    python -m benchmarks.orientation --studies 100 --hard 60 [--external FOLDER]

Of every study the three middle slices of the leading sagittal series are seen, where they lie and at
coordinates that are off by half a turn about each axis. Prints one line per kind of study and registration,
or JSON. Thresholds were chosen on other seeds (152,000 and 162,000) and on the external training part, which
is what FOLDER gives.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from data_prep.base.manifest import DEFAULT_BUNDLE
from data_prep.phantom import make_study
from data_prep.study import Series, Slice, Study
from detector import BUNDLED_WEIGHTS
from detector.finder import central_slices, sagittal_series
from detector.learn.sources import external_cases
from detector.learn.study_slices import hard_phantom
from detector.predict import LevelDetector
from detector.spine.orientation import order_seen, orientation_is_doubtful
from pipeline.commands import console

FIRST_SEED, FIRST_HARD_SEED = 153_000, 153_500
EXTERNAL_MM_PER_PX = 0.47
SLICES = 3
# Signs of the coordinates (left, back, head).
REGISTRATIONS = {
    "right": (1, 1, 1),
    "prone for supine": (-1, -1, 1),
    "feet first for head first": (-1, 1, -1),
    "both": (1, -1, -1),
}


@dataclass(frozen=True)
class Looked:
    """One study at one registration.

    Attributes:
        turned_looked_at: whether the evidence was weak enough to look at the middle slice turned.
        milliseconds: of the processor, for the decision.
    """

    studies: str
    registration: str
    turned_looked_at: bool
    flagged: bool
    milliseconds: float


def registered(series: Series, signs: tuple[int, int, int]) -> Series:
    """The same pixels at turned coordinates."""
    turn = np.array(signs, dtype=np.float64)

    def moved(item: Slice) -> Slice:
        plane = item.plane
        return replace(
            item,
            plane=replace(
                plane,
                origin_mm=turn * plane.origin_mm,
                x_axis=turn * plane.x_axis,
                y_axis=turn * plane.y_axis,
            ),
        )

    return series.changed(moved)


def looked_at(detector: LevelDetector, study: Study, studies: str) -> Iterator[Looked]:
    """A study at every registration."""
    config = detector.config
    leading, *_ = sagittal_series(study)
    kept = central_slices(leading, SLICES, config.max_offset_mm)
    leading = replace(leading, stacks=(tuple(kept),))
    for name, signs in REGISTRATIONS.items():
        series = registered(leading, signs)
        chain = detector.finder.look((series,)).discs
        (middle,) = central_slices(series, 1, config.max_offset_mm)
        start = time.process_time()
        flagged = orientation_is_doubtful(
            chain, middle, detector.sagittal, config.orientation, config.candidates, config.chain
        )
        spent = (time.process_time() - start) * 1000
        own = config.orientation
        sure = bool(chain) and order_seen(chain, own) >= own.sure_order
        yield Looked(studies, name, not sure, flagged, spent)


def measured(detector: LevelDetector, studies: int, hard: int, external: Path | None) -> Iterator[Looked]:
    """Usual and hard synthetic patients, and the training part of an external folder."""
    for seed in range(FIRST_SEED, FIRST_SEED + studies):
        yield from looked_at(detector, make_study(seed).study, "synthetic")
    for seed in range(FIRST_HARD_SEED, FIRST_HARD_SEED + hard):
        yield from looked_at(detector, hard_phantom(seed).study, "synthetic, hard")
    if external is not None:
        for study, _ in external_cases(external, EXTERNAL_MM_PER_PX, "train"):
            yield from looked_at(detector, study, external.name)


def summary(found: list[Looked]) -> list[dict[str, object]]:
    """Shares and mean cost per kind of study and registration."""
    lines: list[dict[str, object]] = []
    for key in dict.fromkeys((item.studies, item.registration) for item in found):
        own = [asdict(item) for item in found if (item.studies, item.registration) == key]
        means = {
            name: float(np.mean([item[name] for item in own]))
            for name in ("turned_looked_at", "flagged", "milliseconds")
        }
        lines.append({"studies": key[0], "registration": key[1], "n": len(own), **means})
    return lines


def main() -> None:
    """Parse, look, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=100, help=f"synthetic patients from {FIRST_SEED}")
    parser.add_argument("--hard", type=int, default=60, help=f"hard ones from {FIRST_HARD_SEED}")
    parser.add_argument("--external", type=Path, help="folder of external slices with its split.csv")
    parser.add_argument(
        "--weights", type=Path, default=BUNDLED_WEIGHTS[DEFAULT_BUNDLE], help="folder of detectors"
    )
    parser.add_argument("--json", action="store_true", help="the figures on stdout as JSON")
    arguments = parser.parse_args()
    detector = LevelDetector.load(arguments.weights, threads=1)
    lines = summary(list(measured(detector, arguments.studies, arguments.hard, arguments.external)))
    if arguments.json:
        console.print_json(lines)
        return
    for line in lines:
        print(
            f"{line['studies']}, {line['registration']}: {line['n']} studies, "
            f"{line['flagged']:.1%} flagged, {line['turned_looked_at']:.1%} looked at turned, "
            f"{line['milliseconds']:.1f} ms"
        )


if __name__ == "__main__":
    main()
