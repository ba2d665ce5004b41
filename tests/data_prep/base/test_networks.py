"""Protects: a network computes what torch computes, and neither threads nor neighbours change its bytes."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from data_prep.base.backend import BackendUnusable
from data_prep.base.graph import convert_torch
from data_prep.base.networks import CompiledNetwork, await_networks

pytestmark = pytest.mark.usefixtures("really_computed")


@pytest.fixture(scope="module")
def module() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.SiLU(), torch.nn.Conv2d(4, 2, 3)).eval()


@pytest.fixture(scope="module")
def model(module: torch.nn.Module) -> bytes:
    return convert_torch(module, (torch.zeros(1, 1, 8, 8),), [(0, 2, 3)], (0, 2, 3))


def image(seed: int, side: int = 12) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random((1, 1, side, side), dtype=np.float32)


def test_a_network_computes_what_torch_computes(module: torch.nn.Module, model: bytes) -> None:
    network = CompiledNetwork(model, threads=1)
    for side in (8, 12, 31):
        (found,) = network([[image(1, side)]])
        with torch.inference_mode():
            expected = module(torch.from_numpy(image(1, side))).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_bytes_do_not_depend_on_threads_or_neighbours(model: bytes) -> None:
    images = [image(seed, 8 + seed % 3) for seed in range(7)]
    one, three = (CompiledNetwork(model, threads=threads) for threads in (1, 3))
    together, spread = one([item] for item in images), three([item] for item in images)
    alone = [one([[item]])[0] for item in images]
    for a, b, c in zip(together, spread, alone, strict=True):
        assert a.tobytes() == b.tobytes() == c.tobytes()


def test_networks_begun_beside_each_other_give_their_own_outputs(model: bytes) -> None:
    first, second = CompiledNetwork(model, threads=2), CompiledNetwork(model, threads=2)
    begun = [
        (network, seed, network.start([[image(seed)]])) for seed in range(4) for network in (first, second)
    ]
    for network, seed, finish in reversed(begun):
        assert finish()[0].tobytes() == network([[image(seed)]])[0].tobytes()


def test_an_error_while_inputs_are_made_leaves_the_network_usable(model: bytes) -> None:
    network = CompiledNetwork(model, threads=2)

    def broken() -> Iterator[list[NDArray[np.float32]]]:
        yield [image(1)]
        raise ValueError("cannot be decoded")

    with pytest.raises(ValueError, match="cannot be decoded"):
        network(broken())
    assert len(network([[image(2)]])) == 1


def test_nothing_in_nothing_out(model: bytes) -> None:
    assert CompiledNetwork(model, threads=2)([]) == []


@pytest.mark.parametrize("threads", [1, 2])
def test_a_network_that_cannot_be_run_is_refused_in_words(
    threads: int,
) -> None:
    with pytest.raises(BackendUnusable, match=r"cannot run a network .*--backend torch"):
        CompiledNetwork(b"no network", threads=threads)([[image(0)]])


def test_who_waits_for_all_networks_is_told_of_one_that_cannot_be_run(model: bytes) -> None:
    gc.collect()  # those of other tests
    sound = CompiledNetwork(model, threads=2)
    await_networks()
    broken = CompiledNetwork(b"no network", threads=2)
    with pytest.raises(BackendUnusable):
        await_networks()
    del broken
    assert sound([[image(0)]])
