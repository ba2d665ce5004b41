"""Damaged DICOM files, each read in a child process under a memory limit and a clock.

    python -m benchmarks.fuzz --files 2000 --seed 0 -o benchmarks/results

Every file is read alone, header and pixels, and in the place of one slice of a study. What must hold: it is
read, or rejected with a reason code; no other exception, no crash, nothing beyond the bounds of time and
memory; in the study every other slice is still read, and the damaged file is a slice or named in a rejection,
never lost in silence.

Bases are a real MR slice in each transfer syntax that is read, and slices of phantoms with bare and with
complete headers. File k of a run is made from seed + k alone. Writes ``fuzz.csv`` (counts) and ``fuzz.json``
(totals, the slowest and largest, and every file that broke the promise, with what made it).
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless
from rich.console import Console
from rich.progress import track

from data_prep.base.csv_files import write_table
from data_prep.base.files import write_json
from data_prep.geometry import Orientation, SlicePlane
from data_prep.phantom import write_dataset
from data_prep.vocabulary import SeriesKind
from tests.hostile.bounded import DEFAULT_MEMORY_MB, DEFAULT_TIME_S, BoundedReader, Outcome
from tests.hostile.mutations import Mutation, applied, base_dataset, drawn, every_coding, recoded

PHANTOM_SEED = 200_900
SLICES, DAMAGED = 5, 3
OTHER_SLICES = 2
ALL_SLICES = SLICES + OTHER_SLICES
_KINDS = {Orientation.AXIAL: SeriesKind.AXIAL_T2, Orientation.SAGITTAL: SeriesKind.SAGITTAL_T2}


@dataclass(frozen=True)
class Base:
    """A whole file that is damaged, and the images folder of a study that it is the third slice of."""

    name: str
    content: bytes
    images: Path

    @property
    def damaged(self) -> Path:
        """Where the damaged file goes."""
        return self.images / "1" / "11" / f"{DAMAGED}.dcm"


@dataclass(frozen=True)
class Row:
    """What became of one damaged file, alone and in its study."""

    number: int
    base: str
    mutations: tuple[Mutation, ...]
    alone: Outcome
    study: Outcome

    @property
    def problem(self) -> str:
        """What was promised and not kept; "" if nothing."""
        for where, outcome in (("alone", self.alone), ("in its study", self.study)):
            if not outcome.is_allowed:
                return f"{where}: {outcome.kind} {outcome.detail}".strip()
        if self.study.slices < ALL_SLICES - 1:
            return f"in its study: {ALL_SLICES - self.study.slices} of {ALL_SLICES} slices were lost"
        return ""


def bases(folder: Path) -> list[Base]:
    """Every base with its study in the RSNA layout: a series of five slices, and another one of two."""
    contents = every_coding(base_dataset())
    for headers in ("rsna", "pacs"):
        data = folder / headers
        write_dataset(data, studies=1, seed=PHANTOM_SEED, size="small", headers=headers)
        dataset = _middle_t2_slice(data)
        for coding in (dataset.file_meta.TransferSyntaxUID, RLELossless):
            contents[f"phantom {headers} {coding}"] = recoded(dataset, coding)
    return [
        Base(name, content, study_around(folder / str(number), content))
        for number, (name, content) in enumerate(contents.items())
    ]


def _middle_t2_slice(data: Path) -> Dataset:
    with (data / "train_series_descriptions.csv").open(newline="") as file:
        row = next(r for r in csv.DictReader(file) if r["series_description"] == SeriesKind.SAGITTAL_T2.value)
    paths = sorted((data / "train_images" / row["study_id"] / row["series_id"]).glob("*.dcm"))
    return pydicom.dcmread(paths[len(paths) // 2])


def study_around(folder: Path, content: bytes) -> Path:
    """A study whose slices are copies of a file, 4 mm apart."""
    images = folder / "test_images"
    dataset = pydicom.dcmread(io.BytesIO(content))
    plane = SlicePlane.from_dicom(
        dataset.ImagePositionPatient,
        dataset.ImageOrientationPatient,
        dataset.PixelSpacing,
        (dataset.Rows, dataset.Columns),
    )
    lines = ["study_id,series_id,series_description"]
    for series, slices in (("11", SLICES), ("12", OTHER_SLICES)):
        lines.append(f"1,{series},{_KINDS[plane.orientation].value}")
        for number in range(1, slices + 1):
            dataset.ImagePositionPatient = [
                round(float(v), 3) for v in plane.origin_mm + 4 * (number - DAMAGED) * plane.normal
            ]
            dataset.SOPInstanceUID = f"1.2.3.{series}.{number}"
            path = images / "1" / series / f"{number}.dcm"
            path.parent.mkdir(parents=True, exist_ok=True)
            dataset.save_as(path)
    (folder / "test_series_descriptions.csv").write_text("\n".join(lines) + "\n")
    return images


def rows(found: Sequence[Base], files: int, seed: int, reader: BoundedReader) -> Iterator[Row]:
    """Damage and read one file after the other."""
    for number in range(seed, seed + files):
        base = found[number % len(found)]
        mutations = drawn(random.Random(number))
        base.damaged.write_bytes(applied(base.content, mutations))
        alone, study = reader.run("file", base.damaged), reader.run("study", base.images)
        yield Row(number, base.name, mutations, alone, study)


def report_of(done: Sequence[Row], arguments: argparse.Namespace) -> dict[str, Any]:
    """Totals for JSON."""
    outcomes = [outcome for row in done for outcome in (row.alone, row.study)]
    reasons: Counter[str] = Counter()
    for row in done:
        reasons.update(row.alone.reasons)
    problems = [row for row in done if row.problem]
    return {
        "files": len(done),
        "seed": arguments.seed,
        "bounds": {"seconds": arguments.time_s, "memory_mb": arguments.memory_mb},
        "alone": dict(Counter(row.alone.kind for row in done)),
        "reasons": dict(sorted(reasons.items())),
        "in_a_study": dict(Counter(row.study.kind for row in done)),
        "studies_that_kept_every_other_slice": sum(row.study.slices >= ALL_SLICES - 1 for row in done),
        "slowest_s": max((outcome.seconds for outcome in outcomes), default=0.0),
        "largest_peak_mb": max((outcome.peak_mb for outcome in outcomes), default=0.0),
        "broken_promises": [{"problem": row.problem, **asdict(row)} for row in problems],
    }


def counts_of(done: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows of the table: base, outcome, reason and how many files."""
    counts = Counter((row.base, row.alone.kind, " ".join(row.alone.reasons)) for row in done)
    return [
        {"base": base, "outcome": kind, "reason": reason, "files": count}
        for (base, kind, reason), count in sorted(counts.items())
    ]


def main() -> None:
    """Exit code 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0, help="file k is made from seed + k")
    parser.add_argument("--time-s", type=float, default=DEFAULT_TIME_S, help="after which a file is a hang")
    parser.add_argument("--memory-mb", type=int, default=DEFAULT_MEMORY_MB)
    parser.add_argument("--json", action="store_true", help="the report on stdout")
    parser.add_argument("-o", "--output", type=Path, help="folder for fuzz.csv and fuzz.json")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="lumbar-fuzz-"))
    try:
        with BoundedReader(memory_mb=arguments.memory_mb, time_s=arguments.time_s) as reader:
            made = rows(bases(folder), arguments.files, arguments.seed, reader)
            done = list(track(made, "files", arguments.files, console=Console(stderr=True)))
    finally:
        shutil.rmtree(folder)
    report = report_of(done, arguments)
    if arguments.output is not None:
        write_json(arguments.output / "fuzz.json", report, indent=1)
        write_table(arguments.output / "fuzz.csv", ["base", "outcome", "reason", "files"], counts_of(done))
    if arguments.json:
        print(json.dumps(report, indent=1))
    else:
        for key in ("alone", "reasons", "in_a_study", "slowest_s", "largest_peak_mb"):
            print(f"{key:16}{report[key]}")
        for row in report["broken_promises"]:
            print(f"file {row['number']} ({row['base']}): {row['problem']}")
    sys.exit(1 if report["broken_promises"] else 0)


if __name__ == "__main__":
    main()
