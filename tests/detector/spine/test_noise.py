"""The noise of an image is told from the image, and images that are too noisy are flagged."""

from dataclasses import replace

import numpy as np
import pytest

from data_prep.base.manifest import Bundle
from data_prep.phantom import PhantomStudy, make_study
from data_prep.study import Slice, Study
from data_prep.vocabulary import SeriesKind
from detector.doubts import noisy_or_turned, signal_to_noise
from detector.predict import LevelDetector

CHOOSING_SEED = 152_400


@pytest.fixture(scope="module")
def phantom() -> PhantomStudy:
    return make_study(CHOOSING_SEED)


def noisy(study: Study, ratio: float) -> Study:
    """Every slice with Rician noise: its 95th percentile stands ``ratio`` times above it."""

    def changed(item: Slice) -> Slice:
        rng, pixels = np.random.default_rng(item.instance_number), item.pixels()
        sd = np.percentile(pixels, 95) / ratio
        shown = np.hypot(pixels + rng.normal(0, sd, pixels.shape), rng.normal(0, sd, pixels.shape))
        return replace(item, read_pixels=lambda: shown.astype(np.float32))

    return study.changed(changed)


@pytest.mark.parametrize("ratio", [4.0, 10.0, 40.0])
def test_known_noise_is_measured(ratio: float) -> None:
    """Two tissues with a sharp edge between them and a slow shading."""
    rows, columns = np.mgrid[0:300, 0:260].astype(np.float32)
    pixels = np.where(columns + 0.4 * rows > 190, 900.0, 500.0) + 0.5 * rows
    signal = float(np.percentile(pixels[54:246, 34:226], 95))
    noise = np.random.default_rng(0).normal(0, signal / ratio, pixels.shape)
    assert signal_to_noise((pixels + noise).astype(np.float32)) == pytest.approx(ratio, rel=0.25)


def test_a_rescale_intercept_is_no_noise() -> None:
    """Images of converters that know CT begin at -1024."""
    pixels = np.random.default_rng(0).gamma(4.0, 100.0, (200, 200)).astype(np.float32)
    pixels[80:90] = 0.0  # air
    assert signal_to_noise(pixels - 1024) == pytest.approx(signal_to_noise(pixels), rel=1e-3)


def test_images_without_noise_or_without_numbers_are_not_noisy() -> None:
    assert signal_to_noise(np.full((64, 64), 7, np.float32)) == np.inf
    assert signal_to_noise(np.full((64, 64), np.nan, np.float32)) == np.inf
    assert signal_to_noise(np.zeros((3, 3), np.float32)) == np.inf


@pytest.mark.parametrize(("ratio", "expected"), [(1.5, (("noisy",), True)), (40.0, ((), False))])
def test_noise_alone_leaves_the_numbering_in_doubt(
    phantom: PhantomStudy, ratio: float, expected: tuple[tuple[str, ...], bool]
) -> None:
    """Of a patient who lies as the coordinates say, and however sure the numbering is of itself."""
    (series, *_) = noisy(phantom.study, ratio).of_kind(SeriesKind.SAGITTAL_T2)
    middle = series.slices[len(series.slices) // 2]
    detector = LevelDetector.load_bundled()
    assert noisy_or_turned(middle, (), detector.sagittal, detector.config) == expected


@pytest.mark.parametrize("bundle", Bundle)
def test_noise_beyond_what_was_learned_makes_the_numbering_uncertain(
    phantom: PhantomStudy, bundle: Bundle
) -> None:
    detector = LevelDetector.load_bundled(bundle=bundle)
    found = {ratio: detector.predict(noisy(phantom.study, ratio)) for ratio in (2.5, 5.5, 8.0)}
    flags = {ratio: set(levels.flags) for ratio, levels in found.items()}
    assert {"noisy", "numbering_uncertain"} <= flags[2.5]
    assert "noisy" in flags[5.5] and "noisy" not in flags[8.0]
    assert "noisy" not in detector.predict(phantom.study).flags
    # Noise that was learned leaves a doubt only where the numbering itself is unsure: then it is right.
    truth = {disc.name: disc.canal_mm for disc in phantom.discs}
    for levels in (found[5.5], found[8.0]):
        sure = levels.numbering_confidence >= detector.config.uncertain_below
        assert ("numbering_uncertain" in levels.flags) is not sure
        for level, place in levels.levels.items():
            assert not sure or np.linalg.norm((place.canal_mm - truth[level.label])[1:]) < 10
    if bundle is Bundle.OPEN:  # it learned from such images
        assert "numbering_uncertain" not in flags[5.5]
