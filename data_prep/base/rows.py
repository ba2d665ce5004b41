"""Tables whose columns are numpy arrays: chosen, joined, written and read row by row alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from data_prep.base.files import atomic_write


@dataclass(frozen=True, eq=False)
class Rows:
    """Columns of one length, which are the fields of a subclass.

    Raises:
        ValueError: lengths differ.
    """

    def __post_init__(self) -> None:
        lengths = {name: len(column) for name, column in self.columns().items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"{type(self).__name__} needs columns of equal length, but got {lengths}")

    def __len__(self) -> int:
        return len(next(iter(self.columns().values())))

    def columns(self) -> dict[str, Any]:
        """The arrays by name."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    def where(self, chosen: NDArray[Any]) -> Self:
        """Some of the rows, by mask or index."""
        return type(self)(**{name: column[chosen] for name, column in self.columns().items()})

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Several tables as one. Raises ValueError when there is none."""
        names = [item.name for item in fields(cls)]
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})

    @classmethod
    def load(cls, path: Path) -> Self:
        """What ``save`` wrote."""
        with np.load(path, allow_pickle=False) as stored:
            return cls(**stored)

    def save(self, path: Path) -> None:
        """Write the columns as ``.npz``, whole or not at all."""
        with atomic_write(path, binary=True) as stream:
            np.savez(stream, **self.columns())
