"""Several processes on one training: they share independent jobs and meet where all results are needed.

Folds, detectors and graders are independent of each other, so processes need exchange no gradients: each
takes its share of the jobs, on a GPU of its own when there are several, and files say what is done. It is
torchrun's environment (RANK, WORLD_SIZE, LOCAL_RANK), or processes that ``lumbar train --processes`` starts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from data_prep.problems import LumbarError

_Item = TypeVar("_Item")

_POLL_SECONDS = 0.5


class RankFailed(LumbarError):
    """Another process of this training ended with an error."""


@dataclass(frozen=True)
class Ranks:
    """Which of several processes this is.

    Attributes:
        rank, world: 0 … world − 1, and how many there are.
        local_rank: rank on this machine: the number of its GPU.
        check: raises RankFailed when another process has failed; called while waiting.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    check: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise ValueError(f"rank must lie in 0 … {self.world - 1}, but got {self.rank}")

    @classmethod
    def taken_from_environment(cls) -> Ranks:
        """As torchrun says; alone without it.

        The variables are taken out: ultralytics reads them when it is imported, and would wait for the other
        processes to train the same network, which here have trainings of their own. Call it before that.
        """
        rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        local_rank = int(os.environ.get("LOCAL_RANK", str(rank)))
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
            os.environ.pop(name, None)
        return cls(rank, world, local_rank)

    def mine(self, items: Sequence[_Item]) -> Sequence[_Item]:
        """The share of this process."""
        return items[self.rank :: self.world]

    def wait(self, items: Iterable[_Item], is_done: Callable[[_Item], bool]) -> None:
        """Come back when all items are done; the other processes are at work."""
        for item in items:
            while not is_done(item):
                self.check()
                time.sleep(_POLL_SECONDS)
