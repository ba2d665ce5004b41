"""Collects what ``kaggle_submission.ipynb`` needs offline: wheels and weights, in one folder to upload.

    python notebooks/kaggle_dataset.py --weights runs/rsna/weights -o kaggle-dataset

The folder gets ``wheels/`` (this program and its requirements, without the torch family, which Kaggle has),
``weights/detector`` and ``weights/graders`` (checked against their manifests) and ``dataset-metadata.json``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from classifier.config import GROUP_GRADERS
from data_prep.base.manifest import WeightsRejected, verify_manifest
from detector.spec import DetectorKind

ROOT = Path(__file__).resolve().parents[1]
# On Kaggle already, built for its GPUs; gigabytes otherwise.
THERE = ("torch", "torchvision", "setuptools")
_NOBODY = "OWNER"
# Without these nothing is found, or not all 25 targets are graded.
STAGES = {"detector": (DetectorKind.SAGITTAL.value,), "graders": tuple(name.value for name in GROUP_GRADERS)}
PACKAGES = ("data_prep", "detector", "classifier", "pipeline")
FILES = ("pyproject.toml", "requirements.txt", "README.md", "LICENSE")


def collect_weights(weights: Path, out: Path) -> None:
    """Copy the final weights of a run. Raises WeightsRejected when they are not what their manifest says."""
    for stage, needed in STAGES.items():
        names = (*verify_manifest(weights / stage), "manifest.json")
        if lacking := [name for name in needed if f"{name}.safetensors" not in names]:
            raise WeightsRejected(
                f"{weights.name}/{stage} lacks {', '.join(lacking)}: train what is missing, too"
            )
        (out / "weights" / stage).mkdir(parents=True, exist_ok=True)
        for name in names:
            shutil.copyfile(weights / stage / name, out / "weights" / stage / name)
        verify_manifest(out / "weights" / stage)


def collect_wheels(out: Path, *, requirements: bool) -> None:
    """Build this program's wheel and, unless told not to, download those of its requirements."""
    wheels = out.resolve() / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps"]
    with tempfile.TemporaryDirectory() as folder:
        # A copy, so that building leaves nothing in the source tree and takes nothing old from it.
        source = Path(folder) / "source"
        source.mkdir()
        for name in PACKAGES:
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in FILES:
            shutil.copyfile(ROOT / name, source / name)
        subprocess.run([*pip, "--no-build-isolation", "-w", str(wheels), str(source)], check=True)
    if not requirements:
        return
    pins = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if "==" in line]
    kept = [pin for pin in pins if pin.split("==")[0].lower() not in THERE]
    subprocess.run([*pip, "-w", str(wheels), *kept], check=True)


def main() -> None:
    """Collect, and say what to do next."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, help="RUN/weights of `lumbar train`; else the bundled ones")
    parser.add_argument("-o", "--output", type=Path, default=Path("kaggle-dataset"))
    parser.add_argument("--owner", default=_NOBODY, help="your Kaggle name, for dataset-metadata.json")
    parser.add_argument("--no-requirements", action="store_true", help="only this program's own wheel")
    arguments = parser.parse_args()
    if arguments.weights is None and (arguments.output / "weights").exists():
        # The notebook would grade with these, not with the bundled ones.
        sys.exit(
            f"'{arguments.output.name}' holds weights of an earlier call: name a new folder or --weights"
        )
    try:
        if arguments.weights is not None:
            collect_weights(arguments.weights, arguments.output)
    except WeightsRejected as rejected:
        sys.exit(str(rejected))
    collect_wheels(arguments.output, requirements=not arguments.no_requirements)
    metadata = {"title": "lumbar", "id": f"{arguments.owner}/lumbar", "licenses": [{"name": "other"}]}
    (arguments.output / "dataset-metadata.json").write_text(json.dumps(metadata, indent=1) + "\n")
    print(f"{arguments.output} is ready: kaggle datasets create -p {arguments.output} --dir-mode zip")
    if arguments.owner == _NOBODY:
        print(f"before that, write your Kaggle name in place of {_NOBODY} in its dataset-metadata.json")


if __name__ == "__main__":
    main()
