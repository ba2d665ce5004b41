"""The network of a grader: a 2-D backbone on each slice, attention over slices and positions, one head."""

from __future__ import annotations

import itertools
from typing import cast

import torch
from torch import Tensor, nn

from classifier.config import CropConfig, NetworkConfig
from data_prep.vocabulary import LEVELS, SEVERITIES


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions with a shortcut; halves the resolution."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
        )
        # Pooling before the 1×1 convolution (ResNet-D) keeps every pixel; and the strided 1×1 convolution in
        # channels_last of torch 2.14 (oneDNN) writes out of bounds in its backward pass.
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False),
            nn.Conv2d(channels_in, channels_out, 1, bias=False),
            nn.BatchNorm2d(channels_out),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels_in, H, W) → (B, channels_out, H/2, W/2)."""
        return torch.relu(self.body(x) + self.shortcut(x))


class CompactResnet(nn.Module):
    """A stem and one residual block per further entry of ``channels``; each halves the resolution.

    Its dense convolutions train about three times as fast on a processor as the depthwise ones of
    mobilenetv4_conv_small (7.6 against 22 ms per crop of 5 × 96 × 96, one core with AVX512-BF16).
    """

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        stem = [
            nn.Conv2d(1, channels[0], 5, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(channels[0]),
            nn.ReLU(inplace=True),
        ]
        blocks = [ResidualBlock(a, b) for a, b in itertools.pairwise(channels)]
        self.layers = nn.Sequential(*stem, *blocks)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, H, W) → (B, channels[-1], H/2^n, W/2^n)."""
        return cast(Tensor, self.layers(x))


class TimmFeatures(nn.Module):
    """One feature map of a timm backbone, from scratch; ``classifier.learn.pretrained`` fills in weights."""

    def __init__(self, name: str, stage: int) -> None:
        super().__init__()
        import timm

        self.net = timm.create_model(
            name, pretrained=False, in_chans=1, features_only=True, out_indices=(stage,)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, H, W) → (B, C, h, w)."""
        return cast(Tensor, self.net(x)[0])


class AttentionPool(nn.Module):
    """Weighted mean over all positions of all slices, with one weight map per head.

    A weight depends on what is seen at the position and on where it is, so the network can look at the
    structure in the middle and still follow it when the localiser was off. Each head pools its share of the
    channels (as in multi-head attention).
    """

    def __init__(self, channels: int, heads: int, slices: int, rows: int, columns: int) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"{channels} channels cannot be shared among {heads} attention heads")
        self.heads = heads
        self.score = nn.Conv2d(channels, heads, 1)
        self.place = nn.Parameter(_centred(slices, rows, columns)[:, None].repeat(1, heads, 1, 1))

    def forward(self, features: Tensor, valid: Tensor) -> Tensor:
        """Pool features (B, S, C, H, W) over the slices where valid (B, S) is true: (B, C)."""
        slices, channels = features.shape[1:3]
        score = self.score(features.flatten(0, 1)).unflatten(0, (-1, slices)) + self.place
        # A finite bound keeps a crop without any valid slice free of NaN.
        score = score.float().masked_fill(~valid[:, :, None, None, None], -1e4)
        weight = score.transpose(1, 2).flatten(2).softmax(dim=-1)
        tokens = features.float().unflatten(2, (self.heads, channels // self.heads))
        tokens = tokens.permute(0, 2, 3, 1, 4, 5).flatten(3)
        return torch.einsum("bhcn,bhn->bhc", tokens, weight).flatten(1)


def _centred(slices: int, rows: int, columns: int) -> Tensor:
    """(slices, rows, columns) log of a broad bump in the middle, where the localiser puts the structure."""
    axes = [torch.linspace(-1, 1, size) if size > 1 else torch.zeros(1) for size in (slices, rows, columns)]
    squares = [axis.square() * 2 for axis in axes]
    return -(squares[0][:, None, None] + squares[1][None, :, None] + squares[2][None, None, :])


class MeanPool(nn.Module):
    """Plain mean over all positions of all valid slices: what attention is compared with."""

    def forward(self, features: Tensor, valid: Tensor) -> Tensor:
        """Pool features (B, S, C, H, W) over the slices where valid (B, S) is true: (B, C)."""
        weight = valid.float()[:, :, None]
        return (features.float().mean(dim=(3, 4)) * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)


class CropEncoder(nn.Module):
    """A backbone on every slice of a crop, pooled to one vector."""

    def __init__(self, network: NetworkConfig, crop: CropConfig) -> None:
        super().__init__()
        self.backbone = _backbone(network)
        with torch.no_grad():
            shape = self.backbone.eval()(torch.zeros(1, 1, crop.size_px, crop.size_px)).shape
        self.channels = shape[1]
        self.pool = _pool(network, crop, shape)

    def forward(self, pixels: Tensor, valid: Tensor) -> Tensor:
        """(B, S, H, W) in [0, 1] and (B, S) → (B, channels); 0 where no slice is valid."""
        slices = pixels.shape[1]
        images = (pixels.flatten(0, 1)[:, None] * 2 - 1).contiguous(memory_format=torch.channels_last)
        features = self.backbone(images).unflatten(0, (-1, slices))
        return cast(Tensor, self.pool(features, valid)) * valid.any(dim=1)[:, None]


class LevelContext(nn.Module):
    """A small transformer over the levels of a study: what a level's neighbours say about it."""

    def __init__(self, channels: int, layers: int, dropout: float) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            channels, 4, 2 * channels, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.place = nn.Embedding(len(LEVELS), channels)
        # Starts as no context at all.
        self.gain = nn.Parameter(torch.zeros(channels))

    def forward(self, hidden: Tensor, level: Tensor, sequence: Tensor) -> Tensor:
        """Add context to hidden (B, C); crops of one ``sequence`` number (B,) are one spine's levels."""
        names, number = torch.unique(sequence, return_inverse=True)
        tokens = hidden.new_zeros(len(names), len(LEVELS), hidden.shape[1])
        absent = torch.ones(len(names), len(LEVELS), dtype=torch.bool, device=hidden.device)
        tokens = tokens.index_put((number, level), hidden + self.place(level).to(hidden.dtype))
        absent[number, level] = False
        seen = self.encoder(tokens, src_key_padding_mask=absent)
        return hidden + self.gain * seen[number, level]


def _backbone(network: NetworkConfig) -> nn.Module:
    if network.backbone == "compact_resnet":
        return CompactResnet(network.backbone_channels)
    return TimmFeatures(network.backbone, network.backbone_stage)


def _pool(network: NetworkConfig, crop: CropConfig, shape: torch.Size) -> nn.Module:
    if network.pooling == "mean":
        return MeanPool()
    return AttentionPool(shape[1], network.attention_heads, crop.slices, shape[2], shape[3])


class GraderNetwork(nn.Module):
    """Severity logits of one target from its crop and its level; with options, from more of the study."""

    def __init__(self, network: NetworkConfig, crop: CropConfig) -> None:
        super().__init__()
        main = CropEncoder(network, crop)
        # Flat names, so that weights from before the options load.
        self.backbone, self.pool = main.backbone, main.pool
        self.second = CropEncoder(network, crop) if crop.second_view else None
        channels = main.channels + (self.second.channels if self.second is not None else 0)
        self.level = nn.Embedding(len(LEVELS), network.level_channels)
        self.head = nn.Sequential(
            nn.Dropout(network.dropout),
            nn.Linear(channels + network.level_channels, network.hidden_channels),
            nn.ReLU(inplace=True),
            nn.Linear(network.hidden_channels, len(SEVERITIES)),
        )
        self.context = (
            LevelContext(network.hidden_channels, network.level_context_layers, network.dropout)
            if network.level_context_layers
            else None
        )
        self.train()

    def forward(
        self,
        pixels: Tensor,
        valid: Tensor,
        level: Tensor,
        sequence: Tensor | None = None,
        second: Tensor | None = None,
        second_valid: Tensor | None = None,
    ) -> Tensor:
        """Grade crops.

        Args:
            pixels: (B, S, H, W) float in [0, 1].
            valid: (B, S) bool, which slices exist.
            level: (B,) int64, 0 for L1/L2 … 4 for L5/S1.
            sequence: (B,) int64, the same number for the levels of one study and side; None: each by itself.
            second, second_valid: the other view, as pixels and valid; needed by a network that has one.

        Returns:
            (B, 3) float32 logits. Their softmax estimates the severities under the loss weights.
        """
        batch, slices = pixels.shape[:2]
        images = (pixels.flatten(0, 1)[:, None] * 2 - 1).contiguous(memory_format=torch.channels_last)
        features = self.backbone(images).unflatten(0, (-1, slices))
        parts = [self.pool(features, valid)]
        if self.second is not None:
            if second is None or second_valid is None:
                raise ValueError("this grader looks at a second view, but none was given")
            parts.append(self.second(second, second_valid))
        hidden = self.head[:3](torch.cat([*parts, self.level(level)], dim=1))
        if self.context is not None:
            alone = torch.arange(batch, device=pixels.device)
            hidden = self.context(hidden.float(), level, alone if sequence is None else sequence)
        return cast(Tensor, self.head[3](hidden)).float()
