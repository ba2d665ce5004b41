"""Graph files beside the weights of a folder, so that it runs where torch is not installed.

    python -m pipeline.export.graphs FOLDER ...

Run it after weights changed: a graph of other weights is passed over, and torch converts them at every start.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from classifier.config import GraderName
from classifier.storage import converted_grader, member_stem, read_grader
from data_prep.base.files import write_whole
from data_prep.base.graph import SUFFIX, graph_of, is_of
from data_prep.base.manifest import read_verified, write_manifest
from detector.spec import REFINERS, SPECS


def write_graphs(folder: Path, *, again: bool = False) -> tuple[Path, ...]:
    """Write a graph for every detector and grader of a weights folder that lacks one, and renew its manifest.

    Args:
        again: also where there is a graph of the same weights, which an earlier version may have made.

    Raises:
        WeightsRejected: the folder has no manifest, or a file is not what it says.
    """
    from detector.look.network import converted_network
    from detector.look.refiner_network import converted_refiner

    written = []

    def write(stem: str, weights: bytes, convert: Callable[[], bytes]) -> None:
        path = folder / f"{stem}{SUFFIX}"
        if again or not path.is_file() or not is_of(path.read_bytes(), weights):
            write_whole(path, graph_of(convert(), weights))
            written.append(path)

    convert = {spec.stem: partial(converted_refiner, spec) for spec in REFINERS}
    convert |= {kind.value: partial(converted_network, spec) for kind, spec in SPECS.items()}
    for stem, converted in convert.items():
        if (folder / f"{stem}.safetensors").is_file():
            content = read_verified(folder, f"{stem}.safetensors")
            write(stem, content, partial(converted, content))
    for name in GraderName:
        if (folder / f"{name.value}.safetensors").is_file():
            for number, member in enumerate(read_grader(folder, name).members, start=1):
                write(member_stem(name, number), member.weights, partial(converted_grader, member))
    write_manifest(folder)
    return tuple(written)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        for path in write_graphs(Path(name), again=True):
            print(f"{path}  {path.stat().st_size / 1e3:.0f} kB")
