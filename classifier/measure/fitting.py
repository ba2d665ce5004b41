"""How the networks that measure are trained: one loop, whatever they learn; and how they are written."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from classifier.measure.network import TissueNetwork, converted_tissues
from data_prep.base.graph import SUFFIX, graph_of

_LEARNING_RATE: Final = 3e-3


def fit(
    network: TissueNetwork, loss_of: Callable[[TissueNetwork], Tensor], *, steps: int, rate: float = 1.0
) -> TissueNetwork:
    """Train a network; the mean of the last ones is returned, in evaluation mode.

    Args:
        loss_of: draws a batch, and gives the network's loss on it.
        rate: by which the learning rate is multiplied.

    Raises:
        FloatingPointError: the loss is no number.
    """
    network.train()
    mean = copy.deepcopy(network)
    optimiser = torch.optim.AdamW(network.parameters(), lr=_LEARNING_RATE, weight_decay=1e-3)
    since = time.monotonic()
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * _learning_rate(step, steps)
        loss = loss_of(network)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is no number at step {step}")
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimiser.step()
        _follow(mean, network, min(0.995, (step + 1) / (step + 21)))
        if step % 100 == 0:
            print(f"{step:6d} {time.monotonic() - since:6.0f} s {loss.item():.3f}", flush=True)
    return mean.eval()


def _learning_rate(step: int, steps: int) -> float:
    """Warm-up, level, cosine."""
    done = step / steps
    level = 1.0 if done < 0.3 else 0.5 * (1 + np.cos(np.pi * (done - 0.3) / 0.7)) + 0.003
    return _LEARNING_RATE * min(1.0, step / min(100, steps / 8) + 0.02) * float(level)


@torch.no_grad()
def _follow(mean: TissueNetwork, network: TissueNetwork, keep: float) -> None:
    """Move a running mean of networks towards another network."""
    for old, new in zip(mean.state_dict().values(), network.state_dict().values(), strict=True):
        if old.dtype.is_floating_point:
            old.mul_(keep).add_(new, alpha=1 - keep)
        else:
            old.copy_(new)


def write(network: TissueNetwork, path: Path) -> None:
    """Weights in half precision, and the graph beside them."""
    weights = save({name: tensor.half().contiguous() for name, tensor in network.state_dict().items()})
    path.write_bytes(weights)
    path.with_suffix(SUFFIX).write_bytes(graph_of(converted_tissues(weights), weights))
