"""Protects: recesses are found on axial crops of real patients, which a change may blind the detector to.

Patients of the validation part, of the development data beside the checkout. Figures of all of them, and of
the test part, are in docs/detector-training.md.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from data_prep.partition import Part, part_of
from detector.evaluate import is_axial_alone, point_errors, recesses_on_slices, summarise
from detector.learn.sources import annotated_cases
from detector.predict import LevelDetector

STUDIES = 30


@pytest.fixture(scope="module")
def crops(shared_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Axial crops of a few patients, laid into black, as a data set in the RSNA layout."""
    source, wrap = shared_dir / "real" / "rsna2024_axial", shared_dir / "tools" / "wrap_rsna_axial.py"
    if not (source.is_dir() and wrap.is_file()):
        pytest.skip("needs development data: axial crops and what wraps them")
    some, out = tmp_path_factory.mktemp("some"), tmp_path_factory.mktemp("wrapped")
    (some / "images").symlink_to(source / "images")
    targets = pd.read_csv(source / "targets.csv")
    studies = [study for study in targets.study_id.unique() if part_of(str(study)) is Part.VALIDATION]
    targets[targets.study_id.isin(studies[:STUDIES])].to_csv(some / "targets.csv", index=False)
    (some / "slices.csv").symlink_to(source / "slices.csv")
    subprocess.run([sys.executable, wrap, some, out, "annotated"], check=True, capture_output=True)
    return out


def test_recesses_of_real_crops_are_found(crops: Path) -> None:
    detector = LevelDetector.load_bundled(threads=1)
    cases = annotated_cases(crops, None)
    assert len(cases) == STUDIES and all(is_axial_alone(study) for study, _ in cases)
    table = pd.concat(
        point_errors(study, recesses_on_slices(detector, study, annotated), annotated)
        for study, annotated in cases
    )
    found = summarise(table)["subarticular"]
    assert found.n > 50 and found.missing == 0
    assert found.within_in_plane["5"] >= 0.95
    assert found.median_in_plane_mm <= 1.6
