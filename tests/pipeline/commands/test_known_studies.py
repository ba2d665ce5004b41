"""Who measures the research models on studies that they learned from is told, and how to leave them out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_prep.partition import Part, part_of
from data_prep.phantom import write_dataset
from data_prep.rsna.known import known_studies
from data_prep.vocabulary import SEVERITIES, TARGETS
from pipeline.commands.summaries import tell_of_known
from pipeline.results.submission import build_submission, write_submission
from tests.command_line import lumbar

LEARNED = min(name for name in known_studies() if part_of(name) is Part.TRAIN)
NOTE = "of these 2 studies the research models learned from 1"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two synthetic studies, one of which bears the name of a study that was learned from."""
    folder: Path = tmp_path_factory.mktemp("known") / "data"
    write_dataset(folder, studies=2, seed=200_420)
    old = sorted(path.name for path in (folder / "train_images").iterdir())[0]
    (folder / "train_images" / old).rename(folder / "train_images" / LEARNED)
    for table in folder.glob("*.csv"):
        table.write_text(table.read_text().replace(old, LEARNED))
    return folder


@pytest.mark.parametrize("stage", ["detector", "classifier"])
def test_evaluate_says_so_of_the_research_models_alone(data: Path, stage: str) -> None:
    arguments = [stage, "evaluate", data, "--json", *(["--resamples", "0"] if stage == "classifier" else [])]
    told = lumbar(*arguments)
    assert told.exit_code == 0, told.stderr
    assert NOTE in told.stderr and "--part test leaves them out" in told.stderr
    assert json.loads(told.stdout), "the note does not disturb the JSON"
    assert "learned from" not in lumbar(*arguments, "--weights", "open").stderr


def test_who_measures_what_learned_from_the_test_part_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the final weights of lumbar train have."""
    tested = next(str(name) for name in range(100) if part_of(str(name)) is Part.TEST)
    learned = next(str(name) for name in range(100) if part_of(str(name)) is Part.TRAIN)

    def told(content: object, study: str) -> str:
        (tmp_path / "network.json").write_text(json.dumps(content))
        tell_of_known([study], tmp_path)
        return " ".join(capsys.readouterr().err.split())

    def detector(*patients: str) -> dict[str, object]:
        return {"sources": [{"weight": 1.0, "slices": 3, "patients": patients}]}

    assert "learned from 1 of these 1 studies, of the test part, too" in told(detector(tested, "x"), tested)
    assert not told(detector(learned), tested)
    assert "--part test leaves them out" in told(detector(learned), learned)
    assert "learns from all studies of its data" in told({"metrics": {"held_out_studies": 0}}, tested)
    assert not told({"metrics": {"held_out_studies": 3}}, tested) and not told([1], tested)


def test_evaluate_says_which_studies_calibrated_the_open_graders(data: Path, tmp_path: Path) -> None:
    of_validation = min(name for name in known_studies() if part_of(name) is Part.VALIDATION)
    renamed = Path(shutil.copytree(data, tmp_path / "data"))
    (renamed / "train_images" / LEARNED).rename(renamed / "train_images" / of_validation)
    for table in renamed.glob("*.csv"):
        table.write_text(table.read_text().replace(LEARNED, of_validation))
    told = lumbar("classifier", "evaluate", renamed, "--weights", "open", "--json", "--resamples", "0")
    assert told.exit_code == 0 and "1 of these 2 studies calibrated" in told.stderr
    assert "calibrated" not in lumbar("detector", "evaluate", renamed, "--weights", "open", "--json").stderr


def test_report_and_record_of_a_study_that_was_learned_from_say_so(data: Path, tmp_path: Path) -> None:
    """Of that study, and with the models that learned from it."""
    flagged = {}
    for models in ("research", "open"):
        out = tmp_path / models
        done = lumbar("predict", data, "-o", out, "--models", models, "--no-pictures")
        assert done.exit_code == 0, done.stderr
        record = json.loads((out / "predictions.json").read_text())
        flagged[models] = [s["study_id"] for s in record["studies"] if "known_study" in s["flags"]]
        for study in record["studies"]:
            page = (out / "reports" / study["study_id"] / "report.html").read_text()
            is_known = study["study_id"] in flagged[models]
            assert ("its grades look better than they are on others" in page) == is_known
    assert flagged == {"research": [LEARNED], "open": []}


def test_score_says_so_and_can_leave_them_out(tmp_path: Path) -> None:
    studies = (LEARNED, "101")
    rng = np.random.default_rng(0)
    answers = {name: {t: rng.dirichlet([1, 1, 1]) for t in TARGETS} for name in studies}
    labels = pd.DataFrame(
        {"study_id": name, **{t.column: SEVERITIES[place % 3].value for place, t in enumerate(TARGETS)}}
        for name in studies
    )
    labels.to_csv(tmp_path / "train.csv", index=False)
    write_submission(build_submission(answers), tmp_path / "submission.csv")
    both = lumbar("score", tmp_path / "submission.csv", tmp_path, "--json")
    assert NOTE in both.stderr and "--unseen leaves them out" in both.stderr

    unseen = lumbar("score", tmp_path / "submission.csv", tmp_path, "--json", "--unseen")
    assert "learned from" not in unseen.stderr and "left out: 0 labelled studies, 25 rows" in unseen.stderr
    labels[1:].to_csv(tmp_path / "one.csv", index=False)
    write_submission(build_submission({"101": answers["101"]}), tmp_path / "one_submission.csv")
    alone = lumbar("score", tmp_path / "one_submission.csv", tmp_path / "one.csv", "--json")
    assert json.loads(unseen.stdout) == json.loads(alone.stdout) != json.loads(both.stdout)

    labels[:1].to_csv(tmp_path / "train.csv", index=False)
    nothing = lumbar("score", tmp_path / "submission.csv", tmp_path, "--unseen")
    assert nothing.exit_code == 1 and "--unseen leaves nothing" in nothing.stderr
