"""Everything that shapes a training of both stages, in one frozen plan; presets for known machines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from classifier.config import GraderConfig, GraderName, default_config, merged
from data_prep.rsna.annotations import PointRules

STARTS = ("bundled", "scratch")
NOISE_RULES = ("off", "drop", "soften")


@dataclass(frozen=True)
class DetectorPlan:
    """The three detectors of a fold, and the second look at their points.

    Attributes:
        start: ``bundled``: begin with the weights that ship with the project; ``scratch``: at random.
        epochs, samples_per_epoch: passes, and random views per pass.
        batch_size_slices, initial_rate: of a step; the rate where the cosine begins.
        phantoms, phantom_weight: synthetic studies mixed in (they show the discs above L1/L2, which the RSNA
            data do not annotate), and their weight beside the data's 1.
        point_epochs: passes over the annotated canal and foramen points that the second look learns from;
            0: no second look. A few dozen studies are too few: it would move points for the worse.
        threads: CPU threads of a training.
    """

    start: str = "bundled"
    epochs: int = 8
    samples_per_epoch: int = 4000
    batch_size_slices: int = 16
    initial_rate: float = 1e-3
    phantoms: int = 80
    phantom_weight: float = 0.3
    point_epochs: int = 8
    threads: int = 4

    def __post_init__(self) -> None:
        if self.start not in STARTS:
            raise ValueError(f"detectors.start must be one of {', '.join(STARTS)}, but got {self.start!r}")


@dataclass(frozen=True)
class GraderPlan:
    """The graders of a fold: one per condition group, and one of the canal on axial slices.

    Attributes:
        start: as in DetectorPlan; with ``bundled`` the crop and the network are those of the bundled graders.
            What that bundle lacks (``spinal_axial``) starts at random.
        changes: to the graders' configuration, all graders, such as {"training": {"epochs": 20}}.
        changes_by_group: the same for single graders.
    """

    start: str = "scratch"
    changes: dict[str, Any] = field(default_factory=dict)
    changes_by_group: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.start not in STARTS:
            raise ValueError(f"graders.start must be one of {', '.join(STARTS)}, but got {self.start!r}")
        unknown = set(self.changes_by_group) - {name.value for name in GraderName}
        if unknown:
            raise ValueError(f"graders.changes_by_group has unknown graders: {', '.join(sorted(unknown))}")

    def config(self, name: GraderName, bundled: GraderConfig | None = None) -> GraderConfig:
        """The configuration of one grader. Raises ValueError for keys that do not exist."""
        base = default_config(name)
        if bundled is not None:
            base = replace(base, crop=bundled.crop, network=bundled.network)
        return merged(merged(base, self.changes), self.changes_by_group.get(name.value, {}))


@dataclass(frozen=True)
class CleaningPlan:
    """What is not learnt from, or less. Scores are always on ALL labels at the detectors' own points.

    Attributes:
        points: annotated points that cannot be where they say.
        far_points_mm: where an out-of-fold point lies farther from the annotated one, the crop to learn from
            is cut at the annotated point: the other would show another structure. 0 switches it off.
        noise: labels that the out-of-fold prediction strongly disagrees with: ``off``, ``drop`` or ``soften``
            them. Costs a second training of every grader.
        noise_below: strong disagreement: the label's out-of-fold probability is below this.
        soften_share: a softened label keeps 1 − this; the rest is the out-of-fold prediction.
    """

    points: PointRules = field(default_factory=PointRules)
    far_points_mm: float = 15.0
    noise: str = "off"
    noise_below: float = 0.05
    soften_share: float = 0.6

    def __post_init__(self) -> None:
        if self.noise not in NOISE_RULES:
            raise ValueError(
                f"cleaning.noise must be one of {', '.join(NOISE_RULES)}, but got {self.noise!r}"
            )


@dataclass(frozen=True)
class TrainPlan:
    """A training of both stages.

    Attributes:
        folds: by study; stratified by condition group and severity.
        seed: of the folds, the trainings and the intervals.
        choosing_slices: validation slices that a detector training looks at after each epoch, at most.
        resamples: draws of studies behind the intervals.
    """

    folds: int = 5
    seed: int = 0
    choosing_slices: int = 200
    resamples: int = 400
    detectors: DetectorPlan = field(default_factory=DetectorPlan)
    graders: GraderPlan = field(default_factory=GraderPlan)
    cleaning: CleaningPlan = field(default_factory=CleaningPlan)

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise ValueError(f"folds must be at least 2, but got {self.folds}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON holds them."""
        return asdict(self)


@dataclass(frozen=True)
class TrainSettings:
    """What is trained, from what, where.

    Attributes:
        data: folder in the RSNA layout.
        run: folder to write into; one that an interrupted training left is gone on with.
        plan: everything that shapes the result.
        cache: folder of decoded studies, which other runs may share; None: in the run.
        device: as in ``classifier.learn.devices``.
        processes: how many share the work on this machine; torchrun's number wins.
        workers: threads or processes that prepare batches ahead, per process.
        pretrained: file with weights of the graders' timm backbone.
    """

    data: Path
    run: Path
    plan: TrainPlan
    cache: Path | None
    device: str
    processes: int
    workers: int
    pretrained: Path | None


# The RSNA set of 1,975 studies on one GPU.
FULL = TrainPlan(
    graders=GraderPlan(
        changes={
            "training": {
                "epochs": 20,
                "batch_size_crops": 64,
                "any_severe_weight": 0.2,
                "threads": 4,
            }
        }
    ),
    cleaning=CleaningPlan(noise="soften"),
)
# 60 small studies on two cores.
LAPTOP = TrainPlan(
    choosing_slices=16,
    detectors=DetectorPlan(
        epochs=1,
        samples_per_epoch=96,
        batch_size_slices=8,
        initial_rate=2e-4,
        phantoms=0,
        point_epochs=0,
        threads=1,
    ),
    graders=GraderPlan(
        start="bundled",
        changes={
            "training": {"epochs": 3, "learning_rate": 5e-4, "batch_size_crops": 16, "ema_decay": 0.95},
        },
    ),
)
PRESETS = {"full": FULL, "laptop": LAPTOP}


def load_plan(preset: str, changes: Path | None, given: Mapping[str, Any]) -> TrainPlan:
    """A preset with the changes of a JSON file, then those of the command line.

    Raises:
        ValueError: no JSON object, an unknown key or a value that is not allowed.
    """
    plan = PRESETS[preset]
    if changes is not None:
        content = json.loads(changes.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("the file of changes must hold a JSON object")
        plan = merged(plan, content)
    return merged(plan, {name: value for name, value in given.items() if value is not None})
