"""Cached training crops: cut once, jittered again and again.

A cache is a folder with one ``.npz`` per study and a ``cache.json`` that says how it was cut. A build that
was interrupted goes on where it stopped. Right sides are mirrored onto the left when they are cut.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from classifier.config import CropConfig, GraderName
from classifier.prior import level_prior
from classifier.target_crops import grader_point, target_crop
from data_prep.base.files import atomic_write, write_json
from data_prep.base.rows import Rows
from data_prep.base.workers import in_order
from data_prep.levels import LevelPoint, SpineLevels
from data_prep.names import safe_id
from data_prep.pixel_cache import PixelCache
from data_prep.problems import DicomRejected, LumbarError, Rejection
from data_prep.study import Study
from data_prep.vocabulary import LEVELS, SEVERITIES, Target, split_row_id

CropConfigs = Mapping[GraderName, CropConfig]
Truth = Mapping[Target, NDArray[np.float64]]

_CACHE_FILE = "cache.json"
_MADE_OF = "made_of"


NOT_CUT_FOR = (
    "crop cache '{folder}' was not cut for this {grader} configuration: "
    "cut it into another folder with the same --config"
)


class NoCrops(LumbarError, ValueError):
    """A crop cache without a crop of a grader, as of a data set that lacks its series."""


class CropsUnusable(LumbarError, ValueError):
    """A file of a crop cache is broken, or of a cache for other graders. The message names it."""


@dataclass(frozen=True, eq=False)
class LabelledStudy:
    """A study with the points and grades to learn from.

    Attributes:
        study: its images.
        points: at most one per target.
        truth: (3,) probability of each severity per target; one-hot where only a reader's label is known.
        labels: severity index per target, as a reader gave it.
        problems: of annotated points that are left out, see ``annotated_points``.
    """

    study: Study
    points: tuple[LevelPoint, ...]
    truth: Truth
    labels: Mapping[Target, int]
    problems: tuple[str, ...] = ()

    @classmethod
    def of_labels(
        cls,
        study: Study,
        points: tuple[LevelPoint, ...],
        labels: Mapping[Target, int],
        problems: tuple[str, ...] = (),
    ) -> LabelledStudy:
        """A study of which only a reader's labels are known."""
        one_hot = np.eye(len(SEVERITIES))
        truth = {target: one_hot[index] for target, index in labels.items()}
        return cls(study, points, truth, labels, problems)


class Source(NamedTuple):
    """Where one study comes from.

    Attributes:
        name: of its file in a cache.
        load: loads it, or raises DicomRejected.
        made_of: digest of everything that its crops depend on beside how they are cut; "" is not compared.
    """

    name: str
    load: Callable[[], LabelledStudy]
    made_of: str = ""


class Cut(NamedTuple):
    """A study that was cut.

    Attributes:
        name: of its file in the cache.
        rejections: what of its images cannot be used.
        problems: of annotated points that are left out, see ``annotated_points``.
        is_anew: whether the cache held it, made of something else.
    """

    name: str
    rejections: tuple[Rejection, ...]
    problems: tuple[str, ...] = ()
    is_anew: bool = False


@dataclass(frozen=True, eq=False)
class CropCache(Rows):
    """The crops of one condition group, all studies together.

    Attributes:
        crops: uint8 (n, cached_slices, cached_size_px, cached_size_px).
        valid: bool (n, cached_slices).
        level: int64 (n,) 0 for L1/L2 … 4 for L5/S1.
        truth: float32 (n, 3) probability of each severity: what is learnt.
        label: int64 (n,) severity index as a reader gave it: what is scored.
        log_prior: float32 (n, 3) log share of each severity at that level in this data.
        row_ids: (n,) ``{study_id}_{condition}_{level}``.
    """

    crops: NDArray[np.uint8]
    valid: NDArray[np.bool_]
    level: NDArray[np.int64]
    truth: NDArray[np.float32]
    label: NDArray[np.int64]
    log_prior: NDArray[np.float32]
    row_ids: NDArray[np.str_]

    @cached_property
    def study_ids(self) -> NDArray[np.str_]:
        """(n,) the study of every crop."""
        return np.array([split_row_id(str(row_id))[0] for row_id in self.row_ids], dtype=np.str_)

    @cached_property
    def sequence(self) -> NDArray[np.int64]:
        """(n,) crops of one study and side share a number: together they are the levels of one spine."""
        names = [
            f"{study_id} {target.condition.value}"
            for study_id, target in (split_row_id(str(row_id)) for row_id in self.row_ids)
        ]
        return np.unique(names, return_inverse=True)[1].astype(np.int64).reshape(-1)


def cut_study(item: LabelledStudy, configs: CropConfigs) -> dict[str, NDArray[Any]]:
    """All crops of one study, as the arrays of its cache file (names ``{group}.{array}``).

    Targets without a grade, a series or a slice are left out.
    """
    rows: dict[GraderName, list[tuple[Any, ...]]] = {name: [] for name in configs}
    levels = SpineLevels(item.study.study_id, points=item.points)
    for name, config in configs.items():
        for target in item.labels:
            if target.condition.group is not name.group:
                continue
            point = grader_point(name, levels, target)
            if point is None:
                continue
            crop = target_crop(item.study, point, config, cached=True, kind=name.series_kind)
            if not isinstance(crop, str):
                pixels = np.rint(crop.pixels * 255).astype(np.uint8)
                rows[name].append((pixels, crop.valid, target, item.truth[target], item.labels[target]))
    arrays: dict[str, NDArray[Any]] = {}
    for name, found in rows.items():
        side, depth = configs[name].cached_size_px, configs[name].cached_slices
        arrays |= {
            f"{name}.crops": np.array([row[0] for row in found], np.uint8).reshape(-1, depth, side, side),
            f"{name}.valid": np.array([row[1] for row in found], np.bool_).reshape(-1, depth),
            f"{name}.level": np.array([row[2].level.index for row in found], np.int64),
            f"{name}.truth": np.array([row[3] for row in found], np.float32).reshape(-1, 3),
            f"{name}.label": np.array([row[4] for row in found], np.int64),
            f"{name}.row_ids": np.array([row[2].row_id(item.study.study_id) for row in found], np.str_),
        }
    return arrays


def build_cache(
    sources: Sequence[Source],
    folder: Path,
    configs: CropConfigs,
    *,
    natural_grades: bool,
    parted: bool = False,
    jobs: int = 1,
) -> Iterator[Cut]:
    """Write the cache file of every study that has none yet, or one that was made of something else.

    Yields what was cut as it is done.

    The result does not depend on ``jobs``. Nothing is written before the first name is asked for.

    Args:
        natural_grades: whether severities occur as often as in the real table (the level prior applies).
        parted: whether the studies' identifiers divide them into train, validation and test
            (``data_prep.partition``); synthetic studies are divided by their seeds.

    Raises:
        ValueError: the folder holds a cache that was cut in another way.
    """
    description = {
        "crops": {name.value: asdict(config) for name, config in configs.items()},
        "natural_grades": natural_grades,
        "parted": parted,
    }
    path = folder / _CACHE_FILE
    if not path.exists():
        write_json(path, description, indent=2)
    elif _description(folder) != description:
        raise ValueError(
            f"crop cache '{folder.name}' was cut with another configuration: choose a new folder"
        )
    waiting = [source for source in sources if not _is_cut(source, folder)]
    work = partial(_cut_and_save, folder=folder, configs=configs)
    yield from in_order(work, waiting, jobs)


def _is_cut(source: Source, folder: Path) -> bool:
    """Whether the cache holds a study as its source has it now."""
    try:
        with np.load(folder / f"{safe_id(source.name)}.npz", allow_pickle=False) as stored:
            made_of = str(stored[_MADE_OF]) if _MADE_OF in stored else ""
    except (OSError, ValueError, EOFError, BadZipFile, zlib.error):
        return False
    return made_of == source.made_of


def _cut_and_save(source: Source, *, folder: Path, configs: CropConfigs) -> Cut:
    path = folder / f"{safe_id(source.name)}.npz"
    is_anew = path.exists()
    try:
        item = source.load()
    except DicomRejected as rejected:
        path.unlink(missing_ok=True)  # of what it was before
        return Cut(source.name, (*rejected.rejections, rejected.rejection), is_anew=is_anew)
    cache = PixelCache(item.study)
    arrays: dict[str, Any] = cut_study(replace(item, study=cache.study), configs)
    arrays[_MADE_OF] = np.array(source.made_of)
    with atomic_write(path, binary=True) as stream:
        np.savez(stream, **arrays)
    return Cut(source.name, (*item.study.rejections, *cache.rejections), item.problems, is_anew)


def load_cache(folder: Path, grader: GraderName, crop: CropConfig) -> CropCache:
    """Read the crops of one grader from a cache folder, studies in the order of their file names.

    Raises:
        ValueError: no such cache, cut with another configuration, or without any such crop.
        CropsUnusable: a file of it is broken.
    """
    description = _description(folder)
    if not cuts_for(folder, grader, crop):
        raise ValueError(NOT_CUT_FOR.format(folder=folder.name, grader=grader.value))
    parts = _read_all(folder, grader, ("crops", "valid", "level", "truth", "label", "row_ids"))
    if not sum(map(len, parts["crops"])):
        raise NoCrops(f"crop cache '{folder.name}' has no {grader.value} crop")
    arrays = {name: np.concatenate(part) for name, part in parts.items()}
    if description["natural_grades"]:
        log_prior = np.stack([np.log(level_prior(split_row_id(row_id)[1])) for row_id in arrays["row_ids"]])
    else:
        log_prior = np.log(_shares_by_level(arrays["truth"], arrays["level"]))[arrays["level"]]
    return CropCache(**arrays, log_prior=log_prior.astype(np.float32))


def _read_all(folder: Path, grader: GraderName, names: Sequence[str]) -> dict[str, list[NDArray[Any]]]:
    """Some arrays of all files of a cache."""
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in names}
    for file in sorted(folder.glob("*.npz")):
        try:
            with np.load(file, allow_pickle=False) as stored:
                for name in names:
                    parts[name].append(stored[f"{grader}.{name}"])
        except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
            raise CropsUnusable(
                f"'{folder.name}/{file.name}' is broken, or has no crops for {grader.value} "
                f"({type(error).__name__}): delete it and cut again"
            ) from None
    return parts


def studies_with_crops(folder: Path, grader: GraderName, crop: CropConfig) -> set[str]:
    """The studies of which a cache has crops that serve a grader. Raises as ``load_cache`` but for none."""
    if not cuts_for(folder, grader, crop):
        return set()
    rows = _read_all(folder, grader, ("row_ids",))["row_ids"]
    return {split_row_id(str(part[0]))[0] for part in rows if len(part)}


def is_parted(folder: Path) -> bool:
    """Whether a cache's studies are divided by their identifiers. Raises ValueError for no cache."""
    return bool(_description(folder)["parted"])


def cuts_for(folder: Path, grader: GraderName, crop: CropConfig) -> bool:
    """Whether a cache was cut for a grader, in any way that serves its configuration.

    Raises:
        ValueError: no cache, or cut for that grader in a way that does not serve.
    """
    cut = _description(folder)["crops"].get(grader.value)
    if cut is None:
        return False
    if not _serves(CropConfig(**cut), crop):
        raise ValueError(NOT_CUT_FOR.format(folder=folder.name, grader=grader.value))
    return True


def _serves(cut: CropConfig, wanted: CropConfig) -> bool:
    """Whether cached crops can be used for a configuration: the same pixels, perhaps with another margin.

    What is hidden of a crop is hidden when it is read.
    """
    pixels = replace(cut, size_px=cut.cached_size_px, margin_px=0, size_mm=cut.cached_size_mm)
    other = replace(wanted, size_px=wanted.cached_size_px, margin_px=0, size_mm=wanted.cached_size_mm)
    hidden = replace(pixels, seen_height_mm=other.seen_height_mm)
    return math.isclose(hidden.size_mm, other.size_mm) and replace(hidden, size_mm=other.size_mm) == other


def _description(folder: Path) -> dict[str, Any]:
    """How a cache was cut; options that did not exist then have their default."""
    path = folder / _CACHE_FILE
    if not path.exists():
        raise ValueError(f"'{folder.name}' is no crop cache ({_CACHE_FILE} is missing)")
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        cuts = {name: asdict(CropConfig(**cut)) for name, cut in described["crops"].items()}
        # Whether studies of the test part could be there has no default.
        return {**described, "parted": described["parted"], "crops": cuts}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CropsUnusable(
            f"'{folder.name}/{_CACHE_FILE}' does not say how crops were cut ({type(error).__name__}): "
            "cut into a new folder"
        ) from None


def _shares_by_level(truth: NDArray[np.float32], level: NDArray[np.int64]) -> NDArray[np.float64]:
    """(5, 3) share of each severity at each level, with one imagined target of each (Laplace)."""
    counts = np.ones((len(LEVELS), len(SEVERITIES)))
    np.add.at(counts, level, truth)
    return counts / counts.sum(axis=1, keepdims=True)
