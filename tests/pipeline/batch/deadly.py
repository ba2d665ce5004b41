"""Workers that die: apart from their tests, so that a process which starts as one imports little else."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from data_prep.levels import SpineLevels
from data_prep.study import Study
from pipeline.grade import Pipeline
from tests.pipeline.stand_in import StraightSpine, stand_in_pipeline


class DeadlySpine(StraightSpine):
    """Takes its process along when it sees one study, and once when it sees another."""

    def __init__(self, always: str, once: str, died: Path) -> None:
        super().__init__()
        self.always, self.once, self.died = always, once, died

    def predict(self, study: Study) -> SpineLevels:
        if study.study_id == self.once and not self.died.exists():
            self.died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if study.study_id == self.always:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().predict(study)


def deadly_pipeline(always: str, once: str, died: Path) -> Pipeline:
    plain = stand_in_pipeline()
    return Pipeline(DeadlySpine(always, once, died), plain.grader, plain.provenance)


def no_pipeline() -> Pipeline:
    os._exit(7)
