"""What the names and codes of a series say: its weighting, and what makes it less than a plain image."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from enum import StrEnum

from data_prep.read.slice_header import SliceHeader
from data_prep.traits import Image, Traits

_NOT_A_VERTEBRA = r"(?!\d|\s*[-/]\s*[TLS]\d)"
_STIR_WORDS = re.compile(r"STIR|TIRM|SPAIR")
_T1_WORDS = re.compile(rf"T1{_NOT_A_VERTEBRA}")
_T2_WORDS = re.compile(rf"T2{_NOT_A_VERTEBRA}(?!\s*\*|[\s_-]*STAR)")
_PD_WORDS = re.compile(r"(?<![A-Z])PD(W|FS|SPAIR|TSE|FSE)?(?![A-Z])|PROTON")
# Not the images that are graded, whatever else their names say.
_OTHER_WORDS = re.compile(
    r"DWI|DIFF|(?<![A-Z])[DE]?ADC|TRACE|(?<![A-Z])DTI(?![A-Z])|TENSOR|(?<![A-Z])IVIM|EP2D|(?<![A-Z])B[\s=]?\d{3,4}(?!\d)|(?<![A-Z])SWI|SCOUT|SURVEY|LOCALI[SZ]ER|(?<![A-Z])LOC(?![A-Z])|MYELO|T2\s*\*|T2[\s_-]*STAR|CISS|FIESTA|TRUFI"
    r"|TRUE?[\s_-]*FISP|B[\s_-]?FFE|BALANCED|MEDIC(?![A-Z])|(?<![A-Z])MAP|FAT[\s_-]*(FRAC|PERC)|PDFF|SUBTR|(?<![A-Z])SUB(?![A-Z-])|(?<![A-Z])MRM(?![A-Z])"
    r"|(?<![A-Z])MIP(?![A-Z])|PERF|T1[\s_-]*RHO|R2[\s_-]*(\*|STAR)|SSFP|(?<![A-Z])(DCE|ASL|CINE|TOF|MRA|MRV)(?![A-Z])|ANGIO"
    r"|CSF[\s_-]*FLOW|PHASE[\s_-]*CONTRAST|RELAXO|BONE[\s_-]*MRI|SYNTHETIC[\s_-]*CT|[\s_-]PHA(?![A-Z])"
)
# Gradient echoes: T2* whatever their names say, unless that is T1.
_GRADIENT_WORDS = re.compile(
    r"FFE|MERGE|MPGR|(?<![A-Z])DESS|COSMIC|(?<![A-Z])GRE(?![A-Z])|GRADIENT|FLASH|SPGR|(?<![A-Z])HEMO|SWAN|FISP"
)
# Fluid is dark on them, as on no T2 that is graded.
_DARK_FLUID = re.compile(r"FLAIR|DARK[\s_-]*FLUID")
_CONTRAST_WORDS = re.compile(
    r"(?<![A-Z])C\s*\(\s*\+\s*\)|(?<![A-Z])[CW]/C(?![A-Z])|GBCA|DOTAREM|PROHANCE|CLARISCAN|MAGNEVIST|OMNISCAN|MULTIHANCE|KONTRAS"
    r"|\+\s*(C|GD|KM|CM|CE|\u041a\u0423)(?![A-Z])|(?<![A-Z])(C|GD|KM|CM)\+|POST(?![\s_-]*(OP|ERIOR|SURG))|(?<![A-Z])(GD|KM|CE|GAD|INJ|MDC|CIV|ENH)(?![A-Z])|ENHANC|GADO|KONTRAST|INJECT"
    r"|(?<!WITHOUT )(?<!NO )(?<!PRE )(?<!PRE-)(?<!W/O )CONTRAST|NACH KM"
    # Japanese, Chinese (both scripts), Korean, Russian.
    r"|\u9020\u5f71|[\u589e\u5897][\u5f3a\u5f37]|\u5bf9\u6bd4\u5242|\uc870\uc601|\u041a\u041e\u041d\u0422\u0420\u0410\u0421\u0422|(?<!\w)\u041a\u0423(?!\w)"
)
_NO_CONTRAST_WORDS = re.compile(
    r"WITHOUT|W/O|OHNE|(?<![A-Z])PRE(?![A-Z])|NATIV|(?<![A-Z])NO (C|GD|KM)|UN-?ENHANC"
    r"|(?<![A-Z])PRE(CONTR|KONTR|GAD|GD|KM)"
    r"|(?<![A-Z])(SIN|SANS|SEM|SENZA|BEZ|UTAN|UDEN|UTEN|ZONDER|NON)[\s_-]*"
    r"([CK]ONTR|ENH|MDC|CIV|GAD|GD|KM|INJ|C(?![A-Z]))"
    # Russian, Japanese.
    r"|\u0411\u0415\u0417\s*(\u041a\u041e\u041d\u0422\u0420|\u041a\u0423)|\u9020\u5f71\u524d"
)
_SUPPRESSED_WORDS = re.compile(
    r"STIR|TIRM|SPAIR|SPIR|SPECIR|PROSET|FSAT|(?<![A-Z])(F/S|WE)(?![A-Z])|FAT[\s_-]*(SAT|SUP)|FATSAT|(?<![A-Z])FS(?![A-Z])|CHESS|(?<![A-Z])DARK[\s_-]*FAT"
    r"|(?<![A-Z])(F\.S|FATS|WATS|W[\s_-]?EXC)(?![A-Z])|WATER[\s_-]*EXC"
)
_NOT_SUPPRESSED_WORDS = re.compile(
    r"(?<![A-Z])(NON?|NOT|W/O|WITHOUT|OHNE|SANS|SIN|SENZA|SEM|BEZ|ZONDER|UTAN|UDEN|UTEN)"
    r"[\s_-]*(FS(?![A-Z])|F[./]S|FAT[\s_-]*(SAT|SUP)|FATS|FSAT|STIR|SPAIR|SPIR)"
)
# Of ScanOptions, as several makers write them.
_SUPPRESSED_OPTIONS = {"FS", "SFS", "FATSAT", "FAT_SAT"}
# Calculated from other images, whatever ImageType says.
_DERIVED_WORDS = re.compile(
    r"(?<![A-Z])(MPR|RFMT|REFORMAT|REFMT|COMPOSED|COMPOSING|STITCH)|MOBIVIEW|SCREEN[\s_-]*(SAVE|SHOT|CAPTURE)"
)
_DIXON = re.compile(r"DIXON|IDEAL|(?<![A-Z])FLEX")
_FAT = re.compile(r"(?<!DARK[ -])(?<![A-Z])FAT(?![\s_-]*(SAT|SUP|FREE))(?![A-Z])|(?<![A-Z])F(AT)?[\s_]*ONLY")
_OPPOSED = re.compile(
    r"(?<![A-Z])(OPP|OPPOSED|OPPPHASE|OP[\s_-]*PHASE|OUT([\s_-]*OF)?[\s_-]*PHASE|OUTPHASE|OOP)(?![A-Z])"
)
_WATER = re.compile(r"(?<![A-Z])WATER(?![A-Z])")
_IN_PHASE = re.compile(r"(?<![A-Z])IN[\s_-]*PHASE|INPHASE|(?<![A-Z])IP(?![A-Z])")
# One letter says so only where the name says Dixon.
_DIXON_LETTERS = (
    ("F", "FAT"),
    ("FF", "FAT"),
    ("FP", "FAT"),
    ("OP", "OPP"),
    ("OUT", "OPP"),
    ("W", "WATER"),
    ("IP", "IN"),
    ("IN", "IN"),
)
_OTHER_REGION = re.compile(
    r"(?<![A-Z])[CT][\s_-]?SP(INE)?(?![A-Z])|CTSPINE|CERVI|HWS|(?<![A-Z])NECK|HALS|THORA|BWS|CHEST|BRAIN"
    r"|(?<![A-Z])HEAD|SKULL|SHOULDER|KNEE|ABDOMEN"
)
_LUMBAR = re.compile(
    r"LUMB|L[\s_-]?S?[\s_-]?SP(INE)?(?![A-Z])|LWS|LENDEN|SACR|TLSPINE|(?<![A-Z])L[1-5](?!\d)"
)


_CYRILLIC_T = re.compile(r"\u0422(?=[12])")


class Weighting(StrEnum):
    """What brightness means: T2 includes STIR. ``OTHER`` is told, but none of the two."""

    T1 = "T1"
    T2 = "T2"
    OTHER = "other"


def plain_text(text: str) -> str:
    """Upper case, full-width and other compatibility forms as usual letters; so is the Cyrillic T."""
    plain = unicodedata.normalize("NFKC", text).upper().strip()
    return _CYRILLIC_T.sub("T", plain)


def weighting_from_text(text: str) -> Weighting | None:
    """What a name says; T1 in it counts before STIR, TIRM and SPAIR, which may only suppress the fat."""
    text = plain_text(text)
    if _OTHER_WORDS.search(text):
        return Weighting.OTHER
    is_t1, is_t2 = bool(_T1_WORDS.search(text)), bool(_T2_WORDS.search(text))
    if not is_t1 and (_DARK_FLUID.search(text) or _GRADIENT_WORDS.search(text)):
        return Weighting.OTHER
    if is_t1 != is_t2:
        return Weighting.T1 if is_t1 else Weighting.T2
    if is_t1:
        return None
    if _STIR_WORDS.search(text):
        return Weighting.T2
    return Weighting.OTHER if _PD_WORDS.search(text) else None


def traits_of(headers: Sequence[SliceHeader]) -> Traits:
    """The traits of one acquisition, from what most of its headers say."""
    first = headers[len(headers) // 2]
    text = plain_text(first.description)
    codes = set(first.image_type[2:])
    derived = first.image_type[:1] == ("DERIVED",) or first.is_capture or bool(_DERIVED_WORDS.search(text))
    return Traits(
        image=_image(text, codes, first),
        is_derived=derived,
        is_other_region=_is_other_region(first),
        acquired=first.acquired,
        echo_ms=first.echo_time_ms or float(first.echo_number or 0),
    )


def _is_other_region(header: SliceHeader) -> bool:
    """Whether the first of description, body part and protocol that names a region names another one."""
    for said in map(plain_text, (header.description, header.body_part, header.protocol)):
        lumbar, other = bool(_LUMBAR.search(said)), bool(_OTHER_REGION.search(said))
        if lumbar or other:
            return not lumbar
    return False


def _image(text: str, codes: set[str], header: SliceHeader) -> Image:
    component = _dixon_component(text, codes)
    if component in ("FAT", "OPP"):
        return Image.FAT if component == "FAT" else Image.OPPOSED
    text = _NOT_SUPPRESSED_WORDS.sub("", text)
    contrast = header.has_contrast or bool(_CONTRAST_WORDS.search(text))
    if contrast and not (_NO_CONTRAST_WORDS.search(text) and not header.has_contrast):
        return Image.CONTRAST
    if component == "WATER":
        return Image.WATER
    if component == "IN":
        return Image.IN_PHASE
    if _SUPPRESSED_WORDS.search(text) or _SUPPRESSED_OPTIONS.intersection(header.scan_options):
        return Image.SUPPRESSED
    return Image.PLAIN


def _dixon_component(text: str, codes: set[str]) -> str:
    """FAT, OPP, WATER or IN of a Dixon series; "" of another one."""
    joined = " ".join(sorted(codes)).replace("_", " ")
    for said in (joined, text.replace("_", " ")):
        for word, pattern in (("OPP", _OPPOSED), ("FAT", _FAT), ("WATER", _WATER), ("IN", _IN_PHASE)):
            if pattern.search(said):
                return word
    words = set(re.split(r"[^A-Z0-9]+", text)) if _DIXON.search(text) else set()
    for letter, word in _DIXON_LETTERS:
        if letter in words or letter in codes:
            return word
    return ""
