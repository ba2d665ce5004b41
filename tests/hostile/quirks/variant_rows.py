"""Variants of clinical folders that no public report has shown here yet, each with what must come of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from pydicom.uid import JPEG2000Lossless, RLELossless

from tests.hostile.quirks import encodings, geometry
from tests.hostile.quirks import variant_enhanced as enhanced
from tests.hostile.quirks import variant_files as files
from tests.hostile.quirks import variant_greys as greys
from tests.hostile.quirks import variant_headers as headers
from tests.hostile.quirks import variant_missing as missing
from tests.hostile.quirks import variant_more as more
from tests.hostile.quirks import variant_series as series
from tests.hostile.quirks.expected import Expected
from tests.hostile.quirks.row import AXIAL, DEGRADED, EXACT, GAPS, MANY, ROUNDED, T1, T2, Row, but, row

SAID = but(ROUNDED, may_flag={"series_disagree"})
OTHER = but(ROUNDED, codes={"series_kind_unknown"})
MAY_BE_OTHER = but(ROUNDED, may_code={"series_kind_unknown"})
FEWER = but(GAPS, may_flag=GAPS.may_flag | {"no_axial_t2", "few_slices"})


def named(*codes: str, base: Expected = ROUNDED) -> Expected:
    """The same grades, and these codes."""
    return but(base, codes=set(codes))


def _kinds() -> list[Row]:
    gradient = {"ScanningSequence": "GR", "RepetitionTime": 600, "EchoTime": 14}
    cyrillic = {
        T1: "\u04221 \u0421\u0410\u0413",
        T2: "\u04222 \u0421\u0410\u0413",
        AXIAL: "\u04222 \u0410\u041a\u0421",
    }
    utf_8 = {"SpecificCharacterSet": "ISO_IR 192"}
    untimed = dict.fromkeys(series.TIMES)
    return [
        row(
            "merge",
            "AX MERGE, a gradient echo, before T2",
            series.first("AX MERGE", AXIAL, **gradient),
            OTHER,
        ),
        row("merge-untimed", "AX T2 MERGE, no times", series.untimed("AX T2 MERGE", AXIAL), OTHER),
        row("ffe-untimed", "T2W_FFE sagittal, no times", series.untimed("T2W_FFE"), OTHER),
        row("mffe-untimed", "axial T2 mFFE, no times", series.untimed("T2 mFFE AX", AXIAL), OTHER),
        row("cosmic-untimed", "AX COSMIC, no times", series.untimed("AX COSMIC", AXIAL), OTHER),
        row(
            "mrm",
            "a myelogram called MRM, TE 900",
            series.first("MRM SSh", EchoTime=900, RepetitionTime=8000),
            OTHER,
        ),
        row("t1-flair", "the only T1 is a T1 FLAIR", series.t1_flair),
        row("t2-flair", "Sag T2 FLAIR before T2", series.first("Sag T2 FLAIR"), OTHER),
        row("dti", "DTI_30dir, spin echo, before T2", series.first("DTI_30dir_sag"), OTHER),
        row("b1000", "ax b1000, no times, before axial T2", series.untimed("ax b1000", AXIAL), OTHER),
        row("eadc", "eADC, no times, before axial T2", series.untimed("eADC ax", AXIAL), OTHER),
        row("swi", "SWI axial, no times", series.untimed("SWI tra", AXIAL), OTHER),
        row("subtraction", "SAG T1 SUB before T1", series.first("SAG T1 SUB", T1), OTHER),
        row(
            "scout",
            "a scout of five slices in each plane, TE 80, not called one",
            series.scout,
            but(ROUNDED, may_code={"localiser", "series_kind_unknown"}),
        ),
        row(
            "cyrillic", "names with Cyrillic letters, no times", series.renamed(cyrillic, **utf_8, **untimed)
        ),
        row("phase", "magnitude and phase of T2 in one series", series.phase_in_series, OTHER),
        row(
            "mosaic",
            "a mosaic of diffusion slices, TE 90",
            series.mosaic,
            but(ROUNDED, may_code={"series_kind_unknown", "bad_geometry"}),
        ),
        row(
            "ct",
            "axial CT before axial T2",
            series.first("L-SPINE 3.0 B60s", AXIAL, **series.CT, **untimed),
            named("other_modality"),
        ),
        row(
            "ct-sagittal",
            "sagittal CT before T2",
            series.first("SAG 2.0 B60s", T2, **series.CT, **untimed),
            named("other_modality"),
        ),
        row(
            "pet",
            "PET before axial T2",
            series.first("PET AC 3D", AXIAL, **series.PET, **untimed),
            named("other_modality"),
        ),
        row(
            "capture",
            "a screen capture with the geometry of T2",
            series.first("SAG T2 Screen Save", T2, **series.CAPTURE),
            but(ROUNDED, may_code={"series_kind_unknown", "other_modality"}),
        ),
    ]


def _choice() -> list[Row]:
    mpr = {"ImageType": ["DERIVED", "SECONDARY", "MPR"]}
    return [
        row(
            "mpr",
            "a derived axial reformat before axial T2",
            series.first("t2_space MPR Tra", AXIAL, **mpr),
            SAID,
        ),
        row(
            "mpr-named",
            "a reformat that its name alone tells",
            series.first("t2_space_sag_MPR Tra", AXIAL),
            SAID,
        ),
        row("reformat-named", "a reformat called RFMT", series.first("T2 AX RFMT", AXIAL), SAID),
        row(
            "composed",
            "a composed picture of two stations, DERIVED",
            series.first("T2 SAG COMPOSED", T2, ImageType=["DERIVED", "PRIMARY", "M", "COMPOSED"]),
            SAID,
        ),
        row(
            "axial-fs",
            "a fat-suppressed axial T2 before the plain one",
            series.first("AX T2 FS", AXIAL),
            SAID,
        ),
        row("t1-mdc", "T1 SAG MDC before T1", series.first("T1 SAG MDC", T1), SAID),
        row(
            "t1-japanese",
            "T1 after agent, in Japanese",
            series.first("T1 SAG \u9020\u5f71", T1, SpecificCharacterSet="ISO_IR 192"),
            SAID,
        ),
        row(
            "t1-chinese",
            "T1 after agent, in Chinese",
            series.first("T1 SAG \u589e\u5f3a", T1, SpecificCharacterSet="ISO_IR 192"),
            SAID,
        ),
        row(
            "t1-russian",
            "T1 after agent, in Russian",
            series.first("T1 SAG \u041a\u0423", T1, SpecificCharacterSet="ISO_IR 192"),
            SAID,
        ),
        row("t1-dixon", "a T1 VIBE Dixon beside T1", series.dixon_of_t1, MAY_BE_OTHER),
        row("repeated", "T2 blurred by motion, and acquired again", series.repeated, SAID),
        row(
            "over-time",
            "T2 three times in one series",
            series.over_time,
            but(
                DEGRADED,
                probability=0.1,
                may_code={"images_not_told_apart"},
                may_flag=DEGRADED.may_flag | {"no_sagittal_t2"},
                instead={"no_sagittal_t2"},
            ),
        ),
        row(
            "concatenations",
            "T2 in two series, odd and even slices",
            series.concatenations(of_one_series=False),
            SAID,
        ),
        row(
            "acquisitions",
            "T2 in two acquisitions of one series, numbered alike",
            series.concatenations(of_one_series=True),
        ),
        row(
            "capture-copy",
            "the T2 once more as a capture",
            series.beside_as_it_is("SAG T2 TSE", T2, **series.CAPTURE),
            but(ROUNDED, may_code={"other_modality"}),
        ),
    ]


def _identity() -> list[Row]:
    latin, utf = "M\u00fcller".encode("latin-1"), "M\u00fcller".encode()
    japanese = b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B="
    korean = {
        T1: "\uc694\ucd94 T1".encode("euc-kr"),
        T2: "\uc694\ucd94 T2".encode("euc-kr"),
        AXIAL: "\ucd95\uc0c1 T2".encode("euc-kr"),
    }
    sjis = {
        T1: "\u8868 T1".encode("shift-jis"),
        T2: "\u8868 T2".encode("shift-jis"),
        AXIAL: "\u8868 T2".encode("shift-jis"),
    }
    either = but(ROUNDED, may_code={"study_divided"})
    return [
        row(
            "name-encodings",
            "the name in Latin-1 in one series, UTF-8 in others",
            headers.names_as((b"ISO_IR 100", latin), (b"ISO_IR 192", utf)),
            either,
        ),
        row(
            "name-groups",
            "a Japanese name, its letters alone in other series",
            headers.names_as((b"\\ISO 2022 IR 87", japanese), (b"ISO_IR 6", b"Yamada^Tarou")),
            either,
        ),
        row(
            "korean",
            "names of series in Korean, an unknown character set",
            headers.described_as(b"EUC-KR", korean),
        ),
        row(
            "shift-jis",
            "names of series in Shift JIS, with 5C bytes",
            headers.described_as(b"ISO_IR 13", sjis),
        ),
        row(
            "midnight",
            "no StudyDate; series before and after midnight",
            headers.per_series(StudyDate=[None], SeriesDate=["20200101", "20200102"]),
            but(DEGRADED, codes={"study_divided"}),
            studies=MANY,
        ),
        row(
            "date-per-file",
            "another StudyDate in each file",
            headers.dates_per_file,
            but(DEGRADED, codes={"study_divided"}),
            studies=MANY,
        ),
        row(
            "patient-per-series",
            "one study, a PatientID per series",
            headers.per_series(PatientID=["A1", "A2", "A3"], StudyInstanceUID=["1.2.9"]),
            but(DEGRADED, codes={"study_divided"}),
            studies=MANY,
        ),
        row("one-series-uid", "one SeriesInstanceUID for everything, one folder", headers.one_series_uid),
        row(
            "one-identity",
            "two patients with the same study and series identifiers, a folder each",
            headers.two_with_one_identity,
            but(
                EXACT, may_flag={"identifiers_missing"}, may_code={"study_divided", "patients_not_told_apart"}
            ),
            studies=2,
        ),
    ]


def _values() -> list[Row]:
    return [
        row("unknown-vr", "geometry, times and name with VR UN", headers.places_as_unknown),
        row("slope-per-slice", "a rescale slope per slice", headers.slopes_per_slice, ROUNDED),
        row(
            "monochrome-mixed",
            "every second slice MONOCHROME1",
            headers.every_second(encodings.inverted),
            ROUNDED,
        ),
        row(
            "turned-round",
            "every second slice stored from the other corner",
            headers.every_second(geometry.turned_round),
            Expected(rejected=True, codes=frozenset({"patients_not_told_apart", "no_usable_series"})),
        ),
        row(
            "padding-range",
            "signed pixels, padding as US 63536 with a range",
            headers.signed_with_padding,
            but(DEGRADED, probability=0.35),
        ),
        row("wide-pixels", "axial pixels of 32 bits", headers.wider_pixels("<u4"), but(ROUNDED, may_code=())),
        row("float-pixels", "axial float pixels", headers.wider_pixels("<f4"), ROUNDED),
        row(
            "syntax-lies",
            "File Meta says JPEG 2000, pixels are not coded",
            headers.syntax_that_lies,
            but(FEWER, may_code={"bad_pixels", "truncated", "no_readable_slices"}),
        ),
        row("surplus", "surplus bytes behind the pixels", headers.surplus_pixels),
        row("out-of-order", "groups of the header in reverse", headers.rewritten(headers.out_of_order)),
        row("meta-length", "wrong length of File Meta", headers.rewritten(headers.meta_length_wrong)),
        row("group-length", "group length, trailing padding", headers.rewritten(headers.with_group_lengths)),
        row("icon", "icons with pixels, geometry in inner sequences", headers.with_icon),
        row("decimals", "InstanceNumber 7.0, AcquisitionNumber A1", headers.numbers_as_decimals),
        row(
            "commas",
            "axial positions with decimal commas",
            headers.commas,
            but(FEWER, codes={"bad_geometry"}, may_code={"no_readable_slices"}),
        ),
        row(
            "bare-types",
            "ImageType original, negative spacing between slices",
            headers.bare_types,
            # The same for every series: not all lie so far apart.
            but(EXACT, may_code={"positions_doubtful"}),
        ),
    ]


def _files() -> list[Row]:
    plain: Callable[[str], str] = str
    return [
        row("deep", "paths of 2,400 letters", files.deep),
        row("cases", "IM1 and im1", files.names_in_two_cases, named("duplicate_instance", base=EXACT)),
        row(
            "loops",
            "links round in circles, and twice to a series",
            files.exported,
            but(EXACT, may_code={"link_ignored", "duplicate_instance"}),
            afterwards=files.loops,
        ),
        row(
            "pipe", "a named pipe", files.exported, but(EXACT, may_code={"not_dicom"}), afterwards=files.pipe
        ),
        row(
            "dicomdir",
            "a DICOMDIR that names files that are not there",
            files.exported,
            but(FEWER, codes={"listed_files_missing"}),
            afterwards=files.dicomdir_of_more,
        ),
        row(
            "empty-files",
            "every third axial file empty",
            files.cut_short("empty"),
            but(FEWER, codes={"not_dicom"}),
        ),
        row(
            "zero-files",
            "every third axial file zeros",
            files.cut_short("zeros"),
            but(FEWER, codes={"not_dicom"}),
        ),
        row(
            "random-files",
            "every third axial file random bytes",
            files.noise,
            but(FEWER, codes={"not_dicom"}),
        ),
        row("gzipped", "axial files packed one by one", files.gzipped, but(FEWER, codes={"other_format"})),
        row(
            "pictures",
            "files of other programs",
            files.pictures_of_every_kind,
            named("other_format", base=EXACT),
        ),
        row("zip-absolute", "a zip with absolute names", files.packed(lambda name: f"/var/{name}")),
        row(
            "zip-drive",
            "a zip with names of a drive",
            files.packed(lambda name: "C:\\" + name.replace("/", "\\")),
        ),
        row("zip-up", "a zip whose names lead up", files.packed(lambda name: f"../../{name}")),
        row("zip64", "zip64", files.packed(plain, zip64=True)),
        row(
            "zip-password",
            "a patient in a zip with a password beside",
            files.beside_in_zip(files.with_password),
            named("encrypted_member", base=EXACT),
        ),
        row(
            "zip-half",
            "a patient in half a zip beside",
            files.beside_in_zip(files.half),
            named("bad_archive", base=EXACT),
        ),
        row(
            "zip-tar",
            "a patient in a tar in a zip beside",
            files.beside_in_zip(files.as_tar_in_zip),
            but(EXACT, may_code={"nested_archive", "other_format"}),
        ),
        row(
            "zip-zip",
            "a patient in a zip in a zip beside",
            files.beside_in_zip(files.as_zip_in_zip),
            but(EXACT, may_code={"nested_archive", "other_format"}),
        ),
        row(
            "zip-lzma",
            "a zip packed with LZMA beside",
            files.beside_in_zip(files.by_another_method),
            named("unreadable", base=EXACT),
        ),
        row(
            "zip-unnamed",
            "a patient in a zip without ending beside",
            files.beside_in_zip(bytes, "export-2"),
            named("other_format", base=EXACT),
        ),
        row(
            "zip-twice",
            "two patients in a zip under the same names",
            files.one_name_twice,
            named("duplicate_instance", base=EXACT),
        ),
        row("zip-meeting", "a zip with names that differ in odd letters", files.names_that_meet),
    ]


def _enhanced() -> list[Row]:
    return [
        row("e-dixon", "enhanced Dixon, four images a slice", enhanced.dixon(), ROUNDED),
        row("e-echoes", "enhanced T2 with two echoes", enhanced.echoes(), MAY_BE_OTHER),
        row("e-concatenated", "enhanced T2 in a concatenation of two", enhanced.concatenated),
        row("e-legacy", "all series legacy converted", enhanced.legacy_converted),
        row("e-slopes", "enhanced T2, a slope a frame", enhanced.slopes, ROUNDED),
        row("e-rle", "enhanced T2, RLE", enhanced.compressed(RLELossless)),
        row("e-jpeg-2000", "enhanced T2, JPEG 2000", enhanced.compressed(JPEG2000Lossless)),
        row(
            "e-few-groups",
            "enhanced T2 with a group too few",
            enhanced.too_few_groups,
            but(DEGRADED, codes={"bad_geometry"}, flags={"no_sagittal_t2"}),
        ),
        row("e-unnamed", "enhanced, AcquisitionContrast alone", enhanced.without_names),
        row(
            "e-segmentation", "a segmentation of T2 before it", enhanced.segmentation, named("other_modality")
        ),
    ]


def _names() -> list[Row]:
    """Names that say what a series is in words which were not read before."""
    agent = "SAG T1 +C"
    return [
        row("mpgr", "AX MPGR, no times", series.untimed("AX MPGR", AXIAL), OTHER),
        row("dess", "SAG T2 DESS, no times", series.untimed("SAG T2 DESS"), OTHER),
        row("ssfp", "SAG T2 SSFP, no times", series.untimed("SAG T2 SSFP"), OTHER),
        row("tof", "axial T2 TOF, no times", series.untimed("AX T2 TOF", AXIAL), OTHER),
        row("mra", "axial T2 MRA, no times", series.untimed("AX T2 MRA", AXIAL), OTHER),
        row("flow", "SAG T2 CSF FLOW, no times", series.untimed("SAG T2 CSF FLOW"), OTHER),
        row("dce", "SAG T1 DCE, no times", series.untimed("SAG T1 DCE", T1), OTHER),
        row("t1-rho", "SAG T1 RHO, no times", series.untimed("SAG T1 RHO", T1), OTHER),
        row("r2-star", "SAG T2 R2*, no times", series.untimed("SAG T2 R2*"), OTHER),
        row("dark-fat", "the only T2 is called DARK-FAT", series.renamed({T2: "SAG T2 DARK-FAT"}), ROUNDED),
        row("t1-sin", "T1 SIN CONTRASTE", series.called("SAG T1 SIN CONTRASTE", agent), SAID),
        row("t1-unenhanced", "T1 UNENHANCED", series.called("SAG T1 UNENHANCED", agent), SAID),
        row("t1-bez", "T1 bez kontrastu", series.called("T1 sag bez kontrastu", agent), SAID),
    ]


def _missing() -> list[Row]:
    lost = but(
        DEGRADED,
        codes={"slices_missing"},
        flags={"slices_missing"},
        may_flag=FEWER.may_flag | {"canal_at_edge"},
    )
    # Foramina of a side that is not there are read on its last slices, and T1 places levels worse.
    side = but(lost, instead=DEGRADED.instead | {"slices_missing"})
    return [
        row("lost-t1-middle", "the three middle slices of T1 lost", missing.lost(T1, missing.middle), lost),
        row("lost-t2-one", "one slice of T2 lost", missing.lost(T2, missing.one), lost),
        row("lost-t2-second", "every second slice of T2 lost", missing.lost(T2, missing.every_second), lost),
        row(
            "lost-axial-second",
            "every second axial slice lost",
            missing.lost(AXIAL, missing.every_second),
            lost,
        ),
        row("lost-t1-right", "a third of T1 lost at one side", missing.lost(T1, missing.first_third), side),
        row(
            "lost-t1-left", "a third of T1 lost at the other side", missing.lost(T1, missing.last_third), side
        ),
        row(
            "lost-axial-middle",
            "the middle third of the axial slices lost",
            missing.lost(AXIAL, missing.middle_third),
            lost,
        ),
        row(
            "lost-renumbered",
            "the three middle slices of T2 lost, the others numbered anew by an export",
            missing.renumbered(missing.lost(T2, missing.middle)),
            lost,
        ),
        row(
            "lost-stated",
            "the upper third of the axial slices lost, ImagesInAcquisition says how many there were",
            missing.stated(missing.lost(AXIAL, missing.last_third)),
            lost,
        ),
        row(
            "numbers-in-twos",
            "nothing lost, but numbered 2, 4, 6 …",
            missing.in_twos,
        ),
        row(
            "t1-narrow",
            "T1 planned with two slices fewer at either side",
            missing.lost(T1, missing.both_sides),
            but(DEGRADED, may_flag=DEGRADED.may_flag | {"few_slices", "canal_at_edge"}),
        ),
    ]


def _more() -> list[Row]:
    without_t2 = but(DEGRADED, flags={"no_sagittal_t2"})
    return [
        row("bits-few", "BitsStored 12, values to 16,000", more.beyond_bits(12, brightest=16_000), ROUNDED),
        row("bits-high", "HighBit 15 of 12 bits, left aligned", more.beyond_bits(12, high=15), ROUNDED),
        row("bits-signed", "unsigned pixels that are called signed", more.beyond_bits(16, signed=1), ROUNDED),
        row("t2-black", "T2 is black", more.all_of(T2, more.black), without_t2),
        row(
            "t2-undecodable",
            "no image of T2 can be decoded",
            more.all_of(T2, more.cut_off),
            but(without_t2, codes={"bad_pixels"}),
        ),
        row(
            "t2-again-black",
            "T2 acquired again, black",
            more.taken_again(T2, more.black, "115900"),
            named("bad_pixels"),
        ),
        row(
            "t1-first-undecodable",
            "an earlier T1 that cannot be decoded",
            more.taken_again(T1, more.cut_off, "095900"),
            named("bad_pixels"),
        ),
        row(
            "exported-twice",
            "every image twice in its series, the copy with an identifier of its own",
            more.exported_twice,
            named("duplicate_instance", base=EXACT),
        ),
        row("dynamics", "T2 twice in one series, told by TemporalPositionIdentifier", more.in_dynamics, SAID),
    ]


def _greys() -> list[Row]:
    """Grey values that no header explains, and of two acquisitions of a sequence the worse one."""
    edited = but(
        DEGRADED,
        flags={"degraded_input"},
        instead=DEGRADED.instead | {"degraded_input"},
        may_flag=DEGRADED.may_flag
        | {"axial_disagrees", "canal_at_edge", "noisy", "orientation_doubtful", "series_kind_doubtful"},
        may_code={"positions_doubtful", "series_kind_disagrees"},
    )
    moved, noisy = (more.taken_again(T1, change, "095900") for change in (greys.moved, greys.noisy))
    later = partial(more.taken_again, change=greys.moved, time="115900")
    return [
        row("greys-scaled", "each slice on another scale, and no slope says so", greys.scaled_each, edited),
        row("greys-mixed", "every second slice inverted", greys.every_second_inverted, edited),
        row("greys-folded", "the brightest twentieth begins again at 0", greys.folded_back, edited),
        row("greys-few", "sixteen greys", greys.of_few_greys, edited),
        row("axial-folded", "axial field of view too narrow, folded over", greys.folded_over, edited),
        row(
            "t1-moved",
            "T1 blurred by motion, and acquired again",
            moved,
        ),
        row("t1-noisy", "T1 noisy, and acquired again", noisy),
        row("t2-moved-later", "T2 acquired again, blurred", later(T2), SAID),
        row("axial-moved", "axial T2 acquired again, blurred", later(AXIAL)),
        row(
            "fs-options",
            "axial T2 without fat, told by ScanOptions SFS alone",
            series.first("T2 TRA TSE", AXIAL, ScanOptions=["PFP", "SFS"]),
            SAID,
        ),
        row(
            "agent-time",
            "T1 after agent, told by ContrastBolusStartTime alone",
            series.first("T1 SAG TSE", T1, ContrastBolusStartTime="101500"),
            SAID,
        ),
        row(
            "phase-later",
            "the phase of T2, told by the last value of ImageType",
            series.first("T2 SAG TSE", ImageType=["ORIGINAL", "PRIMARY", "OTHER", "PHASE"]),
            OTHER,
        ),
    ]


VARIANTS: tuple[Row, ...] = (
    *_kinds(),
    *_choice(),
    *_identity(),
    *_values(),
    *_files(),
    *_enhanced(),
    *_names(),
    *_missing(),
    *_more(),
    *_greys(),
)
