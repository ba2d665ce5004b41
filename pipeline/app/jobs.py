"""What the local app grades: uploads within bounds, one job after the other, removed afterwards."""

from __future__ import annotations

import queue
import secrets
import shutil
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from data_prep.base.files import is_disk_error
from data_prep.names import input_label, printable
from data_prep.problems import DicomRejected, Reason, Rejection
from data_prep.read.archives import (
    DEFAULT_ARCHIVE_LIMITS,
    ArchiveLimits,
    extract_archive,
    is_archive,
    note_left_out,
    safe_parts,
)
from data_prep.read.find import find_all_studies
from data_prep.read.listing import DICOM, Others, format_of_content
from data_prep.read.opening import inner_folder
from pipeline.batch.run import BatchReport, run_batch
from pipeline.grade import Pipeline
from pipeline.quiet import failure_in_words
from pipeline.results.report.study_report import write_report
from pipeline.results.words import refusal_sentences


@dataclass(frozen=True)
class UploadLimits:
    """What is taken from a browser.

    Attributes:
        max_files: of one job.
        max_file_bytes: of one file that is no zip.
        max_archive_bytes: of one zip, packed.
        max_total_bytes: of all files of one job.
        max_jobs: that wait or are being uploaded at a time.
        max_kept: finished jobs whose results are kept; the oldest goes first.
        idle_s: an upload that stands still for longer is given up.
    """

    max_files: int = 50_000
    max_file_bytes: int = DEFAULT_ARCHIVE_LIMITS.max_member_bytes
    max_archive_bytes: int = 4 * 1024**3
    max_total_bytes: int = 8 * 1024**3
    max_jobs: int = 8
    max_kept: int = 20
    idle_s: float = 900.0


_IMAGES = (".dcm", ".nii", ".nii.gz")
_TITLE_CHARS = 200


class Refused(Exception):
    """A request that is not granted; the message says why and what to do."""


class Stopped(BaseException):
    """The app ends, or the job was removed: like KeyboardInterrupt no failure of a study."""


@dataclass
class Job:
    """One upload and its results.

    Attributes:
        id: 128 random bits: who does not know it cannot reach the results.
        title: what the page calls it.
        state: uploading, waiting, working, done or failed.
        share: 0–1, how much of the grading is over.
        message: what is going on, or why it failed and what to do.
        results: relative names of the files that may be asked for.
        n_graded: studies of which a target was graded.
        n_unused, n_doubtful: files, series and studies that were not used; and those that were used and are
            incomplete or doubtful.
        of_no_study: what was not used and belongs to no study, so that no report says it; in words.
        left_out: files that were sent and go nowhere.
        not_sent: files that the page could not send.
    """

    id: str
    folder: Path
    title: str = ""
    state: str = "uploading"
    share: float = 0.0
    message: str = ""
    n_files: int = 0
    n_bytes: int = 0
    touched: float = field(default_factory=time.monotonic)
    results: tuple[str, ...] = ()
    n_studies: int = 0
    n_graded: int = 0
    n_unused: int = 0
    n_doubtful: int = 0
    of_no_study: tuple[str, ...] = ()
    removed: bool = False
    left_out: Others = field(default_factory=Others, repr=False)
    not_sent: list[Rejection] = field(default_factory=list, repr=False)

    @property
    def input(self) -> Path:
        return self.folder / "input"

    @property
    def output(self) -> Path:
        return self.folder / "output"

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "title": self.title,
            "state": self.state,
            "share": round(self.share, 3),
            "message": self.message,
            "studies": self.n_studies,
            "graded": self.n_graded,
            "not_used": self.n_unused,
            "doubtful": self.n_doubtful,
            "of_no_study": list(self.of_no_study),
            "results": list(self.results),
        }


class Jobs:
    """All jobs of a running app; graded one after the other in a thread of their own."""

    def __init__(self, pipeline: Pipeline, folder: Path, limits: UploadLimits = UploadLimits()) -> None:
        self.limits = limits
        self.learned_from = pipeline.provenance.learned_from
        self._pipeline, self._folder = pipeline, folder
        self._jobs: dict[str, Job] = {}
        self._waiting: queue.Queue[Job | None] = queue.Queue()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._worker = threading.Thread(target=self._work, name="lumbar-grading", daemon=True)
        self._worker.start()

    def create(self, title: str = "") -> Job:
        """A new job to upload to. Raises Refused when too many are under way."""
        with self._lock:
            self._drop_idle()
            busy = [job for job in self._jobs.values() if job.state in ("uploading", "waiting", "working")]
            if len(busy) >= self.limits.max_jobs:
                raise Refused(f"{len(busy)} jobs are under way: wait until one of them is done")
            finished = [job for job in self._jobs.values() if job.state in ("done", "failed")]
            for job in finished[: max(0, len(finished) - self.limits.max_kept + 1)]:
                self._drop(job)
            identifier = secrets.token_urlsafe(16)
            folder = self._folder / f"job-{secrets.token_hex(8)}"
            job = Job(identifier, folder, printable(title)[:_TITLE_CHARS])
            job.input.mkdir(parents=True)
            self._jobs[identifier] = job
            return job

    def get(self, identifier: str) -> Job:
        """The job of an id. Raises KeyError."""
        return self._jobs[identifier]

    def place_for(self, job: Job, name: str) -> Path | None:
        """Where a file that is being uploaded goes, under a name of ours; None for what is never read.

        Raises:
            Refused: the job is no longer open, or has too many files.
        """
        if job.state != "uploading" or job.removed:
            raise Refused("this job takes no more files: begin a new one")
        if job.n_files >= self.limits.max_files:
            raise Refused(f"more than {self.limits.max_files} files: give one study at a time, or a zip")
        job.n_files += 1
        job.touched = time.monotonic()
        parts = safe_parts(name, DEFAULT_ARCHIVE_LIMITS.max_depth)
        return None if parts is None else job.input.joinpath(*parts)

    def leave_out(self, job: Job, name: str, start: bytes) -> None:
        """Remember a file that has no place, by its first bytes, so that an image among them is named."""
        note_left_out(name, start, job.left_out)

    def not_sent(self, job: Job, name: str, why: Reason, start: bytes, n_bytes: int) -> None:
        """Remember a file that the page cannot read, or that is too large, by its first bytes if it has them.

        Raises:
            Refused: as ``place_for``; nothing else is a reason.
        """
        self.place_for(job, name)
        path = Path(name)
        looks = format_of_content(start, path.name, n_bytes)
        if why is Reason.UNREADABLE:
            job.not_sent.append(Rejection.of(path, why, "the browser could not read the file"))
        elif why is not Reason.TOO_LARGE:
            raise Refused("a file is unreadable or too_large, or it is sent")
        elif looks == DICOM or path.name.lower().endswith(_IMAGES):
            said = f"{n_bytes} bytes; the limit is {self.limits.max_file_bytes} bytes"
            job.not_sent.append(Rejection.of(path, why, said))
        elif looks:
            job.left_out.note(path, looks)

    def count(self, job: Job, path: Path, so_far: int, more: int) -> None:
        """Count bytes as they arrive. Raises Refused beyond a limit, or when the job was removed."""
        if job.removed:
            raise Refused("this job is gone: begin a new one")
        archive = path.suffix.lower() == ".zip"
        limit = self.limits.max_archive_bytes if archive else self.limits.max_file_bytes
        if so_far + more > limit:
            raise Refused(f"{input_label(path.name)} has more than {limit} bytes: leave it out")
        job.n_bytes += more
        job.touched = time.monotonic()
        if job.n_bytes > self.limits.max_total_bytes:
            raise Refused(f"more than {self.limits.max_total_bytes} bytes in all: give one study at a time")

    def start(self, job: Job) -> None:
        """Put a job that has been uploaded into the queue. Raises Refused."""
        if job.state != "uploading":
            raise Refused("this job was started before")
        job.state, job.message = "waiting", "waiting for the jobs before it"
        self._waiting.put(job)

    def remove(self, job: Job) -> None:
        """Forget a job with its files; one that is being graded stops at its next stage."""
        with self._lock:
            self._drop(job)

    def close(self) -> None:
        """Stop grading and wait for it."""
        self._closing.set()
        self._waiting.put(None)
        self._worker.join(timeout=60)

    def _drop_idle(self) -> None:
        """Give up uploads that stand still, as of a tab that crashed."""
        for job in [*self._jobs.values()]:
            if job.state == "uploading" and time.monotonic() - job.touched > self.limits.idle_s:
                self._drop(job)

    def _drop(self, job: Job) -> None:
        self._jobs.pop(job.id, None)
        job.removed = True
        if job.state != "working":  # else the thread that grades removes it
            shutil.rmtree(job.folder, ignore_errors=True)

    def _work(self) -> None:
        while (job := self._next()) is not None and not self._closing.is_set():
            if job.removed:
                continue
            job.state = "working"
            state, message = self._outcome(job)
            shutil.rmtree(job.input, ignore_errors=True)
            job.message, job.state = message, state  # last: who sees the end finds the images gone
            if job.removed:
                shutil.rmtree(job.folder, ignore_errors=True)

    def _next(self) -> Job | None:
        """The next job that waits; meanwhile uploads that stand still are given up."""
        while True:
            try:
                return self._waiting.get(timeout=self.limits.idle_s)
            except queue.Empty:
                with self._lock:
                    self._drop_idle()

    def _outcome(self, job: Job) -> tuple[str, str]:
        """Grade a job; its last state and message, whatever happens."""
        try:
            self._grade(job)
        except DicomRejected as rejected:
            named = " ".join(refusal_sentences(rejected.rejections))
            message = f"{rejected.rejection.message}. What to do: {rejected.rejection.reason.advice}."
            return "failed", message + (f" Not used: {named}" if named else "")
        except Stopped:
            return "failed", "stopped"
        except Exception as error:  # one job must never end the app; messages may quote headers
            if is_disk_error(error):
                return "failed", f"{error.strerror}: make room on the disk, and try again"
            return "failed", failure_in_words(type(error), error.__traceback__)
        return "done", "done"

    def _grade(self, job: Job) -> None:
        def on_stage(completed: float, name: str) -> None:
            if job.removed or self._closing.is_set():
                raise Stopped
            job.share, job.message = completed / max(1, job.n_studies), name

        job.message = "unpacking"
        left_out = [rejection for _, rejection in job.left_out.rejections]
        rejections = (*job.not_sent, *left_out, *unpack_all(job.input))
        job.message = "looking for studies"
        try:
            entries = find_all_studies([inner_folder(job.input)])
        except DicomRejected as rejected:  # perhaps because of these
            raise DicomRejected(rejected.rejection, (*rejections, *rejected.rejections)) from None
        job.n_studies = len(entries)
        report = run_batch(
            self._pipeline,
            entries,
            job.output,
            report=write_report,
            on_stage=on_stage,
            rejections=rejections,
        )
        job.results = tuple(
            path.relative_to(job.output).as_posix() for path in _written(report) if path.is_file()
        )
        job.n_graded = report.n_graded
        job.n_unused = sum(item.standing == "rejected" for item in report.rejections)
        job.n_doubtful = len(report.rejections) - job.n_unused
        job.of_no_study = tuple(refusal_sentences(rejections))
        job.share = 1.0


def _written(report: BatchReport) -> list[Path]:
    index = [] if report.index is None else [report.index]
    return [*index, *report.reports, report.submission, report.targets, report.refused, report.predictions]


def _is_zip(path: Path) -> bool:
    return path.suffix.lower() == ".zip" and is_archive(path)


def unpack_all(folder: Path, limits: ArchiveLimits = DEFAULT_ARCHIVE_LIMITS) -> tuple[Rejection, ...]:
    """Unpack each zip of a folder beside itself and remove it; see ``extract_archive``.

    A bad one never ends the others. ``limits.max_total_bytes`` holds for all together.

    Raises:
        DicomRejected: the only file of the folder is an archive that cannot be read.
    """
    rejections: list[Rejection] = []
    files = [path for path in folder.rglob("*") if path.is_file()]
    left = limits.max_total_bytes
    for path in sorted(filter(_is_zip, files)):
        place = path.with_suffix("")
        while place.exists():
            place = place.with_name(f"{place.name}-zip")
        try:
            rejections += extract_archive(path, place, limits=replace(limits, max_total_bytes=left))
        except DicomRejected as rejected:
            shutil.rmtree(place, ignore_errors=True)  # a part of it would be graded
            if len(files) == 1:
                raise
            rejections.append(Rejection.of(path, rejected.rejection.reason, rejected.rejection.message))
        path.unlink()
        left -= sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
    return tuple(rejections)
