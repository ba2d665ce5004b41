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
from classifier.config import GraderConfig, NetworkConfig, TrainingConfig, default_config, merged
from classifier.learn.batches import crop_batch, epoch_order, mixed, training_batches
from classifier.learn.crop_cache import CropCache, build_cache, load_cache
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
from classifier.predict import Grader
from classifier.storage import BUNDLED_WEIGHTS, load_grader
from data_prep.study import SpineLevels
from data_prep.vocabulary import LEVELS, ConditionGroup
from tests.classifier.synthetic import all_points, disc_cache, textured_study, tiny_config

SPINAL = ConditionGroup.SPINAL


def changed(**changes: Any) -> GraderConfig:
    return merged(tiny_config(SPINAL, epochs=1), changes)


def whole_studies(config: GraderConfig, studies: int, *, second: bool = False) -> CropCache:
    """Crops of five levels of several studies."""
    cache = disc_cache(config, 5 * studies, 0)
    level = np.tile(np.arange(5), studies)
    rows = [f"{k // 5}_spinal_canal_stenosis_{LEVELS[level[k]].value}" for k in range(5 * studies)]
    cache = replace(cache, level=level, row_ids=np.array(rows))
    return replace(cache, second=cache.crops, second_valid=cache.valid) if second else cache


@pytest.mark.parametrize(
    "changes",
    [
        {"network": {"pooling": "mean"}},
        {"network": {"level_context_layers": 1, "hidden_channels": 16}},
        {"crop": {"second_view": True}},
        {"training": {"mix_share": 1.0}},
        {"training": {"any_severe_weight": 0.5}},
    ],
)
def test_every_option_trains_and_comes_back_from_the_disk(changes: dict[str, Any], tmp_path: Path) -> None:
    config = changed(**changes)
    cache = whole_studies(config, 8, second=config.crop.second_view)
    network = train_grader(config, cache, None, tmp_path)
    stored = load_grader(tmp_path, SPINAL)
    assert stored.config == config
    assert np.allclose(
        grade_cache(stored.network, cache, config), grade_cache(network, cache, config), atol=0.05
    )


def test_weights_and_configurations_from_before_the_options_load() -> None:
    for group in ConditionGroup:
        described = json.loads((BUNDLED_WEIGHTS / f"{group.value}.json").read_text())["config"]
        for part, name in (("crop", "second_view"), ("network", "pooling"), ("training", "mix_share")):
            described[part].pop(name, None)
        config = GraderConfig.from_dict(described)
        assert not config.crop.second_view and config.network.pooling == "attention"
        network = load_grader(BUNDLED_WEIGHTS, group).network
        GraderNetwork(config.network, config.crop).load_state_dict(network.state_dict())
    with pytest.raises(ValueError, match="pooling must be one of"):
        NetworkConfig(pooling="max")
    with pytest.raises(ValueError, match="mix_share"):
        TrainingConfig(mix_share=2.0)


def test_context_looks_at_the_levels_of_the_same_study_alone() -> None:
    config = changed(network={"level_context_layers": 1})
    network = GraderNetwork(config.network, config.crop).eval()
    assert network.context is not None
    torch.nn.init.ones_(network.context.gain)
    cache = whole_studies(config, 2)
    both, alone = (
        crop_batch(cache, np.arange(10), config, None),
        crop_batch(cache, np.arange(5), config, None),
    )
    with torch.inference_mode():
        joined, first = both.logits(network), alone.logits(network)
        assert torch.allclose(joined[:5], first, atol=1e-5)
        single = network(both.pixels[:1], both.valid[:1], both.level[:1])
    assert not torch.allclose(single[0], joined[0], atol=1e-4)


def test_batches_hold_whole_studies_where_the_grader_needs_them() -> None:
    config = changed(training={"any_severe_weight": 0.1, "batch_size_crops": 12})
    cache = whole_studies(config, 9)
    order = epoch_order(cache, config, 0)
    assert sorted(np.concatenate(order).tolist()) == list(range(45))
    for part in order:
        assert (np.unique(cache.sequence[part], return_counts=True)[1] == 5).all()
    foraminal = merged(tiny_config(ConditionGroup.FORAMINAL), {"training": {"any_severe_weight": 0.1}})
    assert not foraminal.needs_whole_studies


def test_the_any_severe_loss_is_the_metrics_term_for_plain_labels() -> None:
    generator = np.random.default_rng(0)
    label, study = generator.integers(0, 3, 30), np.repeat(np.arange(6), 5)
    logits = torch.from_numpy(generator.normal(size=(30, 3)))
    weights, flat = torch.tensor([1.0, 2.0, 4.0]).double(), torch.zeros(30, 3).double()
    q = (logits + weights.log()).softmax(dim=1).numpy()
    loss = any_severe_loss(logits, flat, torch.eye(3).double()[label], weights, torch.from_numpy(study))
    assert float(loss) == pytest.approx(terms(q, label, study)[1], rel=1e-5)


def test_mixing_keeps_truths_and_levels() -> None:
    config = changed(training={"mix_share": 1.0})
    cache = whole_studies(config, 6)
    batch = crop_batch(cache, np.arange(30), config, (0,))
    for seed in range(6):
        out = mixed(batch, config.training, np.random.default_rng(seed))
        assert torch.allclose(out.truth.sum(dim=1), torch.ones(30)) and torch.equal(out.level, batch.level)
        assert torch.allclose(out.log_prior.exp().sum(dim=1), torch.ones(30), atol=1e-5)
        assert float(out.pixels.min()) >= 0 and float(out.pixels.max()) <= 1
        assert not torch.equal(out.pixels, batch.pixels)


def test_workers_prepare_the_same_batches_in_the_same_order() -> None:
    config = changed(training={"mix_share": 0.5})
    cache = whole_studies(config, 12)
    alone = list(training_batches(cache, config, 3))
    helped = list(training_batches(cache, config, 3, workers=3))
    assert len(alone) == len(helped) > 2
    for one, other in zip(alone, helped, strict=True):
        assert torch.equal(one.pixels, other.pixels) and torch.equal(one.truth, other.truth)


def test_a_second_view_is_cut_cached_and_graded(tmp_path: Path) -> None:
    crops = {g: replace(tiny_config(g).crop, second_view=True) for g in ConditionGroup}
    graders = {}
    for group in ConditionGroup:
        config = merged(tiny_config(group, epochs=1), {"crop": {"second_view": True}})
        cache = whole_studies(config, 2, second=True)
        train_grader(config, cache, None, tmp_path)
        graders[group] = load_grader(tmp_path, group)
    study, points = textured_study(), all_points()
    both = Grader(graders).grade(study, SpineLevels("7", points=points))
    axial = next(series for series in study.series if series.kind == "Axial T2")
    without = replace(study, series=tuple(series for series in study.series if series is not axial))
    one = Grader(graders).grade(without, SpineLevels("7", points=points))
    canal = next(target for target in both if target.condition.group is SPINAL)
    assert not np.allclose(both[canal].probabilities, one[canal].probabilities)
    assert one[canal].source == "seen"

    list(build_cache([], tmp_path / "cache", crops, natural_grades=True))
    with pytest.raises(ValueError, match="not cut for this spinal configuration"):
        load_cache(tmp_path / "cache", SPINAL, tiny_config(SPINAL).crop)


def test_a_cache_from_before_an_option_is_still_read(tmp_path: Path) -> None:
    crops = {SPINAL: default_config(SPINAL).crop}
    list(build_cache([], tmp_path, crops, natural_grades=True))
    described = json.loads((tmp_path / "cache.json").read_text())
    del described["crops"]["spinal"]["second_view"]
    (tmp_path / "cache.json").write_text(json.dumps(described))
    assert list(build_cache([], tmp_path, crops, natural_grades=True)) == []


def test_pretrained_weights_come_from_a_local_file_and_nothing_is_unpickled(tmp_path: Path) -> None:
    import timm

    torch.manual_seed(1)
    trained = timm.create_model("mobilenetv4_conv_small", pretrained=False)
    state = trained.state_dict()
    torch.save(state, tmp_path / "weights.pth")
    config = changed(network={"backbone": "mobilenetv4_conv_small", "backbone_stage": 2})
    network = GraderNetwork(config.network, config.crop)
    assert load_pretrained(network, tmp_path / "weights.pth") > 50
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
