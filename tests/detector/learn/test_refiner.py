"""The second look: what it learns from, that it learns, that a killed training goes on, and what it moves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from data_prep.base.manifest import WeightsRejected, write_manifest
from data_prep.base.networks import save_network
from data_prep.levels import LevelPoint, PointSource
from data_prep.partition import Part, part_of
from data_prep.phantom import make_study, write_dataset
from data_prep.vocabulary import ConditionGroup
from detector.learn.point_crops import PointCrops, cut_point_crops
from detector.learn.refiner import (
    RefinerTraining,
    judge,
    moved_crop,
    train_refiner,
)
from detector.learn.slices import SlicesUnusable
from detector.learn.study_slices import LeftOut
from detector.look.refiner import PointRefiner
from detector.look.refiner_network import RefinerNetwork
from detector.spec import REFINERS
from tests.running_out import files_of_at_most

CANAL, FORAMEN, RECESS = REFINERS
SMALL = RefinerTraining(epochs=3, batch_size_crops=8, learning_rate=4e-3)


def disks(count: int, seed: int) -> PointCrops:
    """A bright disk in the middle of a textured picture."""
    generator = np.random.default_rng(seed)
    side = CANAL.size_px + 2 * CANAL.margin_px
    found = []
    for _ in range(count):
        pixels = cv2.GaussianBlur(generator.normal(90, 60, (side, side)), (0, 0), 2.0)
        cv2.circle(pixels, (side // 2, side // 2), 6, 230.0, -1)
        found.append(np.clip(pixels, 0, 255).astype(np.uint8))
    return PointCrops(np.stack(found), np.zeros(count, np.int64), np.array([str(i) for i in range(count)]))


def test_the_place_of_a_moved_crop_is_where_the_structure_went() -> None:
    side = CANAL.size_px + 2 * CANAL.margin_px
    place_px = np.arange(side) - (side - 1) / 2
    crop = (255 * (np.hypot(place_px[:, None], place_px[None]) <= 7)).astype(np.uint8)
    training = replace(SMALL, noise_sd=0.0)
    for seed in range(20):
        pixels, place = moved_crop(crop, CANAL, training, np.random.default_rng(seed))
        rows, columns = np.nonzero(pixels > 0.4)
        middle = (np.array([columns.mean(), rows.mean()]) - (CANAL.size_px - 1) / 2) * CANAL.step_mm
        np.testing.assert_allclose(middle, place, atol=CANAL.step_mm)
        assert np.abs(place).max() <= 1.5 * CANAL.limit_mm


def test_it_learns_where_the_structure_is(tmp_path: Path) -> None:
    reports = []
    network = train_refiner(
        CANAL, disks(96, 0), disks(32, 1), tmp_path, SMALL, report=lambda _, errors: reports.append(errors)
    )
    assert reports[-1] == judge(network, disks(32, 1), CANAL, SMALL)
    assert reports[-1].median_mm < 0.5 * reports[-1].median_before_mm


def test_a_killed_training_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def kill(done: int, _: object) -> None:
        if done == 1:
            raise Killed

    crops, watched = disks(24, 0), disks(8, 1)
    training = replace(SMALL, epochs=2)
    whole = train_refiner(CANAL, crops, watched, tmp_path / "whole", training)
    with pytest.raises(Killed):
        train_refiner(CANAL, crops, watched, tmp_path / "killed", training, report=kill)
    resumed = train_refiner(CANAL, crops, watched, tmp_path / "killed", training)
    for one, other in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(SlicesUnusable, match="another training"):
        train_refiner(CANAL, crops, watched, tmp_path / "killed", replace(training, seed=1))
    with pytest.raises(SlicesUnusable, match="another training"):
        train_refiner(CANAL, disks(24, 2), watched, tmp_path / "killed", training)


def test_a_full_disk_is_said_to_be_one(tmp_path: Path) -> None:
    with files_of_at_most(5_000), pytest.raises(OSError, match="File too large"):
        train_refiner(CANAL, disks(24, 1), disks(8, 2), tmp_path, replace(SMALL, epochs=1))
    assert not list(tmp_path.iterdir())


def test_crops_are_cut_around_the_annotated_points_and_divided_by_study(tmp_path: Path) -> None:
    write_dataset(tmp_path, studies=4, seed=200_420)
    try:
        train, watched = cut_point_crops([tmp_path], FORAMEN)
    except SlicesUnusable:
        pytest.fail("none of these seeds belongs to the training part: choose others")
    assert {part_of(name) for name in train.study} == {Part.TRAIN}
    assert {part_of(name) for name in watched.study} <= {Part.VALIDATION}
    names, counts = np.unique(train.study, return_counts=True)
    assert len(names) and (counts == 10).all()

    table = pd.read_csv(tmp_path / "train_label_coordinates.csv", dtype=str)
    row = table.index[(table["study_id"] == names[0]) & table["condition"].str.contains("Foraminal")][0]
    table.loc[row, "series_id"] = "77"
    table.to_csv(tmp_path / "train_label_coordinates.csv", index=False)
    left_out = LeftOut()
    assert len(cut_point_crops([tmp_path], FORAMEN, left_out=left_out)[0]) == len(train) - 1
    assert [text.split(":")[0] for text in left_out.problems] == ["series_not_loaded"]
    side = FORAMEN.size_px + 2 * FORAMEN.margin_px
    assert train.pixels.shape[1:] == (side, side)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A refiner that moves every point by the same (3, −4) mm, another that moves them far too far."""
    folder = tmp_path_factory.mktemp("weights")
    for spec, offset in ((CANAL, (3.0, -4.0)), (RECESS, (30.0, 0.0))):
        network = RefinerNetwork(spec)
        with torch.no_grad():
            network.places_mm.zero_()
            network.offset.bias.copy_(torch.tensor(offset))
        save_network(network, folder / f"{spec.stem}.safetensors")
    write_manifest(folder)
    return folder


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_points_that_were_seen_are_moved_within_their_slice(weights: Path, backend: str) -> None:
    phantom = make_study(200_421)
    groups = (ConditionGroup.SPINAL, ConditionGroup.SUBARTICULAR, ConditionGroup.FORAMINAL)

    def seen(point: LevelPoint, number: int) -> LevelPoint:
        return replace(point, source=PointSource.PREDICTED if number % 5 == 0 else PointSource.SEEN)

    points = tuple(seen(point, number) for number, point in enumerate(phantom.points))
    moved = points
    for spec in (CANAL, RECESS):
        moved = PointRefiner.load(weights, spec, backend=backend, threads=1).refine(phantom.study, moved)
    assert {point.condition.group for point in points} == set(groups)
    for before, after in zip(points, moved, strict=True):
        shift = after.xyz_mm - before.xyz_mm
        if before.source is PointSource.PREDICTED or before.condition.group is ConditionGroup.FORAMINAL:
            assert after is before
            continue
        assert before.sight is not None and after.sight is not None
        plane = phantom.study.slice_at(before.sight)[1].plane
        assert abs(float(shift @ plane.normal)) < 1e-6
        if before.condition.group is ConditionGroup.SPINAL:
            # Sagittal crops are shown head up and front left: 3 mm to the back, 4 mm to the head.
            assert shift[1] == pytest.approx(3, abs=0.3) and shift[2] == pytest.approx(4, abs=0.3)
        else:
            # Right sides are looked at as in a mirror: to the patient's left there is to the right here.
            assert float(np.linalg.norm(shift)) == pytest.approx(RECESS.limit_mm, abs=1e-3)
            towards_left = (
                1 if before.condition.side is not None and before.condition.side.value == "left" else -1
            )
            assert np.sign(shift[0]) == towards_left
        at = plane.to_mm(np.array(after.sight.xy_px))
        np.testing.assert_allclose(
            at - after.xyz_mm, plane.normal * float((at - after.xyz_mm) @ plane.normal), atol=1e-6
        )


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_network(torch.nn.Linear(2, 2), tmp_path / f"{CANAL.stem}.safetensors")
    write_manifest(tmp_path)
    with pytest.raises(WeightsRejected, match="does not fit"):
        PointRefiner.load(tmp_path, CANAL)
