"""Decodes each slice of a study once, and remembers which could not be decoded."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from data_prep.names import input_label
from data_prep.problems import DicomRejected, Reason, Rejection
from data_prep.study import Series, Slice, Study, is_of_one_grey

# A study of 100 slices of 512² takes 100 MB.
DEFAULT_MAX_BYTES = 512 * 1024 * 1024


class PixelCache:
    """A study whose slices are decoded once, for detector, graders and pictures that look at the same ones.

    The study of a cache is its own cache: whoever asks again shares pixels and failures, and the bound of who
    asked first. Several threads may read it. Whoever reads it may skip a slice that cannot be decoded, or
    that shows nothing: it is listed in ``rejections``.

    Attributes:
        study: the same study with read-only pixels; those beyond ``max_bytes`` are decoded each time.
    """

    def __init__(self, study: Study, *, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        held = _held_by(study)
        if held is not None:
            self._decoded, self.study = held, study
            return
        self._decoded = _Decoded(max_bytes)
        self.study = replace(
            study, series=tuple(self._series(place, series) for place, series in enumerate(study.series))
        )

    @property
    def rejections(self) -> tuple[Rejection, ...]:
        """The slices that were asked for and show nothing, series after series, in spatial order.

        They could not be decoded, or are all of one grey though slices of their stack on both sides are not.
        """
        found = {key: failure.rejection for key, failure in self._decoded.failures.items()}
        for place, series in enumerate(self.study.series):
            first = 0
            for stack in series.stacks:
                keys = [(place, first + index) for index in range(len(stack))]
                first += len(stack)
                shown = [key for key in keys if key in self._decoded.shown]
                for key, item in zip(keys, stack, strict=True):
                    if key in self._decoded.empty and shown and shown[0] < key < shown[-1]:
                        found[key] = Rejection(
                            Reason.BAD_PIXELS,
                            "all of one grey, between slices that are not",
                            self.study.study_id,
                            series.series_id,
                            input_label(item.path.name) if item.path is not None else "",
                        )
        return tuple(found[key] for key in sorted(found))

    def _series(self, place: int, series: Series) -> Series:
        stacks, first = [], 0
        for stack in series.stacks:
            stacks.append(
                tuple(
                    replace(item, read_pixels=partial(self._decoded.read, (place, first + index), item))
                    for index, item in enumerate(stack)
                )
            )
            first += len(stack)
        return replace(series, stacks=tuple(stacks))


class _Decoded:
    """The pixels and failures of a study.

    Apart from the study, whose slices refer to it: a circle would keep the pixels of many studies in memory
    until Python looks for circles.
    """

    def __init__(self, max_bytes: int) -> None:
        self.failures: dict[tuple[int, int], DicomRejected] = {}
        self.shown: set[tuple[int, int]] = set()
        self.empty: set[tuple[int, int]] = set()
        self._left_bytes = max_bytes
        self._pixels: dict[tuple[int, int], NDArray[np.float32]] = {}
        self._keeping = Lock()

    def read(self, key: tuple[int, int], item: Slice) -> NDArray[np.float32]:
        """The pixels of a slice; raises DicomRejected again for one that could not be decoded."""
        if key in self.failures:
            raise self.failures[key]
        if key in self._pixels:
            return self._pixels[key]
        try:
            pixels = item.pixels()
        except DicomRejected as rejected:
            self.failures[key] = rejected
            raise
        (self.empty if is_of_one_grey(pixels) else self.shown).add(key)
        pixels = pixels.view()
        pixels.flags.writeable = False
        with self._keeping:
            if pixels.nbytes <= self._left_bytes and key not in self._pixels:
                self._left_bytes -= pixels.nbytes
                self._pixels[key] = pixels
        return pixels


def _held_by(study: Study) -> _Decoded | None:
    """What decodes every slice of a study already, if one thing does."""
    readers = [item.read_pixels for series in study.series for item in series.slices]
    holders = {id(holder): holder for read in readers if (holder := _holder(read)) is not None}
    alone = len(holders) == 1 and all(_holder(read) is not None for read in readers)
    return next(iter(holders.values())) if alone else None


def _holder(read: object) -> _Decoded | None:
    holder = getattr(read.func, "__self__", None) if isinstance(read, partial) else None
    return holder if isinstance(holder, _Decoded) else None
