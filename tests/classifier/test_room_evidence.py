"""Rooms of foramina beside their grader: worse where lower, fitted on what is hidden, and read as written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from classifier import BUNDLED_WEIGHTS
from classifier.config import GraderName
from classifier.learn.rooms import RoomRows, figures_of, fit_rooms, room_rows, save_rooms
from classifier.learn.sources import phantom_sources
from classifier.predict import Grader
from classifier.prior import level_prior
from classifier.room_evidence import FILE_NAME, RoomEvidence, heights_of, read_room_evidence
from data_prep.base.manifest import Bundle, WeightsRejected, read_manifest, write_manifest
from data_prep.levels import SpineLevels
from data_prep.phantom.study import PhantomStudy, make_study
from data_prep.vocabulary import TARGETS, Condition, ConditionGroup, Level, Side, Target

JOINT = RoomEvidence(0.5, (-2.7, 0.1, 2.6), (0.2, 0.0, -0.2))  # at 12 mm hardly a sign of anything
FORAMINA = [target for target in TARGETS if target.condition.group is ConditionGroup.FORAMINAL]
NARROWED = Target(Condition.of(ConditionGroup.FORAMINAL, Side.LEFT), Level.L4_L5)


@pytest.fixture(scope="module")
def phantom() -> PhantomStudy:
    return make_study(530_211, latents={t: 2.4 if t == NARROWED else -1.5 for t in FORAMINA})


@pytest.fixture(scope="module")
def grader() -> Grader:
    return Grader.load_bundled(Bundle.OPEN, threads=1)


def test_a_lower_room_is_a_worse_sign() -> None:
    p = JOINT.probabilities(np.zeros((5, 3)), [0.0, 5.0, 10.0, 15.0, 20.0], np.zeros((5, 3)))
    assert p.sum(axis=1) == pytest.approx(1)
    assert np.all(np.diff(p[:, 0]) > 0) and np.all(np.diff(p[:, 2]) < 0)


@pytest.mark.parametrize(
    "numbers",
    [
        {"slope": (-0.1, 0.0, 0.1)},
        {"slope": (0.1, -0.1, 0.0)},
        {"weight": -0.1},
        {"weight": float("nan")},
        {"bias": (0.0, float("inf"), 0.0)},
    ],
)
def test_numbers_of_the_wrong_sense_are_refused(numbers: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        replace(JOINT, **numbers)  # type: ignore[arg-type]


def test_points_alone_suffice_and_the_narrow_foramen_is_the_lowest(phantom: PhantomStudy) -> None:
    heights = heights_of(phantom.study, SpineLevels("1", points=phantom.points))
    assert set(heights) == set(FORAMINA)
    assert heights[NARROWED] < 0.75 * min(h for target, h in heights.items() if target != NARROWED)
    one = tuple(
        point
        for point in phantom.points
        if (point.condition, point.level) == (NARROWED.condition, NARROWED.level)
    )
    alone = heights_of(phantom.study, SpineLevels("1", points=one))
    # Nothing says how the spine runs there: up is up in the image.
    assert alone == {NARROWED: pytest.approx(heights[NARROWED], abs=2.0)}
    assert heights_of(replace(phantom.study, series=()), SpineLevels("1", points=phantom.points)) == {}


def test_the_open_bundle_joins_them_and_nothing_else_changes(phantom: PhantomStudy, grader: Grader) -> None:
    levels = SpineLevels("1", points=phantom.points)
    assert grader.rooms is not None
    joined = grader.grade(phantom.study, levels)
    alone = replace(grader, rooms=None).grade(phantom.study, levels)
    logits = grader.logits(GraderName.FORAMINAL, phantom.study, levels)
    heights = heights_of(phantom.study, levels)
    for target in TARGETS:
        if target in FORAMINA:
            expected = grader.rooms.probabilities(
                [logits[target]], [heights[target]], [np.log(level_prior(target))]
            )
            assert joined[target].probabilities == pytest.approx(expected[0])
            assert joined[target].probabilities != pytest.approx(alone[target].probabilities, abs=1e-4)
        else:
            assert joined[target].probabilities.tobytes() == alone[target].probabilities.tobytes()
    assert joined[NARROWED].probabilities[0] < 0.5
    assert Grader.load_bundled(Bundle.RESEARCH, threads=1).rooms is None


def hidden(count: int, joint: RoomEvidence, seed: int = 1) -> RoomRows:
    """Foramina whose grades go with evidence and height as the numbers say."""
    rng = np.random.default_rng(seed)
    logits, height = rng.normal(0, 1.5, (count, 3)), rng.uniform(2, 22, count)
    log_prior = np.log([level_prior(FORAMINA[place % 10]) for place in range(count)])
    p = joint.probabilities(logits, height, log_prior)
    truth = np.eye(3)[[int(rng.choice(3, p=one)) for one in p]]
    study_ids = np.array([str(place // 10) for place in range(count)], np.str_)
    return RoomRows(study_ids, logits, height, truth, log_prior)


def test_what_is_hidden_is_fitted() -> None:
    found = fit_rooms([hidden(3000, JOINT)])
    assert found.weight == pytest.approx(JOINT.weight, abs=0.08)
    assert found.slope == pytest.approx(JOINT.slope, abs=0.04)
    turned = hidden(1500, JOINT)
    turned = replace(turned, height_mm=24 - turned.height_mm)
    assert fit_rooms([turned]).slope == pytest.approx((0, 0, 0), abs=0.01)  # never the wrong way


def test_sources_count_alike_however_large(grader: Grader) -> None:
    other = RoomEvidence(0.5, (-0.3, 0.1, 0.2), (0.0, 0.0, 0.0))
    many, few = hidden(3000, JOINT), hidden(600, other, seed=2)
    slopes = [fit_rooms(rows).slope[0] for rows in ([many], [many, few], [few])]
    assert slopes[0] > slopes[1] + 0.04 > slopes[2] + 0.08
    figures = figures_of([many, few], grader)
    assert [row["foramina"] for row in figures] == [3000, 600]
    assert figures[0]["log_loss"] < figures[0]["prior_log_loss"]


def test_rows_are_of_labelled_foramina_and_are_written_and_read(tmp_path: Path, grader: Grader) -> None:
    rows = room_rows(grader, (source.load() for source in phantom_sources(2, 530_300)))
    assert len(rows) == 20 and len(set(rows.study_ids.tolist())) == 2
    assert rows.truth.sum(axis=1) == pytest.approx(1)
    with pytest.raises(ValueError, match="nothing to fit"):
        room_rows(grader, [])
    save_rooms(tmp_path, JOINT, [])
    assert FILE_NAME in read_manifest(tmp_path) and read_room_evidence(tmp_path) == JOINT
    (tmp_path / FILE_NAME).write_text(json.dumps({"joint": {"weight": 1}}))
    with pytest.raises(WeightsRejected):
        read_room_evidence(tmp_path)  # not what the manifest lists
    write_manifest(tmp_path)
    with pytest.raises(WeightsRejected, match="lumbar classifier rooms"):
        read_room_evidence(tmp_path)
    assert read_room_evidence(BUNDLED_WEIGHTS[Bundle.RESEARCH]) is None
