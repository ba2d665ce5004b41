"""Codes in words: flags, how a grade was made, how sure the numbering is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from data_prep.problems import Rejection, counted
from data_prep.vocabulary import Condition, ConditionGroup, Target

NOT_A_DEVICE: Final = "Research software, not a medical device."
_SAID = 12

FLAG_WORDS: Final[Mapping[str, str]] = {
    "numbering_uncertain": "The numbering of the levels is uncertain: all of them may be off by one.",
    "transitional_suspected": "A transitional lumbosacral vertebra is suspected: count the levels yourself.",
    "series_disagree": "The sagittal series, or slices of one of them, do not show the levels at the same "
    "place, as when the patient moved.",
    "orientation_doubtful": "The images look upside down or back to front, as when a patient was registered "
    "in a wrong position: do not trust left and right, nor the levels.",
    "noisy": "The sagittal images have more noise than the networks have learned from: grades may be wrong.",
    "sacrum_unseen": "L5/S1 was not seen: the levels are counted without the sacrum, and may be off by one.",
    "level_absent": "A lumbar level is not in the images.",
    "level_at_edge": "A level lies at the edge of the sagittal images: its place and grades are uncertain.",
    "no_lumbar_spine": "No lumbar spine was seen in the sagittal images: nothing was graded.",
    "region_doubtful": "Headers or images look like another part of the body than the lumbar spine.",
    "axial_disagrees": "The axial images show another place than the sagittal ones where they meet, as when "
    "the patient moved between them, or where images were resized, cropped or padded and their headers left: "
    "recesses may be graded at a wrong place.",
    "series_turned": "A series does not fit the others as its headers say, but does mirrored, turned or in "
    "reverse order: it was not used. Export it anew, or look at it where it was acquired.",
    "sides_doubtful": "Left and right are exchanged between images, and nothing tells "
    "which of them are right: do not trust left and right. Export the series anew.",
    "few_slices": "A sagittal series has few slices.",
    "spine_curved": "The spine leaves the middle of the sagittal images: its place sideways is an estimate.",
    "canal_at_edge": "At a level the canal lies at the edge of the sagittal images or beyond it.",
    "axial_only": "Graded on axial slices alone: no sagittal T2 shows it.",
    "no_sagittal_t2": "There is no sagittal T2 series: the levels were found without it.",
    "no_sagittal_t1": "No sagittal T1 slice shows the foramina: they were not graded.",
    "no_axial_t2": "No axial T2 slice shows the recesses: they were not graded.",
    "identifiers_missing": "No identifier says that these series are of one patient: they were put together "
    "because they lie together.",
    "slices_missing": "Slices of a series are missing: what they show was not seen, and grades may be wrong.",
    "transfer_incomplete": "Images may be missing: the transfer of a series broke off, images were "
    "refused, or images that came earlier were no longer kept.",
    "no_sagittal": "There is no sagittal series: no level can be found.",
    "no_level_found": "No lumbar level was found.",
    "series_kind_doubtful": "A series is called T1 and shows T2, or the reverse, its headers and the series "
    "table disagree, or two that are called alike show something else: check what it was read as.",
    "series_kind_guessed": "Nothing says what a series shows, T1 or T2: it was guessed from the images.",
    "degraded_input": "Images are compressed with loss, in 8 bits, of coarse or different pixels, inverted, "
    "cut off at a brightness, equalised, on another scale in each slice, or folded over: grades may differ "
    "from those of the images as acquired.",
    "known_study": "The models learned from this study, or were chosen and calibrated on it: its grades look "
    "better than they are on others.",
    "study_rejected": "The study could not be graded.",
    "measuring_failed": "Nothing could be measured: an error in the program.",
    "picture_failed": "The picture of this study could not be drawn.",
    "report_failed": "The report of this study could not be written.",
    "no_point": "No point for this target.",
    "no_series": "No series of the kind that shows it.",
    "no_slice": "No slice shows it.",
    "no_signal": "The image has no signal at a target, as near metal; what lies close by is in doubt, too.",
}
IGNORED_WORDS: Final[Mapping[str, str]] = {
    "other_part_of_patient": "shows another part of the patient than the lumbar spine",
    "not_needed": "nothing was found or graded on it",
    "suppressed": "its fat is suppressed, and a plain series is there",
    "in_phase": "an in-phase image, and a plain series is there",
    "water": "a water image, and a plain series is there",
    "contrast": "with contrast agent, and a series without is there",
    "opposed": "an opposed-phase image",
    "fat": "a fat image",
    "derived": "calculated from other images, and an acquired series is there",
    "shorter_echo": "a shorter echo of a series that is there",
    "repeated": "it was acquired again",
    "spoiled": "blurred, noisy or edited, and it was acquired again",
    "turned": "it lies another way round than its headers say: mirrored, turned or in reverse order",
    "late_echo": "a late echo of a series that is there",
    "guessed": "what it shows was guessed, and a series that says so is there",
}
_STANDING_WORDS: Final = {
    "rejected": "files or series not used",
    "missing": "incomplete",
    "doubtful": "doubtful",
}
USE_WORDS: Final[Mapping[str, str]] = {
    "levels": "levels",
    "spinal": "canal",
    "foraminal": "foramina",
    "subarticular": "recesses",
}
SOURCE_WORDS: Final[Mapping[str, str]] = {
    "seen": "Graded at a point that a detector saw in the images.",
    "predicted": "Graded at a point that geometry placed from the levels; no detector saw it.",
    "expected": "Not graded: no slice shows it. The figures follow from the other grades of the level.",
    "prior": "Not graded. The figures only say how often each grade occurs at this level.",
}
# The same in a cell of a table or beside a picture.
SOURCE_NAMES: Final[Mapping[str, str]] = {
    "seen": "seen",
    "predicted": "predicted",
    "expected": "expected from its level",
    "prior": "level prior",
}
PLACE_WORDS: Final[Mapping[ConditionGroup, str]] = {
    ConditionGroup.SPINAL: "canal",
    ConditionGroup.FORAMINAL: "foramen",
    ConditionGroup.SUBARTICULAR: "recess",
}


def flag_words(flag: str) -> str:
    """A flag as a sentence; one that is not known stays readable."""
    return FLAG_WORDS.get(flag, flag.replace("_", " ").capitalize() + ".")


def flag_lines(flags: Iterable[str]) -> list[str]:
    """Flags with their codes, for results that programs read, too."""
    return [f"flag {flag}: {flag_words(flag)}" for flag in flags]


def rejection_lines(rejections: Iterable[Rejection]) -> list[str]:
    """What of a study was not used, or is incomplete or doubtful: how often for which reason."""
    counts = Counter((item.standing, item.reason) for item in rejections)
    return [f"{_STANDING_WORDS[standing]}: {reason} x {n}" for (standing, reason), n in counts.items()]


def refusal_sentences(rejections: Iterable[Rejection]) -> list[str]:
    """What was not used, and what to do, a text for each of the first few; the others are counted."""
    said = [
        f"{item.place or 'Input'}: {item.message}"
        + (f" (so are {more} more files of it)" if more else "")
        + f". What to do: {item.reason.advice}."
        for item, more in counted(rejections)
    ]
    more = len(said) - _SAID
    return said if more <= 0 else [*said[:_SAID], f"And {more} more: refused.csv names them."]


def series_use_words(used_for: Iterable[str], ignored: str) -> str:
    """What a series was used for, or why it was not."""
    used = ", ".join(USE_WORDS[use] for use in used_for)
    return used or f"not used: {IGNORED_WORDS.get(ignored, ignored.replace('_', ' '))}"


def share_words(share: float) -> str:
    """A probability for people; never 100 %, which no reading of an image is."""
    return ">99%" if share > 0.99 else f"{share:.0%}"


def place_words(condition: Condition) -> str:
    """``right foramen``, ``canal``."""
    return " ".join(filter(None, (condition.side, PLACE_WORDS[condition.group])))


def target_words(target: Target) -> str:
    """``L4/L5 left foramen``."""
    return f"{target.level.label} {place_words(target.condition)}"


NUMBERING_IN_DOUBT: Final = frozenset(
    {"sacrum_unseen", "numbering_uncertain", "no_lumbar_spine", "region_doubtful", "orientation_doubtful"}
)


def numbering_words(confidence: float, flags: Iterable[str] = ()) -> str:
    """How sure the numbering is, for a caption; never 100 %, which no reading of an image is.

    No figure beside a flag that leaves the numbering in doubt: it would be believed before the flag.
    """
    if NUMBERING_IN_DOUBT & set(flags):
        return "numbering in doubt"
    sure = "over 99%" if confidence > 0.99 else f"{confidence:.0%}"
    return f"numbering {sure} sure"


def reading_words(shift: int, share: float) -> str:
    """Another numbering that cannot be excluded, as a sentence."""
    if shift == 1:
        what = "L4/L5 here would be L5/S1, and L5/S1 a disc within the sacrum (as with four lumbar vertebrae)"
    elif shift == -1:
        what = "L5/S1 here would be L4/L5, and the disc below L5/S1 or L6/S1 (as with six lumbar vertebrae)"
    else:
        what = f"every level here would lie {abs(shift)} levels {'lower' if shift > 0 else 'higher'}"
    return f"Another reading, {share_words(share)} likely: {what}."
