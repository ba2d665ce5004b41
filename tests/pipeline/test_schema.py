"""``predictions.json`` is what its schema says, whatever happened to a study."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from data_prep.problems import Reason, Rejection
from data_prep.read.find import find_studies
from data_prep.vocabulary import TARGETS
from pipeline.batch.run import run_batch
from pipeline.grade import Pipeline
from pipeline.prediction import StudyPrediction
from tests.pipeline.stand_in import stand_in_pipeline, write_studies

SCHEMA: dict[str, Any] = json.loads(
    files("pipeline").joinpath("predictions.schema.json").read_text(encoding="utf-8")
)


def problems(content: Any) -> list[str]:
    validator = Draft202012Validator(SCHEMA)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(content)]


def fields_of(part: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every field of every object in a schema, by its name."""
    if isinstance(part, dict):
        yield from part.get("properties", {}).items()
    for below in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from fields_of(below)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Studies of every fate: graded, with a bad file, without a series, rejected, only listed."""
    images = write_studies(
        tmp_path_factory.mktemp("schema") / "test_images", ["501", "502", "503", "504"], listed=["505"]
    )
    (images / "502" / "12" / "2.dcm").write_text("no")
    for path in [*(images / "503" / "13").iterdir(), *(images / "504").rglob("*.dcm")]:
        path.unlink() if "503" in path.parts else path.write_bytes(b"")
    refused = Rejection(Reason.ENCRYPTED, "it is encrypted", file="1.dcm")
    report = run_batch(stand_in_pipeline(), find_studies(images), images.parent / "out", rejections=[refused])
    return dict(json.loads(report.predictions.read_text()))


def test_the_schema_is_a_schema_and_describes_everything() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    for name, part in {"file": SCHEMA, **SCHEMA["$defs"]}.items():
        assert part["description"], name
        if part.get("type") == "object":
            assert part["additionalProperties"] is False, name
    fields = list(fields_of(SCHEMA))
    assert len(fields) > 70
    assert not [name for name, field in fields if not field.get("description") and "$ref" not in field]


def test_every_fate_of_a_study_fits(written: dict[str, Any]) -> None:
    assert problems(written) == []
    assert [study["rejected"] for study in written["studies"]] == [False, False, False, True, True]
    assert written["rejections"][0]["reason"] == "encrypted_member"


def test_what_the_bundled_models_write_fits(
    bundled_pipeline: Pipeline, phantom_data: Path, tmp_path: Path
) -> None:
    report = run_batch(bundled_pipeline, find_studies(phantom_data)[:1], tmp_path)
    assert problems(json.loads(report.predictions.read_text())) == []


def test_a_record_becomes_the_prediction_that_it_is_of(written: dict[str, Any]) -> None:
    for record in written["studies"]:
        again = StudyPrediction.from_record(record)
        assert again.to_dict() == record
        assert again.levels is not None and len(again.levels.levels) == sum(
            level is not None for level in record["levels"].values()
        )
    broken = deepcopy(written["studies"][0])
    broken["targets"][0]["source"] = "guessed"
    with pytest.raises(ValueError, match="guessed"):
        StudyPrediction.from_record(broken)


def test_a_target_that_several_slices_show_keeps_them_in_its_record(written: dict[str, Any]) -> None:
    content = deepcopy(written)
    record = content["studies"][0]
    point = next(target["point"] for target in record["targets"] if target["point"] is not None)
    point["also"] = [{**point, "xyz_mm": [1.0, 2.0, 3.0], "share": 0.25}]
    point["share"] = 0.75
    assert problems(content) == []
    assert StudyPrediction.from_record(record).to_dict() == record
    point["share"] = 1.75
    assert len(problems(content)) == 1


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("studies", 0, "targets", 0, "probabilities", "severe"), 1.5),
        (("studies", 0, "targets", 0, "source"), "guessed"),
        (("studies", 0, "targets", 0, "condition"), "Spinal Canal Stenosis"),
        (("studies", 0, "levels", "l3_l4", "canal_mm"), [1.0, 2.0]),
        (("studies", 0, "patient_name"), "somebody"),
        (("studies", 1, "rejections", 0, "reason"), "because"),
        (("studies", 0, "targets"), []),
        (("format",), "lumbar-predictions/0"),
    ],
)
def test_what_is_wrong_does_not_fit(written: dict[str, Any], place: tuple[Any, ...], value: Any) -> None:
    content = deepcopy(written)
    at: Any = content
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    assert len(problems(content)) == 1


def test_its_words_are_those_of_the_program() -> None:
    definitions = SCHEMA["$defs"]
    assert definitions["rejection"]["properties"]["reason"]["enum"] == [reason.value for reason in Reason]
    assert set(definitions["target"]["properties"]["condition"]["enum"]) == {t.condition for t in TARGETS}
