"""Graders run by torch: what the compiled ones are compared with. Importable without torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classifier.storage import StoredGrader


def torch_logits(
    grader: StoredGrader, passes: Sequence[Sequence[NDArray[Any]]], threads: int | None
) -> NDArray[np.float64]:
    """Logits (B, 3) of the targets of one study, in its only pass; the reference."""
    import torch

    device = next(grader.network.parameters()).device
    pixels, valid, level = (torch.from_numpy(array).to(device) for array in passes[0])
    with torch_threads(threads), torch.inference_mode():
        logits = grader.network(pixels, valid, level)
    return np.asarray(logits.cpu().double().numpy())


@contextmanager
def torch_threads(threads: int | None) -> Iterator[None]:
    """Run a block with another number of torch threads."""
    import torch

    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        if threads is not None:
            torch.set_num_threads(before)
