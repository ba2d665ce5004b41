"""The network of a grader: a 2-D backbone on each slice, attention over slices and positions, one head."""

from __future__ import annotations

import copy
import itertools
import re
from typing import Any, cast

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

    def __init__(self, channels_in: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        stem = [
            nn.Conv2d(channels_in, channels[0], 5, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(channels[0]),
            nn.ReLU(inplace=True),
        ]
        blocks = [ResidualBlock(a, b) for a, b in itertools.pairwise(channels)]
        self.layers = nn.Sequential(*stem, *blocks)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels_in, H, W) → (B, channels[-1], H/2^n, W/2^n)."""
        return cast(Tensor, self.layers(x))


class _PaddedConvolution(torch.autograd.Function):
    """A convolution with its own padding on every side: one node of a graph, where torch needs two."""

    @staticmethod
    def forward(
        ctx: Any, image: Tensor, weight: Tensor, convolution: nn.Conv2d, pads: tuple[int, int, int, int]
    ) -> Tensor:
        """``pads``: left, right, above, below, in pixels."""
        return convolution._conv_forward(nn.functional.pad(image, pads), weight, None)

    @staticmethod
    def symbolic(
        g: Any, image: Any, weight: Any, convolution: nn.Conv2d, pads: tuple[int, int, int, int]
    ) -> Any:
        """The node."""
        left, right, above, below = pads
        return g.op(
            "Conv",
            image,
            weight,
            dilations_i=convolution.dilation,
            group_i=convolution.groups,
            kernel_shape_i=convolution.kernel_size,
            pads_i=[above, left, below, right],
            strides_i=convolution.stride,
        )


class FixedPadding(nn.Module):
    """A convolution that pads by the size of its image, as TensorFlow does, for images of one size.

    With any size, a graph works its padding out anew for each image, and pads in a step of its own.
    """

    def __init__(self, convolution: nn.Conv2d, image: torch.Size) -> None:
        super().__init__()
        from timm.layers.padding import pad_same_arg

        assert convolution.bias is None
        kernel, stride = list(convolution.kernel_size), list(convolution.stride)
        self.pads = tuple(pad_same_arg(list(image[-2:]), kernel, stride, list(convolution.dilation)))
        self.convolution = convolution

    def forward(self, x: Tensor) -> Tensor:
        """As the convolution."""
        return cast(Tensor, _PaddedConvolution.apply(x, self.convolution.weight, self.convolution, self.pads))


class TimmFeatures(nn.Module):
    """One feature map of a timm backbone, from scratch; ``classifier.learn.pretrained`` fills in weights."""

    def __init__(self, name: str, stage: int, channels: int) -> None:
        super().__init__()
        import timm

        net: Any = timm.create_model(
            name, pretrained=False, in_chans=channels, features_only=True, out_indices=(stage,)
        )
        # EfficientNet's and MobileNet's families keep the blocks beyond the wanted map: nobody sees them.
        wanted = re.fullmatch(r"blocks\.(\d+)(?:\..*)?", net.feature_info.module_name()[-1])
        if wanted is not None:
            del net.blocks[int(wanted[1]) + 1 :]
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) → (B, C, h, w)."""
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


def _backbone(network: NetworkConfig, channels: int) -> nn.Module:
    if network.backbone == "compact_resnet":
        return CompactResnet(channels, network.backbone_channels)
    return TimmFeatures(network.backbone, network.backbone_stage, channels)


def _pool(network: NetworkConfig, slices: int, shape: torch.Size) -> nn.Module:
    if network.pooling == "mean":
        return MeanPool()
    return AttentionPool(shape[1], network.attention_heads, slices, shape[2], shape[3])


class GraderNetwork(nn.Module):
    """Severity logits of one target from its crop and its level."""

    def __init__(self, network: NetworkConfig, crop: CropConfig) -> None:
        super().__init__()
        self.as_channels = network.slices_as == "channels"
        images, channels = (1, crop.slices) if self.as_channels else (crop.slices, 1)
        self.backbone = _backbone(network, channels)
        self.eval()
        with torch.no_grad():
            shape = self.backbone(torch.zeros(1, channels, crop.size_px, crop.size_px)).shape
        self.pool = _pool(network, images, shape)
        self.level = nn.Embedding(len(LEVELS), network.level_channels)
        self.head = nn.Sequential(
            nn.Dropout(network.dropout),
            nn.Linear(shape[1] + network.level_channels, network.hidden_channels),
            nn.ReLU(inplace=True),
            nn.Linear(network.hidden_channels, len(SEVERITIES)),
        )
        self.train()

    def forward(self, pixels: Tensor, valid: Tensor, level: Tensor) -> Tensor:
        """Grade crops.

        Args:
            pixels: (B, S, H, W) float in [0, 1].
            valid: (B, S) bool, which slices exist.
            level: (B,) int64, 0 for L1/L2 … 4 for L5/S1.

        Returns:
            (B, 3) float32 logits. Their softmax estimates the severities under the loss weights.
        """
        slices = pixels.shape[1]
        if self.as_channels:
            middle = pixels[:, slices // 2, None].expand_as(pixels)
            images = torch.where(valid[:, :, None, None], pixels, middle)
            shown = torch.ones_like(valid[:, :1])
        else:
            images, shown = pixels.flatten(0, 1)[:, None], valid
        images = (images * 2 - 1).contiguous(memory_format=torch.channels_last)
        features = self.backbone(images).unflatten(0, (-1, shown.shape[1]))
        pooled = self.pool(features, shown)
        return cast(Tensor, self.head(torch.cat([pooled, self.level(level)], dim=1))).float()


def for_graph(network: GraderNetwork, crop: CropConfig) -> GraderNetwork:
    """A copy in evaluation mode that gives the same for crops of this size; its ONNX graph is a lean one."""
    fixed = copy.deepcopy(network).eval()
    images: dict[str, torch.Size] = {}
    watched = [
        module.register_forward_pre_hook(lambda _, inputs, name=name: images.update({name: inputs[0].shape}))
        for name, module in fixed.named_modules()
        if type(module).__name__ == "Conv2dSame"
    ]
    pixels, valid = torch.zeros(1, crop.slices, crop.size_px, crop.size_px), torch.ones(1, crop.slices).bool()
    with torch.no_grad():
        fixed(pixels, valid, torch.zeros(1, dtype=torch.int64))
    for watch in watched:
        watch.remove()
    for name, image in images.items():
        fixed.set_submodule(name, FixedPadding(cast(nn.Conv2d, fixed.get_submodule(name)), image))
    return fixed
