"""Labelled slices on disk: a training that goes on, or the next one, need not read or render them anew."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.base.files import atomic_write, written_by_one
from detector.learn.slices import LabelledSlice

SLICES_FORMAT = 1


def cached_slices(
    folder: Path | None, key: str, make: Callable[[], list[LabelledSlice]]
) -> list[LabelledSlice]:
    """The slices of ``{folder}/{key}.npz``, made and written when they are not there.

    Args:
        folder: of the cache; None makes them without a cache.
        key: names everything that the slices depend on; also the stem of the file.
    """
    if folder is None:
        return make()
    path = folder / f"{key}.npz"
    if not path.is_file():
        with written_by_one(path):
            if not path.is_file():  # another run may have made them since
                save_slices(make(), path)
    return load_slices(path)


def save_slices(slices: list[LabelledSlice], path: Path) -> None:
    """Write slices as arrays; pixels as they are, one after the other."""
    described = [
        {
            "shape": item.image.shape,
            "names": item.names,
            "patient": item.patient,
            "name": item.name,
            "labels": item.labels is not None,
            "keypoints": item.keypoints_px.shape[1],
        }
        for item in slices
    ]
    images = [item.image.ravel() for item in slices]
    labels = [item.labels.ravel() for item in slices if item.labels is not None]
    with atomic_write(path, binary=True) as stream:
        np.savez(
            stream,
            format=np.array(SLICES_FORMAT),
            described=np.frombuffer(json.dumps(described).encode(), np.uint8),
            images=_joined(images, np.uint8),
            labels=_joined(labels, np.uint8),
            keypoints=_joined([item.keypoints_px.ravel() for item in slices], np.float64),
        )


def load_slices(path: Path) -> list[LabelledSlice]:
    """Read what ``save_slices`` wrote. Raises ValueError for another format."""
    with np.load(path, allow_pickle=False) as stored:
        if int(stored["format"]) != SLICES_FORMAT:
            raise ValueError(f"slice cache '{path.name}' is of another version: delete it")
        described = json.loads(stored["described"].tobytes())
        images, labels, keypoints = stored["images"], stored["labels"], stored["keypoints"]
    found, pixel, label, point = [], 0, 0, 0
    for entry in described:
        shape, count = tuple(entry["shape"]), len(entry["names"])
        size, places = shape[0] * shape[1], count * entry["keypoints"] * 2
        tissue = labels[label : label + size].reshape(shape) if entry["labels"] else None
        found.append(
            LabelledSlice(
                image=images[pixel : pixel + size].reshape(shape),
                names=tuple(entry["names"]),
                keypoints_px=keypoints[point : point + places].reshape(count, entry["keypoints"], 2),
                patient=entry["patient"],
                name=entry["name"],
                labels=tissue,
            )
        )
        pixel, label, point = pixel + size, label + size * entry["labels"], point + places
    return found


def _joined(parts: Sequence[NDArray[Any]], kind: type[np.generic]) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(0, kind)
