"""Options of a grader: each trains and grades, none disturbs what was saved without it."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from classifier.any_severe import terms
from classifier.config import (
    GraderConfig,
    GraderName,
    NetworkConfig,
    TrainingConfig,
    default_config,
    merged,
)
from classifier.learn.batches import crop_batch, epoch_order, training_batches
from classifier.learn.crop_cache import CropCache, CropsUnusable, build_cache, is_parted
from classifier.learn.devices import (
    DeviceUnusable,
    detector_device,
    mixed_dtype,
    mixed_precision,
    resolve_device,
)
from classifier.learn.losses import any_severe_loss
from classifier.learn.pretrained import PretrainedUnusable, load_pretrained
from classifier.learn.train import grade_cache, train_grader
from classifier.model import GraderNetwork
from classifier.storage import load_grader
from data_prep.vocabulary import LEVELS
from tests.classifier.synthetic import disc_cache, tiny_config

SPINAL = GraderName.SPINAL


def changed(**changes: Any) -> GraderConfig:
    return merged(tiny_config(SPINAL, epochs=1), changes)


def whole_studies(config: GraderConfig, studies: int) -> CropCache:
    """Crops of five levels of several studies."""
    cache = disc_cache(config, 5 * studies, 0)
    level = np.tile(np.arange(5), studies)
    rows = [f"{k // 5}_spinal_canal_stenosis_{LEVELS[level[k]].value}" for k in range(5 * studies)]
    return replace(cache, level=level, row_ids=np.array(rows))


@pytest.mark.parametrize(
    "changes",
    [
        {"network": {"pooling": "mean"}},
        {"network": {"slices_as": "channels"}},
        {"crop": {"seen_height_mm": 20.0}, "network": {"slices_as": "channels"}},
        {"jitter": {"alone_share": 1.0, "mirror_share": 1.0}},
        {"training": {"any_severe_weight": 0.5}},
    ],
)
def test_every_option_trains_and_comes_back_from_the_disk(changes: dict[str, Any], tmp_path: Path) -> None:
    config = changed(**changes)
    cache = whole_studies(config, 8)
    network = train_grader(config, cache, None, tmp_path)
    stored = load_grader(tmp_path, SPINAL)
    assert stored.config == config
    assert np.allclose(
        grade_cache(stored.network, cache, config), grade_cache(network, cache, config), atol=0.05
    )


def test_an_option_with_an_unknown_value_is_refused() -> None:
    with pytest.raises(ValueError, match="pooling must be one of"):
        NetworkConfig(pooling="max")
    with pytest.raises(ValueError, match="slices_as must be one of images, channels, but got 'rows'"):
        NetworkConfig(slices_as="rows")
    with pytest.raises(ValueError, match="any_severe_weight"):
        TrainingConfig(any_severe_weight=-1.0)


def test_a_slice_that_does_not_exist_repeats_the_middle_one_where_slices_are_channels() -> None:
    config = changed(network={"slices_as": "channels"})
    network = GraderNetwork(config.network, config.crop).eval()
    pixels = torch.rand(2, config.crop.slices, config.crop.size_px, config.crop.size_px)
    middle = config.crop.slices // 2
    repeated = pixels[:, middle, None].expand_as(pixels)
    alone = torch.zeros(2, config.crop.slices, dtype=torch.bool)
    alone[:, middle] = True
    level = torch.tensor([0, 3])
    with torch.inference_mode():
        hidden = network(pixels, alone, level)
        assert torch.allclose(hidden, network(repeated, torch.ones_like(alone), level), atol=1e-5)
        assert not torch.allclose(hidden, network(pixels, torch.ones_like(alone), level), atol=1e-4)


def test_what_lies_beyond_the_seen_height_changes_nothing() -> None:
    config = changed(crop={"seen_height_mm": 16.0})
    cache = whole_studies(config, 1)
    changed_edges = cache.crops.copy()
    hidden = round((config.crop.cached_size_mm - 16.0) / 2 / config.crop.step_mm) - 2
    changed_edges[:, :, :hidden] = 255
    changed_edges[:, :, -hidden:] = 0
    other = replace(cache, crops=changed_edges)
    one, two = (crop_batch(crops, np.arange(5), config, None).pixels for crops in (cache, other))
    assert torch.equal(one, two) and float(one.max()) == 1.0
    assert float(one[:, :, 0].max()) == 0.0 and float(one[:, :, -1].max()) == 0.0


def test_a_mirrored_crop_is_the_crop_in_a_mirror() -> None:
    calm = {name: 0.0 for name in ("shift_sd_mm", "shift_tail_share", "rotation_deg", "scale", "noise_sd")}
    calm |= {"brightness_slope": 0.0, "blur_share": 0.0, "slice_drop_share": 0.0, "gamma": 1.0}
    calm |= {"slice_shift_1_share": 0.0, "slice_shift_2_share": 0.0}
    plain, mirrored = (
        merged(tiny_config(GraderName.SPINAL_AXIAL), {"jitter": {**calm, "mirror_share": share}})
        for share in (0.0, 1.0)
    )
    cache = disc_cache(plain, 3, 0)
    # Percentiles are read on every third column, in a mirror on others: here black and white are many.
    crops = np.where(cache.crops < 20, 0, np.where(cache.crops < 180, cache.crops, 255)).astype(np.uint8)
    cache = replace(cache, crops=crops)
    one, other = (crop_batch(cache, np.arange(3), config, (1,)).pixels for config in (plain, mirrored))
    assert not torch.allclose(one, other, atol=0.1)
    assert torch.allclose(one, other.flip(-1), atol=1e-6)


def test_batches_hold_whole_studies_where_the_grader_needs_them() -> None:
    config = changed(training={"any_severe_weight": 0.1, "batch_size_crops": 12})
    cache = whole_studies(config, 9)
    order = epoch_order(cache, config, 0)
    assert sorted(np.concatenate(order).tolist()) == list(range(45))
    for part in order:
        assert (np.unique(cache.sequence[part], return_counts=True)[1] == 5).all()
    foraminal = merged(tiny_config(GraderName.FORAMINAL), {"training": {"any_severe_weight": 0.1}})
    assert not foraminal.needs_whole_studies


def test_the_any_severe_loss_is_the_metrics_term_for_plain_labels() -> None:
    generator = np.random.default_rng(0)
    label, study = generator.integers(0, 3, 30), np.repeat(np.arange(6), 5)
    logits = torch.from_numpy(generator.normal(size=(30, 3)))
    weights, flat = torch.tensor([1.0, 2.0, 4.0]).double(), torch.zeros(30, 3).double()
    q = (logits + weights.log()).softmax(dim=1).numpy()
    loss = any_severe_loss(logits, flat, torch.eye(3).double()[label], weights, torch.from_numpy(study))
    assert float(loss) == pytest.approx(terms(q, label, study)[1], rel=1e-5)


def test_workers_prepare_the_same_batches_in_the_same_order() -> None:
    config = changed()
    cache = whole_studies(config, 12)
    alone = list(training_batches(cache, config, 3))
    helped = list(training_batches(cache, config, 3, workers=3))
    assert len(alone) == len(helped) > 2
    for one, other in zip(alone, helped, strict=True):
        assert torch.equal(one.pixels, other.pixels) and torch.equal(one.truth, other.truth)


def test_a_cache_from_before_an_option_is_still_read(tmp_path: Path) -> None:
    crops = {SPINAL: default_config(SPINAL).crop}
    list(build_cache([], tmp_path, crops, natural_grades=True))
    described = json.loads((tmp_path / "cache.json").read_text())
    del described["crops"]["spinal"]["resolution_mm"]
    (tmp_path / "cache.json").write_text(json.dumps(described))
    assert list(build_cache([], tmp_path, crops, natural_grades=True)) == []
    # Whether studies of the test part are in it has no default.
    del described["parted"]
    (tmp_path / "cache.json").write_text(json.dumps(described))
    with pytest.raises(CropsUnusable, match="cut into a new folder"):
        is_parted(tmp_path)


def test_pretrained_weights_come_from_a_local_file_and_nothing_is_unpickled(tmp_path: Path) -> None:
    import timm

    torch.manual_seed(1)
    trained = timm.create_model("mobilenetv4_conv_small", pretrained=False)
    state = trained.state_dict()
    torch.save(state, tmp_path / "weights.pth")
    config = changed(network={"backbone": "mobilenetv4_conv_small", "backbone_stage": 2})
    network = GraderNetwork(config.network, config.crop)
    assert load_pretrained(network, tmp_path / "weights.pth") > 20
    own = network.backbone.net.state_dict()
    first = next(name for name in own if own[name].ndim == 4)
    assert torch.allclose(own[first], state[first].sum(dim=1, keepdim=True))

    torch.save({"a": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(PretrainedUnusable, match="of another network"):
        load_pretrained(network, tmp_path / "other.pth")
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(_Evil()))
    with pytest.raises(PretrainedUnusable, match="cannot be read"):
        load_pretrained(network, tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()
    plain = GraderNetwork(tiny_config(SPINAL).network, tiny_config(SPINAL).crop)
    with pytest.raises(PretrainedUnusable, match="need a timm backbone"):
        load_pretrained(plain, tmp_path / "weights.pth")


class _Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (exec, ("raise SystemExit('unpickled')",))


def test_devices_are_named_and_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_device("cpu").type == "cpu" and detector_device(torch.device("cpu")) == "cpu"
    assert detector_device(torch.device("cuda", 1)) == "1"
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for text, message in (("tpu", "unknown device"), ("cuda:99", "not available"), ("", "unknown device")):
        with pytest.raises(DeviceUnusable, match=message):
            resolve_device(text)
    assert mixed_dtype(torch.device("mps")) is None
    for has_it, expected in ((True, torch.bfloat16), (False, None)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda has_it=has_it: {"avx512_bf16": has_it})
        assert mixed_dtype(torch.device("cpu")) is expected, "emulated bfloat16 is slower than float32"
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    with mixed_precision(torch.device("cpu"), enabled=False):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is torch.float32
    with mixed_precision(torch.device("cpu"), enabled=True):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is torch.bfloat16
