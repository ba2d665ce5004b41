"""What each part of a grader gives: one condition group, one short training per row, all else the same.

    python -m benchmarks.ablation_graders --group subarticular --work runs/ablation

Trained on synthetic patients of training seeds, judged on others of choosing seeds (never on reporting ones),
at points with the localiser's error. Calibrated on one half of those, judged on the other, and the reverse.
An interrupted run goes on where it was. Writes ``ablation_{group}.csv`` and ``.png``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.progress import track

from classifier.calibration import fit_calibration
from classifier.config import GraderConfig, GraderName, default_config, merged
from classifier.grade import SEVERITY_WEIGHTS
from classifier.judge.rows import StudyDraws, ratio, value_and_interval
from classifier.learn.crop_cache import CropCache, build_cache, load_cache
from classifier.learn.sources import phantom_sources
from classifier.learn.train import grade_cache, train_grader
from classifier.prior import competition_weighted
from data_prep.base.csv_files import write_table
from data_prep.base.files import atomic_write, write_json
from data_prep.vocabulary import SeriesKind, Side, split_row_id

FIRST_TRAINING_SEED, FIRST_CHOOSING_SEED = 20_000, 120_000
DRAWS = 3
RESAMPLES = 400
COLUMNS = (
    "row",
    "loss",
    "low",
    "high",
    "saved",
    "saved_low",
    "saved_high",
    "reached",
    "prior",
    "oracle",
    "seconds",
)
_NO_LOCALISER_ERROR = {
    "shift_sd_mm": 0.0,
    "shift_tail_share": 0.0,
    "slice_shift_1_share": 0.0,
    "slice_shift_2_share": 0.0,
}


@dataclass(frozen=True)
class Row:
    """One training.

    Attributes:
        name: as in the table.
        changes: to the configuration of the baseline.
        mirrored: whether right sides are shown as left ones.
        pretrained: weights of the backbone.
    """

    name: str
    changes: Mapping[str, Any]
    mirrored: bool = True
    pretrained: Path | None = None


def rows_of(group: GraderName, pretrained: Path | None, backbone: str) -> list[Row]:
    """The rows that make sense for a group; pretrained ones when weights are at hand."""
    rows = [
        Row("baseline", {}),
        Row("no jitter", {"jitter": _NO_LOCALISER_ERROR}),
        Row("no mirroring", {}, mirrored=False),
        Row("mean pooling", {"network": {"pooling": "mean"}}),
        Row("any-severe term", {"training": {"any_severe_weight": 0.3}}),
    ]
    if pretrained is not None:
        changes = {"network": {"backbone": backbone}}
        rows += [Row(f"{backbone}, from scratch", changes), Row("pretrained", changes, pretrained=pretrained)]
    without = {"no mirroring"} if group is GraderName.SPINAL else {"any-severe term"}
    return [row for row in rows if row.name not in without]


def crops_of(
    work: Path, name: str, group: GraderName, studies: int, seed: int, *, enriched: bool
) -> CropCache:
    """Crops of the default configuration; cut once."""
    crop = default_config(group).crop
    folder = work / f"crops-{name}-{group.value}"
    sources = phantom_sources(studies, seed, enriched=enriched)
    cut = build_cache(sources, folder, {group: crop}, natural_grades=not enriched)
    for _ in track(cut, description=f"cutting crops: {name}", total=studies):
        pass
    return load_cache(folder, group, crop)


def seen_by(cache: CropCache, *, mirrored: bool) -> CropCache:
    """The crops as a row's grader gets them."""
    if mirrored:
        return cache
    targets = [split_row_id(str(row_id))[1] for row_id in cache.row_ids]
    right = np.array([target.condition.side is Side.RIGHT for target in targets])
    crops, valid = cache.crops.copy(), cache.valid.copy()
    if targets[0].condition.series_kind is SeriesKind.AXIAL_T2:
        crops[right] = crops[right][..., ::-1]
    else:  # a mirror swaps the order of sagittal slices
        crops[right], valid[right] = crops[right][:, ::-1], valid[right][:, ::-1]
    return replace(cache, crops=crops, valid=valid)


def judged(
    row: Row, baseline: GraderConfig, train: CropCache, choosing: CropCache, work: Path
) -> tuple[NDArray[np.float64], float]:
    """p (DRAWS, n, 3) of the choosing crops under draws of the localiser's error, and the seconds it took."""
    config = merged(baseline, row.changes)
    key = hashlib.sha256(
        json.dumps([row.name, config.to_dict(), len(train), len(choosing)], sort_keys=True).encode()
    ).hexdigest()[:12]
    folder = work / "rows" / key
    done = folder / "p.npz"
    if done.exists():
        with np.load(done) as stored:
            return stored["p"], float(stored["seconds"])
    mine, unseen = (seen_by(cache, mirrored=row.mirrored) for cache in (train, choosing))
    reports: list[Any] = []
    network = train_grader(config, mine, None, folder, report=reports.append, pretrained=row.pretrained)
    described = json.loads((folder / f"{config.group.value}.json").read_text())
    seconds = sum(epoch["seconds"] for epoch in described["metrics"]["epochs"])
    # Judged with the error that the localiser has, also where training had none.
    judging = replace(config, jitter=baseline.jitter)
    logits = [grade_cache(network, unseen, judging, jitter_seed=seed) for seed in range(DRAWS)]
    p = _calibrated(np.stack(logits), unseen)
    with atomic_write(done, binary=True) as stream:
        np.savez(stream, p=p, seconds=seconds)
    return p, seconds


def _calibrated(logits: NDArray[np.float64], cache: CropCache) -> NDArray[np.float64]:
    """p (DRAWS, n, 3); every half of the studies with the calibration of the other."""
    number = np.unique(cache.study_ids, return_inverse=True)[1].reshape(-1)
    log_prior, truth = cache.log_prior.astype(np.float64), cache.truth.astype(np.float64)
    p = np.empty_like(logits)
    for half in (0, 1):
        mine = number % 2 == half
        other = (np.concatenate([draw[~mine] for draw in logits]), np.tile(log_prior[~mine], (DRAWS, 1)))
        fitted = fit_calibration(*other, np.tile(truth[~mine], (DRAWS, 1)))
        for draw in range(DRAWS):
            p[draw, mine] = fitted.probabilities(logits[draw, mine], log_prior[mine])
    return p


def losses(p: NDArray[np.float64], cache: CropCache, draws: StudyDraws) -> NDArray[np.float64]:
    """The metric's expected log loss in the data (first) and in every resample of studies."""
    weighted = cache.truth.astype(np.float64) * SEVERITY_WEIGHTS
    cost = -(weighted * np.log(np.clip(competition_weighted(p), 1e-12, 1.0))).sum(axis=-1)
    study = np.unique(cache.study_ids, return_inverse=True)[1].reshape(-1).astype(np.int64)
    cost = cost.mean(axis=0) if cost.ndim == 2 else cost
    sums = draws.sums(study, np.stack([cost, weighted.sum(axis=1)], axis=1))
    return ratio(sums[:, 0], sums[:, 1])


def table_row(
    name: str,
    ours: NDArray[np.float64],
    baseline: NDArray[np.float64],
    bounds: tuple[float, float],
    seconds: float,
) -> dict[str, Any]:
    """A line of the CSV: the loss, and what is saved against the baseline on the same studies."""
    loss, interval = value_and_interval(ours)
    saved, saved_interval = value_and_interval(baseline - ours)
    assert loss is not None and interval is not None and saved is not None and saved_interval is not None
    prior, oracle = bounds
    values = (loss, *interval, saved, *saved_interval, (prior - loss) / (prior - oracle), prior, oracle)
    return dict(zip(COLUMNS, (name, *(round(value, 4) for value in values), round(seconds, 1)), strict=True))


def write_results(rows: list[dict[str, Any]], group: GraderName, out: Path) -> None:
    """The CSV and the plot of the rows so far."""
    write_table(out / f"ablation_{group.value}.csv", COLUMNS, rows)
    figure = Figure(figsize=(7.5, 1.2 + 0.38 * len(rows)), dpi=110, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    names, saved = [row["row"] for row in rows], np.array([row["saved"] for row in rows])
    low, high = (np.array([row[key] for row in rows]) for key in ("saved_low", "saved_high"))
    axes.barh(names, saved, color=["#0072B2" if value >= 0 else "#D55E00" for value in saved], alpha=0.75)
    axes.errorbar(saved, names, xerr=[saved - low, high - saved], fmt="none", color="black", capsize=3)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.invert_yaxis()
    axes.set_xlabel("log loss saved against the baseline (95 % over studies); right is better")
    axes.set_title(f"{group.value}: baseline {rows[0]['loss']:.3f}, level prior {rows[0]['prior']:.3f}, "
                   f"best possible {rows[0]['oracle']:.3f}", fontsize=10)  # fmt: skip
    with atomic_write(out / f"ablation_{group.value}.png", binary=True) as picture:
        figure.savefig(picture, format="png", metadata={"Software": None})


def run(
    group: GraderName,
    work: Path,
    out: Path,
    *,
    studies: int,
    judging_studies: int,
    changes: Mapping[str, Any],
    pretrained: Path | None = None,
    backbone: str = "tf_efficientnet_lite0",
    only: frozenset[str] = frozenset(),
) -> list[dict[str, Any]]:
    """Every row in turn; results are written after each."""
    baseline = merged(default_config(group), changes)
    train = crops_of(work, "train", group, studies, FIRST_TRAINING_SEED, enriched=True)
    choosing = crops_of(work, "choosing", group, judging_studies, FIRST_CHOOSING_SEED, enriched=False)
    draws = StudyDraws.make(len(set(choosing.study_ids.tolist())), resamples=RESAMPLES)
    truth = choosing.truth.astype(np.float64)
    prior = losses(np.exp(choosing.log_prior.astype(np.float64)), choosing, draws)
    oracle = losses(truth, choosing, draws)
    bounds = (float(prior[0]), float(oracle[0]))
    rows: list[dict[str, Any]] = []
    first: NDArray[np.float64] | None = None
    for row in rows_of(group, pretrained, backbone):
        if only and row.name not in only | {"baseline"}:
            continue
        p, seconds = judged(row, baseline, train, choosing, work)
        ours = losses(p, choosing, draws)
        first = ours if first is None else first
        rows.append(table_row(row.name, ours, first, bounds, seconds))
        print(json.dumps(rows[-1]), flush=True)
        write_results(rows, group, out)
    settings = {"studies": studies, "judging_studies": judging_studies, "config": baseline.to_dict()}
    write_json(out / f"ablation_{group.value}.json", settings, indent=1)
    return rows


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--group", type=GraderName, default=GraderName.SUBARTICULAR)
    parser.add_argument("--work", type=Path, default=Path("runs/ablation"))
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("--phantoms", type=int, default=240, help="studies to train on")
    parser.add_argument("--judging", type=int, default=150, help="studies to judge on")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--pretrained", type=Path, help="weights of the timm backbone, a local file")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument(
        "--only", action="append", default=[], help="this row beside the baseline; repeatable"
    )
    arguments = parser.parse_args()
    run(
        arguments.group,
        arguments.work,
        arguments.output,
        studies=arguments.phantoms,
        judging_studies=arguments.judging,
        changes={"training": {"epochs": arguments.epochs}},
        pretrained=arguments.pretrained,
        backbone=arguments.backbone,
        only=frozenset(arguments.only),
    )


if __name__ == "__main__":
    main()
