"""A grader as ONNX Runtime runs it; see ``data_prep.base.networks``. Importable without torch."""

from __future__ import annotations

from classifier.storage import StoredGrader
from data_prep.base.graph import convert_torch
from data_prep.base.networks import CompiledNetwork, load_network

# Crops of one pass: large enough to keep a core busy, small enough to be shared among cores.
CROPS_OF_A_PASS = 5


def compiled_grader(stored: StoredGrader, threads: int | None = None) -> CompiledNetwork:
    """The grader prepared for this processor: pixels (b, S, H, W), valid (b, S), level (b,) in, logits out.

    Raises:
        WeightsRejected: the weights are not those of the described network.
    """
    return load_network(stored.weights, stored.graph, lambda: converted_grader(stored), threads=threads)


def converted_grader(stored: StoredGrader) -> bytes:
    """The network of a grader as ONNX, for any number of crops; needs torch."""
    import torch

    from classifier.model import for_graph

    crop = stored.config.crop
    network = for_graph(stored.network, crop)
    pixels = torch.zeros(2, crop.slices, crop.size_px, crop.size_px)
    view = pixels, torch.ones(2, crop.slices, dtype=torch.bool)
    return convert_torch(network, (*view, torch.zeros(2, dtype=torch.int64)), [(0,)] * 3, (0,))
