"""Teachers grade patients whom they did not learn from; a grader learns a mixture of grades."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from classifier.config import GraderName
from classifier.learn.batches import blended
from classifier.learn.crop_cache import CropCache
from classifier.learn.teachers import Teachers, TeachersUnusable, ask_teachers, fold_of, taught
from classifier.learn.train import EpochReport, grade_cache, train_grader
from classifier.storage import load_grader
from data_prep.vocabulary import LEVELS, Condition, Target
from tests.classifier.synthetic import disc_cache, tiny_config


def _named(crops: CropCache) -> CropCache:
    """The same crops as canals of many patients, five levels each."""
    names = [
        Target(Condition.SPINAL_CANAL_STENOSIS, LEVELS[place % 5]).row_id(str(1000 + place // 5))
        for place in range(len(crops))
    ]
    return replace(crops, row_ids=np.array(names, dtype=np.str_))


def test_every_crop_is_graded_once_by_a_teacher_that_did_not_see_its_patient(tmp_path: Path) -> None:
    config = tiny_config(GraderName.SPINAL, epochs=4)
    crops = _named(disc_cache(config, 200, 0))
    told: list[tuple[int, int]] = []

    def tell(fold: int, row: EpochReport) -> None:
        told.append((fold, row.epoch))

    found = ask_teachers(config, crops, None, tmp_path, folds=2, report=tell)
    assert told == [(fold, epoch) for fold in (0, 1) for epoch in range(4)]
    assert sorted(found.row_ids) == sorted(crops.row_ids)
    # The teacher of fold 0 learned from fold 1 alone: the same training without teachers is the same network.
    fold = np.array([fold_of(study, 2) for study in crops.study_ids])
    alone = train_grader(config, crops.where(fold != 0), None, tmp_path / "alone")
    taught_ones = load_grader(tmp_path / "fold0", GraderName.SPINAL).network.state_dict()
    assert all(
        torch.allclose(value.float(), taught_ones[name].float(), atol=2e-3)
        for name, value in alone.state_dict().items()
    )
    place = {row_id: index for index, row_id in enumerate(found.row_ids)}
    own = found.logits[[place[row_id] for row_id in crops.row_ids]]
    assert (own.argmax(axis=1) == crops.label).mean() > 0.7

    again: list[int] = []
    ask_teachers(config, crops, None, tmp_path, folds=2, report=lambda fold, _: again.append(fold))
    assert not again, "what was asked is kept"
    other = replace(config, training=replace(config.training, learning_rate=1e-4))
    relabelled = replace(crops, truth=crops.truth[::-1].copy())
    for changed, asked in ((other, crops), (config, crops.where(np.arange(150))), (config, relabelled)):
        with pytest.raises(TeachersUnusable, match="choose a new folder"):
            ask_teachers(changed, asked, None, tmp_path, folds=2)


def test_one_patient_has_no_teacher(tmp_path: Path) -> None:
    config = tiny_config(GraderName.SPINAL)
    with pytest.raises(TeachersUnusable, match="too few patients"):
        ask_teachers(config, _named(disc_cache(config, 5, 0)), None, tmp_path)


def test_grades_are_mixed_where_all_teachers_spoke() -> None:
    config = tiny_config(GraderName.SPINAL)
    crops = _named(disc_cache(config, 100, 0))
    sure = 6.0 * (np.eye(3)[crops.label] - 1 / 3)
    one = Teachers(GraderName.SPINAL, crops.row_ids, sure)
    two = Teachers(GraderName.SPINAL, crops.row_ids[:60], sure[:60])
    mixed = taught(crops, [one, two], 0.5)
    assert np.array_equal(mixed.truth[60:], crops.truth[60:])
    assert np.allclose(mixed.truth.sum(axis=1), 1, atol=1e-5)
    assert (mixed.truth[:60].argmax(axis=1) == crops.label[:60]).all()
    assert np.array_equal(mixed.label, crops.label)
    # A reader whom all teachers contradict keeps half of the grade.
    wrong = sure.copy()
    wrong[0] = np.roll(wrong[0], 1)
    doubted = taught(crops, [Teachers(GraderName.SPINAL, crops.row_ids, wrong)], 0.5).truth[0]
    assert doubted[crops.label[0]] == pytest.approx(0.5, abs=0.1)
    assert np.array_equal(taught(crops, [one], 0.0).truth, crops.truth)
    # Two slices of each target, as two data sets have them.
    twice = Teachers(GraderName.SPINAL, np.tile(crops.row_ids, 2), np.concatenate([sure, sure]))
    assert np.array_equal(taught(crops, [twice, one], 0.5).truth, taught(crops, [one, one], 0.5).truth)


def test_teachers_of_others_are_refused(tmp_path: Path) -> None:
    config = tiny_config(GraderName.SPINAL)
    crops = _named(disc_cache(config, 10, 0))
    strangers = Teachers(GraderName.SPINAL, np.array(["9_spinal_canal_stenosis_l1_l2"]), np.zeros((1, 3)))
    with pytest.raises(TeachersUnusable, match="none of these crops"):
        taught(crops, [strangers], 0.5)
    foreign = Teachers(GraderName.FORAMINAL, crops.row_ids, np.zeros((10, 3)))
    with pytest.raises(TeachersUnusable, match="not all of one grader"):
        taught(crops, [strangers, foreign], 0.5)
    path = tmp_path / "patient-name.npz"
    foreign.save(path)
    assert Teachers.load(path).grader is GraderName.FORAMINAL
    path.write_bytes(b"PK nonsense")
    with pytest.raises(TeachersUnusable, match="not what `lumbar classifier teach` writes"):
        Teachers.load(path)
    Teachers(GraderName.SPINAL, crops.row_ids, np.full((10, 3), np.nan)).save(path)
    with pytest.raises(TeachersUnusable, match="finite"):
        Teachers.load(path)


def test_half_of_the_crops_are_blended_and_their_grades_alike() -> None:
    torch.manual_seed(0)
    pixels = torch.arange(400.0)[:, None, None, None].expand(400, 1, 2, 2) / 400
    truth = torch.eye(3)[torch.arange(400) % 3]
    mixed, grades = blended(pixels, truth, 0.6)
    changed = (mixed != pixels).flatten(1).any(dim=1)
    assert 0.4 < changed.float().mean() < 0.6
    assert torch.equal(grades[~changed], truth[~changed])
    assert torch.allclose(grades.sum(dim=1), torch.ones(400))
    assert grades.max(dim=1).values.min() >= 0.4 - 1e-6
    assert (grades[changed].max(dim=1).values < 1).float().mean() > 0.5


def test_a_grader_goes_on_from_another(tmp_path: Path) -> None:
    config = tiny_config(GraderName.SPINAL, epochs=2)
    crops = _named(disc_cache(config, 96, 0))
    first = train_grader(config, crops, None, tmp_path / "first")
    still = replace(config, training=replace(config.training, epochs=1, learning_rate=1e-9, blend=0.4))
    state = load_grader(tmp_path / "first", GraderName.SPINAL).network.state_dict()
    second = train_grader(still, crops, None, tmp_path / "second", start_from=state)
    assert np.abs(grade_cache(second, crops, still) - grade_cache(first, crops, config)).max() < 0.3
