"""Protects: a network is converted once, never read from a damaged file; threads do not change its bytes."""

from __future__ import annotations

import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from data_prep.base.graph import convert_torch
from data_prep.base.openvino import (
    CompiledNetwork,
    NetworkCache,
    cache_folder,
    load_compiled,
    network_key,
)


@pytest.fixture(scope="module")
def module() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.SiLU(), torch.nn.Conv2d(4, 2, 3)).eval()


@pytest.fixture(scope="module")
def converted(module: torch.nn.Module) -> tuple[bytes, bytes]:
    return convert_torch(module, (torch.zeros(1, 1, 8, 8),), [(-1, 1, -1, -1)])


class Conversion:
    """Counts how often a network is converted."""

    def __init__(self, converted: tuple[bytes, bytes]) -> None:
        self.converted, self.times = converted, 0

    def __call__(self) -> tuple[bytes, bytes]:
        self.times += 1
        return self.converted


def image(seed: int, side: int = 12) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random((1, 1, side, side), dtype=np.float32)


def test_a_compiled_network_computes_what_torch_computes(
    module: torch.nn.Module, converted: tuple[bytes, bytes]
) -> None:
    network = CompiledNetwork.of_topology(*converted, threads=1)
    for side in (8, 12, 31):
        (found,) = network([[image(1, side)]])
        with torch.inference_mode():
            expected = module(torch.from_numpy(image(1, side))).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_bytes_do_not_depend_on_threads_or_neighbours(converted: tuple[bytes, bytes]) -> None:
    images = [image(seed, 8 + seed % 3) for seed in range(7)]
    one, three = (CompiledNetwork.of_topology(*converted, threads=threads) for threads in (1, 3))
    together, spread = one([item] for item in images), three([item] for item in images)
    alone = [one([[item]])[0] for item in images]
    for a, b, c in zip(together, spread, alone, strict=True):
        assert a.tobytes() == b.tobytes() == c.tobytes()


def test_nothing_in_nothing_out(converted: tuple[bytes, bytes]) -> None:
    assert CompiledNetwork.of_topology(*converted, threads=2)([]) == []


def test_a_network_is_converted_once(tmp_path: Path, converted: tuple[bytes, bytes]) -> None:
    cache, conversion = NetworkCache(tmp_path / "networks"), Conversion(converted)
    first = load_compiled("a", conversion, threads=1, cache=cache)([[image(2)]])[0]
    second = load_compiled("a", conversion, threads=1, cache=cache)([[image(2)]])[0]
    assert conversion.times == 1
    assert first.tobytes() == second.tobytes()
    assert [path.name for path in cache.folder.glob("a*")] == ["a.openvino"]


def test_workers_that_start_together_convert_once(tmp_path: Path, converted: tuple[bytes, bytes]) -> None:
    cache, conversion = NetworkCache(tmp_path / "networks"), Conversion(converted)
    all_begin = threading.Barrier(4)

    def slow() -> tuple[bytes, bytes]:
        time.sleep(0.2)
        return conversion()

    def load() -> CompiledNetwork:
        all_begin.wait()
        return load_compiled("a", slow, threads=1, cache=cache)

    with ThreadPoolExecutor(4) as pool:
        networks = [future.result() for future in [pool.submit(load) for _ in range(4)]]
    assert conversion.times == 1
    assert len({network([[image(3)]])[0].tobytes() for network in networks}) == 1
    load_compiled("b", conversion, threads=1, cache=cache)
    assert conversion.times == 2


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "other"])
def test_a_damaged_entry_is_made_anew(tmp_path: Path, converted: tuple[bytes, bytes], damage: str) -> None:
    cache, conversion = NetworkCache(tmp_path), Conversion(converted)
    expected = load_compiled("a", conversion, threads=1, cache=cache)([[image(2)]])[0]
    whole = cache.path("a").read_bytes()
    if damage == "other":
        cache.write("a", b"<net/>")  # sound as a file, but no network
    else:
        flipped = whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:]
        cache.path("a").write_bytes({"flipped": flipped, "cut": whole[:100], "empty": b""}[damage])
    again = load_compiled("a", conversion, threads=1, cache=cache)([[image(2)]])[0]
    assert conversion.times == 2
    assert again.tobytes() == expected.tobytes()
    assert cache.path("a").read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_no_failure(tmp_path: Path, converted: tuple[bytes, bytes]) -> None:
    (tmp_path / "file").write_text("in the way")
    cache, conversion = NetworkCache(tmp_path / "file" / "networks"), Conversion(converted)
    for _ in range(2):
        assert load_compiled("a", conversion, threads=1, cache=cache)([[image(2)]])[0].shape == (1, 2, 8, 8)
    assert conversion.times == 2


def test_old_entries_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_prep.base.openvino._MAX_ENTRIES", 2)
    cache = NetworkCache(tmp_path)
    for number, key in enumerate("abcd"):
        cache.write(key, b"compiled")
        os.utime(cache.path(key), (number, number))
    cache.write("e", b"compiled")
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["d", "e"]
    assert cache.read("e") == b"compiled"


def test_a_key_stands_for_weights_configuration_and_code(tmp_path: Path) -> None:
    code = tmp_path / "network.py"
    code.write_text("a = 1")
    key = network_key({"weights": "1", "size": 3}, [code])
    assert key == network_key({"size": 3, "weights": "1"}, [code])
    assert key != network_key({"weights": "2", "size": 3}, [code])
    code.write_text("a = 2")
    assert key != network_key({"weights": "1", "size": 3}, [code])


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="the rule of other Unix systems")
def test_the_cache_lies_in_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "lumbar"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "lumbar"
