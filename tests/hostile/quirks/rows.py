"""The rows of the robustness table: every quirk with what it may change and what must be said about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from pydicom.uid import (
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from data_prep.vocabulary import Condition, ConditionGroup, Level, SeriesKind
from pipeline.prediction import StudyPrediction
from tests.hostile.quirks import clinic, encodings, files, geometry, pixels, tables
from tests.hostile.quirks.expected import UNSURE, Expected
from tests.hostile.quirks.stored import Quirk

T1, T2, AXIAL = SeriesKind.SAGITTAL_T1, SeriesKind.SAGITTAL_T2, SeriesKind.AXIAL_T2
SPINAL, FORAMINAL, SUBARTICULAR = (
    frozenset(condition for condition in Condition if condition.group is group) for group in ConditionGroup
)
EVERYTHING = frozenset(Condition)

# Exact: the same stored values. Rounded: the same picture through other arithmetic. Requantised: errors far
# below the noise. Resampled: the same picture on another grid. Degraded: another picture. Registered wrongly:
# the same picture at other coordinates, which must be flagged. Without T1: it helps to place the discs.
EXACT = Expected()
ROUNDED = Expected(probability=0.02, levels_mm=0.3, points_mm=6.0)
REQUANTISED = Expected(probability=0.10, levels_mm=1.0, points_mm=7.0)
RESAMPLED = Expected(probability=0.35, levels_mm=3.0, points_mm=9.0, may_flag=UNSURE)
DEGRADED = Expected(
    probability=0.70,
    levels_mm=6.0,
    points_mm=12.0,
    may_flag=UNSURE | {"level_absent", "sacrum_unseen"},
    instead=UNSURE,
    may_prior=True,
)
WITHOUT_T1 = replace(RESAMPLED, prior=FORAMINAL, flags=frozenset({"no_sagittal_t1"}))
TURNED = frozenset({"orientation_doubtful"})
REGISTERED_WRONGLY = Expected(
    flags=TURNED | {"numbering_uncertain"},
    instead=TURNED,
    may_flag=UNSURE | {"level_absent", "sacrum_unseen"},
    may_prior=True,
)


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: for ``--only``.
        title: what is changed.
        quirk: the change, given the prediction of the plain study.
        expected: what may come of it.
        turn: (3, 3) by which it turns the patient.
        studies: how many studies the changed files hold.
    """

    name: str
    title: str
    quirk: Callable[[StudyPrediction], Quirk]
    expected: Expected
    turn: np.ndarray | None = None
    studies: int = 1


def _row(
    name: str,
    title: str,
    quirk: Quirk,
    expected: Expected = EXACT,
    turn: np.ndarray | None = None,
    studies: int = 1,
) -> Row:
    return Row(name, title, lambda _: quirk, expected, turn, studies)


def _with(base: Expected, **changes: object) -> Expected:
    values = {**base.__dict__, **changes}
    for key in ("flags", "may_flag", "instead", "codes", "may_code", "prior", "checked"):
        values[key] = frozenset(values[key])
    return Expected(**values)


def _screws(plain: StudyPrediction) -> Quirk:
    """Pedicle screws of L5: beside the canal, between the discs L4/L5 and L5/S1."""
    found = plain.levels.levels if plain.levels else {}
    canals = [found[level].canal_mm for level in (Level.L4_L5, Level.L5_S1) if level in found]
    middle = np.mean(canals, axis=0) if canals else np.zeros(3)
    return pixels.metal_at(np.array([middle + [side * 20.0, -4.0, 0.0] for side in (-1, 1)]))


REJECTED = Expected(rejected=True)
UNUSABLE = ("no_readable_slices", "no_usable_series")


def _order() -> list[Row]:
    return [
        _row("instances-shuffled", "instance numbers in random order", files.instances_shuffled),
        _row("slices-reversed", "slices in reverse order", files.slices_reversed),
        _row("instances-gaps", "instance numbers up to 5046, with gaps", files.instances_with_gaps),
        _row("instances-missing", "no instance numbers, random file names", files.instances_missing),
        _row("instances-equal", "the same instance number everywhere", files.instances_equal),
        _row("no-table", "no series table", files.no_table),
        _row("export-tree", "folders and file names of an export", files.export_tree),
        _row("one-folder", "all series mixed in one folder", files.one_folder),
        _row(
            "series-in-one-folder",
            "RSNA layout, two series in one series folder",
            files.series_in_one_rsna_folder,
        ),
        _row("two-patients", "two patients in one folder", files.two_patients_one_folder, studies=2),
        _row(
            "two-patients-study",
            "RSNA layout, series of another patient in the study",
            files.two_patients_one_study,
            _with(EXACT, codes={"other_patient"}),
        ),
        _row(
            "two-patients-series",
            "RSNA layout, slices of another patient in a series",
            files.two_patients_one_series,
            _with(EXACT, codes={"other_patient"}),
        ),
        _row(
            "copies",
            "every third file twice",
            files.copies(same_identifier=True),
            _with(EXACT, codes={"duplicate_instance"}),
        ),
        _row(
            "copies-sent-anew",
            "every third image twice, the copy with an identifier of its own",
            files.copies(same_identifier=False),
            EXACT,
        ),
        _row("series-twice", "sagittal T2 twice, as two series", files.series_sent_twice, ROUNDED),
        _row("second-t1", "two sagittal T1 series", files.second_t1, DEGRADED),
        _row("axial-in-four", "axial slices in four series", files.axial_in_parts(4), RESAMPLED),
        _row(
            "localiser",
            "a three-plane localiser beside the series",
            files.localiser,
            _with(EXACT, codes={"localiser"}),
        ),
        _row(
            "other-objects",
            "a report and a screenshot among the series",
            files.other_objects,
            _with(EXACT, codes={"no_pixels", "missing_geometry", "no_readable_slices"}),
        ),
        _row(
            "other-series",
            "axial T1 and coronal T2 among the series, no table",
            files.other_series,
            _with(EXACT, codes={"series_kind_unknown"}),
        ),
        _row("litter", "files of file managers and viewers", files.litter),
        _row(
            "spoilt-files",
            "of every series one file truncated, one no DICOM",
            files.spoilt_files,
            _with(DEGRADED, codes={"truncated", "not_dicom"}),
        ),
        _row("no-t1", "no sagittal T1", files.without(T1), WITHOUT_T1),
        _row(
            "no-t2",
            "no sagittal T2",
            files.without(T2),
            _with(DEGRADED, prior=SPINAL, flags={"no_sagittal_t2"}),
        ),
        _row(
            "no-axial",
            "no axial T2",
            files.without(AXIAL),
            _with(EXACT, prior=SUBARTICULAR, flags={"no_axial_t2"}),
        ),
        _row(
            "only-axial",
            "no sagittal series",
            files.without(T1, T2),
            _with(EXACT, prior=EVERYTHING, flags={"no_sagittal", "no_sagittal_t1", "numbering_uncertain"}),
        ),
    ]


def _encodings() -> list[Row]:
    return [
        _row("implicit-le", "implicit VR little endian", encodings.native(ImplicitVRLittleEndian)),
        _row("big-endian", "explicit VR big endian", encodings.native(ExplicitVRBigEndian)),
        _row(
            "deflated",
            "deflated: refused by decision",
            encodings.deflated,
            _with(REJECTED, codes={"transfer_syntax_not_supported", *UNUSABLE}),
        ),
        _row("rle", "RLE lossless", encodings.compressed(RLELossless)),
        _row("jpeg-lossless", "JPEG lossless (process 14)", encodings.dcmtk("+el")),
        _row("jpeg-lossless-sv1", "JPEG lossless, first-order prediction", encodings.dcmtk("+e1")),
        _row("jpeg-ls", "JPEG-LS lossless", encodings.compressed(JPEGLSLossless)),
        _row("jpeg-ls-near", "JPEG-LS, off by at most 2", encodings.jpeg_ls_near, REQUANTISED),
        _row("jpeg-2000", "JPEG 2000 lossless", encodings.compressed(JPEG2000Lossless)),
        _row("jpeg-2000-lossy", "JPEG 2000 at an eighth", encodings.jpeg_2000_lossy, REQUANTISED),
        _row("jpeg-baseline", "JPEG baseline, 8 bits, quality 90", encodings.jpeg_baseline, REQUANTISED),
        _row("jpeg-extended", "JPEG extended, 12 bits", encodings.dcmtk("+ee", "+q", "90"), REQUANTISED),
        _row("mixed-syntaxes", "another transfer syntax from slice to slice", encodings.mixed_syntaxes),
        _row(
            "htj2k",
            "a transfer syntax that is not on the list",
            encodings.not_accepted,
            _with(REJECTED, codes={"transfer_syntax_not_supported", *UNUSABLE}),
        ),
        _row("eight-bits", "8 bits per pixel", encodings.eight_bits, REQUANTISED),
        _row("sixteen-bits", "all 16 bits used", encodings.sixteen_bits, ROUNDED),
        _row("signed", "signed pixels with an intercept", encodings.signed, ROUNDED),
        _row("signed-12", "signed in 12 bits, sign not extended", encodings.signed_twelve_bits, REQUANTISED),
        _row("rescaled", "rescale slope and intercept", encodings.rescaled, ROUNDED),
        _row("monochrome1", "MONOCHROME1", encodings.monochrome1, ROUNDED),
        _row("overlay-bits", "a drawing in unused bits", encodings.overlay_bits),
        _row(
            "multi-frame",
            "all slices of a series in one file",
            files.multi_frame,
            _with(REJECTED, codes={"multi_frame_not_supported", *UNUSABLE}),
        ),
        _row(
            "colour",
            "axial series in colour",
            encodings.colour,
            _with(
                EXACT, prior=SUBARTICULAR, codes={"bad_pixels", "no_readable_slices"}, flags={"no_axial_t2"}
            ),
        ),
        _row(
            "undecodable",
            "every second axial slice cannot be decoded",
            encodings.undecodable,
            _with(DEGRADED, codes={"bad_pixels"}),
        ),
    ]


def _headers() -> list[Row]:
    places = ("PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient")
    uids = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    gone = _with(REJECTED, codes={"missing_geometry", *UNUSABLE})
    return [
        *(_row(f"no-{k}", f"no {k}", encodings.lacking(k), gone) for k in places),
        _row(
            "no-spacing-t1",
            "no PixelSpacing in sagittal T1",
            encodings.lacking("PixelSpacing", only=T1),
            _with(WITHOUT_T1, codes={"missing_geometry", "no_readable_slices"}),
        ),
        _row(
            "no-position-slice",
            "no ImagePositionPatient in one slice of each series",
            encodings.lacking_in_one_slice("ImagePositionPatient"),
            _with(DEGRADED, codes={"missing_geometry"}),
        ),
        *(_row(f"no-{k}", f"no {k}, RSNA layout", encodings.lacking(k)) for k in uids),
        *(_row(f"no-{k}-tree", f"no {k}, export", encodings.lacking(k, tree=True)) for k in uids),
        _row("no-uids-tree", "no identifier at all, export", encodings.lacking(*uids, tree=True)),
        _row(
            "no-series-uid-one-folder",
            "no SeriesInstanceUID, all files in one folder",
            encodings.lacking_in_one_folder("SeriesInstanceUID"),
        ),
        _row("no-frame", "no FrameOfReferenceUID", encodings.lacking("FrameOfReferenceUID")),
        _row("valid-uids", "valid identifiers, one frame of reference", encodings.valid_identifiers),
        _row("bare", "nothing but geometry and pixels in the headers", encodings.bare_headers),
        _row(
            "silent",
            "neither table, description nor times: weighting told from the images",
            encodings.silent_headers,
            _with(EXACT, flags={"series_kind_guessed"}),
        ),
    ]


def _geometry() -> list[Row]:
    few = {"few_slices"}
    absent = _with(DEGRADED, flags={"level_absent"})
    return [
        _row("non-square", "pixels twice as high as wide", geometry.matrix(rows=0.5), RESAMPLED),
        _row("matrix-half", "half the matrix", geometry.matrix(rows=0.5, columns=0.5), DEGRADED),
        _row("matrix-1024", "1024 pixels along the longer side", geometry.matrix(longest=1024), RESAMPLED),
        _row("sizes-padded", "every slice of another size: black borders", geometry.padded, REQUANTISED),
        _row(
            "sizes-mixed",
            "every second slice of another matrix",
            geometry.matrix(rows=0.8, columns=0.8, every=2),
            RESAMPLED,
        ),
        _row("mirrored", "stored mirrored: image-left is patient-left", geometry.stored_mirrored, ROUNDED),
        _row("on-side", "stored with rows and columns swapped", geometry.stored_on_side, ROUNDED),
        _row("feet-first", "feet first: stored upside down", geometry.feet_first, ROUNDED),
        _row(
            "rotated",
            "the patient lies askew (14°, 9°, 6°)",
            geometry.rotated_patient,
            RESAMPLED,
            geometry.rotation(),
        ),
        _row(
            "turned-in-plane",
            "every image turned by 12° in its plane",
            geometry.turned_in_plane(12),
            RESAMPLED,
        ),
        _row(
            "registered-feet-first",
            "registered head first, lies feet first: coordinates upside down",
            geometry.wrongly_registered((-1, 1, -1), "HFS"),
            REGISTERED_WRONGLY,
        ),
        _row(
            "registered-prone",
            "registered prone, lies supine: front and back swapped",
            geometry.wrongly_registered((-1, -1, 1), "HFP"),
            REGISTERED_WRONGLY,
        ),
        _row(
            "moved",
            "the patient moved 14 mm between T2 and T1",
            geometry.moved_between_series,
            _with(DEGRADED, probability=1.0, points_mm=20.0, flags={"series_disagree"}),
        ),
        # Half of .01 of an axis is 1.7 mm at the far end of a view of 340 mm.
        _row("rounded", "geometry written with two decimals", geometry.rounded(2), RESAMPLED),
        _row(
            "positions-equal",
            "all slices of a series claim one place",
            geometry.positions_equal,
            _with(REJECTED, codes={"bad_geometry", "no_usable_series"}),
        ),
        _row(
            "bad-geometry",
            "T1 without row spacing, axial axes askew",
            geometry.bad_geometry,
            _with(
                WITHOUT_T1,
                prior=FORAMINAL | SUBARTICULAR,
                flags={"no_sagittal_t1", "no_axial_t2"},
                codes={"bad_geometry", "no_readable_slices"},
            ),
        ),
        _row("single-slice", "one slice per series", geometry.slices_kept(1), _with(DEGRADED, flags=few)),
        _row("single-t1", "one slice of sagittal T1", geometry.slices_kept(1, kinds=(T1,)), DEGRADED),
        _row("five-axial", "five axial slices", geometry.slices_kept(5, kinds=(AXIAL,)), DEGRADED),
        _row("every-second", "every second slice", geometry.slices_kept(step=2), DEGRADED),
        _row("middle-lost", "the three middle slices of T2 lost", geometry.middle_slices_lost, DEGRADED),
        _row("axial-192", "192 axial slices", geometry.thin_slices(AXIAL, 192), DEGRADED),
        _row("sagittal-192", "192 sagittal T2 slices", geometry.thin_slices(T2, 192), DEGRADED),
        _row(
            "upper-half",
            "upper half of the sagittal views",
            geometry.cut(rows=(0, 0.5), kinds=(T1, T2)),
            # Nobody can be sure which lumbar level is which without the sacrum: it must be said.
            _with(DEGRADED, flags={"level_absent", "sacrum_unseen"}, instead=UNSURE | {"sacrum_unseen"}),
        ),
        _row(
            "lower-half",
            "lower half of the sagittal views",
            geometry.cut(rows=(0.5, 1), kinds=(T1, T2)),
            absent,
        ),
        _row("left-half", "left half of the axial views", geometry.left_half, DEGRADED),
        _row(
            "front-half",
            "front half of the sagittal views",
            geometry.cut(columns=(0, 0.5), kinds=(T1, T2)),
            # Hardly any spine is left in view: what it looks like may be doubted in every way.
            replace(DEGRADED, may_flag=DEGRADED.may_flag | {"noisy", "orientation_doubtful"}),
        ),
    ]


def _pixels() -> list[Row]:
    return [
        Row(
            "metal",
            "two screws in L5: signal voids of 26 mm",
            _screws,
            _with(DEGRADED, flags={"no_signal"}),
        ),
        _row(
            "noise",
            "noise: signal 6 times as high",
            pixels.noise(6),
            _with(DEGRADED, flags={"noisy"}, instead=UNSURE | {"noisy"}),
        ),
        _row(
            "noise-heavy",
            "noise: signal 2.5 times as high",
            pixels.noise(2.5),
            _with(DEGRADED, flags={"noisy", "numbering_uncertain"}),
        ),
        _row("shading", "surface coil: five times the signal at one end", pixels.shading, DEGRADED),
        _row("motion", "breathing ghosts and blur", pixels.motion, DEGRADED),
        _row("text", "a line of text burned in", pixels.burned_in_text, REQUANTISED),
        _row("blank-ends", "black slices at the ends of each series", pixels.blank_ends, DEGRADED),
        _row(
            "blank-axial",
            "black axial series",
            pixels.blank(AXIAL),
            _with(EXACT, prior=SUBARTICULAR, flags={"no_signal"}),
        ),
        _row(
            "blank-t1",
            "black sagittal T1 series",
            pixels.blank(T1),
            _with(WITHOUT_T1, flags={"no_signal"}),
        ),
        _row(
            "blank",
            "all images black",
            pixels.blank(*SeriesKind),
            _with(EXACT, prior=EVERYTHING, flags={"no_level_found", "numbering_uncertain"}),
        ),
    ]


def _tables() -> list[Row]:
    return [
        _row(name, title, quirk, _with(EXACT, checked={code}))
        for name, title, quirk, code in tables.TABLE_QUIRKS
    ]


def _clinic() -> list[Row]:
    said = _with(ROUNDED, may_flag=UNSURE)
    mixed = frozenset({"identifiers_missing"})
    return [
        _row(
            "anonymous-two",
            "two patients, a folder each, ANON and no StudyInstanceUID",
            clinic.anonymous_patients(per_series=False),
            _with(EXACT, may_flag=mixed),
            studies=2,
        ),
        _row(
            "anonymous-two-series",
            "two patients, a folder each, ANON and a StudyInstanceUID per series",
            clinic.anonymous_patients(per_series=True),
            _with(EXACT, may_flag=mixed),
            studies=2,
        ),
        _row("study-per-series", "a StudyInstanceUID per series, one folder", clinic.study_per("series")),
        _row("study-per-file", "a StudyInstanceUID per file, one folder", clinic.study_per("file")),
        _row("t1-tirm", "the only T1 is called t1_tirm_sag_dark-fluid", clinic.t1_with_spair),
        _row("examination-name", "ProtocolName is the examination's", clinic.examination_named),
        _row("dixon-fat-first", "T2 as Dixon: F, opp, in", clinic.dixon(("F", "opp", "in")), said),
        _row("dixon-water", "T2 as Dixon: opp, W, F", clinic.dixon(("opp", "W", "F")), said),
        _row("t1-contrast", "T1 FS +C beside T1", clinic.with_contrast_agent("SAG T1 FS +C"), said),
        _row("t1-spair", "T1W_TSE_SPAIR+C beside T1", clinic.with_contrast_agent("T1W_TSE_SPAIR+C"), said),
        _row(
            "two-echoes",
            "PD and T2 in one series",
            clinic.two_echoes,
            _with(said, codes={"series_kind_unknown"}),
        ),
        _row("planning-copy", "a calculated copy with lines at a slice's place", clinic.planning_copy, said),
        _row("neck-beside", "a neck with more slices beside the lumbar T2", clinic.neck_beside, said),
        _row(
            "of-the-neck",
            "BodyPartExamined CSPINE in every header",
            clinic.of_the_neck,
            _with(EXACT, flags={"region_doubtful", "numbering_uncertain"}),
        ),
        _row(
            "axials-moved",
            "the patient moved 33 mm before the axial series",
            clinic.moved_axials(33.0),
            _with(
                DEGRADED,
                probability=1.0,
                points_mm=60.0,
                may_flag=UNSURE | {"axial_disagrees"},
                instead=UNSURE | {"axial_disagrees"},
            ),
        ),
        _row("enhanced", "T2 as one Enhanced MR object", clinic.enhanced(one_per_frame=False)),
        _row("enhanced-frames", "T2 as an Enhanced MR object a frame", clinic.enhanced(one_per_frame=True)),
        _row("no-preamble", "data sets without preamble and File Meta", clinic.without_preamble),
        _row("padding", "padding of 65535 at the borders", clinic.padded_with(65535), RESAMPLED),
    ]


ROWS: tuple[Row, ...] = (
    *_order(),
    *_encodings(),
    *_headers(),
    *_geometry(),
    *_pixels(),
    *_tables(),
    *_clinic(),
)
