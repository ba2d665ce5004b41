"""What ``lumbar train`` was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.training.plan import TrainPlan


@dataclass(frozen=True)
class TrainSettings:
    """What is trained, from what, where.

    Attributes:
        data: folder in the RSNA layout.
        run: folder to write into; one that an interrupted training left is gone on with.
        plan: everything that shapes the result.
        cache: folder of decoded studies, which other runs may share; None: in the run.
        device: as in ``classifier.learn.devices``.
        processes: how many share the work on this machine; torchrun's number wins.
        workers: threads or processes that prepare batches ahead, per process.
        pretrained: file with weights of the graders' timm backbone.
    """

    data: Path
    run: Path
    plan: TrainPlan
    cache: Path | None = None
    device: str = "auto"
    processes: int = 1
    workers: int = 0
    pretrained: Path | None = None
