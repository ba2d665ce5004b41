"""A configuration survives its file, and a misspelt key is never silently ignored."""

from __future__ import annotations

import json

import pytest

from classifier.config import GraderConfig, GraderName, default_config


@pytest.mark.parametrize("group", list(GraderName))
def test_configuration_survives_json(group: GraderName) -> None:
    config = default_config(group)
    assert GraderConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_parts_left_out_keep_their_defaults() -> None:
    config = GraderConfig.from_dict({"group": "spinal", "training": {"epochs": 3}})
    assert config.training.epochs == 3
    assert config.crop == default_config(GraderName.SPINAL).crop


def test_unknown_keys_are_refused_with_their_place() -> None:
    with pytest.raises(ValueError, match=r"unknown configuration key 'training\.epoch'"):
        GraderConfig.from_dict({"group": "spinal", "training": {"epoch": 3}})
    with pytest.raises(ValueError, match="unknown configuration key 'crops'"):
        GraderConfig.from_dict({"group": "spinal", "crops": {}})
    with pytest.raises(ValueError, match="needs the key 'group'"):
        GraderConfig.from_dict({})
