"""The networks that find disc, vertebra and dural sac on a sagittal T2 slice; importing this loads torch.

A small U-Net that works on pixels of twice the size, four phases of the image as its channels, and gives
the four phases of each tissue back. Convolutions are normalised while it is trained, and stored folded.
"""

from __future__ import annotations

from typing import Final, cast

import torch
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional

from data_prep.base.graph import convert_torch

PHASES: Final = 4
TISSUES: Final = 3
_WIDTHS: Final = (24, 48, 96)

Widths = tuple[int, int, int]


class _Step(nn.Module):
    """Convolution, normalisation while it is trained, ReLU."""

    def __init__(
        self, inputs: int, outputs: int, *, is_trained: bool, kernel: int = 3, dilation: int = 1
    ) -> None:
        super().__init__()
        padding = dilation * (kernel // 2)
        self.convolution = nn.Conv2d(
            inputs, outputs, kernel, padding=padding, dilation=dilation, bias=not is_trained
        )
        self.norm = nn.BatchNorm2d(outputs) if is_trained else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.norm(self.convolution(x)))


class TissueNetwork(nn.Module):
    """Scores (before the sigmoid) of each tissue.

    Args:
        is_trained: with normalisation; ``folded`` gives the same network without.
        tissues: how many.
        widths: channels of the three scales.
    """

    def __init__(self, *, is_trained: bool = False, tissues: int = TISSUES, widths: Widths = _WIDTHS) -> None:
        super().__init__()
        self.tissues, self.widths = tissues, widths

        def step(inputs: int, outputs: int, kernel: int = 3, dilation: int = 1) -> _Step:
            return _Step(inputs, outputs, is_trained=is_trained, kernel=kernel, dilation=dilation)

        fine, middle, coarse = widths
        self.fine = nn.Sequential(step(PHASES, fine), step(fine, fine))
        self.middle = nn.Sequential(step(fine, middle), step(middle, middle))
        self.coarse = nn.Sequential(step(middle, coarse), step(coarse, coarse, dilation=2))
        self.from_coarse = step(coarse, middle, kernel=1)
        self.join_middle = step(2 * middle, middle)
        self.from_middle = step(middle, fine, kernel=1)
        self.join_fine = nn.Sequential(step(2 * fine, fine), step(fine, fine))
        self.head = nn.Conv2d(fine, PHASES * tissues, 1)

    def forward(self, phases: Tensor) -> Tensor:
        """Phases (B, 4, H, W) of an image to scores (B, tissues, 2 H, 2 W); H and W are multiples of 4."""
        fine = self.fine(phases)
        middle = self.middle(functional.max_pool2d(fine, 2))
        x = self.from_coarse(self.coarse(functional.max_pool2d(middle, 2)))
        x = self.join_middle(torch.cat([_twice(x), middle], 1))
        x = self.join_fine(torch.cat([_twice(self.from_middle(x)), fine], 1))
        return functional.pixel_shuffle(self.head(x), 2)

    def folded(self) -> TissueNetwork:
        """The same function with the normalisation inside the convolutions, in evaluation mode."""
        plain = TissueNetwork(tissues=self.tissues, widths=self.widths).eval()
        plain.head.load_state_dict(self.head.state_dict())
        mine, others = (
            [part for part in network.modules() if isinstance(part, _Step)] for network in (self, plain)
        )
        for trained, step in zip(mine, others, strict=True):
            norm = cast(nn.BatchNorm2d, trained.norm)
            assert norm.running_mean is not None and norm.running_var is not None
            assert step.convolution.bias is not None
            scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            with torch.no_grad():
                step.convolution.weight.copy_(trained.convolution.weight * scale[:, None, None, None])
                step.convolution.bias.copy_(norm.bias - norm.running_mean * scale)
        return plain


def _twice(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def network_of(weights: bytes) -> TissueNetwork:
    """The network of a safetensors file, in evaluation mode."""
    state = {name: tensor.float() for name, tensor in load(weights).items()}
    fine, middle, coarse = (
        len(state[f"{scale}.0.convolution.bias"]) for scale in ("fine", "middle", "coarse")
    )
    tissues = len(state["head.bias"]) // PHASES
    network = TissueNetwork(tissues=tissues, widths=(fine, middle, coarse)).eval()
    network.load_state_dict(state)
    return network


def converted_tissues(weights: bytes) -> bytes:
    """The network of a safetensors file as ONNX, for slices of any size."""
    return convert_torch(network_of(weights), (torch.zeros(1, PHASES, 32, 24),), [(0, 2, 3)], (0, 2, 3))
