"""What the training data and each step of the decoding give, for the sagittal T2 detector.

    python -m benchmarks.ablation_detector --external spider/ --runs runs/ablation -o benchmarks/results

Every row trains one network from scratch, shortly and equally long, and is decoded in several ways without
training anew. Finished rows are kept in ``--runs``; an interrupted one goes on from its checkpoint.
``--external`` is a folder of sagittal slices: ``images/``, ``masks/``, ``level_points.csv``, ``split.csv``.

Figures: share of canal points within 6 mm (in plane) of the annotated one at the right level,
- ``choosing``: external patients that trained nothing; what to compare rows by;
- ``report``: the report patients, as series;
- ``report_slices``: each of their labelled slices alone, as a series of one slice;
- ``all_slices``: every labelled slice of all external patients alone, for rows that trained on none of them;
- ``phantoms``: synthetic patients of choosing seeds, whole and cut views.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from rich.progress import track

from benchmarks.quality import external_slice_cases
from data_prep.base.manifest import write_manifest
from data_prep.geometry import FloatArray
from data_prep.phantom import make_study
from data_prep.study import Series
from data_prep.vocabulary import SeriesKind
from detector.config import PredictConfig
from detector.finder import SpineFinder, sagittal_series
from detector.learn.slices import AnnotatedStudy
from detector.learn.sources import SliceSources, external_cases, training_slices
from detector.learn.synthesis import NO_SYNTHESIS
from detector.learn.train import TrainConfig, train_detector
from detector.learn.views import AugmentConfig
from detector.look.inference import SlicePredictor
from detector.look.sightings import SliceSighting
from detector.predict import LevelDetector
from detector.spec import SAGITTAL, DetectorKind
from detector.spine.chain import ChainConfig, number_chain

matplotlib.use("Agg")
import matplotlib.pyplot as plt

MM_PER_PX = 0.47
NEAR_MM = 6.0
FIRST_CHOOSING_SEED = 130_000  # apart from those that calibrate the numbering

Canal = dict[str, FloatArray]


@dataclass(frozen=True)
class Row:
    """One training: which sources it draws from."""

    name: str
    external: bool
    phantoms: int
    synthesis: bool = False


ROWS = (
    Row("phantoms alone", external=False, phantoms=200),
    Row("SPIDER alone", external=True, phantoms=0),
    Row("both", external=True, phantoms=200),
    Row("both, label-map synthesis", external=True, phantoms=200, synthesis=True),
)


class RememberingFinder(SpineFinder):
    """Looks at each series once, however often it is decoded."""

    def __init__(self, predictor: SlicePredictor, config: PredictConfig) -> None:
        super().__init__(predictor, config)
        self._seen: dict[tuple[int, ...], list[list[SliceSighting]]] = {}

    def see(self, series: tuple[Series, ...]) -> list[list[SliceSighting]]:
        """As the parent; series must stay alive as long as the finder."""
        key = tuple(map(id, series))
        if key not in self._seen:
            self._seen[key] = super().see(series)
        return self._seen[key]


def single_maxima(finder: SpineFinder, series: tuple[Series, ...]) -> Canal:
    """Per level the object with the highest class score on any slice: no chain, no order."""
    found: dict[str, tuple[float, FloatArray]] = {}
    for sighting in finder.see(series[:1])[0]:
        for candidate in sighting.candidates:
            for name, score in zip(SAGITTAL.level_names, candidate.class_scores, strict=True):
                if score > found.get(name, (0.0,))[0]:
                    found[name] = (float(score), candidate.points_mm[-1])
    return {name: point for name, (_, point) in found.items()}


def counted_up(finder: SpineFinder, series: tuple[Series, ...]) -> Canal:
    """The chain along the spine, its lowest disc taken for L5/S1: WHERE without WHICH."""
    discs = finder.look(series[:1]).discs
    names = SAGITTAL.level_names[::-1]
    return {name: disc.canal_mm for name, disc in zip(names, discs[::-1], strict=False)}


def numbered(config: ChainConfig) -> Callable[[SpineFinder, tuple[Series, ...]], Canal]:
    """The chain with one offset, weighed as ``config`` says."""

    def decode(finder: SpineFinder, series: tuple[Series, ...]) -> Canal:
        sighting = finder.look(series[:1])
        if not sighting.discs:
            return {}
        chain = number_chain(sighting.discs, config, view_z_mm=sighting.view_z_mm)
        places = {position + chain.offset: disc for position, disc in enumerate(chain.discs)}
        return {name: places[i].canal_mm for i, name in enumerate(SAGITTAL.level_names) if i in places}

    return decode


_FREE = replace(ChainConfig(), well_formed_score=np.inf)
DECODINGS: dict[str, Callable[[SpineFinder, tuple[Series, ...]], Canal]] = {
    "single maxima": single_maxima,
    "chain, lowest disc is L5/S1": counted_up,
    "chain, offset by class scores": numbered(replace(_FREE, weights=(1.0, 0.0, 0.0, 0.0, 0.0))),
    "chain, offset by all terms": numbered(_FREE),
    "the same, last well-formed disc is L5/S1": numbered(ChainConfig()),
}


def trained(row: Row, external: Path, runs: Path, *, epochs: int, samples: int, jobs: int) -> Path:
    """The weights folder of a row, trained unless it is there."""
    folder = runs / row.name.replace(",", "").replace(" ", "-")
    if not (folder / f"{SAGITTAL.kind.value}.safetensors").is_file():
        wanted = SliceSources(
            external=external if row.external else None, external_mm_per_px=MM_PER_PX, phantoms=row.phantoms
        )
        sources, validation = training_slices(wanted, DetectorKind.SAGITTAL, jobs=jobs, cache=runs / "slices")
        config = TrainConfig(
            epochs=epochs,
            samples_per_epoch=samples,
            threads=1,
            augment=AugmentConfig() if row.synthesis else AugmentConfig(synthesis=NO_SYNTHESIS),
        )
        train_detector(config, sources, validation, folder, resume=True)
    write_manifest(folder)
    return folder


def share_right(finder: SpineFinder, cases: list[AnnotatedStudy], decoding: str) -> tuple[float, int]:
    """Share of canal points found at the right level, and how many there are."""
    hits = total = 0
    for study, points in cases:
        found = DECODINGS[decoding](finder, sagittal_series(study))
        for point in points:
            at = found.get(point.level.label)
            total += 1
            hits += at is not None and bool(np.linalg.norm((at - point.xyz_mm)[1:]) <= NEAR_MM)
    return hits / max(total, 1), total


def phantom_cases(count: int) -> list[AnnotatedStudy]:
    """Choosing phantoms, every second one in a cut view, with their canal points."""
    cases = []
    for seed in range(FIRST_CHOOSING_SEED, FIRST_CHOOSING_SEED + count):
        phantom = make_study(seed, view="cut" if seed % 2 else "whole", transitional="never")
        points = tuple(p for p in phantom.points if p.condition.series_kind is SeriesKind.SAGITTAL_T2)
        cases.append((phantom.study, points))
    return cases


def main() -> None:
    """Train what is missing, measure, write ``ablation_detector.csv`` and ``.png``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--external", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--samples-per-epoch", type=int, default=1200)
    parser.add_argument("--phantoms", type=int, default=30, help="choosing phantoms to decode")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", help="train this row alone and measure nothing")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/benchmarks"))
    arguments = parser.parse_args()
    chosen = [row for row in ROWS if arguments.only in (None, row.name)]
    folders = {
        row.name: trained(
            row,
            arguments.external,
            arguments.runs,
            epochs=arguments.epochs,
            samples=arguments.samples_per_epoch,
            jobs=arguments.jobs,
        )
        for row in chosen
    }
    if arguments.only is not None:
        return
    data: dict[str, list[AnnotatedStudy]] = {
        "choosing": external_cases(arguments.external, MM_PER_PX, "choosing"),
        "report": external_cases(arguments.external, MM_PER_PX, "report"),
        "report_slices": external_slice_cases(arguments.external, MM_PER_PX, "report"),
        "all_slices": external_slice_cases(arguments.external, MM_PER_PX, "all"),
        "phantoms": phantom_cases(arguments.phantoms),
    }
    records = []
    for row in ROWS:
        predictor = LevelDetector.load(folders[row.name], PredictConfig()).sagittal
        finder = RememberingFinder(predictor, PredictConfig())
        for decoding in track(DECODINGS, description=row.name):
            record: dict[str, object] = {"training": row.name, "decoding": decoding}
            for name, cases in data.items():
                if name == "all_slices" and row.external:
                    continue
                share, count = share_right(finder, cases, decoding)
                record |= {name: round(share, 4), f"n_{name}": count}
            records.append(record)
    table = pd.DataFrame(records)
    arguments.output.mkdir(parents=True, exist_ok=True)
    table.to_csv(arguments.output / "ablation_detector.csv", index=False)
    draw(table, arguments.output / "ablation_detector.png")
    print(table.to_string(index=False))


def draw(table: pd.DataFrame, path: Path) -> None:
    """Bars: one group per training, one bar per decoding, the choosing and the report patients."""
    shown = ("choosing", "report_slices", "phantoms")
    figure, axes = plt.subplots(len(shown), 1, figsize=(9, 8), sharex=True, layout="constrained")
    wide = table.pivot(index="training", columns="decoding").reindex([row.name for row in ROWS])
    for axis, name in zip(axes, shown, strict=True):
        wide[name][list(DECODINGS)].plot.bar(ax=axis, legend=False, width=0.8, rot=0, colormap="cividis")
        axis.set(
            ylabel=f"{name.replace('_', ' ')}\n(n {int(table[f'n_{name}'].max())})", ylim=(0, 1), xlabel=""
        )
        axis.grid(axis="y", alpha=0.3)
    axes[0].set_title("Canal points within 6 mm at the right level")
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2, fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
