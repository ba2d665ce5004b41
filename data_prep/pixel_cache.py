"""Decodes each slice of a study once, and remembers which could not be decoded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
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
        slices = (item for series in study.series for item in series.slices)
        if all(isinstance(item.read_pixels, _ReadOnce) for item in slices):
            self.study = study
            return
        room = _Room(max_bytes)
        self.study = study.changed(lambda item: replace(item, read_pixels=_ReadOnce(item, room)))

    @property
    def rejections(self) -> tuple[Rejection, ...]:
        """The slices that were asked for and show nothing, series after series, in spatial order.

        They could not be decoded, or are all of one grey though slices of their stack on both sides are not.
        """
        return tuple(
            rejection
            for series in self.study.series
            for stack in series.stacks
            for rejection in _rejections(series, stack)
        )


def _rejections(series: Series, stack: tuple[Slice, ...]) -> Iterator[Rejection]:
    reads = [item.read_pixels for item in stack]
    shown = [at for at, read in enumerate(reads) if isinstance(read, _ReadOnce) and read.shows_something]
    for at, (item, read) in enumerate(zip(stack, reads, strict=True)):
        if not isinstance(read, _ReadOnce):
            continue
        if read.failure is not None:
            yield read.failure.rejection
        elif read.shows_something is False and shown and shown[0] < at < shown[-1]:
            message = "all of one grey, between slices that are not"
            file = input_label(item.path.name) if item.path is not None else ""
            yield Rejection(Reason.BAD_PIXELS, message, series.study_id, series.series_id, file)


@dataclass
class _Room:
    """What pixels may still be kept of the slices of a study together."""

    left_bytes: int
    lock: Lock = field(default_factory=Lock)


class _ReadOnce:
    """Reads the pixels of a slice, and keeps them where there is room.

    Attributes:
        failure: why it could not be decoded, if it could not.
        shows_something: whether it is not all of one grey; None before it was decoded.
    """

    def __init__(self, item: Slice, room: _Room) -> None:
        self.failure: DicomRejected | None = None
        self.shows_something: bool | None = None
        self._item, self._room = item, room
        self._pixels: NDArray[np.float32] | None = None

    def __call__(self) -> NDArray[np.float32]:
        """The pixels; raises DicomRejected again for a slice that could not be decoded."""
        if self.failure is not None:
            raise self.failure
        if self._pixels is not None:
            return self._pixels
        try:
            pixels = self._item.pixels()
        except DicomRejected as rejected:
            self.failure = rejected
            raise
        self.shows_something = not is_of_one_grey(pixels)
        pixels = pixels.view()
        pixels.flags.writeable = False
        with self._room.lock:
            if pixels.nbytes <= self._room.left_bytes and self._pixels is None:
                self._room.left_bytes -= pixels.nbytes
                self._pixels = pixels
        return pixels
