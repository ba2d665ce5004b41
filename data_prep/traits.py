"""What sets a series apart from others of its kind."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Image(IntEnum):
    """What kind of image a series is, from the one that the networks know to what shows something else.

    Attributes:
        words: for the table of series.
    """

    words: str

    def __new__(cls, rank: int, words: str) -> Image:
        image = int.__new__(cls, rank)
        image._value_, image.words = rank, words
        return image

    PLAIN = 0, "plain"
    IN_PHASE = 1, "in-phase image"
    WATER = 2, "water image"
    SUPPRESSED = 3, "fat suppressed"
    CONTRAST = 4, "with contrast agent"
    OPPOSED = 5, "opposed-phase image"
    FAT = 6, "fat image"


@dataclass(frozen=True)
class Traits:
    """What sets a series apart from others of its kind.

    Attributes:
        image: the worst that is said of it.
        is_derived: calculated from other images, as its ImageType says.
        is_other_region: names speak of another part of the body, and none of the lumbar spine.
        echo_ms: echo time; without it the number of the echo; 0 if nothing says.
        has_echoes: it is one of several echoes of one sequence.
        acquired: when, as a number that grows with time within a study; 0 if nothing says.
        is_spoiled: the same slices were taken again, and are sharper or less noisy there.
        is_degraded: its images are not as they were acquired: compressed with loss, in 8 bits, of coarse or
            different pixels.
    """

    image: Image = Image.PLAIN
    is_derived: bool = False
    is_other_region: bool = False
    echo_ms: float = 0.0
    has_echoes: bool = False
    acquired: float = 0.0
    is_degraded: bool = False
    is_spoiled: bool = False

    @property
    def marks(self) -> tuple[str, ...]:
        """By which two series of one kind are different ones."""
        return (self.image.name, "derived" if self.is_derived else "")


PLAIN = Traits()
