"""Protects the typing of series that no table lists."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from data_prep.geometry import SlicePlane
from data_prep.read.find import find_studies
from data_prep.read.series_names import traits_of
from data_prep.read.slice_header import SliceHeader
from data_prep.read.weighting import (
    Weighting,
    csf_ridge,
    told_by_headers,
    weighting_from_sagittal_image,
)
from data_prep.traits import Image
from data_prep.vocabulary import SeriesKind
from tests.dicom_files import AXIAL, write_series

PLANE = SlicePlane.from_dicom((0, 0, 0), (0, 1, 0, 0, 0, -1), (1, 1), (4, 4))


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        ("T1", Weighting.T1),
        ("t1_tse_sag", Weighting.T1),
        ("SAG T2 FSE", Weighting.T2),
        ("AXT2", Weighting.T2),
        ("Sag STIR", Weighting.T2),
        ("t2_tirm_sag", Weighting.T2),
        ("SAG T1 FLAIR", Weighting.T1),
        ("T1W_TSE_SPAIR+C", Weighting.T1),
        ("t1_tirm_sag_dark-fluid", Weighting.T1),
        ("Ｔ２ sag", Weighting.T2),
        ("T1-T12 SAG T2", Weighting.T2),
        ("SAG T2 SPAIR", Weighting.T2),
        ("t2_ci3d_CISS", Weighting.OTHER),
        ("3D TRUFI sag", Weighting.OTHER),
        ("SAG FIESTA", Weighting.OTHER),
        ("PD sag", Weighting.OTHER),
        ("PDW_TSE", Weighting.OTHER),
        ("PD/T2 sag", Weighting.T2),
        ("T2 map", Weighting.OTHER),
        ("T12-S1 sagittal T2", Weighting.T2),
        ("AX T2*", Weighting.OTHER),
        ("DWI b1000", Weighting.OTHER),
        ("3-plane scout", Weighting.OTHER),
        ("T2 HASTE LOC", Weighting.OTHER),
        ("SAG T2 LOCAL SHIM", Weighting.T2),
        ("MPGR AX", Weighting.OTHER),
        ("AX T2 DESS", Weighting.OTHER),
        ("bSSFP sag", Weighting.OTHER),
        ("AX HASTE SSFSE T2", Weighting.T2),
        ("SAG CSF FLOW", Weighting.OTHER),
        ("SAG T2 FLOW COMP", Weighting.T2),
        ("T1rho sag", Weighting.OTHER),
        ("R2* sag", Weighting.OTHER),
        ("DCE tra", Weighting.OTHER),
        ("AX TOF", Weighting.OTHER),
        ("MRA spinal", Weighting.OTHER),
        ("sag T2 relaxometry", Weighting.OTHER),
        ("T2 sag BoneMRI", Weighting.OTHER),
        ("synthetic CT from T2", Weighting.OTHER),
        ("T1 T2 overview", None),
        ("lumbar spine", None),
        ("", None),
    ],
)
def test_descriptions(description: str, expected: Weighting | None) -> None:
    assert told_by_headers([SliceHeader(Path("1"), PLANE, description=description)]).weighting is expected


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        *(
            (f"SAG T1 {words}", Image.PLAIN)
            for words in (
                "SIN CONTRASTE",
                "SANS CONTRASTE",
                "SEM CONTRASTE",
                "SENZA MDC",
                "BEZ KONTRASTU",
                "UTAN KONTRAST",
                "UNENHANCED",
                "NON-CONTRAST",
                "PRECONTRAST",
                "S/C",
                "C(-)",
                "БЕЗ КОНТРАСТА",
                "БЕЗ КУ",
                "造影前",
                "NO FS",
                "NON FAT SAT",
                "W/O FATSAT",
                "ohne FS",
                "POST-OP",
                "POSTOP",
                "posterior coil",
            )
        ),
        *(
            (f"SAG T1 {words}", Image.CONTRAST)
            for words in (
                "CON CONTRASTE",
                "C(+)",
                "C/C",
                "W/C",
                "DOTAREM",
                "GBCA",
                "PO KONTRASCIE",
                "増強",
                "NON FS POST GD",
                "SIN FATSAT CON CONTRASTE",
                "+C W/O FS",
                "POST-OP POST GD",
            )
        ),
        *(
            (f"SAG T1 {words}", Image.SUPPRESSED)
            for words in (
                "FSAT",
                "F/S",
                "SPECIR",
                "PROSET",
                "WE",
                "DARK FAT",
                "Q-FAT-SAT",
                "F.S.",
                "FRFSE FATS",
                "WATS",
            )
        ),
        ("SAG T2 DIXON FAT", Image.FAT),
    ],
)
def test_what_names_say_of_contrast_agent_and_fat(description: str, expected: Image) -> None:
    assert traits_of([SliceHeader(Path("1"), PLANE, description=description)]).image is expected


@pytest.mark.parametrize(
    ("repetition", "echo", "inversion", "sequence", "expected"),
    [
        (550.0, 12.0, None, ("SE",), Weighting.T1),
        (3500.0, 100.0, None, ("SE",), Weighting.T2),
        (4000.0, 40.0, 160.0, ("IR",), Weighting.T2),
        (4000.0, 40.0, None, ("SE", "IR"), Weighting.T2),
        (2000.0, 10.0, 860.0, ("IR",), None),
        (2000.0, 10.0, None, ("IR",), None),
        (2800.0, 10.0, 860.0, ("IR",), None),
        (2500.0, 20.0, None, ("SE",), None),
        (None, None, None, (), None),
        (6.0, 3.0, None, ("GR",), Weighting.OTHER),
        (500.0, 12.0, None, ("GR",), Weighting.OTHER),
        (6.0, 3.0, None, (), None),
    ],
)
def test_times(
    repetition: float | None,
    echo: float | None,
    inversion: float | None,
    sequence: tuple[str, ...],
    expected: Weighting | None,
) -> None:
    header = SliceHeader(
        Path("1"),
        PLANE,
        scanning_sequence=sequence,
        repetition_time_ms=repetition,
        echo_time_ms=echo,
        inversion_time_ms=inversion,
    )
    assert told_by_headers([header]).weighting is expected


@pytest.mark.parametrize(
    ("description", "repetition", "echo", "sequence", "expected"),
    [
        ("SAG T2", 3500.0, 15.0, "SE", Weighting.OTHER),  # the first of two echoes
        ("SAG T2", 3500.0, 100.0, "SE", Weighting.T2),
        ("SAG T1", 3500.0, 100.0, "SE", None),
        ("SAG T1 FLAIR", 2800.0, 20.0, ["SE", "IR"], Weighting.T1),  # its inversion time left out
        ("SAG T1", 3500.0, 100.0, ["SE", "IR"], None),
        ("SAG T2", 600.0, 12.0, "SE", None),
        ("T1 VIBE", 4.0, 2.0, "GR", Weighting.T1),
        ("T2 ME2D", 600.0, 20.0, "GR", Weighting.OTHER),
    ],
)
def test_names_are_checked_against_times_and_sequence(
    description: str, repetition: float, echo: float, sequence: str | list[str], expected: Weighting | None
) -> None:
    header = SliceHeader(
        Path("1"),
        PLANE,
        description=description,
        scanning_sequence=(sequence,) if isinstance(sequence, str) else tuple(sequence),
        repetition_time_ms=repetition,
        echo_time_ms=echo,
    )
    told = told_by_headers([header])
    assert told.weighting is expected and told.contradicts == (expected is None)


def test_the_protocol_of_the_examination_types_no_series(tmp_path: Path) -> None:
    """One ProtocolName in all series, T2 in it; where it differs, it tells."""
    for name, times in (("a", (600, 12)), ("b", (3500, 100))):
        for folder, protocol in (
            ("one", "LUMBAR SPINE T2 WITH STIR"),
            ("own", f"SAG {'T1' if name == 'a' else 'T2'}"),
        ):
            repetition, echo = times if folder == "one" else (None, None)
            write_series(
                tmp_path / folder / name,
                description="",
                series_uid=f"1.2.3.{ord(name)}",
                ProtocolName=protocol,
                RepetitionTime=repetition,
                EchoTime=echo,
                ScanningSequence="SE",
            )
    for folder in ("one", "own"):
        (entry,) = find_studies(tmp_path / folder)
        kinds = [series.kind for series in entry.load().series]
        assert kinds == [SeriesKind.SAGITTAL_T1, SeriesKind.SAGITTAL_T2]


def body(csf: float) -> np.ndarray:
    """A 300 mm sagittal picture in 1 mm pixels: skin fat, muscle, vertebrae and a curved canal."""
    image = np.zeros((300, 300), np.uint16)
    image[:, 50:250] = 300
    image[:, 235:250] = 1500
    for row in range(300):
        middle = 165 + round(12 * np.sin(row / 60))
        image[row, middle - 40 : middle - 8] = 250 if row % 36 < 10 else 500
        image[row, middle - 8 : middle + 8] = csf
    return image


@pytest.mark.parametrize(("csf", "kind"), [(1400, SeriesKind.SAGITTAL_T2), (120, SeriesKind.SAGITTAL_T1)])
def test_without_headers_the_fluid_decides(tmp_path: Path, csf: float, kind: SeriesKind) -> None:
    write_series(tmp_path / "a", description="", pixels=body(csf))
    (entry,) = find_studies(tmp_path)
    (series,) = entry.load().series
    assert (series.kind, series.kind_source) == (kind, "image")


@pytest.mark.parametrize(
    ("fluids", "alone"), [((600, 120), SeriesKind.SAGITTAL_T1), ((1400, 750), SeriesKind.SAGITTAL_T2)]
)
def test_series_that_all_look_alike_are_told_apart_beside_each_other(
    tmp_path: Path, fluids: tuple[int, int], alone: SeriesKind
) -> None:
    """A spine is imaged with T1 and T2, and pale fluid is fluid still."""
    for name, csf in zip("12", fluids, strict=True):
        write_series(tmp_path / "100" / name, description="", pixels=body(csf))
        (only,) = find_studies(tmp_path / "100" / name)[0].load().series
        assert only.kind is alone
    (entry,) = find_studies(tmp_path)
    kinds = {series.series_id: series.kind for series in entry.load().series}
    assert kinds == {"1": SeriesKind.SAGITTAL_T2, "2": SeriesKind.SAGITTAL_T1}


def test_an_axial_series_that_says_nothing_is_assumed_to_be_t2(tmp_path: Path) -> None:
    write_series(tmp_path / "a", orientation=AXIAL, description="")
    (entry,) = find_studies(tmp_path)
    (series,) = entry.load().series
    assert (series.kind, series.kind_source) == (SeriesKind.AXIAL_T2, "assumed")


def test_an_axial_series_that_contradicts_itself_is_not_taken_for_t2(tmp_path: Path) -> None:
    times = {"RepetitionTime": 3500, "EchoTime": 100, "ScanningSequence": "SE"}
    write_series(tmp_path / "a", orientation=AXIAL, description="AX T1", **times)  # type: ignore[arg-type]
    write_series(tmp_path / "b", series_uid="1.2.3.5")
    study = find_studies(tmp_path)[0].load()
    assert [series.kind for series in study.series] == [SeriesKind.SAGITTAL_T2]
    assert [item.message for item in study.rejections] == [
        "its name says one weighting and its times another"
    ]


@pytest.mark.parametrize("shape", [(1, 1), (3, 900), (64, 64)])
def test_an_empty_image_has_no_ridge(shape: tuple[int, int]) -> None:
    assert csf_ridge(np.zeros(shape, np.float32), (1.0, 1.0)) == 0.0
    assert csf_ridge(np.ones(shape, np.float32), (0.5, 2.0)) == pytest.approx(0.0, abs=1e-3)


def test_real_series_are_typed_by_their_images(real_rsna: Path) -> None:
    for study in ("100206310", "4003253"):
        (entry,) = find_studies(real_rsna / "train_images" / study)
        for series in entry.load().series:
            if series.kind in (SeriesKind.SAGITTAL_T1, SeriesKind.SAGITTAL_T2):
                expected = Weighting.T1 if series.kind is SeriesKind.SAGITTAL_T1 else Weighting.T2
                assert weighting_from_sagittal_image(series.stacks[0]) is expected


def test_most_spider_patients_are_t2(spider_dir: Path) -> None:
    """0.47 mm pixels; every fourth slice of a patient, the best of which must show the fluid."""
    best: dict[str, float] = {}
    for path in sorted((spider_dir / "images").glob("*.png"))[::4]:
        pixels = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).astype(np.float32)
        patient = path.stem.split("_")[0]
        best[patient] = max(best.get(patient, 0.0), csf_ridge(pixels, (0.47, 0.47)))
    assert len(best) >= 28
    assert np.mean([ridge >= 0.55 for ridge in best.values()]) >= 0.8


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("T2 MAP", Weighting.OTHER),
        ("T2_STAR MAP", Weighting.OTHER),
        ("FAT_FRACTION", Weighting.OTHER),
        ("ADC", Weighting.OTHER),
        ("NORM", Weighting.T2),
        ("MAPLE", Weighting.T2),
    ],
)
def test_calculated_maps_are_told_by_image_type(code: str, expected: Weighting) -> None:
    """As MapIt names them: T2_Images."""
    header = SliceHeader(Path("1"), PLANE, description="T2_Images", image_type=("DERIVED", "PRIMARY", code))
    assert told_by_headers([header]).weighting is expected


def test_phase_images_do_not_spoil_a_series_that_shows_magnitudes() -> None:
    plain, phase = (
        SliceHeader(Path("1"), PLANE, description="SAG T2", image_type=("ORIGINAL", "PRIMARY", code))
        for code in ("M", "P")
    )
    assert told_by_headers([plain, phase]).weighting is Weighting.T2
    assert told_by_headers([phase, phase]).weighting is Weighting.OTHER


def test_fat_fractions_of_a_dixon_sequence_are_fat_images() -> None:
    for name in ("t2_tse_dixon_sag_FP", "T2 DIXON FF"):
        assert traits_of([SliceHeader(Path("1"), PLANE, description=name)]).image is Image.FAT
