"""Labels move with the pixels they describe."""

import numpy as np
import pytest
import torch

from detector.learn.dataset import to_sample
from detector.learn.slices import LabelledSlice
from detector.learn.views import AugmentConfig, augmented_view
from detector.spec import AXIAL, SAGITTAL

GEOMETRY_ONLY = AugmentConfig(
    bias_strength=0.0, gamma=(1.0, 1.0), coarsest_resolution=1.0, noise=0.0, white_percentile=(100.0, 100.0)
)


def spotted_slice() -> LabelledSlice:
    """Seven bright spots at the disc centres of a 240 × 300 slice, levels evenly down."""
    centres = np.stack([np.full(7, 100.0), 30 + 38.0 * np.arange(7)], axis=1)
    keypoints = np.stack([centres, centres + np.array([25, 0])], axis=1)
    rows, columns = np.mgrid[0:300, 0:240]
    image = np.full((300, 240), 20.0)
    for x, y in centres:
        image += 230 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 18)
    return LabelledSlice(
        np.clip(image, 0, 255).astype(np.uint8), SAGITTAL.level_names, keypoints, "p", "spots"
    )


def test_keypoints_stay_on_their_spots_in_every_view() -> None:
    item, rng = spotted_slice(), np.random.default_rng(3)
    seen = 0
    for _ in range(40):
        view = augmented_view(item, SAGITTAL, GEOMETRY_ONLY, rng)
        for disc in view.keypoints_px[:, 0]:
            if np.isfinite(disc).all() and (disc > 6).all() and (disc < 250).all():
                x, y = np.rint(disc).astype(int)
                patch = view.image[y - 6 : y + 7, x - 6 : x + 7]
                centre = np.array(np.unravel_index(patch.argmax(), patch.shape))[::-1] - 6
                assert np.abs(centre).max() <= 3, "the label lies off its spot"
                seen += 1
    assert seen > 100


def test_cut_views_drop_what_they_do_not_show_and_never_lose_everything() -> None:
    item, rng = spotted_slice(), np.random.default_rng(4)
    counts = [len(augmented_view(item, SAGITTAL, AugmentConfig(), rng).classes) for _ in range(200)]
    assert min(counts) >= 1
    assert sum(count < 7 for count in counts) > 60


def test_a_view_without_a_cue_to_the_numbering_is_labelled_disc_alone() -> None:
    item, rng = spotted_slice(), np.random.default_rng(5)
    kinds = [set(augmented_view(item, SAGITTAL, AugmentConfig(), rng).classes.tolist()) for _ in range(300)]
    ambiguous = [kind for kind in kinds if SAGITTAL.disc_class in kind]
    assert ambiguous, "some deep cuts leave no cue"
    assert all(kind == {SAGITTAL.disc_class} for kind in ambiguous)
    assert len(ambiguous) < 60, "most views keep a cue"


@pytest.mark.parametrize("shown", [1, 2, 3, 5])
@pytest.mark.parametrize("canal_only", [False, True])
def test_any_number_of_discs_can_be_cut(shown: int, canal_only: bool) -> None:
    whole, rng = spotted_slice(), np.random.default_rng(6)
    keypoints = whole.keypoints_px[:shown].copy()
    if canal_only:
        keypoints[:, 0] = np.nan
    item = LabelledSlice(whole.image, whole.names[:shown], keypoints, "p", "few")
    for _ in range(60):
        view = augmented_view(item, SAGITTAL, AugmentConfig(), rng)
        sample = to_sample(view, SAGITTAL)
        assert torch.isfinite(sample["bboxes"]).all() and len(view.classes) <= shown


def test_discs_of_very_different_distance_can_be_cut() -> None:
    """A steep sacrum: the two lowest discs lie nearly side by side."""
    whole, rng = spotted_slice(), np.random.default_rng(7)
    keypoints = whole.keypoints_px.copy()
    keypoints[-1, :, 1] = keypoints[-2, :, 1] + 4
    item = LabelledSlice(whole.image, whole.names, keypoints, "p", "steep")
    views = [augmented_view(item, SAGITTAL, AugmentConfig(cut_probability=1.0), rng) for _ in range(100)]
    assert min(len(view.classes) for view in views) >= 1


def test_points_that_count_levels_alone_are_not_learned() -> None:
    view = augmented_view(spotted_slice(), SAGITTAL, AugmentConfig(), np.random.default_rng(0))
    whole, counted = to_sample(view, SAGITTAL), to_sample(view, SAGITTAL, counting=(1,))
    assert whole["keypoints"][:, 1, 2].max() == 2 and counted["keypoints"][:, 1, 2].max() == 0
    for what in ("cls", "bboxes"):
        assert torch.equal(whole[what], counted[what])
    assert torch.equal(whole["keypoints"][:, 0], counted["keypoints"][:, 0])


def test_sample_boxes_centre_on_the_disc_and_unseen_keypoints_are_invisible() -> None:
    item = spotted_slice()
    keypoints = item.keypoints_px.copy()
    keypoints[0, 1] = np.nan
    partial = LabelledSlice(item.image, item.names, keypoints, "p", "n")
    plain = AugmentConfig(scale=(1, 1), stretch=0, rotation_deg=0, shift_fraction=0, cut_probability=0)
    view = augmented_view(partial, SAGITTAL, plain, np.random.default_rng(0))
    sample = to_sample(view, SAGITTAL)
    assert sample["keypoints"][0, 1, 2] == 0 and sample["keypoints"][1, 1, 2] == 2
    centres = sample["bboxes"][1:-1, :2].numpy() * np.array(SAGITTAL.train_canvas_px)
    np.testing.assert_allclose(centres, view.keypoints_px[1:-1, 0], atol=1.0)


def test_axial_objects_need_both_recesses() -> None:
    keypoints = np.array([[[110.0, 128.0], [140.0, 128.0]]])
    item = LabelledSlice(np.full((250, 250), 90, np.uint8), ("level",), keypoints, "p", "a")
    rng = np.random.default_rng(1)
    views = [augmented_view(item, AXIAL, AugmentConfig(), rng) for _ in range(30)]
    for view in views:
        assert np.isfinite(view.keypoints_px).all()
        assert all(pair[0, 0] < pair[1, 0] for pair in view.keypoints_px), "right recess on image left"
