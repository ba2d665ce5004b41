"""A training that is small but real: it runs, learns, resumes, and its weights load."""

import json
import shutil
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from data_prep.base.networks import save_network
from detector.learn.dataset import LevelDataset, views_ahead
from detector.learn.slices import SlicesUnusable
from detector.learn.study_slices import phantom_slices
from detector.learn.train import LevelTrainer, TrainConfig, train_detector
from detector.learn.views import AugmentConfig
from detector.look.network import build_network, network_from_bytes
from detector.spec import AXIAL, SAGITTAL, DetectorKind
from tests.running_out import files_of_at_most

pytestmark = pytest.mark.usefixtures("training_imported")

TINY = TrainConfig(kind=DetectorKind.AXIAL, epochs=3, samples_per_epoch=12, batch_size_slices=4, threads=1)


def test_an_interrupted_training_goes_on_learns_writes_weights_and_describes_itself(tmp_path: Path) -> None:
    slices = phantom_slices(DetectorKind.AXIAL, studies=2, seed=5)
    epochs: list[int] = []

    class Stopped(Exception):
        pass

    def stop_after_two(epoch: int, _: dict[str, float]) -> None:
        epochs.append(epoch)
        if epoch == 2:
            raise Stopped

    with pytest.raises(Stopped):
        train_detector(TINY, [(1.0, slices)], slices[:3], tmp_path, on_epoch=stop_after_two)
    assert epochs == [1, 2] and not (tmp_path / "axial.safetensors").exists()
    for changed, learned in ((replace(TINY, epochs=5), slices), (TINY, slices[1:])):
        with pytest.raises(SlicesUnusable, match="other options or slices"):
            train_detector(changed, [(1.0, learned)], slices[:3], tmp_path, resume=True)
    resumed: list[int] = []
    copy = Path(shutil.copytree(tmp_path / "training", tmp_path / "copy" / "training")).parent
    left = {path: path.read_bytes() for path in (tmp_path / "training").rglob("*") if path.is_file()}
    train_detector(TINY, [(1.0, slices)], slices[:3], copy, resume=True)
    assert {path: path.read_bytes() for path in left} == left
    weights = train_detector(
        TINY,
        [(1.0, slices)],
        slices[:3],
        tmp_path,
        resume=True,
        on_epoch=lambda epoch, _: resumed.append(epoch),
    )
    assert resumed and resumed[0] > 1 and resumed[-1] == 3
    assert weights.read_bytes() == (copy / "axial.safetensors").read_bytes()
    again = train_detector(TINY, [(1.0, slices)], slices[:3], tmp_path, resume=True, on_epoch=stop_after_two)
    assert again == weights and resumed[-1] == 3
    checkpoint = copy / "training" / "weights" / "last.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    (copy / "axial.safetensors").unlink()
    with pytest.raises(SlicesUnusable, match="cut off while it was written"):
        train_detector(TINY, [(1.0, slices)], slices[:3], copy, resume=True)
    log = pd.read_csv(tmp_path / "axial_results.csv")
    log.columns = [name.strip() for name in log.columns]
    total = log[[name for name in log.columns if name.startswith("train/")]].sum(axis=1)
    assert total.iloc[-1] < total.iloc[0]
    assert (tmp_path / "axial_results.png").stat().st_size > 5000
    description = json.loads((tmp_path / "axial.json").read_text())
    assert description["training"]["seed"] == TINY.seed
    assert description["sources"][0]["patients"] == sorted({item.patient for item in slices})
    model = network_from_bytes(AXIAL, weights.read_bytes())
    output = model(torch.zeros(1, 1, 256, 256))
    assert output[0].shape[1] == 4 + 1 + 2 * 3


def test_a_disk_that_is_full_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    slices = phantom_slices(DetectorKind.AXIAL, studies=1, seed=5)
    checkpoint = tmp_path / "training" / "weights" / "last.pt"
    kept: list[bytes] = []

    def fill(epoch: int, _: dict[str, float]) -> None:
        kept.append(checkpoint.read_bytes())
        full.enter_context(files_of_at_most(len(kept[0]) // 2))

    with ExitStack() as full, pytest.raises(OSError, match="File too large"):
        train_detector(TINY, [(1.0, slices)], [], tmp_path, on_epoch=fill)
    assert len(kept) == 1 and checkpoint.read_bytes() == kept[0]
    assert [path.name for path in checkpoint.parent.glob("last*")] == ["last.pt"]


def test_views_depend_on_seed_epoch_and_index_alone() -> None:
    slices = phantom_slices(DetectorKind.AXIAL, studies=1, seed=5)
    first, second = (
        LevelDataset([(1.0, slices)], AXIAL, AugmentConfig(), samples_per_epoch=8, seed=5) for _ in range(2)
    )
    _ = first[3]
    assert torch.equal(first[6]["img"], second[6]["img"])
    second.epoch = 1
    assert not torch.equal(first[6]["img"], second[6]["img"])


def test_views_made_ahead_are_those_of_the_epoch() -> None:
    slices = phantom_slices(DetectorKind.AXIAL, studies=1, seed=5)
    dataset = LevelDataset([(1.0, slices)], AXIAL, AugmentConfig(), samples_per_epoch=8, seed=5)
    ahead = views_ahead(dataset, 4, workers=2)
    for epoch in (0, 1):
        dataset.epoch = epoch
        made = torch.cat([batch["img"] for batch in ahead])
        assert torch.equal(made, torch.stack([dataset[i]["img"] for i in range(8)]))


def test_a_training_with_workers_writes_weights(tmp_path: Path) -> None:
    slices = phantom_slices(DetectorKind.AXIAL, studies=1, seed=5)
    config = replace(TINY, epochs=2, samples_per_epoch=4, workers=2)
    epochs: list[int] = []
    weights = train_detector(
        config, [(1.0, slices)], [], tmp_path, on_epoch=lambda epoch, _: epochs.append(epoch)
    )
    assert epochs == [1, 2] and weights.is_file()


def test_sagittal_score_targets_fill_the_disc_class() -> None:
    model = build_network(SAGITTAL)
    model.args = type("Gains", (), {"box": 7.5, "cls": 0.5, "dfl": 1.5, "pose": 12.0, "kobj": 1.0})()
    model.kpt_oks_sigmas = [0.1, 0.1]
    loss = model.init_criterion()
    anchors = torch.tensor([[x + 0.5, y + 0.5] for y in range(8) for x in range(8)]) * 8
    boxes = torch.cat([anchors - 16, anchors + 16], dim=1)[None]
    scores = torch.full((1, 64, 8), 0.2)
    truth = torch.tensor([[[16.0, 16, 48, 48]]])
    _, _, targets, foreground, _ = loss.assigner(
        scores, boxes, anchors, torch.tensor([[[4.0]]]), truth, torch.ones(1, 1, 1, dtype=torch.bool)
    )
    assert foreground.any()
    chosen = targets[foreground.bool()]
    assert torch.equal(chosen[:, SAGITTAL.disc_class], chosen[:, 4])
    assert chosen[:, [0, 1, 2, 3, 5, 6]].abs().max() == 0


def test_weights_survive_half_precision(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build_network(AXIAL).eval()
    save_network(model, tmp_path / "w.safetensors")
    loaded = network_from_bytes(AXIAL, (tmp_path / "w.safetensors").read_bytes())
    image = torch.rand(1, 1, 128, 128)
    with torch.inference_mode():
        np.testing.assert_allclose(model(image)[0].numpy(), loaded(image)[0].numpy(), rtol=0.02, atol=0.6)


def test_nothing_to_train_on_is_said_clearly(tmp_path: Path) -> None:
    with pytest.raises(SlicesUnusable, match="no labelled slice"):
        train_detector(TINY, [(1.0, [])], [], tmp_path)


def test_no_logger_and_no_server_is_told_of_a_training() -> None:
    from ultralytics.utils.callbacks.base import default_callbacks
    from ultralytics.utils.events import callbacks as events

    told: list[str] = []

    def theirs(trainer: object) -> None:
        told.append("theirs")

    theirs.__module__ = "ultralytics.utils.callbacks.mlflow"
    trainer = LevelTrainer.__new__(LevelTrainer)
    trainer.callbacks = {"on_train_end": [theirs, lambda _: told.append("ours")]}
    trainer.run_callbacks("on_train_end")
    trainer.run_callbacks("on_train_start")
    assert told == ["ours"]
    # All that ultralytics registers of its own is told apart by its module.
    added = [*events.values(), *(each for group in default_callbacks.values() for each in group)]
    assert added and all(each.__module__.startswith("ultralytics.") for each in added)
