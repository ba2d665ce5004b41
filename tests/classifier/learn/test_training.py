"""Training learns what can be seen, resumes to the same weights, and stops on nonsense."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from classifier.calibration import Calibration
from classifier.config import GraderName
from classifier.learn.batches import central_crop, jittered_crop
from classifier.learn.train import EpochReport, TrainingFailed, grade_cache, train_grader
from classifier.model import GraderNetwork
from classifier.storage import load_grader, save_grader
from tests.classifier.synthetic import disc_cache, tiny_config
from tests.running_out import files_of_at_most


def test_a_tiny_training_beats_the_level_prior(tmp_path: Path) -> None:
    config = tiny_config(GraderName.SPINAL, epochs=4)
    reports: list[EpochReport] = []
    train, choosing = disc_cache(config, 192, 0), disc_cache(config, 96, 1)
    network = train_grader(config, train, choosing, tmp_path, report=reports.append)
    assert [row.epoch for row in reports] == [0, 1, 2, 3]
    assert reports[-1].train_loss < 0.6 * reports[0].train_loss
    assert (reports[-1].choosing_loss or 9) < 0.6 * (reports[-1].choosing_prior_loss or 0)
    logits = grade_cache(network, choosing, config)
    assert (logits.argmax(axis=1) == choosing.label).mean() > 0.8

    stored = load_grader(tmp_path, GraderName.SPINAL)
    assert stored.config == config
    assert np.allclose(grade_cache(stored.network, choosing, config), logits, atol=0.05)
    described = json.loads((tmp_path / "spinal.json").read_text())
    assert described["config"]["training"]["seed"] == 0 and described["versions"]["torch"]
    assert (tmp_path / "spinal.log.csv").read_text().count("\n") == 5


def test_a_resumed_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    config = tiny_config(GraderName.FORAMINAL, epochs=3)
    train = disc_cache(config, 48, 0)

    class Killed(Exception):
        pass

    def kill_after_the_second(row: EpochReport) -> None:
        if row.epoch == 1:
            raise Killed

    with pytest.raises(Killed):
        train_grader(config, train, None, tmp_path / "killed", report=kill_after_the_second)
    resumed: list[EpochReport] = []
    train_grader(config, train, None, tmp_path / "killed", report=resumed.append)
    train_grader(config, train, None, tmp_path / "undisturbed")
    assert [row.epoch for row in resumed] == [2]
    weights = [(tmp_path / name / "foraminal.safetensors").read_bytes() for name in ("killed", "undisturbed")]
    assert weights[0] == weights[1]


def test_a_finished_training_that_is_started_again_keeps_its_calibration(tmp_path: Path) -> None:
    config = tiny_config(GraderName.SPINAL, epochs=1)
    train = disc_cache(config, 16, 0)
    network = train_grader(config, train, None, tmp_path)
    stored = load_grader(tmp_path, GraderName.SPINAL)
    save_grader(tmp_path, config, stored.network, Calibration(temperature=2.0), stored.metrics)
    again = train_grader(config, train, None, tmp_path)
    assert load_grader(tmp_path, GraderName.SPINAL).calibration.temperature == 2.0
    assert np.array_equal(grade_cache(again, train, config), grade_cache(network, train, config))


def test_weights_of_another_network_are_not_begun_with(tmp_path: Path) -> None:
    config = tiny_config(GraderName.SPINAL, epochs=1)
    other = replace(config, network=replace(config.network, hidden_channels=4))
    with pytest.raises(ValueError, match="spinal grader to begin with is of another network"):
        train_grader(
            config,
            disc_cache(config, 16, 0),
            None,
            tmp_path,
            start_from=GraderNetwork(other.network, other.crop).state_dict(),
        )


def test_a_full_disk_is_said_to_be_one(tmp_path: Path) -> None:
    config = tiny_config(GraderName.SPINAL, epochs=1)
    config = replace(config, network=replace(config.network, backbone_channels=(8, 64, 128)))
    with files_of_at_most(1_000_000), pytest.raises(OSError, match="File too large"):
        train_grader(config, disc_cache(config, 16, 0), None, tmp_path)
    assert not list(tmp_path.iterdir())


def test_another_configuration_does_not_resume(tmp_path: Path) -> None:
    config = tiny_config(GraderName.SPINAL, epochs=1)
    train = disc_cache(config, 16, 0)
    train_grader(config, train, None, tmp_path)
    other = replace(config, training=replace(config.training, learning_rate=1e-4))
    with pytest.raises(ValueError, match="another configuration"):
        train_grader(other, train, None, tmp_path)


def test_other_crops_or_other_weights_to_begin_with_do_not_resume(tmp_path: Path) -> None:
    config = tiny_config(GraderName.SPINAL, epochs=1)
    train = disc_cache(config, 16, 0)
    network = train_grader(config, train, None, tmp_path)
    relabelled = replace(train, truth=train.truth[::-1].copy())
    for crops, begun in (
        (disc_cache(config, 16, 1), None),
        (relabelled, None),
        (train, network.state_dict()),
    ):
        with pytest.raises(ValueError, match="other crops, or begun with other weights"):
            train_grader(config, crops, None, tmp_path, start_from=begun)
    train_grader(config, train, None, tmp_path)


def test_training_stops_on_a_loss_that_is_not_a_number(tmp_path: Path) -> None:
    config = tiny_config(GraderName.SPINAL, epochs=1)
    broken = replace(disc_cache(config, 16, 0), truth=np.full((16, 3), np.nan, dtype=np.float32))
    with pytest.raises(TrainingFailed, match="spinal: loss is nan in epoch 0, step 0"):
        train_grader(config, broken, None, tmp_path)
    assert not (tmp_path / "spinal.safetensors").exists()


def test_jitter_without_any_amount_is_the_central_crop() -> None:
    config = tiny_config(GraderName.SPINAL)
    nothing = {name: 0.0 for name in vars(config.jitter)} | {"gamma": 1.0, "blur_sd_px": 1.0}
    cache = disc_cache(config, 1, 0)
    still = replace(config.jitter, **nothing)
    generator = np.random.default_rng(0)
    jittered, kept = jittered_crop(
        cache.crops[0], cache.valid[0], config.crop, still, generator, may_reverse_slices=False
    )
    central, valid = central_crop(cache.crops[0], cache.valid[0], config.crop)
    assert np.allclose(jittered, central, atol=1e-3) and np.array_equal(kept, valid)


def test_jitter_moves_the_crop_by_the_localisers_error_and_never_to_a_missing_slice() -> None:
    config = tiny_config(GraderName.FORAMINAL, size_px=64)
    jitter = replace(config.jitter, shift_sd_mm=2.0, slice_shift_1_share=1.0, noise_sd=0.0)
    side, depth = config.crop.cached_size_px, config.crop.cached_slices
    rows, columns = np.indices((side, side)) - (side - 1) / 2
    spot = (255 * np.exp(-(rows**2 + columns**2) / 18)).astype(np.uint8)
    cached = np.repeat(spot[None], depth, axis=0)
    valid = np.array([False, False, True, True, True])
    centres = []
    for seed in range(200):
        pixels, kept = jittered_crop(
            cached, valid, config.crop, jitter, np.random.default_rng(seed), may_reverse_slices=False
        )
        assert kept[1] and np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 1
        weight = pixels[1] ** 2
        centres.append([(weight * np.arange(64)).sum(), (weight.T * np.arange(64)).sum()] / weight.sum())
    spread_mm = np.std(centres, axis=0) * config.crop.step_mm
    assert np.allclose(spread_mm, 2.0, atol=0.5)


def test_threads_and_seed_make_training_repeatable(tmp_path: Path) -> None:
    config = tiny_config(GraderName.SPINAL, epochs=1)
    train = disc_cache(config, 32, 0)
    first = train_grader(config, train, None, tmp_path / "a").state_dict()
    second = train_grader(config, train, None, tmp_path / "b").state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
