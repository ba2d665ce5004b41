"""How much memory there is for workers."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_prep.base import workers

MB = 2**20


def test_a_container_has_what_its_group_leaves_and_the_machine_no_more_than_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    most, used = tmp_path / "memory.max", tmp_path / "memory.current"
    monkeypatch.setattr(workers, "_GROUPS", ((str(most), str(used)),))
    monkeypatch.setattr(workers, "_free_mb", lambda _: 250.0)
    assert workers.available_memory_mb() == 250
    used.write_text(f"{100 * MB}\n")
    for group, left in ((f"{300 * MB}\n", 200), (f"{900 * MB}\n", 250), ("max\n", 250)):
        most.write_text(group)
        assert workers.available_memory_mb() == left


def test_this_machine_says_how_much_memory_it_has() -> None:
    assert workers.available_memory_mb() > 0


def test_where_nothing_says_how_much_memory_there_is_nothing_is_limited(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    assert workers._free_mb(meminfo) == float("inf")
    meminfo.write_text("MemTotal: 8000 kB\nMemAvailable: none\n")
    assert workers._free_mb(meminfo) == float("inf")
    meminfo.write_text("MemTotal: 8000 kB\nMemAvailable: 2048 kB\n")
    assert workers._free_mb(meminfo) == 2
