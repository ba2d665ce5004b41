"""The real command line in a process of its own, with stages that need no weights and take their time.

python -m tests.pipeline.stand_in_main SECONDS predict INPUT -o OUT
"""

from __future__ import annotations

import sys
import time

from data_prep.levels import SpineLevels
from data_prep.study import Study
from pipeline.cli import main
from pipeline.grade import Pipeline
from tests.pipeline.stand_in import StraightSpine, stand_in_pipeline


class SlowSpine(StraightSpine):
    """Sleeps before it finds anything."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def predict(self, study: Study) -> SpineLevels:
        time.sleep(self.seconds)
        return super().predict(study)


def slow_pipeline(seconds: float) -> Pipeline:
    made = stand_in_pipeline()
    return Pipeline(SlowSpine(seconds), made.grader, made.provenance)


if __name__ == "__main__":
    SECONDS = float(sys.argv.pop(1))
    Pipeline.load = classmethod(lambda cls, **_: slow_pipeline(SECONDS))  # type: ignore[method-assign,assignment]
    main()
