"""Images and results on their way, on disk: what is stored here survives a kill at any point.

Layout of the folder:

- ``studies/study-{hash}/images/{hash}-{hash}.dcm``: what was received, one file per instance;
- ``studies/study-{hash}/cut-{hash}``: a series that lacks images, since its transfer broke off;
- ``studies/study-{hash}/refused-{hash}-{why}``: an image that was turned away and has not come since;
- ``studies/study-{hash}/state.json``: which of them were graded, and how often it was tried;
- ``outbox/{study}-{hash}.dcm``: results that the destination has not confirmed yet;
- ``.lock``: held by the one process that works here.

Names are hashes: no identifier of a sender becomes a path.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from data_prep.base.files import locked_folder, write_whole
from pipeline.results.dicom.write import write_object

_FORMAT = "lumbar-spool/1"
# Longer than an association may stand still.
WHILE_OPEN_S = 90.0
# Of a study; more are not noted.
_MOST_REFUSED = 1000


class SpoolFull(Exception):
    """There is no room for another image."""


@dataclass(frozen=True)
class WaitingStudy:
    """A study that has images which were not graded yet.

    Attributes:
        key: its name in the spool.
        images: folder of its images.
        instances: the images that were there when it was found.
        attempts: how often grading was started and did not end.
        is_incomplete: a transfer broke off and did not begin again, images were refused, or images that were
            graded are gone.
        refused: the notes of images that were turned away and have not come since.
    """

    key: str
    images: Path
    instances: frozenset[str]
    attempts: int
    is_incomplete: bool = False
    refused: tuple[str, ...] = ()

    @property
    def refused_why(self) -> list[str]:
        """Why each image was turned away, as ``note_refused`` was told."""
        return sorted(note.rpartition("-")[2] for note in self.refused)


class Spool:
    """The folder of one service; safe to use from several threads.

    Args:
        folder: is made if it is not there, for its owner alone.
        max_bytes: of all images together.

    Raises:
        FolderInUse: another process works in the folder.
        OSError: it cannot be written.
    """

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self._studies, self.outbox = folder / "studies", folder / "outbox"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._held = ExitStack()
        self._held.enter_context(locked_folder(folder))
        for path in (self._studies, self.outbox):
            path.mkdir(exist_ok=True, mode=0o700)
        for partial in folder.rglob(".*.partial"):  # of a run that was killed
            partial.unlink()
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._arriving: Counter[str] = Counter()
        self._bytes = sum(path.stat().st_size for path in self._studies.glob("*/images/*.dcm"))
        self._touched = {path.name for path in self._studies.iterdir() if path.is_dir()}

    def close(self) -> None:
        """Let another process work here."""
        self._held.close()

    def store(self, study_uid: str, sop_uid: str, content: bytes, image: bytes = b"") -> None:
        """Keep an image; when this returns, it is on the disk. The same instance again replaces it.

        With another content, such as that of a correction, it is an image that was not graded.

        Args:
            image: tells two images of one identifier apart.

        Raises:
            SpoolFull: there is no room, even without the images of graded studies.
            OSError: it cannot be written.
        """
        key = f"study-{_hash(study_uid)}"
        name = _hash(sop_uid, image)
        path = self._studies / key / "images" / f"{name}-{hashlib.sha256(content).hexdigest()[:16]}.dcm"
        with self._lock:
            earlier = _sizes(path.parent, name)
            while self._bytes + (wanted := len(content) - sum(earlier.values())) > self._max_bytes:
                self._make_room(wanted)
                earlier = _sizes(path.parent, name)  # perhaps they made the room
            write_whole(path, content)
            for file in earlier:
                if file != path:
                    file.unlink()
            self._bytes += len(content) - sum(earlier.values())
            self._touched.add(key)
        for known in {name, _hash(sop_uid)}:
            for note in path.parent.parent.glob(f"refused-{known}-*"):
                note.unlink(missing_ok=True)

    def begin_arriving(self, study_uid: str) -> None:
        """An association brings images of a study."""
        with self._lock:
            self._arriving[f"study-{_hash(study_uid)}"] += 1

    def end_arriving(self, study_uid: str) -> None:
        """An association that has brought images of a study is over."""
        with self._lock:
            self._arriving -= Counter([f"study-{_hash(study_uid)}"])

    def note_refused(self, study_uid: str, sop_uid: str, why: str, image: bytes = b"") -> None:
        """An image was turned away: results say so, with the reason, until that very image comes.

        Args:
            why: a word for the reason, letters and digits alone.
            image: as ``store`` has it; empty where the image could not be read.
        """
        key = f"study-{_hash(study_uid)}"
        folder = self._studies / key
        with suppress(OSError):  # a full disk: the sender was told
            folder.mkdir(exist_ok=True, mode=0o700)
            if sum(1 for _ in folder.glob("refused-*")) < _MOST_REFUSED:
                (folder / f"refused-{_hash(sop_uid, image)}-{why}").touch()
        with self._lock:
            self._touched.add(key)

    def note_cut(self, study_uid: str, series_uid: str) -> None:
        """A transfer of a series broke off: results say so until it is sent again."""
        with suppress(OSError):  # a full disk: the sender was told
            path = self._cut(study_uid, series_uid)
            path.parent.mkdir(exist_ok=True, mode=0o700)
            path.touch()

    def note_whole(self, study_uid: str, series_uid: str) -> None:
        """A transfer of a series has ended as it should."""
        with suppress(OSError):
            self._cut(study_uid, series_uid).unlink()
            with self._lock:
                self._touched.add(f"study-{_hash(study_uid)}")

    def _cut(self, study_uid: str, series_uid: str) -> Path:
        return self._studies / f"study-{_hash(study_uid)}" / f"cut-{_hash(series_uid)}"

    def settled(self, quiet_s: float) -> list[WaitingStudy]:
        """Studies with images that were not graded, none of which came within ``quiet_s``; longest first.

        While an association that has brought images of a study is open, more may come, after a pause: such a
        study waits for ``WHILE_OPEN_S`` at least.
        """
        with self._lock:
            touched, arriving = sorted(self._touched), set(self._arriving)
        found = []
        for key in touched:
            newest, study = self._look(key)
            if study is None:
                with self._lock:
                    if self._look(key)[1] is None:
                        self._touched.discard(key)
            elif time.time() - newest >= (max(quiet_s, WHILE_OPEN_S) if key in arriving else quiet_s):
                found.append((newest, study))
        return [study for _, study in sorted(found, key=lambda pair: pair[0])]

    def begin(self, study: WaitingStudy) -> None:
        """Note that grading starts: should it end the program, the next run knows how often it did."""
        self._note(study.key, attempts=study.attempts + 1)

    def postpone(self, study: WaitingStudy) -> None:
        """Note that the disk ended the grading that was begun: it does not count as an attempt."""
        with suppress(OSError):
            self._note(study.key, attempts=study.attempts)

    def finish(self, study: WaitingStudy, outcome: str, results: Iterable[Dataset] = ()) -> None:
        """Put the results into the outbox, then note that the images were graded.

        A kill between the two makes the study be graded again, to the same results under the same names.
        """
        for result in results:
            write_object(result, self.outbox / f"{study.key}-{_hash(result.SOPInstanceUID)}.dcm")
        with self._lock:
            graded = sorted({*self._state(study.key)["graded"], *study.instances})
            self._note(
                study.key,
                graded=graded,
                attempts=0,
                outcome=outcome,
                was_incomplete=study.is_incomplete,
                refused=study.refused,
            )

    def waiting_results(self) -> list[Path]:
        """Results that were not delivered, oldest first."""
        return sorted(self.outbox.glob("[!.]*.dcm"), key=lambda path: (path.stat().st_mtime_ns, path.name))

    def delivered(self, path: Path) -> None:
        """The destination has confirmed a result."""
        path.unlink(missing_ok=True)

    def clean(self, keep_s: float) -> None:
        """Delete the images of graded studies whose last one came ``keep_s`` ago; their state stays."""
        with self._lock:
            for newest, key in self._graded():
                if time.time() - newest >= keep_s:
                    self._delete_images(key)

    def _make_room(self, wanted: int) -> None:
        """Delete images of graded studies, oldest first, until there is room. Raises SpoolFull."""
        for _, key in sorted(self._graded()):
            self._delete_images(key)
            if self._bytes + wanted <= self._max_bytes:
                return
        raise SpoolFull

    def _graded(self) -> list[tuple[float, str]]:
        """Newest arrival and key of the studies with nothing left to do."""
        found = []
        for folder in self._studies.iterdir():
            newest, study = self._look(folder.name)
            if study is None and newest:
                found.append((newest, folder.name))
        return found

    def _delete_images(self, key: str) -> None:
        folder = self._studies / key / "images"
        self._bytes -= sum(path.stat().st_size for path in folder.glob("*.dcm"))
        shutil.rmtree(folder)

    def _look(self, key: str) -> tuple[float, WaitingStudy | None]:
        """When the newest image came (seconds; 0 without one), and the study if it waits."""
        folder = self._studies / key / "images"
        try:
            images = {path.stem: path.stat().st_mtime for path in folder.glob("[!.]*.dcm")}
        except OSError:  # deleted meanwhile
            images = {}
        newest = max(images.values(), default=0.0)
        state = self._state(key)
        gone = {_instance(name) for name in state["graded"]} - set(map(_instance, images))
        refused = tuple(sorted(note.name for note in folder.parent.glob("refused-*")))
        is_incomplete = bool(gone or refused) or any(folder.parent.glob("cut-*"))
        # What was missing has been sent again, perhaps without a new image: the results still say otherwise.
        is_mended = bool(images) and state["was_incomplete"] and not is_incomplete
        is_worse = bool(images) and not set(refused) <= set(state["refused"])
        if images.keys() <= set(state["graded"]) and not is_mended and not is_worse:
            return newest, None
        # A clock that was set back must not let a study wait for ever.
        waiting = WaitingStudy(key, folder, frozenset(images), state["attempts"], is_incomplete, refused)
        return min(newest, time.time()), waiting

    def _state(self, key: str) -> dict[str, Any]:
        try:
            state = json.loads((self._studies / key / "state.json").read_text(encoding="utf-8"))
            if state["format"] == _FORMAT:
                return {
                    "graded": list(map(str, state["graded"])),
                    "attempts": int(state["attempts"]),
                    "outcome": str(state["outcome"]),
                    "was_incomplete": bool(state.get("was_incomplete")),
                    "refused": list(map(str, state.get("refused", ()))),
                }
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return {"graded": [], "attempts": 0, "outcome": "waiting", "was_incomplete": False, "refused": []}

    def _note(self, key: str, **changes: Any) -> None:
        state = {"format": _FORMAT, **self._state(key), **changes}
        write_whole(self._studies / key / "state.json", json.dumps(state))


def _sizes(images: Path, name: str) -> dict[Path, int]:
    """The files of one instance, and their bytes."""
    return {file: file.stat().st_size for file in images.glob(f"{name}*.dcm")}


def _instance(name: str) -> str:
    """The name of an image without its content."""
    return name.partition("-")[0]


def _hash(text: str, more: bytes = b"") -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass") + more).hexdigest()[:40]
