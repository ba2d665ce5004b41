"""The benchmark of wrong registrations: what turned coordinates do to a slice, and the shares it reports."""

import numpy as np
import pytest

from benchmarks.orientation import REGISTRATIONS, Looked, registered, summary
from data_prep.phantom import make_study
from data_prep.study import Series
from data_prep.vocabulary import SeriesKind
from detector.look.canonical import canonical_plane


@pytest.fixture(scope="module")
def series() -> Series:
    return make_study(153_902).study.of_kind(SeriesKind.SAGITTAL_T2)[0]


@pytest.mark.parametrize(
    ("registration", "exchanged"),
    [
        ("right", (False, False)),
        ("prone for supine", (True, False)),
        ("feet first for head first", (False, True)),
        ("both", (True, True)),
    ],
)
def test_a_registration_exchanges_front_and_back_or_head_and_foot(
    series: Series, registration: str, exchanged: tuple[bool, bool]
) -> None:
    (before, after) = (
        item.slices[0].plane for item in (series, registered(series, REGISTRATIONS[registration]))
    )
    shown, turned = (canonical_plane(plane, mm_per_px=1.0, max_side_px=512) for plane in (before, after))
    corner = shown.to_px(before.to_mm([3, 5]))
    last = np.array(shown.shape[::-1]) - 1
    expected = np.where(exchanged, last - corner, corner)
    assert turned.to_px(after.to_mm([3, 5])) == pytest.approx(expected, abs=1e-6)


def test_shares_are_counted_per_kind_of_study_and_registration() -> None:
    found = [
        Looked("synthetic", "right", turned_looked_at=True, flagged=False, milliseconds=80.0),
        Looked("synthetic", "both", turned_looked_at=True, flagged=True, milliseconds=90.0),
        Looked("synthetic", "right", turned_looked_at=False, flagged=False, milliseconds=0.0),
    ]
    right, both = summary(found)
    assert right == {
        "studies": "synthetic",
        "registration": "right",
        "n": 2,
        "turned_looked_at": 0.5,
        "flagged": 0.0,
        "milliseconds": 40.0,
    }
    assert (both["n"], both["flagged"]) == (1, 1.0)
