"""Everything that shapes a grader, in one frozen configuration that is saved beside its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from enum import StrEnum
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from data_prep.vocabulary import Condition, ConditionGroup, SeriesKind

POOLINGS = ("attention", "mean")
SLICES_AS = ("images", "channels")


class GraderName(StrEnum):
    """The graders of a bundle, by the stem of their weights files: one per condition group, and one more.

    ``spinal_axial`` grades the canal on axial slices. A bundle may lack it; where both see a level, their
    evidence is joined.
    """

    SPINAL = "spinal"
    FORAMINAL = "foraminal"
    SUBARTICULAR = "subarticular"
    SPINAL_AXIAL = "spinal_axial"

    @property
    def group(self) -> ConditionGroup:
        """What it grades."""
        return ConditionGroup.SPINAL if self is GraderName.SPINAL_AXIAL else ConditionGroup(self.value)

    @property
    def series_kind(self) -> SeriesKind:
        """What it looks at."""
        if self is GraderName.SPINAL_AXIAL:
            return SeriesKind.AXIAL_T2
        return next(item.series_kind for item in Condition if item.group is self.group)


# Every bundle has these, one for each condition group.
GROUP_GRADERS = (GraderName.SPINAL, GraderName.FORAMINAL, GraderName.SUBARTICULAR)


@dataclass(frozen=True)
class CropConfig:
    """How the crop of one target is cut.

    Attributes:
        size_mm: side of the square crop.
        size_px: pixels along a side.
        slices: slices in the crop, odd.
        slice_step_mm: stacks with a smaller gap are thinned out to about this step.
        margin_px: cached training crops are larger by this much on every side, to jitter in.
        margin_slices: and by this many slices at both ends.
        resolution_mm: finer images are smoothed to this pixel size, so that one grader serves slices that
            were stored coarsely and full series alike; None leaves them as they are.
        seen_height_mm: what lies farther above or below the point than half of this is black; None shows all.
    """

    size_mm: float = 48.0
    size_px: int = 96
    slices: int = 5
    slice_step_mm: float = 4.0
    margin_px: int = 16
    margin_slices: int = 2
    resolution_mm: float | None = None
    seen_height_mm: float | None = None

    @property
    def step_mm(self) -> float:
        """Millimetres per pixel."""
        return self.size_mm / self.size_px

    @property
    def cached_size_px(self) -> int:
        return self.size_px + 2 * self.margin_px

    @property
    def cached_size_mm(self) -> float:
        return self.cached_size_px * self.step_mm

    @property
    def cached_slices(self) -> int:
        return self.slices + 2 * self.margin_slices


@dataclass(frozen=True)
class NetworkConfig:
    """The network of one grader.

    Attributes:
        backbone: ``compact_resnet``, or a timm model that takes ``features_only``.
        backbone_stage: which feature map of a timm backbone is pooled (stride 2, 4, 8, 16, 32).
        backbone_channels: channels of the compact_resnet after its stem and each of its blocks.
        attention_heads: independent attention maps over positions and slices.
        level_channels: size of the level embedding.
        hidden_channels: width of the head's hidden layer.
        dropout: share of pooled features dropped in training.
        pooling: ``attention``, or ``mean`` over slices and positions (for comparison).
        slices_as: ``images``: the backbone looks at each slice, and the pooling joins them; ``channels``: at
            all slices at once as the colours of one image, where a slice that does not exist repeats the
            middle one.

    Raises:
        ValueError: an unknown pooling or use of slices.
    """

    backbone: str = "compact_resnet"
    backbone_stage: int = 3
    backbone_channels: tuple[int, ...] = (16, 32, 64, 128)
    attention_heads: int = 4
    level_channels: int = 16
    hidden_channels: int = 128
    dropout: float = 0.2
    pooling: str = "attention"
    slices_as: str = "images"

    def __post_init__(self) -> None:
        if self.slices_as not in SLICES_AS:
            raise ValueError(f"slices_as must be one of {', '.join(SLICES_AS)}, but got {self.slices_as!r}")
        if self.pooling not in POOLINGS:
            raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}, but got {self.pooling!r}")


@dataclass(frozen=True)
class JitterConfig:
    """Random changes of training crops: the localiser's error, and scanners and patients not yet seen.

    Attributes:
        shift_sd_mm: in-plane error of the localiser, per axis.
        shift_tail_share, shift_tail_sd_mm: share of crops with the larger error of a missed structure.
        slice_shift_1_share, slice_shift_2_share: share of crops cut 1 (2) slices beside, both sides together.
        rotation_deg, scale: uniform within ± this (scale: fraction).
        gamma: log of the exponent is uniform within ± log(this).
        brightness_slope: bias across the crop, as a fraction of white, uniform within ± this.
        blur_share, blur_sd_px: share of blurred crops and the largest Gaussian width.
        noise_sd: largest standard deviation of added noise, as a fraction of white.
        slice_drop_share: share of crops that lose one slice beside the middle.
        alone_share: share of crops that lose all slices beside the middle.
        mirror_share: share of crops whose left and right columns are exchanged, where both sides are alike.
    """

    shift_sd_mm: float = 2.5
    shift_tail_share: float = 0.1
    shift_tail_sd_mm: float = 5.0
    slice_shift_1_share: float = 0.35
    slice_shift_2_share: float = 0.05
    rotation_deg: float = 10.0
    scale: float = 0.1
    gamma: float = 1.5
    brightness_slope: float = 0.2
    blur_share: float = 0.3
    blur_sd_px: float = 1.2
    noise_sd: float = 0.06
    slice_drop_share: float = 0.05
    alone_share: float = 0.0
    mirror_share: float = 0.0


@dataclass(frozen=True)
class TrainingConfig:
    """The training loop.

    Attributes:
        epochs, batch_size_crops: passes over the cache, crops per step.
        learning_rate, weight_decay: of AdamW; the rate rises during ``warmup_share`` of all steps, then
            falls along a cosine to a hundredth.
        severity_weights: loss weights of Normal/Mild, Moderate, Severe. With the metric's 1, 2, 4 the
            softmax estimates q ∝ weights·p; calibration divides them out again.
        ema_decay: of the running mean of the weights that is kept in the end.
        gradient_norm: gradients are clipped to this norm.
        seed: of the initial weights, the order and the jitter.
        threads: of torch.
        bfloat16: mixed precision: convolutions in bfloat16, on GPUs without it in float16.
        any_severe_weight: weight of the metric's any-severe term in the loss of the canal grader; batches
            then hold whole studies.
        blend: half of the crops are blended with another one, up to this share of it, and so are the grades.
            (Zhang et al., "mixup", ICLR 2018.)
        teaching: where teachers graded a crop that they had not learned from, this share of its grade is
            theirs, the rest the reader's; see ``classifier.learn.teachers``.

    Raises:
        ValueError: a negative weight, or a share that is not within 0 and 1.
    """

    epochs: int = 12
    batch_size_crops: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    warmup_share: float = 0.1
    severity_weights: tuple[float, float, float] = (1.0, 2.0, 4.0)
    ema_decay: float = 0.99
    gradient_norm: float = 5.0
    seed: int = 0
    threads: int = 1
    bfloat16: bool = True
    any_severe_weight: float = 0.0
    blend: float = 0.0
    teaching: float = 0.0

    def __post_init__(self) -> None:
        if self.any_severe_weight < 0:
            raise ValueError(f"any_severe_weight must not be below 0, but got {self.any_severe_weight}")
        for name in ("blend", "teaching"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be from 0 to 1, but got {getattr(self, name)}")


@dataclass(frozen=True)
class GraderConfig:
    """One grader: what it grades, its crop, network, jitter and training."""

    name: GraderName
    crop: CropConfig = field(default_factory=CropConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    jitter: JitterConfig = field(default_factory=JitterConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    @property
    def group(self) -> ConditionGroup:
        """The condition group that it grades."""
        return self.name.group

    @property
    def needs_whole_studies(self) -> bool:
        """Whether a batch must hold all levels of a study (and side) together."""
        return self.any_severe_weight > 0

    @property
    def any_severe_weight(self) -> float:
        """Weight of the any-severe term; the metric has it for the canal alone."""
        return self.training.any_severe_weight if self.group is ConditionGroup.SPINAL else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON holds them."""
        values = asdict(self)
        return {"group": values.pop("name").value, **values}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> GraderConfig:
        """Read ``to_dict``'s form; parts may be left out, ``group`` may not.

        Raises:
            ValueError: a key that does not exist, at any depth; named with its place.
        """
        if "group" not in values:
            raise ValueError("a grader's configuration needs the key 'group'")
        name = GraderName(values["group"])
        return merged(default_config(name), {k: v for k, v in values.items() if k != "group"})


# A canal crop shows a level from pedicle to pedicle; foramen and recess crops one structure and its walls.
_CROP_SIZE_MM = {
    GraderName.SPINAL: 54.0,
    GraderName.FORAMINAL: 44.0,
    GraderName.SUBARTICULAR: 44.0,
    GraderName.SPINAL_AXIAL: 44.0,
}


def default_config(name: GraderName) -> GraderConfig:
    """The configuration that a grader starts from; ``classifier/recipes`` holds those of the bundles."""
    jitter = JitterConfig(mirror_share=0.5) if name is GraderName.SPINAL_AXIAL else JitterConfig()
    return GraderConfig(name=name, crop=CropConfig(size_mm=_CROP_SIZE_MM[name]), jitter=jitter)


_Config = TypeVar("_Config")


def _plain(kind: Any, value: Any) -> Any:
    """A plain value of the kind that a field declares; None where the field allows it."""
    options = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    if value is None and type(None) in options:
        return None
    return (get_origin(options[0]) or options[0])(value)


def merged(base: _Config, values: Mapping[str, Any], place: str = "") -> _Config:
    """``base`` with ``values`` put in, nested configurations merged key by key.

    Raises:
        ValueError: a key that does not exist, at any depth; named with its place.
    """
    assert is_dataclass(base) and not isinstance(base, type)
    known = {item.name for item in fields(base)}
    unknown = sorted(set(values) - known)
    if unknown:
        named = ", ".join(repr(place + key) for key in unknown)
        raise ValueError(f"unknown configuration key {named}; known here: {', '.join(sorted(known))}")
    hints = get_type_hints(type(base))
    found: dict[str, Any] = {}
    for name in known:
        current = getattr(base, name)
        if name not in values:
            found[name] = current
        elif is_dataclass(current):
            found[name] = merged(current, values[name], f"{place}{name}.")
        elif isinstance(current, tuple):
            found[name] = tuple(values[name])
        else:
            found[name] = _plain(hints[name], values[name])
    return type(base)(**found)
