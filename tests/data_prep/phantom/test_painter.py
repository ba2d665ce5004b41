"""Texture of the synthetic patient."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import map_coordinates

from data_prep.phantom.painter import _interpolated, noise_volume


def test_texture_is_what_scipy_interpolates_to_the_bit() -> None:
    """Pixels of a seed, which published figures name, are made of it."""
    volume, places = noise_volume(), np.random.default_rng(0).uniform(-300, 1300, (3, 20_000))
    places[:, :1000] = np.round(places[:, :1000])
    place = places.astype(np.float32)
    expected = map_coordinates(volume, place, order=1, mode="grid-wrap")
    assert np.array_equal(_interpolated(volume, place), expected)
