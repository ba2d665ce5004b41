"""Protects: the speed benchmark counts each moment once, and its ratio is naive over ours."""

from __future__ import annotations

import time

import pytest

from benchmarks.speed import FURTHER_MEMBERS, NAIVE, OURS, STAGES, growth_figures, per_stage, ratios
from benchmarks.stopwatch import Stopwatch


def test_a_stage_within_another_is_taken_out_of_it() -> None:
    clock = Stopwatch()
    began = time.perf_counter()
    with clock("outer"):
        time.sleep(0.02)
        clock.timed("inner", time.sleep)(0.05)
        time.sleep(0.02)
    spent = (time.perf_counter() - began) * 1e3
    assert sum(clock.ms.values()) == pytest.approx(spent, rel=0.1)
    assert clock.ms["inner"] >= 50 and clock.ms["outer"] >= 40
    assert sum(clock.cpu_ms.values()) < spent


def row(program: str, repetition: int, stage: str, ms: float) -> dict[str, object]:
    return {"program": program, "study": "1", "repetition": repetition, "stage": stage, "ms": ms}


def test_ratios_are_of_neighbouring_runs() -> None:
    rows = [
        row(program, repetition, stage, ms * slow)
        for repetition, slow in enumerate((1.0, 10.0, 2.0))
        for program, stage, ms in (
            (NAIVE, "detection", 800.0),
            (NAIVE, "grading", 100.0),
            (NAIVE, FURTHER_MEMBERS, 150.0),
            (OURS, "detection", 100.0),
            (OURS, "grading", 50.0),
        )
    ]
    assert ratios(rows) == {"median": 6.0, "least": 6.0, "most": 6.0}
    assert ratios(rows, ["detection"])["median"] == 8.0
    assert ratios(rows, (*STAGES, FURTHER_MEMBERS))["median"] == 7.0
    assert per_stage(rows, OURS)["detection"] == 200.0


def test_growth_compares_the_end_with_the_beginning() -> None:
    rows = [{"study": n, "ms": 100.0, "resident_mb": 500.0 + n, "peak_mb": 600.0 + n} for n in range(1, 201)]
    found = growth_figures(rows)
    assert found["resident_growth"] == round(700 / 520, 3)
    assert (found["ms_per_study_early"], found["ms_per_study_late"], found["peak_mb"]) == (100, 100, 800)
    assert found["seconds_for_studies"][200] == 20.0
