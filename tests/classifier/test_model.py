"""The network: invalid slices do not count, any backbone fits, the bundle stays small."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from classifier.config import GraderConfig, GraderName, NetworkConfig, default_config
from classifier.model import GraderNetwork


@pytest.fixture(scope="module")
def config() -> GraderConfig:
    return default_config(GraderName.SPINAL)


def test_what_lies_in_invalid_slices_does_not_matter(config: GraderConfig) -> None:
    torch.manual_seed(0)
    network = GraderNetwork(config.network, config.crop).eval()
    pixels = torch.rand(2, 5, 96, 96)
    valid = torch.tensor([[False, True, True, True, False], [True] * 5])
    changed = pixels.clone()
    changed[0, [0, 4]] = 0.7
    level = torch.tensor([0, 4])
    with torch.inference_mode():
        before, after = network(pixels, valid, level), network(changed, valid, level)
        nothing = network(pixels, torch.zeros_like(valid), level)
    assert torch.allclose(before, after, atol=1e-5)
    assert torch.isfinite(nothing).all()


def test_the_network_looks_at_the_level_and_at_every_valid_slice(config: GraderConfig) -> None:
    torch.manual_seed(0)
    network = GraderNetwork(config.network, config.crop).eval()
    pixels, valid = torch.rand(1, 5, 96, 96), torch.ones(1, 5, dtype=torch.bool)
    with torch.inference_mode():
        base = network(pixels, valid, torch.tensor([0]))
        assert not torch.allclose(base, network(pixels, valid, torch.tensor([4])))
        for position in range(5):
            changed = pixels.clone()
            changed[:, position] = 1 - changed[:, position]
            assert not torch.allclose(base, network(changed, valid, torch.tensor([0])))


@pytest.mark.parametrize("backbone", ["compact_resnet", "mobilenetv4_conv_small"])
def test_stored_weights_stay_below_five_and_a_half_megabytes(config: GraderConfig, backbone: str) -> None:
    network = GraderNetwork(replace(config.network, backbone=backbone), config.crop)
    assert sum(value.numel() for value in network.state_dict().values()) * 2 < 5.5e6


def test_heads_must_share_the_channels_evenly(config: GraderConfig) -> None:
    with pytest.raises(ValueError, match="cannot be shared among 3 attention heads"):
        GraderNetwork(NetworkConfig(attention_heads=3), config.crop)
