"""The synthetic patients' measures are those that were published."""

from __future__ import annotations

import pytest

from data_prep.phantom.plausibility import Measure, measure


@pytest.fixture(scope="module")
def measures() -> dict[str, Measure]:
    return {item.name: item for item in measure(80, seed=300_000)}


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split() if part.lstrip("-").replace(".", "", 1).isdigit()]


def test_anatomy_lies_in_the_published_ranges(measures: dict[str, Measure]) -> None:
    depth = _numbers(measures["canal depth L1/2→L5/S1 (mm)"].measured)
    assert len(depth) == 5 and all(13.0 < value < 20.4 for value in depth)
    middle = _numbers(measures["disc height middle, healthy, L1/2→L5/S1 (mm)"].measured.split("(")[0])
    assert middle == pytest.approx([10.0, 11.6, 12.5, 13.8, 13.0], abs=2.5)
    assert all(6.0 < value < 11.5 for value in _numbers(measures["their sd (°)"].measured))


def test_label_rates_are_beside_those_of_the_real_table(measures: dict[str, Measure]) -> None:
    rates = [item for name, item in measures.items() if name.endswith("(%)")]
    assert len(rates) == 6
    for item in rates:
        assert _numbers(item.measured) == pytest.approx(_numbers(item.published), abs=5.0)


def test_too_few_patients_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 10"):
        measure(3)
