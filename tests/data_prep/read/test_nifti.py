"""NIfTI volumes: where their voxels lie, what is refused, and which of them are one patient."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import pickle
import sys
from pathlib import Path

import pytest

nibabel = pytest.importorskip("nibabel", reason="needs the extra: pip install '.[nifti]'")

import numpy as np  # noqa: E402
from nibabel.orientations import axcodes2ornt, ornt_transform  # noqa: E402

from data_prep.geometry import Orientation  # noqa: E402
from data_prep.problems import DicomRejected, Reason  # noqa: E402
from data_prep.read.dicom_limits import ReadLimits  # noqa: E402
from data_prep.read.find import find_all_studies, find_studies  # noqa: E402
from data_prep.read.nifti import read_volume  # noqa: E402
from data_prep.read.opening import opened_input  # noqa: E402
from data_prep.vocabulary import SeriesKind  # noqa: E402
from tests.dicom_files import write_series, write_study  # noqa: E402

OBLIQUE_DEG = 12.0
ORIENTATIONS = [
    "".join(code) for axes in itertools.permutations(("RL", "AP", "SI")) for code in itertools.product(*axes)
]


def sagittal(shape: tuple[int, int, int] = (7, 40, 50), dtype: str = "int16") -> nibabel.Nifti1Image:
    """A volume in RAS order: 7 sagittal slices of 4 mm, turned about the long axis; every voxel its own."""
    turn = np.deg2rad(OBLIQUE_DEG)
    axes = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = axes * np.array([4.0, 0.8, 0.7])
    affine[:3, 3] = [-13.0, 21.0, -400.0]
    voxels = np.arange(np.prod(shape), dtype=dtype).reshape(shape)
    return nibabel.Nifti1Image(voxels, affine)


def reoriented(image: nibabel.Nifti1Image, code: str) -> nibabel.Nifti1Image:
    """The same patient, its array stored along other axes."""
    return image.as_reoriented(ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(code)))


def saved(image: nibabel.Nifti1Image, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("code", ORIENTATIONS)
def test_every_axis_order_gives_the_same_upright_slices(code: str, tmp_path: Path) -> None:
    image = sagittal()
    path = saved(reoriented(image, code), tmp_path / "t2.nii")

    headers, unused = read_volume(path)

    assert not unused
    assert len(headers) == 7
    values = np.asanyarray(image.dataobj)
    ras_to_voxel = np.linalg.inv(image.affine)
    for header in headers:
        assert header.plane.orientation is Orientation.SAGITTAL
        assert header.plane.shape == (50, 40)
        assert header.plane.x_axis[1] > 0.9  # columns run to the back
        assert header.plane.y_axis[2] < -0.9  # rows run to the feet
        assert header.reader is not None
        pixels = header.reader()
        for column, row in ((0, 0), (39, 0), (5, 31)):
            lps = header.plane.to_mm([column, row])
            voxel = ras_to_voxel @ [-lps[0], -lps[1], lps[2], 1]
            assert np.allclose(voxel[:3], np.rint(voxel[:3]), atol=1e-3)
            assert pixels[row, column] == values[tuple(np.rint(voxel[:3]).astype(int))]


def test_slices_of_an_axial_volume_have_the_patients_right_on_the_left(tmp_path: Path) -> None:
    affine = np.diag([0.6, 0.6, 4.4, 1.0])
    path = saved(nibabel.Nifti1Image(np.zeros((30, 20, 5), np.int16), affine), tmp_path / "t2.nii.gz")

    headers, _ = read_volume(path)

    assert [header.plane.orientation for header in headers] == [Orientation.AXIAL] * 5
    assert np.allclose(headers[0].plane.x_axis, [1, 0, 0])  # LPS: to the patient's left
    assert np.allclose(headers[0].plane.y_axis, [0, 1, 0])  # to the back


@pytest.mark.parametrize("side_mm", [0.6, 1.0, 2.0])
@pytest.mark.parametrize(("name", "axis"), [("t2_space", 0), ("t2_space_ax", 2)])
def test_cubic_voxels_are_cut_by_name_else_sagittally(
    name: str, axis: int, side_mm: float, tmp_path: Path
) -> None:
    affine = np.diag([side_mm, side_mm, side_mm, 1.0])
    path = saved(nibabel.Nifti1Image(np.zeros((9, 10, 11), np.int16), affine), tmp_path / f"{name}.nii")

    headers, _ = read_volume(path)

    assert np.argmax(np.abs(headers[0].plane.normal)) == axis
    assert len(headers) == (9, 10, 11)[axis]


def test_scaling_of_the_header_and_other_forms_of_the_file_are_read(tmp_path: Path) -> None:
    plain = sagittal()
    scaled = nibabel.Nifti1Image(np.asanyarray(plain.dataobj), plain.affine)
    scaled.header.set_slope_inter(0.5, 3.0)
    second = nibabel.Nifti2Image(np.asanyarray(plain.dataobj), plain.affine)
    big = nibabel.Nifti1Image(
        np.asanyarray(plain.dataobj), plain.affine, nibabel.Nifti1Header(endianness=">")
    )
    expected = read_volume(saved(plain, tmp_path / "a.nii"))[0][3].reader()

    read = {
        name: read_volume(saved(image, tmp_path / f"{name}.nii.gz"))[0][3].reader()
        for name, image in (("scaled", scaled), ("second", second), ("big", big))
    }

    assert np.array_equal(read["second"], expected)
    assert np.array_equal(read["big"], expected)
    by_nibabel = nibabel.load(tmp_path / "scaled.nii.gz").get_fdata()
    assert np.allclose(read["scaled"], by_nibabel[3].T[::-1, ::-1], atol=1e-3)
    assert read["scaled"].max() > 4000


def test_metres_are_not_taken_for_millimetres(tmp_path: Path) -> None:
    image = sagittal()
    affine = image.affine.copy()
    affine[:3] /= 1000
    metres = nibabel.Nifti1Image(np.asanyarray(image.dataobj), affine)
    metres.header.set_xyzt_units("meter", "sec")

    (header, *_), _ = read_volume(saved(metres, tmp_path / "t2.nii"))

    assert header.plane.spacing_mm == pytest.approx((0.8, 0.7), abs=1e-4)


def placed(sform: int, qform: int, sform_affine: np.ndarray, qform_affine: np.ndarray) -> nibabel.Nifti1Image:
    """The volume with two codes and two affines."""
    image = sagittal()
    image.set_sform(sform_affine, sform)
    image.set_qform(qform_affine, qform)
    return image


def test_metres_that_contradict_each_other_by_millimetres_are_refused(tmp_path: Path) -> None:
    affine = sagittal().affine
    moved_mm = np.eye(4)
    moved_mm[2, 3] = 5
    to_metres = np.diag([0.001, 0.001, 0.001, 1])
    image = placed(1, 1, to_metres @ moved_mm @ affine, to_metres @ affine)
    image.header.set_xyzt_units("meter", "sec")
    with pytest.raises(DicomRejected, match="up to 5 mm apart"):
        read_volume(saved(image, tmp_path / "t2.nii"))


def test_a_volume_that_was_written_anew_is_read_anew(tmp_path: Path) -> None:
    """Voxels of the last volumes are remembered, and converters write one patient after the other."""
    image, path = sagittal(), tmp_path / "t2.nii"
    other = nibabel.Nifti1Image(np.asanyarray(image.dataobj) + 1, image.affine)
    first = read_volume(saved(image, path))[0][3].reader()
    os.utime(path, ns=(0, 0))
    second = read_volume(saved(other, path))[0][3].reader()
    assert np.array_equal(second, first + 1)


MIRRORED, MOVED = np.diag([-1.0, 1, 1, 1]), np.eye(4)
MOVED[:3, 3] = 0, 30, 5


@pytest.mark.parametrize("codes", [(1, 1), (2, 1), (1, 2), (4, 4)])
@pytest.mark.parametrize("change", [MIRRORED, MOVED], ids=["mirrored", "moved"])
def test_a_volume_that_contradicts_itself_is_refused(
    change: np.ndarray, codes: tuple[int, int], tmp_path: Path
) -> None:
    """Nobody knows where left is."""
    affine = sagittal().affine
    path = saved(placed(*codes, change @ affine, affine), tmp_path / "t2.nii")
    with pytest.raises(DicomRejected, match="sform and qform") as caught:
        read_volume(path)
    assert caught.value.rejection.reason is Reason.BAD_GEOMETRY


@pytest.mark.parametrize(
    ("codes", "first"), [((1, 0), 0), ((0, 1), 1), ((4, 1), 1), ((3, 2), 1), ((2, 4), 0), ((4, 0), 0)]
)
def test_the_patient_s_coordinates_count_before_those_of_an_atlas(
    codes: tuple[int, int], first: int, tmp_path: Path
) -> None:
    affine = sagittal().affine
    both = (affine, MOVED @ affine)
    (header, *_), _ = read_volume(saved(placed(*codes, *both), tmp_path / "t2.nii"))
    expected = saved(placed(1, 0, both[first], affine), tmp_path / "t2_plain.nii")
    (plain, *_), _ = read_volume(expected)
    np.testing.assert_allclose(header.plane.origin_mm, plain.plane.origin_mm, atol=0.01)


def test_rounded_quaternions_contradict_nothing(tmp_path: Path) -> None:
    affine = sagittal((40, 512, 512)).affine
    assert read_volume(saved(placed(1, 1, affine, affine), tmp_path / "t2.nii"))


@pytest.mark.parametrize(("side_mm", "axis"), [(1.15, 0), (1.3, 2)])
def test_voxels_that_are_hardly_thicker_than_wide_say_nothing_of_slices(
    tmp_path: Path, side_mm: float, axis: int
) -> None:
    affine = np.diag([1.0, 1.0, side_mm, 1.0])
    image = nibabel.Nifti1Image(np.zeros((9, 10, 11), np.int16), affine)
    headers, _ = read_volume(saved(image, tmp_path / "t2.nii"))
    assert len(headers) == (9, 10, 11)[axis]


@pytest.mark.parametrize(("stated", "slices"), [(None, 40), (2, 7), (1, 40)])
def test_of_voxels_as_thick_as_wide_the_header_says_which_way_the_slices_lie(
    tmp_path: Path, stated: int | None, slices: int
) -> None:
    """Where that is the shortest way, as it is of slices."""
    image = nibabel.Nifti1Image(np.zeros((40, 50, 7), np.int16), np.eye(4))
    image.header.set_dim_info(slice=stated)
    headers, _ = read_volume(saved(image, tmp_path / "t2.nii"))
    assert len(headers) == slices


def bad_files(folder: Path) -> dict[str, tuple[Path, Reason]]:
    """Name of a fault → a file that has it, and the reason it is refused with."""
    image, found = sagittal(), {}

    def kept(name: str, reason: Reason, path: Path) -> None:
        found[name] = path, reason

    path = saved(image, folder / "cut.nii")
    path.write_bytes(path.read_bytes()[:-100])
    kept("cut", Reason.TRUNCATED, path)
    path = saved(image, folder / "cut.nii.gz")
    path.write_bytes(path.read_bytes()[:-100])
    kept("compressed and cut", Reason.TRUNCATED, path)
    path = saved(image, folder / "crc.nii.gz")
    content = bytearray(path.read_bytes())
    content[-6] ^= 0xFF
    path.write_bytes(content)
    kept("wrong checksum", Reason.TRUNCATED, path)
    path = folder / "text.nii"
    path.write_text("no volume" * 100)
    kept("no NIfTI", Reason.UNREADABLE, path)
    path = folder / "empty.nii.gz"
    path.write_bytes(b"")
    kept("empty", Reason.UNREADABLE, path)
    time = nibabel.Nifti1Image(np.zeros((4, 5, 6, 2), np.int16), np.eye(4))
    kept("two volumes", Reason.MULTI_FRAME, saved(time, folder / "echoes.nii"))
    flat = nibabel.Nifti1Image(np.zeros((4, 5), np.int16), np.eye(4))
    kept("flat", Reason.NO_PIXELS, saved(flat, folder / "flat.nii"))
    colour = np.zeros((4, 5, 6), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    kept("colour", Reason.BAD_PIXELS, saved(nibabel.Nifti1Image(colour, np.eye(4)), folder / "rgb.nii"))
    nowhere = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), None)
    kept("no geometry", Reason.MISSING_GEOMETRY, saved(nowhere, folder / "nowhere.nii"))
    sheared = np.eye(4)
    sheared[0, 1] = 0.3
    sheared[2, 2] = 4
    kept(
        "sheared",
        Reason.BAD_GEOMETRY,
        saved(nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), sheared), folder / "sheared.nii"),
    )
    thin = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.diag([4.0, 1, 0.001, 1]))
    kept("thin", Reason.BAD_GEOMETRY, saved(thin, folder / "thin.nii"))
    folded = np.diag([4.0, 1, 1, 1])
    folded[:3, 2] = [0.2, 1, 0]
    kept("folded", Reason.BAD_GEOMETRY, saved(placed(1, 0, folded, np.eye(4)), folder / "folded.nii"))
    thick = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.diag([150.0, 1, 1, 1]))
    kept("thick", Reason.BAD_GEOMETRY, saved(thick, folder / "thick.nii"))
    leaning = np.diag([4.0, 1, 1, 1])
    leaning[:3, 0] = 0.5, 3.9, 0.5  # the slices follow each other in their own plane
    kept("leaning", Reason.BAD_GEOMETRY, saved(placed(1, 0, leaning, np.eye(4)), folder / "leaning.nii"))
    for place, name in ((280, "sform"), (268, "qform")):  # srow_x[0] and qoffset_x
        path = saved(placed(1, 1, image.affine, image.affine), folder / f"nan_{name}.nii")
        content = bytearray(path.read_bytes())
        content[place : place + 4] = np.float32(np.nan).tobytes()
        path.write_bytes(content)
        kept(f"{name} not finite", Reason.BAD_GEOMETRY, path)
    waves = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.complex64), np.diag([4.0, 1, 1, 1]))
    kept("complex", Reason.BAD_PIXELS, saved(waves, folder / "waves.nii"))
    long = nibabel.Nifti1Image(np.zeros((2, 2, 5000), np.int16), np.diag([4.0, 1, 1, 1]))
    kept("long", Reason.TOO_LARGE, saved(long, folder / "long.nii"))
    for offset in (16, 2 * 1024 * 1024):
        path = saved(image, folder / f"offset_{offset}.nii")
        content = bytearray(path.read_bytes()) + bytes(2 * offset)
        content[108:112] = np.float32(offset).tobytes()
        path.write_bytes(content)
        kept(f"voxels at {offset}", Reason.UNREADABLE, path)
    kept("far", Reason.BAD_GEOMETRY, saved(moved(image, 1e6), folder / "far.nii"))
    kept("a mask", Reason.UNKNOWN_KIND, saved(image, folder / "sub-01_label-disc_mask.nii.gz"))
    nan = nibabel.Nifti1Image(np.full((4, 5, 6), np.nan, np.float32), np.diag([4.0, 1, 1, 1]))
    kept("not finite", Reason.BAD_PIXELS, saved(nan, folder / "nan.nii"))
    return found


def moved(image: nibabel.Nifti1Image, by_mm: float) -> nibabel.Nifti1Image:
    affine = image.affine.copy()
    affine[0, 3] += by_mm
    return nibabel.Nifti1Image(np.asanyarray(image.dataobj), affine)


def test_bad_files_are_refused_with_a_reason_and_without_their_name(tmp_path: Path) -> None:
    for name, (path, reason) in bad_files(tmp_path).items():
        person = path.rename(path.with_name(f"Smith_{path.name}"))
        with pytest.raises(DicomRejected) as caught:
            headers, _ = read_volume(person)
            headers[0].reader()
        assert caught.value.rejection.reason is reason, name
        assert "Smith" not in str(caught.value), name


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    header = nibabel.Nifti1Header()
    header.set_data_dtype("float64")
    header.set_data_shape((4000, 4000, 4000))
    header.set_sform(np.eye(4), 1)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    bomb = tmp_path / "t2.nii.gz"
    with gzip.open(bomb, "wb") as stream:
        stream.write(header.binaryblock + bytes(4))
        for _ in range(64):
            stream.write(bytes(1024 * 1024))

    with pytest.raises(DicomRejected) as caught:
        read_volume(bomb)

    assert caught.value.rejection.reason is Reason.TOO_LARGE


def test_a_volume_grows_to_what_its_header_says_and_no_further(tmp_path: Path) -> None:
    path = saved(sagittal(), tmp_path / "t2.nii")
    long = tmp_path / "long.nii.gz"
    with gzip.open(long, "wb") as stream:
        stream.write(path.read_bytes())
        for _ in range(300):
            stream.write(bytes(1024 * 1024))
    headers, _ = read_volume(long)

    import tracemalloc

    tracemalloc.start()
    pixels = headers[0].reader()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert np.array_equal(pixels, read_volume(path)[0][0].reader())
    assert peak < 8 * 1024 * 1024


def test_files_beyond_the_limit_are_not_opened(tmp_path: Path) -> None:
    path = saved(sagittal(), tmp_path / "t2.nii")

    with pytest.raises(DicomRejected, match="limit"):
        read_volume(path, limits=ReadLimits(max_file_bytes=1000))


def test_without_nibabel_the_user_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(sagittal(), tmp_path / "t2.nii")
    monkeypatch.setitem(sys.modules, "nibabel", None)

    with pytest.raises(DicomRejected, match=r"pip install 'lumbar\[nifti\]'"):
        read_volume(path)


def test_the_sidecar_says_what_a_series_is_in_seconds(tmp_path: Path) -> None:
    path = saved(sagittal(), tmp_path / "sub-01" / "anat" / "sub-01_acq-a_run-1_T2w.nii.gz")
    told = {
        "SeriesDescription": "sag fse",
        "RepetitionTime": 3.5,
        "EchoTime": 0.1,
        "InversionTime": 0.15,
        "ScanningSequence": "SE_IR",
        "ImageType": ["ORIGINAL", "PRIMARY"],
    }
    path.with_name("sub-01_acq-a_run-1_T2w.json").write_text(json.dumps(told))

    (header, *_), unused = read_volume(path)

    assert not unused
    assert header.repetition_time_ms == 3500
    assert header.echo_time_ms == 100
    assert header.inversion_time_ms == 150
    assert header.scanning_sequence == ("SE", "IR")
    assert header.image_type == ("ORIGINAL", "PRIMARY")
    assert "sag fse" in header.description


@pytest.mark.parametrize(
    "content",
    [
        *("{", "[" * 100_000, "3", '{"EchoTime": NaN, "x": "\\ud800"}', '{"EchoTime": true}'),
        json.dumps({"EchoTime": 0.1, "x": " " * 1024 * 1024}),
    ],
)
def test_a_sidecar_that_cannot_be_used_does_not_cost_the_volume(content: str, tmp_path: Path) -> None:
    path = saved(sagittal(), tmp_path / "t2_sag.nii")
    path.with_name("t2_sag.json").write_text(content)

    headers, unused = read_volume(path, series_id="b")

    assert len(headers) == 7
    assert headers[0].echo_time_ms is None
    if not content.startswith('{"EchoTime": ') or len(content) > 1000:
        assert [item.reason for item in unused] == [Reason.UNREADABLE]


def test_slices_travel_to_other_processes(tmp_path: Path) -> None:
    (header, *_), _ = read_volume(saved(sagittal(), tmp_path / "t2.nii"))

    copy = pickle.loads(pickle.dumps(header))

    assert np.array_equal(copy.reader(), header.reader())


def ids(folder: Path) -> dict[str, list[str]]:
    return {entry.study_id: sorted(entry.headers) for entry in find_studies(folder)}


def test_a_bids_data_set_is_its_patients_and_sessions_without_derivatives(tmp_path: Path) -> None:
    root = tmp_path / "set"
    (root / "sub-01").mkdir(parents=True)
    (root / "dataset_description.json").write_text("{}")
    for name in (
        "sub-01/anat/sub-01_acq-sag_T2w",
        "sub-01/anat/sub-01_acq-sag_T1w",
        "sub-02/ses-a/anat/sub-02_ses-a_T2w",
        "sub-02/ses-b/anat/sub-02_ses-b_T2w",
        "derivatives/other/sub-01/anat/sub-01_desc-smooth_T2w",
    ):
        saved(sagittal(), root / f"{name}.nii.gz")

    assert ids(root) == {
        "sub-01": ["acq-sag_T1w", "acq-sag_T2w"],
        "sub-02_ses-a": ["T2w"],
        "sub-02_ses-b": ["T2w"],
    }


def test_derivatives_that_are_given_themselves_are_read(tmp_path: Path) -> None:
    (tmp_path / "dataset_description.json").write_text("{}")
    folder = tmp_path / "derivatives" / "denoised"
    saved(sagittal(), folder / "sub-01" / "anat" / "sub-01_T2w.nii.gz")
    assert ids(folder) == {"sub-01": ["T2w"]}
    assert find_studies(folder)[0].load().rejections == ()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["T1.nii", "T2.nii"], {"visit": ["T1", "T2"]}),
        (["1_t1.nii", "1_t2.nii", "2_t2.nii"], {"1": ["t1", "t2"], "2": ["t2"]}),
        (["case_0001.nii", "case_0002.nii"], {"case_0001": ["volume"], "case_0002": ["volume"]}),
        (["scan_t2_sag_5.nii", "scan_t1_sag_7.nii"], {"visit": ["t1_sag_7", "t2_sag_5"]}),
    ],
)
def test_a_folder_is_one_patient_unless_its_names_begin_differently(
    files: list[str], expected: dict[str, list[str]], tmp_path: Path
) -> None:
    for name in files:
        saved(sagittal(), tmp_path / "visit" / name)

    assert ids(tmp_path / "visit") == expected


def numbered(folder: Path, names: dict[str, int | None]) -> None:
    """Volumes, and sidecars with the number of the series."""
    for name, number in names.items():
        saved(sagittal(), folder / f"{name}.nii.gz")
        if number is not None:
            (folder / f"{name}.json").write_text(json.dumps({"SeriesNumber": number}))


def test_numbers_of_series_are_no_patients(tmp_path: Path) -> None:
    numbered(tmp_path / "visit", {"4_t2_sag": 4, "05_t1_sag": 5})
    assert ids(tmp_path / "visit") == {"visit": ["t1_sag", "t2_sag"]}


@pytest.mark.parametrize("numbers", [(None, None), (4, 6)])
def test_pieces_of_what_may_be_one_examination_are_said(
    numbers: tuple[int | None, int | None], tmp_path: Path
) -> None:
    numbered(tmp_path / "visit", dict(zip(("4_t2_sag", "5_t1_sag"), numbers, strict=True)))
    found = find_studies(tmp_path / "visit")
    assert [entry.study_id for entry in found] == ["4", "5"]
    assert [item.reason for entry in found for item in entry.rejections] == [Reason.STUDY_DIVIDED] * 2


def test_what_is_said_of_a_piece_takes_nothing_else_away(tmp_path: Path) -> None:
    numbered(tmp_path / "visit", {"4_t2_sag": 4, "5_t1_sag": 6})
    (tmp_path / "visit" / "5_t1_sag.json").write_text("{")
    found = find_studies(tmp_path / "visit")
    assert [sorted(item.reason for item in entry.rejections) for entry in found] == [
        [Reason.STUDY_DIVIDED],
        [Reason.STUDY_DIVIDED, Reason.UNREADABLE],
    ]


def test_pieces_in_folders_beside_each_other_are_said(tmp_path: Path) -> None:
    for folder, name in (("a", "4_t2_sag"), ("b", "5_t1_sag")):
        saved(sagittal(), tmp_path / "visit" / folder / f"{name}.nii")
    said = [item.reason for entry in find_studies(tmp_path / "visit") for item in entry.rejections]
    assert said == [Reason.STUDY_DIVIDED] * 2


@pytest.mark.parametrize("names", [("4_t2_sag", "5_t2_sag"), ("case_01", "case_02"), ("doe", "roe")])
def test_patients_with_a_volume_of_one_kind_each_are_a_data_set(
    names: tuple[str, str], tmp_path: Path
) -> None:
    numbered(tmp_path / "visit", dict.fromkeys(names))
    assert not [item for entry in find_studies(tmp_path / "visit") for item in entry.rejections]


def test_a_folder_for_each_series_is_one_patient(tmp_path: Path) -> None:
    for patient in ("p1", "p2"):
        for name in ("T1_sag", "T2_sag"):
            saved(sagittal(), tmp_path / patient / name / "volume.nii.gz")
    found = find_studies(tmp_path)
    assert ids(tmp_path) == {patient: ["T1_sag", "T2_sag"] for patient in ("p1", "p2")}
    for entry in found:
        kinds = {series.series_id: (series.kind, series.kind_source) for series in entry.load().series}
        assert kinds == {
            "T1_sag": (SeriesKind.SAGITTAL_T1, "header"),
            "T2_sag": (SeriesKind.SAGITTAL_T2, "header"),
        }


def test_a_file_in_the_folder_of_another_subject_is_said(tmp_path: Path) -> None:
    saved(sagittal(), tmp_path / "sub-01" / "anat" / "sub-01_T1w.nii.gz")
    saved(sagittal(), tmp_path / "sub-02" / "anat" / "sub-01_T2w.nii.gz")
    said = [item for entry in find_studies(tmp_path) for item in entry.rejections]
    assert [(item.reason, item.file) for item in said] == [(Reason.IDENTIFIERS, "sub-01_T2w.nii.gz")]


def test_folders_by_kind_keep_their_patients_apart(tmp_path: Path) -> None:
    for kind in ("T1", "T2"):
        for patient in ("case_01", "case_02"):
            saved(sagittal(), tmp_path / "set" / kind / f"{patient}.nii.gz")
    assert set(ids(tmp_path / "set")) == {"case_01", "case_02"}


def test_folders_that_numbers_alone_tell_apart_are_patients(tmp_path: Path) -> None:
    for name in ("1_T2", "2_T2", "T2", "T2_2"):
        saved(sagittal(), tmp_path / "set" / name / "volume.nii.gz")
    assert len(ids(tmp_path / "set")) == 4


@pytest.mark.parametrize(
    "name",
    ["t2_seg_labeled", "t2_seg-manual", "t2_labels-disc", "t2_softseg", "t2_spinemask", "t2_centerline"],
)
def test_names_of_segmentations(name: str, tmp_path: Path) -> None:
    with pytest.raises(DicomRejected, match="a segmentation by its name"):
        read_volume(saved(sagittal(), tmp_path / f"{name}.nii.gz"))


def test_labels_without_a_name_are_no_image(tmp_path: Path) -> None:
    """By the header, or by values that are few."""
    labels = nibabel.Nifti1Image(np.asanyarray(sagittal().dataobj) // 400 % 20, sagittal().affine)
    saved(labels, tmp_path / "visit" / "t2_sag_b.nii.gz")
    saved(sagittal(), tmp_path / "visit" / "t2_sag_a.nii.gz")
    told = sagittal()
    told.header["intent_code"] = 1002
    saved(told, tmp_path / "visit" / "t2_sag_c.nii.gz")
    study = find_studies(tmp_path / "visit")[0].load()
    assert [series.series_id for series in study.series] == ["t2_sag"]
    assert [item.reason for item in study.rejections] == [Reason.UNKNOWN_KIND] * 2


@pytest.mark.parametrize(
    ("names", "leading", "others"),
    [
        (("t2_sag_e1", "t2_sag_e2"), "_e2", 1),
        (("sub-1_echo-1_T2w", "sub-1_echo-2_T2w"), "echo-2", 1),
        (("sub-1_part-mag_T2w", "sub-1_part-phase_T2w"), "part-mag", 0),
        (("t2_sag", "t2_sag_ph"), "t2_sag", 0),
    ],
)
def test_echoes_and_phases_are_told_by_names(
    names: tuple[str, str], leading: str, others: int, tmp_path: Path
) -> None:
    for name in names:
        saved(sagittal(), tmp_path / "v" / f"{name}.nii.gz")
    study = find_studies(tmp_path / "v")[0].load()
    used = study.of_kind(SeriesKind.SAGITTAL_T2)
    assert [leading in str(series.slices[0].path) for series in used] == [True]
    assert len(study.series) - len(used) == others


def test_the_sidecar_tells_contrast_agent_and_region(tmp_path: Path) -> None:
    path = saved(sagittal(), tmp_path / "t1.nii.gz")
    told = {"ContrastBolusIngredient": "GADOLINIUM", "BodyPartExamined": "CSpine"}
    (tmp_path / "t1.json").write_text(json.dumps(told))
    (header, *_), _ = read_volume(path)
    assert header.has_contrast and header.body_part == "CSPINE"


def test_the_library_says_nothing_of_a_header(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content = bytearray(saved(sagittal(), tmp_path / "t2.nii").read_bytes())
    content[70:72] = b"\x77\x77"
    (tmp_path / "t2.nii").write_bytes(content)
    with pytest.raises(DicomRejected):
        read_volume(tmp_path / "t2.nii")
    assert capfd.readouterr() == ("", "")


def test_a_compressed_volume_with_a_plain_name_is_read_and_no_archive(tmp_path: Path) -> None:
    packed = saved(sagittal(), tmp_path / "v" / "t2.nii.gz")
    packed.rename(tmp_path / "v" / "t2.nii")
    (entry,) = find_studies(tmp_path / "v")
    assert not entry.rejections and entry.load().series


@pytest.mark.parametrize("name", ["t2", "t2.img", "volume.dat"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_a_volume_that_is_not_called_one_is_named(name: str, kind: type, tmp_path: Path) -> None:
    saved(sagittal(), tmp_path / "v" / "t1.nii")
    path = saved(kind(np.asanyarray(sagittal().dataobj), sagittal().affine), tmp_path / "v" / "x.nii")
    path.rename(tmp_path / "v" / name)
    (entry,) = find_studies(tmp_path / "v")
    assert [item.reason for item in entry.rejections] == [Reason.OTHER_FORMAT]


def test_names_of_people_do_not_become_identifiers(tmp_path: Path) -> None:
    for name in ("Smith_John_t2.nii", "Doe_Jane_t2_Jane.nii"):
        saved(sagittal(), tmp_path / "visit" / name)

    found = ids(tmp_path / "visit")

    assert len(found) == 2
    assert not any(name in str(found) for name in ("Smith", "John", "Doe", "Jane"))


def test_folders_of_one_name_stay_apart(tmp_path: Path) -> None:
    for patient in ("p1", "p2"):
        saved(sagittal(), tmp_path / patient / "anat" / "t2.nii")

    assert ids(tmp_path) == {"p1-anat": ["t2"], "p2-anat": ["t2"]}


def test_kinds_come_from_the_names_and_slices_are_in_spatial_order(tmp_path: Path) -> None:
    folder = tmp_path / "sub-01" / "anat"
    saved(reoriented(sagittal(), "LPI"), folder / "sub-01_acq-sag_T2w.nii.gz")
    saved(sagittal(), folder / "sub-01_acq-sag_T1w.nii.gz")
    axial = nibabel.Nifti1Image(np.zeros((30, 20, 5), np.int16), np.diag([0.6, 0.6, 4.4, 1.0]))
    saved(axial, folder / "sub-01_acq-ax_T2w.nii.gz")
    saved(sagittal(), folder / "sub-01_acq-sag_T2star.nii.gz")

    (entry,) = find_studies(tmp_path)
    study = entry.load()

    assert {series.series_id: series.kind for series in study.series} == {
        "acq-ax_T2w": SeriesKind.AXIAL_T2,
        "acq-sag_T1w": SeriesKind.SAGITTAL_T1,
        "acq-sag_T2w": SeriesKind.SAGITTAL_T2,
    }
    assert [item.reason for item in study.rejections] == [Reason.UNKNOWN_KIND]
    for series in study.of_kind(SeriesKind.SAGITTAL_T2):
        x = [item.plane.centre_mm[0] for item in series.slices]
        assert x == sorted(x)


def test_one_bad_volume_does_not_end_its_study(tmp_path: Path) -> None:
    folder = tmp_path / "sub-01" / "anat"
    saved(sagittal(), folder / "sub-01_T2w.nii.gz")
    (folder / "sub-01_T1w.nii.gz").write_bytes(b"nothing")

    (entry,) = find_studies(tmp_path)

    assert [(item.reason, item.file) for item in entry.load().rejections] == [
        (Reason.UNREADABLE, "sub-01_T1w.nii.gz")
    ]


def test_volumes_in_a_zip_are_found(tmp_path: Path) -> None:
    import zipfile

    saved(sagittal(), tmp_path / "in" / "sub-01_T2w.nii.gz")
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        archive.write(tmp_path / "in" / "sub-01_T2w.nii.gz", "a/sub-01_T2w.nii.gz")

    with opened_input(tmp_path / "in.zip") as (folder, rejections):
        (entry,) = find_studies(folder)

    assert not rejections
    assert entry.study_id == "sub-01"


def test_files_that_are_named_one_by_one_are_one_study(tmp_path: Path) -> None:
    folder = tmp_path / "sub-01" / "anat"
    files = [saved(sagittal(), folder / f"sub-01_acq-sag_{kind}.nii.gz") for kind in ("T1w", "T2w")]
    saved(sagittal(), folder / "sub-01_acq-sag_run-2_T2w.nii.gz")

    (entry,) = find_all_studies(files)

    assert entry.study_id == "sub-01"
    assert sorted(entry.headers) == ["acq-sag_T1w", "acq-sag_T2w"]


def test_volumes_and_folders_that_are_named_together_are_all_read(tmp_path: Path) -> None:
    volume = saved(sagittal(), tmp_path / "sub-01_T2w.nii.gz")
    folder = write_study(tmp_path / "100")
    for named in ([volume, folder], [folder, volume]):
        assert [entry.study_id for entry in find_all_studies(named)] == ["100", "sub-01"]


def test_a_folder_that_is_called_like_a_subject_is_said_to_be_left_out(tmp_path: Path) -> None:
    volume = saved(sagittal(), tmp_path / "sub-01_T2w.nii.gz")
    write_series(tmp_path / "sub-01", without=["StudyInstanceUID"])
    (entry,) = find_all_studies([volume, tmp_path / "sub-01"])
    assert [item.reason for item in entry.rejections] == [Reason.DUPLICATE_STUDY]


def test_a_bad_dicom_file_beside_volumes_is_listed(tmp_path: Path) -> None:
    saved(sagittal(), tmp_path / "in" / "sub-01_T2w.nii.gz")
    (tmp_path / "in" / "1.dcm").write_bytes(b"nothing")

    (entry,) = find_studies(tmp_path / "in")

    assert [item.reason for item in entry.rejections] == [Reason.NOT_DICOM]
