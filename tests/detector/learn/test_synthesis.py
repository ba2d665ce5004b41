"""Synthesis from tissue maps: shapes and points move together, contrasts change as they are named."""

import numpy as np
import pytest

from detector.learn.slices import LabelledSlice
from detector.learn.synthesis import (
    CANAL,
    DISC,
    NO_SYNTHESIS,
    VERTEBRA,
    SynthesisConfig,
    deformed,
    rerendered,
    synthesised,
)
from detector.spec import SAGITTAL

T1 = SynthesisConfig(deform_share=0.0, random_share=0.0, t1_share=1.0)


def mapped_slice() -> LabelledSlice:
    """A T2-like column: bright canal, grey vertebrae, dark discs with bright spots at their centres."""
    rng = np.random.default_rng(0)
    image, labels = np.full((300, 240), 60.0), np.zeros((300, 240), np.uint8)
    labels[20:260, 80:120] = VERTEBRA
    labels[20:280, 125:140] = CANAL
    centres = np.stack([np.full(7, 100.0), 30 + 36.0 * np.arange(7)], axis=1)
    for _, y in centres.astype(int):
        labels[y - 4 : y + 5, 80:120] = DISC
    for tissue, brightness in ((VERTEBRA, 110), (CANAL, 220), (DISC, 40)):
        image[labels == tissue] = brightness
    image += rng.normal(0, 4, image.shape)
    keypoints = np.stack([centres, centres + np.array([32.0, 0])], axis=1)
    return LabelledSlice(
        np.clip(image, 0, 255).astype(np.uint8), SAGITTAL.level_names, keypoints, "p", "m", labels
    )


def test_keypoints_keep_their_tissue_when_shapes_are_bent() -> None:
    item, rng = mapped_slice(), np.random.default_rng(1)
    moved = 0.0
    for _ in range(20):
        bent = deformed(item, SynthesisConfig(), rng)
        assert bent.labels is not None
        for keypoint, tissue in ((0, DISC), (1, CANAL)):
            at = np.rint(bent.keypoints_px[:, keypoint]).astype(int)
            inside = (at >= 0).all(axis=1) & (at[:, 0] < 240) & (at[:, 1] < 300)
            shown = bent.labels[at[inside, 1], at[inside, 0]]
            assert (shown == tissue).mean() > 0.9
        moved = max(moved, float(np.abs(bent.keypoints_px - item.keypoints_px).max()))
    assert moved > 4, "shapes are bent by millimetres"


def test_a_t1_like_picture_has_dark_fluid_and_bright_marrow() -> None:
    item = mapped_slice()
    assert item.labels is not None
    for seed in range(10):
        image = synthesised(item, T1, np.random.default_rng(seed)).image
        canal, marrow = (float(np.median(image[item.labels == tissue])) for tissue in (CANAL, VERTEBRA))
        assert canal < 0.7 * marrow, "on T2 the canal was twice as bright as the marrow"


def test_texture_within_a_tissue_stays() -> None:
    item = mapped_slice()
    assert item.labels is not None
    rising = {tissue: np.linspace(0.2, 0.8, 5) for tissue in range(4)}
    image = rerendered(item.image, item.labels, rising)
    inside = np.zeros_like(item.labels, bool)
    inside[40:56, 88:112] = True
    assert np.corrcoef(image[inside], item.image[inside])[0, 1] > 0.5, "a flat repaint would have none of it"


def test_random_pictures_differ_and_without_synthesis_nothing_changes() -> None:
    item = mapped_slice()
    config = SynthesisConfig(deform_share=0.0, random_share=1.0, t1_share=0.0)
    first, second = (synthesised(item, config, np.random.default_rng(seed)).image for seed in (1, 2))
    assert np.abs(first.astype(int) - second).mean() > 20
    assert synthesised(item, NO_SYNTHESIS, np.random.default_rng(0)) is item


def test_the_sacrum_changes_with_the_vertebrae() -> None:
    """What lies under L5/S1 and looks like marrow must not stay behind when the marrow changes."""
    item = mapped_slice()
    assert item.labels is not None
    image, labels = item.image.copy(), item.labels.copy()
    image[252:270, 86:114] = np.random.default_rng(3).normal(110, 4, (18, 28)).astype(np.uint8)
    labels[252:, 80:120] = 0
    sacral = LabelledSlice(image, item.names, item.keypoints_px, "p", "s", labels)
    result = synthesised(sacral, T1, np.random.default_rng(0)).image
    sacrum = float(np.median(result[256:266, 92:108]))
    marrow = float(np.median(result[labels == VERTEBRA]))
    assert sacrum == pytest.approx(marrow, rel=0.25)
