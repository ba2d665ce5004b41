"""A grader on disk: fp16 safetensors, a JSON beside it that describes it, and a manifest over both.

Importable without torch.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, deserialize

from classifier.calibration import Calibration, JointCalibration
from classifier.config import GROUP_GRADERS, GraderConfig, GraderName
from classifier.expected import FILE_NAME as EXPECTED_FILE
from classifier.room_evidence import FILE_NAME as ROOMS_FILE
from data_prep.base.files import write_json
from data_prep.base.graph import SUFFIX, convert_torch
from data_prep.base.manifest import WeightsRejected, read_listed, read_verified, write_manifest
from data_prep.base.networks import CompiledNetwork, load_network, save_network
from data_prep.base.version import git_revision

if TYPE_CHECKING:
    from classifier.model import GraderNetwork

_VERSIONED = ("torch", "timm", "numpy", "opencv-python")
# Crops of one pass: large enough to keep a core busy, small enough to be shared among cores.
CROPS_OF_A_PASS = 5


@dataclass(frozen=True, eq=False)
class StoredGrader:
    """A grader as it was saved.

    Attributes:
        config: how it was made.
        calibration: identity until calibrated.
        metrics: what was measured, for the model card.
        joint: of the grader that looks at the canal on axial slices: how its evidence is joined with the
            sagittal one's.
        sha256: of the weights file.
        weights: the bytes of that file.
        others: further members of the same grader, ``{name}_2`` and so on; their logits are averaged with its
            own. They may look at other crops.
        graph: of the graph file beside it, see ``data_prep.base.graph``; None if there is none.
        place: folder and name of that file, for messages.
    """

    config: GraderConfig
    calibration: Calibration
    metrics: Mapping[str, Any]
    joint: JointCalibration | None
    sha256: str
    weights: bytes = field(repr=False)
    place: str
    graph: bytes | None = field(default=None, repr=False)
    others: tuple[StoredGrader, ...] = ()

    @property
    def members(self) -> tuple[StoredGrader, ...]:
        """Itself and the further members."""
        return (self, *self.others)

    @cached_property
    def network(self) -> GraderNetwork:
        """In evaluation mode, float32, weights rounded to fp16; built, and torch imported, when asked for.

        Raises:
            WeightsRejected: the weights are not those of the described network.
        """
        import torch
        from safetensors.torch import load

        from classifier.model import GraderNetwork

        try:
            network = GraderNetwork(self.config.network, self.config.crop)
            network.load_state_dict(load(self.weights))
        except (SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
            raise _unfit(self.place, self.config.name, error) from None
        return network.float().eval().to(memory_format=torch.channels_last)


def save_grader(
    folder: Path,
    config: GraderConfig,
    network: GraderNetwork,
    calibration: Calibration,
    metrics: Mapping[str, Any],
    joint: JointCalibration | None = None,
    member: int = 1,
) -> None:
    """Write ``{name}.safetensors`` and ``{name}.json`` and renew the folder's manifest.

    Floating-point weights are stored as fp16; every file is written whole or not at all.

    Args:
        member: from 2 on, a further member of the grader, written as ``{name}_{member}``. With the first one
            a grader begins anew: further members that the folder held are removed, and what is expected from
            its grades and joined with them.
    """
    stem = member_stem(config.name, member)
    if member == 1:
        _remove_further(folder, config.name)
        for fitted in (EXPECTED_FILE, ROOMS_FILE):
            (folder / fitted).unlink(missing_ok=True)
    save_network(network, folder / f"{stem}.safetensors")
    description = {
        "config": config.to_dict(),
        "calibration": calibration.to_dict(),
        "joint": None if joint is None else joint.to_dict(),
        "metrics": dict(metrics),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in _VERSIONED},
        "git_revision": git_revision(),
    }
    write_json(folder / f"{stem}.json", description, indent=2)
    write_manifest(folder)


def _remove_further(folder: Path, grader: GraderName) -> None:
    member = 2
    while (weights := folder / f"{member_stem(grader, member)}.safetensors").is_file():
        for suffix in (".safetensors", ".json", SUFFIX):
            weights.with_suffix(suffix).unlink(missing_ok=True)
        member += 1


def graders_of(folder: Path) -> tuple[GraderName, ...]:
    """The graders of a folder: one for every condition group, and others that are there."""
    found = (name for name in GraderName if (folder / f"{name.value}.safetensors").is_file())
    return tuple(dict.fromkeys((*GROUP_GRADERS, *found)))


def load_grader(folder: Path, grader: GraderName) -> StoredGrader:
    """Read one grader and build its network.

    Raises:
        WeightsRejected: missing, not as in the manifest, or not the weights of the described network.
    """
    stored = read_grader(folder, grader)
    for member in stored.members:
        _ = member.network
    return stored


def read_grader(folder: Path, grader: GraderName) -> StoredGrader:
    """Read one grader without building its network; its files are checked against the manifest.

    Raises:
        WeightsRejected: missing, not as in the manifest, or no weights file and its description.
    """
    first = _read_member(folder, grader, 1)
    others: list[StoredGrader] = []
    while (folder / f"{member_stem(grader, len(others) + 2)}.safetensors").is_file():
        others.append(_read_member(folder, grader, len(others) + 2))
    return replace(first, others=tuple(others))


def member_stem(grader: GraderName, member: int) -> str:
    """``foraminal`` for the first member of a grader, ``foraminal_2`` for the next."""
    return grader.value if member == 1 else f"{grader.value}_{member}"


def _read_member(folder: Path, grader: GraderName, member: int) -> StoredGrader:
    stem = member_stem(grader, member)
    name = f"{stem}.safetensors"
    described, content = read_verified(folder, f"{stem}.json"), read_verified(folder, name)
    try:
        description = json.loads(described)
        config = GraderConfig.from_dict(description["config"])
        deserialize(content)
        calibration = Calibration.from_dict(description["calibration"])
        joint = JointCalibration.from_dict(description["joint"]) if description.get("joint") else None
        metrics = dict(description["metrics"])
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise _unfit(f"{folder.name}/{name}", grader, error) from None
    digest = hashlib.sha256(content).hexdigest()
    graph = read_listed(folder, f"{stem}{SUFFIX}")
    place = f"{folder.name}/{name}"
    return StoredGrader(config, calibration, metrics, joint, digest, content, place, graph)


def _unfit(place: str, grader: GraderName, error: Exception) -> WeightsRejected:
    return WeightsRejected(
        f"'{place}' does not fit the network that '{grader.value}.json' describes "
        f"({type(error).__name__}): run `make models`"
    )


def compiled_grader(stored: StoredGrader, threads: int | None = None) -> CompiledNetwork:
    """The grader prepared for this processor: pixels (b, S, H, W), valid (b, S), level (b,) in, logits out.

    Raises:
        WeightsRejected: the weights are not those of the described network.
    """
    return load_network(stored.weights, stored.graph, lambda: converted_grader(stored), threads=threads)


def converted_grader(stored: StoredGrader) -> bytes:
    """The network of a grader as ONNX, for any number of crops; needs torch."""
    import torch

    from classifier.model import for_graph

    crop = stored.config.crop
    network = for_graph(stored.network, crop)
    pixels = torch.zeros(2, crop.slices, crop.size_px, crop.size_px)
    view = pixels, torch.ones(2, crop.slices, dtype=torch.bool)
    return convert_torch(network, (*view, torch.zeros(2, dtype=torch.int64)), [(0,)] * 3, (0,))
