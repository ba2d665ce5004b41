"""Protects: what nobody labelled is neither an example nor a counter-example of a detector."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from data_prep.levels import LevelPoint, PointSource
from data_prep.vocabulary import LEVELS, Condition, ConditionGroup, Side
from detector.learn.dataset import to_sample
from detector.learn.slices import LabelledSlice
from detector.learn.study_slices import foraminal_levels, phantom_slices
from detector.learn.views import IGNORED, plain_view
from detector.look.network import LevelAssigner, build_network
from detector.spec import FORAMEN, UNLABELLED, DetectorKind
from detector.spine.levels import OFFSETS


def assigner(classes: int) -> LevelAssigner:
    made = LevelAssigner(topk=4, num_classes=classes, alpha=0.5, beta=6.0)
    made.disc_class = None
    return made


def test_an_anchor_on_an_unlabelled_object_keeps_what_it_says() -> None:
    anchors = torch.tensor([[x * 8.0 + 4, 20.0] for x in range(16)])
    scores = torch.rand(1, 16, 1)
    boxes = torch.cat([anchors - 10, anchors + 10], dim=1)[None]
    objects = torch.tensor([[[0.0, 0.0, 40.0, 40.0], [80.0, 0.0, 120.0, 40.0]]])
    labels = torch.tensor([[[0.0], [float(IGNORED)]]])
    mask = torch.ones(1, 2, 1)
    _, _, targets, foreground, index = assigner(1)(scores, boxes, anchors, labels, objects, mask)
    beside = ((anchors[:, 0] >= 80) & (anchors[:, 0] <= 120)).numpy()
    assert torch.equal(targets[0, beside], scores[0, beside]), "no gradient there"
    assert not foreground[0, beside].any()
    assert foreground[0, ~beside].any() and (index[0][foreground[0]] == 0).all()
    elsewhere = ~beside & ~foreground[0].numpy()
    assert elsewhere.any() and (targets[0, elsewhere] == 0).all(), "the rest is background"


def test_without_unlabelled_objects_nothing_changes() -> None:
    torch.manual_seed(0)
    anchors = torch.randint(0, 12, (30, 2)) * 8.0 + 4
    scores, boxes = torch.rand(1, 30, 2), torch.cat([anchors - 8, anchors + 8], dim=1)[None]
    objects, labels = torch.tensor([[[20.0, 20.0, 60.0, 60.0]]]), torch.tensor([[[1.0]]])
    found = assigner(2)(scores, boxes, anchors, labels, objects, torch.ones(1, 1, 1))
    expected = super(LevelAssigner, assigner(2)).forward(
        scores, boxes, anchors, labels, objects, torch.ones(1, 1, 1)
    )
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_objects_belong_to_the_finest_grid() -> None:
    """The others are not looked at afterwards, however well they know an object."""
    anchors = torch.cat(
        [torch.cartesian_prod(*2 * [torch.arange(128 // s) * s + s / 2]) for s in (8.0, 16.0, 32.0)]
    )
    finest = torch.arange(len(anchors)) < 16 * 16
    objects = torch.tensor([[[20.0, 20.0, 44.0, 44.0], [40.0, 60.0, 112.0, 120.0]]])
    labels, mask = torch.zeros(1, 2, 1), torch.ones(1, 2, 1)
    scores = torch.where(finest, 0.1, 0.9)[None, :, None]
    boxes = torch.cat([anchors - 16, anchors + 16], dim=1)[None]
    made = assigner(1)
    foreground = made(scores, boxes, anchors, labels, objects, mask)[3].bool()[0]
    plain = super(LevelAssigner, made)
    everywhere = plain.select_candidates_in_gts(anchors, objects, mask)
    assert everywhere[0][:, ~finest].any(dim=-1).all(), "coarser anchors lie within both"
    assert foreground[finest].any() and not foreground[~finest].any()
    assert set(made(scores, boxes, anchors, labels, objects, mask)[4][0][foreground].tolist()) == {0, 1}


def test_a_training_step_takes_unlabelled_foramina() -> None:
    points = np.array([[[60.0, 80.0]], [[60.0, 140.0]]])
    image = np.random.default_rng(0).integers(0, 255, (240, 200)).astype(np.uint8)
    item = LabelledSlice(image, ("foramen", UNLABELLED), points, "1", "slice")
    view = plain_view(item, FORAMEN)
    assert view.classes.tolist() == [0, IGNORED]
    sample = to_sample(view, FORAMEN)
    model = build_network(FORAMEN).train()
    model.args = __import__("types").SimpleNamespace(box=7.5, cls=0.5, dfl=1.5, pose=12.0, kobj=1.0)
    batch = {key: sample[key] for key in ("cls", "bboxes", "keypoints", "batch_idx")}
    batch["img"] = sample["img"][None].float() / 255
    loss, _ = model.loss(batch)
    loss.sum().backward()
    assert torch.isfinite(loss).all()


def test_foramina_of_neighbouring_slices_are_left_open_in_phantoms() -> None:
    slices = phantom_slices(DetectorKind.FORAMEN, studies=3, seed=5)
    names = {name for item in slices for name in item.names}
    assert names == {"foramen", UNLABELLED}
    assert all("foramen" in item.names for item in slices), "a slice without an example teaches nothing"


def test_levels_follow_from_their_two_foramina() -> None:
    up, back = np.array([0.0, 0.0, 1.0]), np.array([0.0, 1.0, 0.0])
    points = []
    canal = {level: np.array([3.0, -level.index * 2.0, -33.0 * level.index]) for level in LEVELS}
    for level in LEVELS:
        aside, higher, behind = OFFSETS[level].foramen
        for side in Side:
            at = canal[level] + side.sign * aside * np.array([1.0, 0, 0]) + higher * up + behind * back
            condition = Condition.of(ConditionGroup.FORAMINAL, side)
            points.append(LevelPoint(condition, level, at, PointSource.ANNOTATED))
    found = {item.name: item for item in foraminal_levels(tuple(points))}
    assert set(found) == {level.label for level in LEVELS}
    for level in LEVELS:
        disc, at = found[level.label].keypoints_mm
        assert np.isnan(disc).all()
        assert np.linalg.norm(at - canal[level]) < 2.5
    one_sided = tuple(p for p in points if p.condition.side is Side.LEFT)
    assert foraminal_levels(one_sided) == []
    apart = tuple(
        replace(p, level=LEVELS[p.level.index + 1]) if p.condition.side is Side.LEFT else p
        for p in points
        if p.condition.side is Side.RIGHT or p.level is not LEVELS[-1]
    )
    assert foraminal_levels(apart) == [], "between foramina of two levels lies a vertebra"
    canal_point = LevelPoint(
        Condition.SPINAL_CANAL_STENOSIS, LEVELS[0], canal[LEVELS[0]], PointSource.ANNOTATED
    )
    assert foraminal_levels((*points, canal_point)) == [], "annotated canal points are better"


@pytest.mark.parametrize("kind", [DetectorKind.SAGITTAL, DetectorKind.AXIAL])
def test_only_foramina_are_left_open(kind: DetectorKind) -> None:
    assert all(UNLABELLED not in item.names for item in phantom_slices(kind, studies=1, seed=5))
