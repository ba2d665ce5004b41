"""Two patients in a folder, their identifiers spoilt in hundreds of ways: is a study mixed, an image lost?

    python -m benchmarks.identifiers --mutations 200 -o benchmarks/results

Two small synthetic patients are written in one of several layouts, and their identifiers dropped, shared,
swapped or made anew: for everything, per series, per file or for a few files. Nothing is graded. Counted are
studies with images of both patients, images that are in no study and named by no rejection, images that are
named though they are used, and what became of the rest (``benchmarks.accounting``). Writes
``identifiers.json`` and ``identifiers.csv``; ends with 1 if a study was mixed, an image lost or misnamed, or
a patient divided without a word.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from benchmarks.accounting import Outcome, judged
from data_prep.base.csv_files import write_table
from data_prep.base.files import write_json
from data_prep.base.uids import derived_uid
from data_prep.phantom import write_dataset
from tests.hostile.quirks.stored import StoredImage, StoredStudy, in_space, read_study, write_study

FIRST_SEED = 270_100
LAYOUTS = ("patient folders", "patient and series folders", "one folder", "folders by series", "rsna")
KEYWORDS = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")
WAYS = ("drop", "share", "swap", "renew", "anonymise")
SCOPES = ("all", "one patient", "per series", "per file", "some series", "some files")


@dataclass(frozen=True)
class Mutation:
    """One way to spoil identifiers.

    Attributes:
        layout: where the files lie.
        keywords: the identifiers that are spoilt, together.
        way: dropped, the same for both, exchanged between the two, made anew, or what anonymisers write.
        scope: of which images, and how much is made anew alike.
        same_geometry: the second patient has the geometry of the first.
    """

    number: int
    layout: str
    keywords: tuple[str, ...]
    way: str
    scope: str
    same_geometry: bool

    @classmethod
    def drawn(cls, number: int) -> Mutation:
        """The mutation with this number, always the same."""
        rng = random.Random(number)
        count = rng.choice((1, 1, 2, 3, len(KEYWORDS)))
        return cls(
            number,
            LAYOUTS[number % len(LAYOUTS)],
            tuple(sorted(rng.sample(KEYWORDS, count))),
            rng.choice(WAYS),
            rng.choice(SCOPES),
            rng.random() < 0.3,
        )

    def __str__(self) -> str:
        geometry = ", one geometry" if self.same_geometry else ""
        return f"{self.number}: {self.layout}; {self.way} {' '.join(self.keywords)}, {self.scope}{geometry}"


def two_patients(work: Path, seed: int) -> tuple[StoredStudy, StoredStudy]:
    """Two synthetic patients with valid identifiers of their own."""
    studies = []
    for number in (seed, seed + 1):
        data = work / str(number)
        if not (data / "phantom.json").is_file():
            write_dataset(data, studies=1, seed=number, headers="pacs")
        (folder,) = (data / "train_images").iterdir()
        studies.append(read_study(data, folder.name))
    return studies[0], studies[1]


def spoilt(
    patients: tuple[StoredStudy, StoredStudy], mutation: Mutation
) -> tuple[StoredStudy, dict[str, int]]:
    """Both patients as one tree, and the patient of each path."""
    rng = random.Random(mutation.number)
    if mutation.same_geometry:
        patients = (patients[0], _in_geometry_of(patients[1], patients[0]))
    placed = [
        (patient, image)
        for patient, study in enumerate(patients)
        for image in _laid_out(study, patient, mutation.layout)
    ]
    originals = [copy.deepcopy(_identifiers(image.dataset)) for _, image in placed]
    series = sorted({(patient, image.series_id) for patient, image in placed})
    some = set(rng.sample(series, max(1, len(series) // 3)))
    touched, images = [], []
    for index, (patient, image) in enumerate(placed):
        in_scope = {
            "one patient": patient == 1,
            "some series": (patient, image.series_id) in some,
            "some files": rng.random() < 0.08,
        }.get(mutation.scope, True)
        touched.append(in_scope)
        other = _counterpart(placed, index)
        changes = {
            keyword: _changed(keyword, mutation, patient, image, index, originals[other])
            for keyword in mutation.keywords
        }
        images.append(image.changed(**changes) if in_scope else image)
    patient_of = {image.path: patient for (patient, _), image in zip(placed, images, strict=True)}
    return StoredStudy(patients[0].study_id, tuple(images), {}), patient_of


def _identifiers(dataset: Dataset) -> dict[str, str]:
    return {keyword: str(dataset.get(keyword, "")) for keyword in KEYWORDS}


def _counterpart(placed: list[tuple[int, StoredImage]], index: int) -> int:
    """An image of the other patient with the same place in its series, as far as there is one."""
    patient, _ = placed[index]
    others = [number for number, (owner, _) in enumerate(placed) if owner != patient]
    mine = [number for number, (owner, _) in enumerate(placed) if owner == patient]
    return others[mine.index(index) * len(others) // len(mine)]


def _changed(
    keyword: str, mutation: Mutation, patient: int, image: StoredImage, index: int, other: dict[str, str]
) -> str | None:
    if mutation.way == "drop":
        return None
    if mutation.way == "swap":
        return other[keyword]
    if mutation.way == "share":
        return "SHARED" if keyword == "PatientID" else derived_uid("shared", keyword)
    if mutation.way == "anonymise" and keyword == "PatientID":
        return "ANON"
    group: tuple[str, ...] = (str(patient),)
    if mutation.scope in ("per series", "some series"):
        group = (str(patient), image.series_id)
    elif mutation.scope in ("per file", "some files"):
        group = (str(index),)
    uid = derived_uid("renewed", keyword, *group)
    return f"ID{uid[-12:]}" if keyword == "PatientID" else uid


def _in_geometry_of(study: StoredStudy, model: StoredStudy) -> StoredStudy:
    """A patient whose images lie where those of another do, as far as there are as many."""
    images = []
    for series_id, kind in study.kinds.items():
        pairs = zip(
            in_space(list(study.of(series_id))), in_space(list(model.of(*model.ids_of(kind)))), strict=False
        )
        for image, other in pairs:
            shape = dict(Rows=other.dataset.Rows, Columns=other.dataset.Columns)
            pixels = other.dataset.PixelData[::-1]
            images.append(
                image.in_geometry(other.position_mm, other.axes).changed(
                    PixelData=pixels, PixelSpacing=list(other.dataset.PixelSpacing), **shape
                )
            )
    return StoredStudy(study.study_id, tuple(images), {})


def _laid_out(study: StoredStudy, patient: int, layout: str) -> list[StoredImage]:
    series = sorted({image.series_id for image in study.images})
    images = []
    for number, image in enumerate(study.images):
        place = series.index(image.series_id)
        name = f"{'ab'[patient]}{number:04d}"  # of its own, so that messages say which file is meant
        images.append(
            image.at(
                {
                    "patient folders": f"in/{'ab'[patient]}/{name}",
                    "patient and series folders": f"in/{'ab'[patient]}/{place}x/{name}",
                    "one folder": f"in/{name}",
                    "folders by series": f"in/{place}x/{name}",
                    "rsna": f"in/{study.study_id}/{image.series_id}/{1000 * patient + number + 1}.dcm",
                }[layout]
            )
        )
    return images


def run(
    numbers: range, work: Path, tell: Callable[[str], None] = lambda _: None
) -> list[tuple[Mutation, Outcome]]:
    """Every mutation and what became of it.

    Args:
        work: the patients and what was found are kept here: an interrupted run goes on where it was.
        tell: called with a sentence for each mutation with which something went wrong.
    """
    patients = two_patients(work, FIRST_SEED)
    found = []
    for number in numbers:
        mutation = Mutation.drawn(number)
        kept = work / "found" / f"{number}.json"
        if kept.is_file():
            outcome = Outcome(**json.loads(kept.read_text(encoding="utf-8")))
        else:
            tree, patient_of = spoilt(patients, mutation)
            with tempfile.TemporaryDirectory(dir=work) as folder:
                write_study(tree, Path(folder))
                outcome = judged(Path(folder), patient_of)
            write_json(kept, asdict(outcome))
        if _is_wrong(outcome):
            tell(f"{mutation}: {outcome}")
        found.append((mutation, outcome))
    return found


def _is_wrong(outcome: Outcome) -> bool:
    return bool(outcome.mixed or outcome.lost or outcome.untrue or (outcome.divided and not outcome.reasons))


def summary(found: list[tuple[Mutation, Outcome]]) -> dict[str, Any]:
    """Counts over all mutations."""
    outcomes = [outcome for _, outcome in found]
    return {
        "mutations": len(found),
        "mixed_studies": sum(item.mixed for item in outcomes),
        "lost_images": sum(item.lost for item in outcomes),
        "misnamed_images": sum(item.untrue for item in outcomes),
        "divided_without_a_word": sum(item.divided > 0 and not item.reasons for item in outcomes),
        "images": sum(item.used + item.named + item.lost for item in outcomes),
        "images_used": sum(item.used for item in outcomes),
        "images_named": sum(item.named for item in outcomes),
        "both_patients_whole": sum(item.studies == 2 and not item.named for item in outcomes),
        "nothing_used": sum(not item.used for item in outcomes),
        "mutations_by_reason": dict(
            sorted(Counter(reason for item in outcomes for reason in item.reasons).items())
        ),
    }


def main() -> None:
    """Parse, run, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mutations", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--work", type=Path, help="keep what was found here: a run goes on")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/benchmarks"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        numbers = range(arguments.first, arguments.first + arguments.mutations)
        work = arguments.work or Path(folder)
        found = run(numbers, work, lambda text: print(text, file=sys.stderr))
    report = summary(found)
    write_json(arguments.output / "identifiers.json", report, indent=1)
    rows = (
        {**asdict(item), "mutation": mutation, "misnamed": item.untrue}
        | {"said": " ".join(f"{reason}:{count}" for reason, count in item.reasons.items())}
        for mutation, item in found
    )
    columns = ("mutation", "mixed", "lost", "misnamed", "used", "named", "studies", "divided", "said")
    write_table(arguments.output / "identifiers.csv", columns, rows)
    print(json.dumps(report, indent=1))
    sys.exit(1 if any(_is_wrong(outcome) for _, outcome in found) else 0)


if __name__ == "__main__":
    main()
