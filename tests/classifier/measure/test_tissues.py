"""Shares of tissues: the bundled network, its graph, and what is read from shares to a part of a pixel."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from classifier.measure.extents import extent_of
from classifier.measure.planar import PlanarSlice
from classifier.measure.quantities import Quantity
from classifier.measure.sagittal import read_sagittal
from classifier.measure.strips import CANAL_ACROSS_MM
from classifier.measure.tissues import PIXEL_MM, SHAPE, STEMS, UprightGrid, bundled, find_tissues, phases
from data_prep.base.graph import is_of
from data_prep.geometry import FloatArray, SlicePlane
from data_prep.phantom.study import make_study
from data_prep.vocabulary import LEVELS, SeriesKind

FOLDER = files("classifier.measure")
CANAL = np.array([[60.0, 30], [64, 63], [66, 97], [63, 130], [52, 156]])
DISC = CANAL - [28.0, 2.0]


@pytest.mark.parametrize("stem", STEMS)
def test_the_graph_belongs_to_the_weights_so_that_no_torch_is_needed(stem: str) -> None:
    weights = FOLDER.joinpath(f"{stem}.safetensors").read_bytes()
    assert is_of(FOLDER.joinpath(f"{stem}.graph").read_bytes(), weights)
    assert len(weights) < 500_000


@pytest.mark.parametrize("stem", STEMS)
def test_onnx_runtime_gives_what_torch_gives(stem: str) -> None:
    import torch

    from classifier.measure.network import network_of

    plain = network_of(FOLDER.joinpath(f"{stem}.safetensors").read_bytes())
    image = np.random.default_rng(0).normal(0.5, 0.4, (96, 80)).astype(np.float32)
    (found,) = bundled(stem)([(phases(image)[None],)])
    with torch.inference_mode():
        expected = plain(torch.from_numpy(phases(image))[None]).numpy()
    assert found.shape == (1, 3, 96, 80) and found == pytest.approx(expected, abs=1e-3)


def test_shares_are_the_mean_of_the_networks() -> None:
    plane = SlicePlane(np.zeros(3), np.array([0.0, 1, 0]), np.array([0.0, 0, -1]), (0.7, 0.7), (300, 250))
    pixels = np.random.default_rng(2).normal(100, 20, (300, 250)).astype(np.float32)
    planar = PlanarSlice(plane, pixels)
    tissues = find_tissues(planar, CANAL, DISC)
    seen = phases(tissues.grid.read(pixels, planar.spacing_mm))[None]
    each = [1 / (1 + np.exp(-bundled(stem)([(seen,)])[0][0])) for stem in STEMS]
    assert tissues.shares == pytest.approx(sum(each) / len(STEMS), abs=1e-5)
    assert np.abs(each[0] - each[1]).max() > 0.01


def test_a_trained_network_folds_into_one_that_gives_the_same() -> None:
    import torch

    from classifier.measure.network import TissueNetwork

    torch.manual_seed(0)
    trained = TissueNetwork(is_trained=True).train()
    with torch.no_grad():
        for _ in range(3):
            trained(torch.randn(2, 4, 16, 16) + 0.3)
        image = torch.randn(1, 4, 24, 16)
        assert trained.eval()(image) == pytest.approx(trained.folded()(image), abs=1e-4)


@pytest.mark.parametrize("mirrored", [False, True])
def test_the_upright_grid_holds_the_levels_with_the_back_on_the_right(mirrored: bool) -> None:
    flip = np.array([-1.0, 1.0]) if mirrored else np.ones(2)
    canal, disc = CANAL * flip, DISC * flip
    grid = UprightGrid.around(canal, disc)
    at, discs = grid.to_px(canal), grid.to_px(disc)
    assert np.all(at > 0) and np.all(at < np.array(SHAPE[::-1]) - 1)
    assert np.all(at[:, 0] > discs[:, 0]) and np.all(np.diff(at[:, 1]) > 0)
    step = grid.to_px(canal[:1] + 3.0 * grid.right) - at[:1]
    assert step[0] == pytest.approx([3.0 / PIXEL_MM, 0.0], abs=1e-4)


def test_a_spine_too_long_for_the_grid_is_held_by_larger_pixels() -> None:
    grid = UprightGrid.around(1.6 * CANAL, 1.6 * DISC)
    assert grid.pixel_mm > PIXEL_MM and SHAPE[0] % 8 == SHAPE[1] % 8 == 0
    for points in (1.6 * CANAL, 1.6 * DISC):
        at = grid.to_px(points)
        assert np.all(at > 10) and np.all(at < np.array(SHAPE[::-1]) - 11)
    assert np.linalg.norm(grid.to_px(1.6 * CANAL[:1]) - grid.to_px(1.6 * CANAL[-1:])) == pytest.approx(
        1.6 * np.linalg.norm(CANAL[0] - CANAL[-1]) / grid.pixel_mm
    )


def _phantom_slice(seed: int) -> tuple[PlanarSlice, FloatArray, FloatArray]:
    """Its middle slice, and points in the canal and in the discs."""
    phantom = make_study(seed)
    by_name = {disc.name: disc for disc in phantom.discs}
    discs = [by_name[level.label] for level in LEVELS]
    (series,) = phantom.study.of_kind(SeriesKind.SAGITTAL_T2)[:1]
    planar = PlanarSlice.of(series.nearest(discs[2].canal_mm)[0])
    canal, disc = (
        planar.to_mm2(np.stack([getattr(item, name) for item in discs])) for name in ("canal_mm", "disc_mm")
    )
    return planar, canal, disc


def test_what_is_measured_moves_with_the_points_and_does_not_jump() -> None:
    """Over 24 mm of lengths and 6 mm of widths, so that every rounding of a count of pixels would show."""
    planar, canal, disc = _phantom_slice(200_420)
    rng = np.random.default_rng(3)
    middle = canal.mean(axis=0)
    for length in np.linspace(0.9, 1.1, 13):
        found = []
        for off in (0.0, 1e-6):
            shift = rng.normal(0, off, canal.shape)
            size = length + off
            found.append(read_sagittal(planar, middle + size * (canal - middle) + shift, disc + shift))
        for place in range(len(LEVELS)):
            first, second = (reading.at_level(place) for reading in found)
            assert first.keys() == second.keys() >= {Quantity.CANAL_DEPTH, Quantity.DISC_HEIGHT}
            for quantity, one in first.items():
                assert second[quantity].value == pytest.approx(one.value, abs=2e-3), (quantity, length)


@pytest.mark.parametrize("spacing", [0.4, 0.9])
def test_what_lies_at_a_point_of_the_image_lies_at_that_point_of_the_grid(spacing: float) -> None:
    y, x = np.mgrid[: int(190 / spacing), : int(120 / spacing)] * spacing
    image = (x + 2 * y).astype(np.float32)
    grid = UprightGrid.around(CANAL, DISC)
    found = grid.read(image, (spacing, spacing))
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]] * PIXEL_MM
    at = grid.corner_mm + columns[..., None] * grid.right + rows[..., None] * grid.down
    inside = np.all((at > 3) & (at < [115, 185]), axis=-1)
    assert np.corrcoef(found[inside], at[inside] @ [1.0, 2.0])[0, 1] > 0.99999


def test_a_thickness_is_right_to_a_part_of_a_pixel_and_other_runs_do_not_count() -> None:
    across = CANAL_ACROSS_MM
    edges = np.array([[-5.3, 6.1], [-1.0, 0.4], [0.2, 0.2]])
    distance = np.minimum(across - edges[:, :1], edges[:, 1:] - across)
    shares = np.clip(distance / 0.8 + 0.5, 0, 1)
    shares[2] = 0.0
    shares[:2, across > 12.0] = 1.0
    found = extent_of(shares.astype(np.float32), across, 8.0)
    assert found.thickness_mm == pytest.approx([11.4, 1.4, 0.0], abs=0.15)
    assert [found.first_mm[0], found.last_mm[0]] == pytest.approx([-5.3, 6.1], abs=0.1)
    assert found.peak[2] == 0


def test_the_doubt_of_many_pixels_does_not_make_a_sac_thinner() -> None:
    across = CANAL_ACROSS_MM
    sure = np.where(np.abs(across) <= 6.0, 1.0, 0.0)[None].astype(np.float32)
    unsure = np.where(np.abs(across) <= 6.0, 0.93, 0.04)[None].astype(np.float32)
    thick = [extent_of(shares, across, 8.0).thickness_mm[0] for shares in (sure, unsure)]
    assert thick[0] == pytest.approx(thick[1], abs=1e-6)


def test_the_network_sees_sac_and_discs_of_a_phantom_and_nothing_in_a_constant_image() -> None:
    planar, canal, disc = _phantom_slice(200_420)
    tissues = find_tissues(planar, canal, disc)
    assert np.all(tissues.at("sac", canal[None]) > 0.8) and np.all(tissues.at("disc", disc[None]) > 0.5)
    assert np.all(tissues.at("sac", disc[None]) < 0.1) and np.all(tissues.at("disc", canal[None]) < 0.1)
    empty = PlanarSlice(planar.plane, np.full_like(planar.pixels, 7.0))
    reading = read_sagittal(empty, canal, disc)
    assert all(Quantity.DISC_HEIGHT not in reading.at_level(place) for place in range(len(LEVELS)))
    assert all(Quantity.CANAL_DEPTH not in reading.at_level(place) for place in range(len(LEVELS)))


def test_a_few_steps_of_training_on_masks_lower_the_loss_and_write_what_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from classifier.measure import tissue_training
    from classifier.measure.fitting import write
    from classifier.measure.tissue_samples import phantom_slices, spider_slices
    from classifier.measure.tissue_training import drawn, loss_of, train

    monkeypatch.setattr(tissue_training, "BATCH", 4)
    _write_like_spider(tmp_path)
    real, made = list(spider_slices(tmp_path)), list(phantom_slices([7000]))
    assert len(real) == 3 and real[0].has_vertebrae and not made[0].has_vertebrae
    assert {item.patient for item in real} == {1}  # not the one that is kept for reports

    def loss(network: torch.nn.Module) -> float:
        rng = np.random.default_rng(5)
        samples = [drawn(item, rng) for item in (*real, *made)]
        window, shares, inside = (torch.from_numpy(np.stack(part)) for part in zip(*samples, strict=True))
        parts = torch.stack([torch.from_numpy(phases(image.numpy())) for image in window])
        with torch.inference_mode():
            return float(loss_of(network(parts), shares, inside, torch.tensor([1.0, 1.0, 1.0, 0.0])))

    first, later = (train(real, made, steps=steps, seed=1) for steps in (1, 24))
    before, after = loss(first), loss(later)
    assert after < 0.9 * before
    write(later.folded(), tmp_path / "tissues.safetensors")
    assert is_of((tmp_path / "tissues.graph").read_bytes(), (tmp_path / "tissues.safetensors").read_bytes())


def _write_like_spider(folder: Path) -> None:
    """Two patients with three slices each, drawn by rectangles."""
    for name in ("images", "masks"):
        (folder / name).mkdir()
    (folder / "split.csv").write_text("patient,part\n1,train\n2,report\n")
    canal, disc = CANAL / 0.47, DISC / 0.47
    rows = []
    for patient in (1, 2):
        for number in (50, 51, 52):
            mask = np.zeros((420, 300), np.uint8)
            cv2.polylines(mask, [canal.astype(np.int32)], False, 3, 24)
            for x, y in disc.astype(int):
                cv2.rectangle(mask, (x - 35, y - 8), (x + 35, y + 8), 1, -1)
                cv2.rectangle(mask, (x - 35, y + 10), (x + 35, y + 55), 2, -1)
            file = f"{patient:03d}_{number:03d}.png"
            cv2.imwrite(str(folder / "masks" / file), mask)
            cv2.imwrite(str(folder / "images" / file), np.array([20, 60, 110, 230], np.uint8)[mask])
            for level, c, d in zip(LEVELS, canal, disc, strict=True):
                rows.append([patient, number, file, level.label, *d, *c])
    names = ["patient", "slice_index", "file", "level", "disc_x", "disc_y", "canal_x", "canal_y"]
    pd.DataFrame(rows, columns=names).to_csv(folder / "level_points.csv", index=False)


def test_an_image_that_ends_before_the_levels_do_is_measured_where_it_is() -> None:
    plane = SlicePlane(np.zeros(3), np.array([0.0, 1, 0]), np.array([0.0, 0, -1]), (0.7, 0.7), (120, 100))
    pixels = np.random.default_rng(2).normal(100, 20, (120, 100)).astype(np.float32)
    tissues = find_tissues(PlanarSlice(plane, pixels), CANAL, DISC)
    assert np.isfinite(tissues.shares).all()
