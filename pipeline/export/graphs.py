"""Graph files beside the weights of a folder, so that it runs where torch is not installed.

    python -m pipeline.export.graphs FOLDER ...

Run it after weights changed: a graph of other weights is passed over, and torch converts them at every start.
"""

from __future__ import annotations

import sys
from pathlib import Path

from classifier.compiled import converted_grader
from classifier.config import GraderName
from classifier.storage import member_stem, read_grader
from data_prep.base.files import atomic_write
from data_prep.base.graph import SUFFIX, graph_of
from data_prep.base.manifest import read_verified, write_manifest
from detector.spec import REFINERS, SPECS


def write_graphs(folder: Path) -> tuple[Path, ...]:
    """Write a graph for every detector and grader of a weights folder, and renew its manifest.

    Raises:
        WeightsRejected: the folder has no manifest, or a file is not what it says.
    """
    from detector.look.network import converted_network
    from detector.look.refiner_network import converted_refiner

    written = []
    for refiner in REFINERS:
        if (folder / f"{refiner.stem}.safetensors").is_file():
            content = read_verified(folder, f"{refiner.stem}.safetensors")
            written.append(_write(folder, refiner.stem, converted_refiner(refiner, content), content))
    for kind, spec in SPECS.items():
        if (folder / f"{kind.value}.safetensors").is_file():
            content = read_verified(folder, f"{kind.value}.safetensors")
            written.append(_write(folder, kind.value, converted_network(spec, content), content))
    for name in GraderName:
        if (folder / f"{name.value}.safetensors").is_file():
            for number, member in enumerate(read_grader(folder, name).members, start=1):
                stem = member_stem(name, number)
                written.append(_write(folder, stem, converted_grader(member), member.weights))
    write_manifest(folder)
    return tuple(written)


def _write(folder: Path, stem: str, converted: bytes, weights: bytes) -> Path:
    path = folder / f"{stem}{SUFFIX}"
    with atomic_write(path, binary=True) as stream:
        stream.write(graph_of(converted, weights))
    return path


if __name__ == "__main__":
    for name in sys.argv[1:]:
        for path in write_graphs(Path(name)):
            print(f"{path}  {path.stat().st_size / 1e3:.0f} kB")
