"""The rows of the robustness table: every quirk with what it may change and what must be said about it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from pydicom.uid import (
    JPEG2000,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from data_prep.vocabulary import Level, SeriesKind
from pipeline.prediction import StudyPrediction
from tests.hostile.quirks import bend, encodings, files, geometry, pixels, tables
from tests.hostile.quirks import variant_missing as missing
from tests.hostile.quirks.clinic_rows import CLINIC_ROWS
from tests.hostile.quirks.expected import UNSURE, Expected
from tests.hostile.quirks.row import (
    AXIAL,
    DEGRADED,
    EVERYTHING,
    EXACT,
    FORAMINAL,
    GAPS,
    LOSSY,
    REGISTERED_WRONGLY,
    REQUANTISED,
    RESAMPLED,
    ROUNDED,
    SUBARTICULAR,
    T1,
    T2,
    WITHOUT_AXIAL,
    WITHOUT_T1,
    Row,
    but,
    row,
)
from tests.hostile.quirks.stored import Quirk

__all__ = ["ROWS", "Row"]


def _screws(plain: StudyPrediction) -> Quirk:
    """Pedicle screws of L5: beside the canal, between the discs L4/L5 and L5/S1."""
    found = plain.levels.levels if plain.levels else {}
    canals = [found[level].canal_mm for level in (Level.L4_L5, Level.L5_S1) if level in found]
    middle = np.mean(canals, axis=0) if canals else np.zeros(3)
    return pixels.metal_at(np.array([middle + [side * 20.0, -4.0, 0.0] for side in (-1, 1)]))


def _bent_to_the_edge(plain: StudyPrediction) -> Quirk:
    found = plain.levels.levels.values() if plain.levels else ()
    return bend.bent_to_the_edge(np.array([level.canal_mm for level in found]))


REJECTED = Expected(rejected=True)
UNUSABLE = ("no_readable_slices", "no_usable_series")


def _order() -> list[Row]:
    return [
        row("instances-shuffled", "instance numbers in random order", files.instances_shuffled),
        row("slices-reversed", "slices in reverse order", files.slices_reversed),
        row("instances-gaps", "instance numbers up to 5046, with gaps", files.instances_with_gaps),
        row("instances-missing", "no instance numbers, random file names", files.instances_missing),
        row("instances-equal", "the same instance number everywhere", files.instances_equal),
        row("no-table", "no series table", files.no_table),
        row("export-tree", "folders and file names of an export", files.export_tree),
        row("one-folder", "all series mixed in one folder", files.one_folder),
        row(
            "series-in-one-folder",
            "RSNA layout, two series in one series folder",
            files.series_in_one_rsna_folder,
        ),
        row("two-patients", "two patients in one folder", files.two_patients_one_folder, studies=2),
        row(
            "two-patients-study",
            "RSNA layout, series of another patient in the study",
            files.two_patients_one_study,
            but(EXACT, codes={"other_patient"}),
        ),
        row(
            "two-patients-series",
            "RSNA layout, slices of another patient in a series",
            files.two_patients_one_series,
            but(EXACT, codes={"other_patient"}),
        ),
        row(
            "copies",
            "every third file twice",
            files.copies(same_identifier=True),
            but(EXACT, codes={"duplicate_instance"}),
        ),
        row(
            "copies-sent-anew",
            "every third image twice, the copy with an identifier of its own",
            files.copies(same_identifier=False),
            EXACT,
        ),
        row("series-twice", "sagittal T2 twice, as two series", files.series_sent_twice, ROUNDED),
        row("second-t1", "two sagittal T1 series", files.second_t1, DEGRADED),
        row("axial-in-four", "axial slices in four series", files.axial_in_parts(4), RESAMPLED),
        row(
            "localiser",
            "a three-plane localiser beside the series",
            files.localiser,
            but(EXACT, codes={"localiser"}),
        ),
        row(
            "other-objects",
            "a report and a screenshot among the series",
            files.other_objects,
            but(EXACT, codes={"no_pixels", "missing_geometry", "no_readable_slices"}),
        ),
        row(
            "other-series",
            "axial T1 and coronal T2 among the series, no table",
            files.other_series,
            but(EXACT, codes={"series_kind_unknown"}),
        ),
        row("litter", "files of file managers and viewers", files.litter),
        row(
            "spoilt-files",
            "of every series one file truncated, one no DICOM",
            files.spoilt_files,
            but(GAPS, codes={"truncated", "not_dicom"}),
        ),
        row("no-t1", "no sagittal T1", files.without(T1), WITHOUT_T1),
        row(
            "no-t2",
            "no sagittal T2",
            files.without(T2),
            but(DEGRADED, flags={"no_sagittal_t2"}),
        ),
        row(
            "no-axial",
            "no axial T2",
            files.without(AXIAL),
            but(WITHOUT_AXIAL, flags={"no_axial_t2"}),
        ),
        row(
            "only-axial",
            "no sagittal series",
            files.without(T1, T2),
            but(EXACT, ungraded=EVERYTHING, flags={"no_sagittal", "no_sagittal_t1", "numbering_uncertain"}),
        ),
    ]


def _encodings() -> list[Row]:
    return [
        row("implicit-le", "implicit VR little endian", encodings.native(ImplicitVRLittleEndian)),
        row("big-endian", "explicit VR big endian", encodings.native(ExplicitVRBigEndian)),
        row(
            "deflated",
            "deflated: refused by decision",
            encodings.deflated,
            but(REJECTED, codes={"transfer_syntax_not_supported", *UNUSABLE}),
        ),
        row("rle", "RLE lossless", encodings.compressed(RLELossless)),
        row("jpeg-lossless", "JPEG lossless (process 14)", encodings.dcmtk("+el")),
        row("jpeg-lossless-sv1", "JPEG lossless, first-order prediction", encodings.dcmtk("+e1")),
        row("jpeg-ls", "JPEG-LS lossless", encodings.compressed(JPEGLSLossless)),
        row(
            "jpeg-ls-near",
            "JPEG-LS, off by at most 2",
            encodings.compressed(JPEGLSNearLossless, jls_error=2),
            but(REQUANTISED, flags={"degraded_input"}),
        ),
        row("jpeg-2000", "JPEG 2000 lossless", encodings.compressed(JPEG2000Lossless)),
        row("jpeg-2000-lossy", "JPEG 2000 at an eighth", encodings.compressed(JPEG2000, j2k_cr=[8.0]), LOSSY),
        row("jpeg-baseline", "JPEG baseline, 8 bits, quality 90", encodings.jpeg_baseline, LOSSY),
        row("jpeg-extended", "JPEG extended, 12 bits", encodings.dcmtk("+ee", "+q", "90"), LOSSY),
        row("mixed-syntaxes", "another transfer syntax from slice to slice", encodings.mixed_syntaxes),
        row(
            "htj2k",
            "a transfer syntax that is not on the list",
            encodings.not_accepted,
            but(REJECTED, codes={"transfer_syntax_not_supported", *UNUSABLE}),
        ),
        row("eight-bits", "8 bits per pixel", encodings.eight_bits, LOSSY),
        row("sixteen-bits", "all 16 bits used", encodings.sixteen_bits, ROUNDED),
        row("signed", "signed pixels with an intercept", encodings.signed, ROUNDED),
        row("signed-12", "signed in 12 bits, sign not extended", encodings.signed_twelve_bits, REQUANTISED),
        row("rescaled", "rescale slope and intercept", encodings.rescaled, ROUNDED),
        row("monochrome1", "MONOCHROME1", encodings.monochrome1, ROUNDED),
        row("overlay-bits", "a drawing in unused bits", encodings.overlay_bits),
        row(
            "multi-frame",
            "all slices of a series in one file",
            files.multi_frame,
            but(REJECTED, codes={"multi_frame_not_supported", *UNUSABLE}),
        ),
        row(
            "colour",
            "axial series in colour",
            encodings.colour,
            but(WITHOUT_AXIAL, codes={"bad_pixels", "no_readable_slices"}, flags={"no_axial_t2"}),
        ),
        row(
            "undecodable",
            "every second axial slice cannot be decoded",
            encodings.undecodable,
            but(DEGRADED, codes={"bad_pixels"}),
        ),
    ]


def _headers() -> list[Row]:
    places = ("PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient")
    uids = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    gone = but(REJECTED, codes={"missing_geometry", *UNUSABLE})
    return [
        *(row(f"no-{k}", f"no {k}", encodings.lacking(k), gone) for k in places),
        row(
            "no-spacing-t1",
            "no PixelSpacing in sagittal T1",
            encodings.lacking("PixelSpacing", only=T1),
            but(WITHOUT_T1, codes={"missing_geometry", "no_readable_slices"}),
        ),
        row(
            "no-position-slice",
            "no ImagePositionPatient in one slice of each series",
            encodings.lacking_in_one_slice("ImagePositionPatient"),
            but(GAPS, codes={"missing_geometry"}),
        ),
        *(row(f"no-{k}", f"no {k}, RSNA layout", encodings.lacking(k)) for k in uids),
        *(row(f"no-{k}-tree", f"no {k}, export", encodings.lacking(k, tree=True)) for k in uids),
        row("no-uids-tree", "no identifier at all, export", encodings.lacking(*uids, tree=True)),
        row(
            "no-series-uid-one-folder",
            "no SeriesInstanceUID, all files in one folder",
            encodings.lacking_in_one_folder("SeriesInstanceUID"),
        ),
        row("no-frame", "no FrameOfReferenceUID", encodings.lacking("FrameOfReferenceUID")),
        row("valid-uids", "valid identifiers, one frame of reference", encodings.valid_identifiers),
        row(
            "bare",
            "nothing but geometry and pixels in the headers",
            encodings.bare_headers,
            but(EXACT, flags={"identifiers_missing"}),
        ),
        row(
            "silent",
            "neither table, description nor times: weighting told from the images",
            encodings.silent_headers,
            but(EXACT, flags={"series_kind_guessed"}),
        ),
    ]


def _geometry() -> list[Row]:
    few, oblong = {"few_slices"}, but(DEGRADED, flags={"degraded_input"})
    coarse = but(DEGRADED, may_flag=DEGRADED.may_flag | {"degraded_input"})
    absent = but(DEGRADED, flags={"level_absent"})
    lost = but(DEGRADED, flags={"slices_missing"}, codes={"slices_missing"})
    return [
        # Of small phantoms, whose pixels of 1.1 to 2.5 mm become 2.2 to 5 mm high.
        row("non-square", "pixels twice as high as wide", geometry.matrix(rows=0.5), oblong),
        row("matrix-half", "half the matrix", geometry.matrix(rows=0.5, columns=0.5), coarse),
        row("matrix-1024", "1024 pixels along the longer side", geometry.matrix(longest=1024), RESAMPLED),
        row("sizes-padded", "every slice of another size: black borders", geometry.padded, ROUNDED),
        row(
            "sizes-mixed",
            "every second slice of another matrix",
            geometry.matrix(rows=0.8, columns=0.8, every=2),
            but(DEGRADED, flags={"degraded_input"}),
        ),
        row("mirrored", "stored mirrored: image-left is patient-left", geometry.stored_mirrored, ROUNDED),
        row("on-side", "stored with rows and columns swapped", geometry.stored_on_side, ROUNDED),
        row("feet-first", "feet first: stored upside down", geometry.feet_first, ROUNDED),
        row(
            "rotated",
            "the patient lies askew (14°, 9°, 6°)",
            geometry.rotated_patient,
            RESAMPLED,
            geometry.rotation(),
        ),
        row(
            "turned-in-plane",
            "every image turned by 12° in its plane",
            geometry.turned_in_plane(12),
            RESAMPLED,
        ),
        row(
            "registered-feet-first",
            "registered head first, lies feet first: coordinates upside down",
            geometry.wrongly_registered((-1, 1, -1), "HFS"),
            REGISTERED_WRONGLY,
        ),
        row(
            "registered-prone",
            "registered prone, lies supine: front and back swapped",
            geometry.wrongly_registered((-1, -1, 1), "HFP"),
            REGISTERED_WRONGLY,
        ),
        row(
            "moved",
            "the patient moved 14 mm between T2 and T1",
            geometry.moved_between_series,
            but(DEGRADED, probability=1.0, points_mm=20.0, flags={"series_disagree"}),
        ),
        row(
            "bent-20",
            "the spine bent sideways by 20 mm",
            bend.bent(20.0),
            but(DEGRADED, levels_mm=24.0, points_mm=30.0, flags={"spine_curved"}),
        ),
        Row(
            "bent-to-edge",
            "the spine bent sideways to the edge of the sagittal slices",
            _bent_to_the_edge,
            but(
                DEGRADED,
                flags={"canal_at_edge"},
                may_flag=DEGRADED.may_flag | {"spine_curved"},
                instead={"canal_at_edge"},
            ),
        ),
        # Half of .01 of an axis is 1.7 mm at the far end of a view of 340 mm.
        row(
            "rounded",
            "geometry written with two decimals",
            geometry.rounded(2),
            but(RESAMPLED, points_mm=12.0),
        ),
        row(
            "positions-equal",
            "all slices of a series claim one place",
            geometry.positions_equal,
            # Axial slices of several angles claim a place per angle.
            but(REJECTED, codes={"bad_geometry", "no_usable_series"}, may_code={"images_not_told_apart"}),
        ),
        row(
            "bad-geometry",
            "T1 without row spacing, axial axes askew",
            geometry.bad_geometry,
            but(
                WITHOUT_AXIAL,
                ungraded=FORAMINAL | SUBARTICULAR,
                flags={"no_sagittal_t1", "no_axial_t2"},
                codes={"bad_geometry", "no_readable_slices"},
            ),
        ),
        row(
            "single-slice",
            "one slice per series",
            geometry.slices_kept(1),
            but(
                DEGRADED,
                flags={*few, "no_sagittal_t1"},
                may_flag=DEGRADED.may_flag | {"no_axial_t2"},
            ),
        ),
        row(
            "single-t1",
            "one slice of sagittal T1",
            geometry.slices_kept(1, kinds=(T1,)),
            but(DEGRADED, flags={"no_sagittal_t1"}),
        ),
        row("five-axial", "five axial slices", geometry.slices_kept(5, kinds=(AXIAL,)), DEGRADED),
        row("every-second", "every second slice", geometry.slices_kept(step=2), lost),
        row("middle-lost", "the three middle slices of T2 lost", missing.lost(T2, missing.middle), lost),
        row("axial-192", "192 axial slices", geometry.thin_slices(AXIAL, 192), DEGRADED),
        row("sagittal-192", "192 sagittal T2 slices", geometry.thin_slices(T2, 192), DEGRADED),
        row(
            "upper-half",
            "upper half of the sagittal views",
            geometry.cut(rows=(0, 0.5), kinds=(T1, T2)),
            # Nobody can be sure which lumbar level is which without the sacrum: it must be said.
            but(DEGRADED, flags={"level_absent", "sacrum_unseen"}, instead=UNSURE | {"sacrum_unseen"}),
        ),
        row(
            "lower-half",
            "lower half of the sagittal views",
            geometry.cut(rows=(0.5, 1), kinds=(T1, T2)),
            absent,
        ),
        row("left-half", "left half of the axial views", geometry.left_half, DEGRADED),
        row(
            "front-half",
            "front half of the sagittal views",
            geometry.cut(columns=(0, 0.5), kinds=(T1, T2)),
            # Hardly any spine is left in view: what it looks like may be doubted in every way.
            replace(
                DEGRADED,
                may_flag=DEGRADED.may_flag
                | {"noisy", "orientation_doubtful", "region_doubtful", "canal_at_edge"},
            ),
        ),
    ]


def _pixels() -> list[Row]:
    return [
        Row(
            "metal",
            "two screws in L5: signal voids of 26 mm",
            _screws,
            but(DEGRADED, flags={"no_signal"}),
        ),
        row(
            "noise",
            "noise: signal 6 times as high",
            pixels.noise(6),
            but(DEGRADED, flags={"noisy"}, instead=UNSURE | {"noisy"}),
        ),
        row(
            "noise-heavy",
            "noise: signal 2.5 times as high",
            pixels.noise(2.5),
            but(DEGRADED, flags={"noisy", "numbering_uncertain"}),
        ),
        row("shading", "surface coil: five times the signal at one end", pixels.shading, DEGRADED),
        row("motion", "breathing ghosts and blur", pixels.motion, DEGRADED),
        row("text", "a line of text burned in", pixels.burned_in_text, REQUANTISED),
        row("blank-ends", "black slices at the ends of each series", pixels.blank_ends, DEGRADED),
        row(
            "blank-axial",
            "black axial series",
            pixels.blank(AXIAL),
            but(WITHOUT_AXIAL, flags={"no_signal"}),
        ),
        row(
            "blank-t1",
            "black sagittal T1 series",
            pixels.blank(T1),
            but(WITHOUT_T1, flags={"no_signal"}),
        ),
        row(
            "blank",
            "all images black",
            pixels.blank(*SeriesKind),
            but(EXACT, ungraded=EVERYTHING, flags={"no_level_found", "numbering_uncertain"}),
        ),
    ]


def _tables() -> list[Row]:
    return [
        row(name, title, quirk, but(EXACT, checked={code}))
        for name, title, quirk, code in tables.TABLE_QUIRKS
    ]


ROWS: tuple[Row, ...] = (
    *_order(),
    *_encodings(),
    *_headers(),
    *_geometry(),
    *_pixels(),
    *_tables(),
    *CLINIC_ROWS,
)
