"""The network of a second look: where in a crop the point is, as the mean of a map of where it may be."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from data_prep.base.graph import convert_torch
from data_prep.base.networks import with_weights
from data_prep.vocabulary import LEVELS
from detector.spec import RefinerSpec

_STRIDE = 4


def _convolution(
    channels_in: int, channels_out: int, size: int = 3, stride: int = 1, dilation: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, size, stride, dilation * (size // 2), dilation, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )


class RefinerNetwork(nn.Module):
    """How far a structure lies from the middle of a crop: mean of a heat map, and a regressed rest.

    (Mean of a heat map: Nibali et al., "Numerical coordinate regression", 2018; here without regularisation.)
    """

    def __init__(self, spec: RefinerSpec) -> None:
        super().__init__()
        width = spec.channels
        self.stem = nn.Sequential(
            _convolution(1, 16, 5, 2), _convolution(16, width, 3, 2), _convolution(width, width)
        )
        self.level = nn.Embedding(len(LEVELS), width)
        self.blocks = nn.ModuleList(_convolution(width, width, dilation=d) for d in spec.dilations)
        self.heat = nn.Conv2d(width, 1, 1)
        self.offset = nn.Linear(width, 2)
        nn.init.zeros_(self.offset.weight)
        nn.init.zeros_(self.offset.bias)
        cells = torch.arange(spec.size_px // _STRIDE, dtype=torch.float32)
        # A cell of the map sees the pixels around stride x cell + 1.5.
        along_mm = (cells * _STRIDE + (_STRIDE - 1) / 2 - (spec.size_px - 1) / 2) * spec.step_mm
        down, right = torch.meshgrid(along_mm, along_mm, indexing="ij")
        self.register_buffer("places_mm", torch.stack([right.flatten(), down.flatten()], dim=1))

    def forward(self, pixels: Tensor, level: Tensor) -> Tensor:
        """Look at crops.

        Args:
            pixels: (B, 1, size_px, size_px) float in [0, 1].
            level: (B,) int64, 0 for L1/L2 … 4 for L5/S1.

        Returns:
            (B, 2) float32: millimetres rightwards and downwards from the middle of the crop.
        """
        features = self.stem(pixels * 2 - 1) + self.level(level)[:, :, None, None]
        for block in self.blocks:
            features = features + block(features)
        weight = self.heat(features).flatten(2).softmax(dim=2)
        pooled = (features.flatten(2) * weight).sum(dim=2)
        return cast(Tensor, weight[:, 0] @ self.places_mm + self.offset(pooled))


def refiner_from_bytes(spec: RefinerSpec, content: bytes) -> RefinerNetwork:
    """The network of a safetensors file's bytes, ready for inference. Raises WeightsRejected."""
    return cast(RefinerNetwork, with_weights(RefinerNetwork(spec), content, f"{spec.stem}.safetensors"))


def converted_refiner(spec: RefinerSpec, content: bytes) -> bytes:
    """The network of a weights file's bytes as ONNX, for any number of crops."""
    pixels = torch.zeros(2, 1, spec.size_px, spec.size_px)
    example = pixels, torch.zeros(2, dtype=torch.int64)
    return convert_torch(refiner_from_bytes(spec, content), example, [(0,), (0,)], (0,))
