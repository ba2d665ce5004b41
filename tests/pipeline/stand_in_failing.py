"""The real command line with stages that fail as LUMBAR_TEST_FAILS says, and quote the patient in doing so.

The patches stand outside of ``main``: processes that are spawned run this module, too.
"""

from __future__ import annotations

import errno
import os
import threading
from typing import Any, NoReturn

from pydicom import dcmread

from data_prep.levels import SpineLevels
from data_prep.study import Study
from pipeline.batch.study_work import StudyWork
from pipeline.cli import main
from pipeline.grade import Pipeline
from tests.pipeline.stand_in import StraightSpine, stand_in_pipeline

WHERE = os.environ["LUMBAR_TEST_FAILS"]


def fail(study: Study) -> NoReturn:
    """As a library does: with a value of the header and the path in the message."""
    path = study.series[0].slices[0].path
    assert path is not None
    raise ValueError(f"invalid name {dcmread(path).PatientName} in {path}")


class FailingSpine(StraightSpine):
    def predict(self, study: Study) -> SpineLevels:
        if WHERE == "detector":
            fail(study)
        if WHERE == "thread":
            thread = threading.Thread(target=fail, args=(study,))
            thread.start()
            thread.join()
        if WHERE == "exit":
            os._exit(9)
        return super().predict(study)


def failing_pipeline(**_: Any) -> Pipeline:
    if WHERE == "loading":
        raise RuntimeError("no models for Zanzibara")
    made = stand_in_pipeline()
    return Pipeline(FailingSpine(), made.grader, made.provenance)


def failing_write(work: StudyWork, study: Study | None, prediction: Any, folder: Any) -> dict[str, Any]:
    if WHERE == "disk":
        raise OSError(errno.ENOSPC, "No space left on device", "/data/Zanzibara_John/studies/1.json")
    if study is not None:
        fail(study)
    raise KeyError("Zanzibara")


Pipeline.load = failing_pipeline  # type: ignore[method-assign,assignment]
if WHERE in ("disk", "writing"):
    StudyWork._write = failing_write  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
