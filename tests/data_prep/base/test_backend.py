"""Protects: which library runs the networks, and that what cannot run says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_prep.base import backend
from data_prep.base.backend import Backend, BackendUnusable, available_threads, resolve_backend


@pytest.mark.parametrize(
    ("asked", "device", "chosen"),
    [
        ("auto", "cpu", Backend.ONNX),
        ("auto", "cuda:0", Backend.TORCH),
        ("onnx", "cpu", Backend.ONNX),
        ("torch", "cpu", Backend.TORCH),
        ("torch", "cuda:0", Backend.TORCH),
    ],
)
def test_onnx_runtime_runs_on_processors_and_torch_on_the_rest(
    asked: str, device: str, chosen: Backend
) -> None:
    assert resolve_backend(asked, device=device) is chosen


def test_onnx_runtime_on_a_gpu_is_refused() -> None:
    with pytest.raises(BackendUnusable, match="not on 'cuda:0': use --backend torch"):
        resolve_backend("onnx", device="cuda:0")


def test_without_onnx_runtime_auto_is_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "find_spec", lambda name: None)
    assert resolve_backend("auto") is Backend.TORCH
    with pytest.raises(BackendUnusable, match="not installed"):
        resolve_backend("onnx")


def test_there_is_at_least_one_thread() -> None:
    assert available_threads() >= 1


@pytest.mark.parametrize(
    ("contents", "threads"),
    [
        (["max 100000"], 8),
        (["250000 100000"], 3),
        (["50000 100000"], 1),
        (["-1", "100000"], 8),
        (["200000", "100000"], 2),
    ],
)
def test_a_container_computes_on_as_many_threads_as_its_quota_pays_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, contents: list[str], threads: int
) -> None:
    files = [tmp_path / str(number) for number in range(len(contents))]
    for file, content in zip(files, contents, strict=True):
        file.write_text(content + "\n")
    monkeypatch.setattr(backend, "_QUOTAS", (("/nowhere",), tuple(map(str, files))))
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert backend.available_threads() == threads
