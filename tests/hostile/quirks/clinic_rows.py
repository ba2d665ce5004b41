"""Rows for folders of clinics: whose images, which series, which part of the body, which files."""

from __future__ import annotations

import numpy as np

from tests.hostile.quirks import candidates, clinic, misplaced, variant_files, wrong_way
from tests.hostile.quirks.expected import UNSURE
from tests.hostile.quirks.row import (
    AXIAL,
    DEGRADED,
    EVERYTHING,
    EXACT,
    GAPS,
    RESAMPLED,
    ROUNDED,
    T1,
    T2,
    WITHOUT_T1,
    Row,
    but,
    row,
)
from tests.hostile.quirks.stored import StoredStudy


def _identifiers() -> list[Row]:
    unknown = but(EXACT, may_flag={"identifiers_missing"})
    two = [
        ("anonymous-two", "ANON and no StudyInstanceUID", clinic.anonymous_patients()),
        (
            "anonymous-two-series",
            "ANON, a StudyInstanceUID per series",
            clinic.anonymous_patients(per_series=True),
        ),
        (
            "anonymous-two-place",
            "ANON and no StudyInstanceUID, one geometry",
            clinic.anonymous_patients(one_place=True),
        ),
        ("no-study-two", "PatientIDs and no StudyInstanceUID", clinic.anonymous_patients(named=True)),
    ]
    return [
        *(
            row(name, f"two patients, a folder each: {what}", quirk, unknown, studies=2)
            for name, what, quirk in two
        ),
        row(
            "patient-in-zip",
            "another patient in a zip beside the folder",
            variant_files.beside_in_zip(bytes),
            studies=2,
        ),
        row("study-per-series", "a StudyInstanceUID per series, one folder", clinic.study_per("series")),
        row("study-per-file", "a StudyInstanceUID per file, one folder", clinic.study_per("file")),
    ]


def _candidates() -> list[Row]:
    said = but(ROUNDED, may_flag=UNSURE)
    other = but(said, codes={"series_kind_unknown"})
    agent = candidates.with_contrast_agent
    return [
        row("t1-tirm", "the only T1 is called t1_tirm_sag_dark-fluid", clinic.t1_with_spair),
        row("examination-name", "ProtocolName is the examination's", clinic.examination_named),
        row("full-width", "names in full-width letters", clinic.full_width_names),
        row("dixon-fat-first", "T2 as Dixon: F, opp, in", candidates.dixon(("F", "opp", "in")), said),
        row("dixon-water", "T2 as Dixon: opp, W, F", candidates.dixon(("opp", "W", "F")), said),
        row(
            "dixon-ge",
            "T2 as Dixon, names of GE: W, F, in, opp",
            candidates.dixon(("W", "F", "in", "opp"), "GE"),
            said,
        ),
        row(
            "dixon-philips",
            "T2 as Dixon, told by ImageType alone: F, W, opp, in",
            candidates.dixon(("F", "W", "opp", "in"), "Philips"),
            said,
        ),
        row(
            "dixon-one-series",
            "T2 as Dixon, four images in one series",
            candidates.dixon(("F", "opp", "in", "W"), one_series=True),
            said,
        ),
        row("t1-contrast", "T1 FS +C beside T1", agent("SAG T1 FS +C"), said),
        row("t1-contrast-first", "T1 FS +C before T1", agent("SAG T1 FS +C", first=True), said),
        row("t1-spair", "T1W_TSE_SPAIR+C before T1", agent("T1W_TSE_SPAIR+C", first=True), said),
        row(
            "axial-contrast",
            "axial T1W_TSE_SPAIR+C before T2",
            agent("T1W_TSE_SPAIR+C", AXIAL, first=True),
            other,
        ),
        row("ciss", "3-D CISS, TR 6, TE 3, before T2", _ciss, other),
        row("pd", "a series called PD before T2", candidates.beside("PD", EchoTime=15), other),
        row("two-echoes", "PD and T2 in one series", candidates.echoes(15, 100), other),
        row("eight-echoes", "eight echoes in one series", candidates.echoes(*range(12, 100, 12)), other),
        row("sixteen-echoes", "sixteen echoes in one series", candidates.echoes(*range(10, 170, 10)), other),
        row(
            "numbered-echoes",
            "two echoes in one series, told by EchoNumbers alone",
            candidates.echoes(15, 100, told_by="EchoNumbers"),
            said,
        ),
        row(
            "untold-echoes",
            "two echoes in one series, and nothing tells them apart",
            candidates.echoes(15, 100, told_by=""),
            but(
                DEGRADED,
                flags={"no_sagittal_t2"},
                codes={"images_not_told_apart"},
                may_flag=DEGRADED.may_flag,
            ),
        ),
        row(
            "planning-copy", "a calculated copy with lines at a slice's place", candidates.planning_copy, said
        ),
        row("stations", "upper and lower spine in turn in one series", candidates.two_stations, said),
        row(
            "neck-beside",
            "a neck with more slices beside the lumbar T2",
            candidates.region_beside(0.5, 420.0),
            said,
        ),
        row(
            "chest-beside",
            "a chest with more slices beside the lumbar T2",
            candidates.region_beside(0.65, 300.0),
            said,
        ),
    ]


def _ciss(study: StoredStudy, rng: np.random.Generator) -> StoredStudy:
    times = {"RepetitionTime": 6, "EchoTime": 3, "ScanningSequence": "GR"}
    return candidates.beside("t2_ci3d_sag", **times)(study, rng)


def _places() -> list[Row]:
    no_spine = but(
        EXACT,
        ungraded=EVERYTHING,
        flags={"numbering_uncertain"},
        may_flag=UNSURE | {"no_lumbar_spine", "sacrum_unseen", "level_absent", "region_doubtful"},
    )
    moved = UNSURE | {"axial_disagrees"}
    return [
        row("neck-alone", "a neck: half the size", clinic.region_alone(0.5, 420.0), no_spine),
        row(
            "of-the-neck",
            "BodyPartExamined CSPINE in every header",
            clinic.of_the_neck,
            but(EXACT, flags={"region_doubtful", "numbering_uncertain"}),
        ),
        row(
            "axials-moved",
            "the patient moved 33 mm before the axial series",
            clinic.moved_axials(33.0),
            but(DEGRADED, probability=1.0, points_mm=60.0, may_flag=moved, instead=moved),
        ),
        row(
            "off-centre",
            "two slices of one side of T2 missing",
            clinic.off_centre(2),
            but(GAPS, may_flag=GAPS.may_flag | {"spine_curved", "canal_at_edge"}),
        ),
    ]


def _misplaced() -> list[Row]:
    doubtful = but(DEGRADED, probability=1.0, points_mm=60.0, levels_mm=15.0, codes={"positions_doubtful"})
    axial = but(doubtful, may_flag=UNSURE | {"axial_disagrees", "series_kind_doubtful"})
    axial = but(axial, may_code={"series_kind_disagrees"})
    moved = but(DEGRADED, probability=1.0, levels_mm=8.0)
    return [
        row(
            "t1-transposed",
            "columns and rows of T1 exchanged, headers as they were",
            wrong_way.transposed(T1),
            but(WITHOUT_T1, flags=WITHOUT_T1.flags | {"series_turned"}),
        ),
        row(
            "axial-untilted",
            "axial slices written with the axes of the patient",
            misplaced.axes_of_the_patient,
            # Of two patients they hardly are tilted.
            but(axial, probability=0.35, codes=(), may_code=axial.may_code | axial.codes),
        ),
        row(
            "axial-step-less",
            "axial slices .8 of their step apart",
            misplaced.another_step(AXIAL, 0.8),
            axial,
        ),
        row(
            "axial-step-more",
            "axial slices 1.25 of their step apart",
            misplaced.another_step(AXIAL, 1.25),
            axial,
        ),
        row("t1-step-less", "T1 slices .8 of their step apart", misplaced.another_step(T1, 0.8), doubtful),
        row(
            "t1-misplaced",
            "a T1 slice at the place of another",
            misplaced.at_the_place_of_another,
            doubtful,
        ),
        row(
            "axial-packages",
            "the patient moved 6 mm aside between the packages of the axial slices",
            misplaced.moved_between_packages(AXIAL, 6.0, 0.0),
            but(moved, flags={"axial_disagrees"}),
        ),
        row(
            "t2-packages",
            "the patient moved 5 mm along the table between the packages of T2",
            misplaced.moved_between_packages(T2, 0.0, 5.0),
            but(moved, flags={"series_disagree"}),
        ),
    ]


def _files_of_clinics() -> list[Row]:
    return [
        row("enhanced", "T2 as one Enhanced MR object", clinic.enhanced(one_per_frame=False)),
        row("enhanced-frames", "T2 as an Enhanced MR object a frame", clinic.enhanced(one_per_frame=True)),
        row("no-preamble", "data sets without preamble", clinic.without_preamble(file_meta=True)),
        row("no-meta", "data sets without preamble and File Meta", clinic.without_preamble(file_meta=False)),
        row(
            "listed-missing",
            "the table lists a sagittal T1 that is not there",
            clinic.listed_but_missing(T1),
            but(WITHOUT_T1, codes={"listed_series_missing"}),
        ),
        row(
            "other-formats",
            "PNG pictures and a tar among the series",
            clinic.other_formats,
            but(EXACT, codes={"other_format"}),
        ),
        row("padding", "padding of 65535 at the borders", clinic.padded_with(65535), RESAMPLED),
        row("padding-signed", "padding of -32768 at the borders", clinic.padded_with(-32768), RESAMPLED),
    ]


CLINIC_ROWS: tuple[Row, ...] = (
    *_identifiers(),
    *_candidates(),
    *_places(),
    *_misplaced(),
    *_files_of_clinics(),
)
