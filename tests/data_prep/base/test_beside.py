"""Protects: a call beside gives what it gives in place, errors included, and is over when the block is."""

from __future__ import annotations

import threading

import pytest

from data_prep.base.workers import beside


@pytest.mark.parametrize("several", [True, False])
def test_a_call_gives_its_result_or_its_error(several: bool) -> None:
    def fails() -> int:
        raise KeyError("not there")

    with beside(several) as thread:
        assert thread.begin(divmod, 17, 5)() == (3, 2)
        if several:
            late = thread.begin(fails)
            with pytest.raises(KeyError):
                late()
        else:
            with pytest.raises(KeyError):
                thread.begin(fails)


def test_calls_run_one_after_the_other_in_one_other_thread() -> None:
    seen: list[tuple[int, int]] = []
    with beside(True) as thread:
        for number in range(4):
            thread.begin(lambda number=number: seen.append((number, threading.get_ident())))
    assert [number for number, _ in seen] == [0, 1, 2, 3]
    assert {ident for _, ident in seen} != {threading.get_ident()} and len({i for _, i in seen}) == 1
