"""From a study to its 25 grades: the detector finds the levels, the graders read each target."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from classifier.grade import Grade
from classifier.measure.quantities import Measured
from classifier.measure.study import measure_study
from data_prep.base.backend import Backend, BackendUnusable, available_threads, resolve_backend
from data_prep.base.workers import beside
from data_prep.levels import SpineLevels
from data_prep.pixel_cache import PixelCache
from data_prep.problems import DicomRejected, Reason, Rejection
from data_prep.read.entry import StudyEntry
from data_prep.read.find import find_all_studies
from data_prep.read.opening import opened_input
from data_prep.rsna.known import known_studies
from data_prep.study import TURNED, Study
from data_prep.vocabulary import Flag, Target
from detector.spine.contrast import kinds_as_seen
from pipeline.model_facts import ModelFacts, resolve_device
from pipeline.models import have_seen_rsna, model_folders
from pipeline.prediction import Provenance, StudyPrediction
from pipeline.series_seen import series_rows
from pipeline.study_flags import (
    doubts_of_images,
    is_degraded,
    missing_series,
    with_images_doubted,
    without_doubtful_fat,
)


class LevelFinder(Protocol):
    """What the pipeline asks of a detector."""

    def predict(self, study: Study) -> SpineLevels: ...


class StudyGrader(Protocol):
    """What the pipeline asks of the graders: all 25 targets, what is expected for what cannot be seen."""

    def grade(self, study: Study, levels: SpineLevels) -> Mapping[Target, Grade]: ...


@dataclass(frozen=True, eq=False)
class Pipeline:
    """Detector and graders, joined.

    Attributes:
        detector, grader: the two stages.
        provenance: hashes, configuration and versions that are written beside the results.
        has_threads: whether a study is measured while it is graded.
    """

    detector: LevelFinder
    grader: StudyGrader
    provenance: Provenance = field(default_factory=Provenance)
    has_threads: bool = False

    @classmethod
    def load(
        cls,
        models: str | Path | None = None,
        *,
        detector_weights: Path | None = None,
        classifier_weights: Path | None = None,
        backend: Backend | str = Backend.AUTO,
        threads: int | None = None,
        device: str = "cpu",
    ) -> Pipeline:
        """The pipeline with the weights that ship with the project, or with others.

        Args:
            models: ``research`` (the default), ``open``, or a folder, see ``pipeline.models``.
            detector_weights: folder that ``lumbar detector bundle`` wrote, instead of that stage's of
                ``models``.
            classifier_weights: folder that ``lumbar classifier calibrate`` wrote, likewise.
            backend: what runs the networks: ``onnx`` (ONNX Runtime), ``torch``, or ``auto``, which is ONNX
                Runtime where it is installed. Their grades agree to 1e-3, and in practice to 1e-5.
            threads: of everything that computes in this process, OpenCV and torch included; None leaves
                ONNX Runtime all that the process may use, and the others as they are. Its results are the
                same bytes on any number, torch's are not always.
            device: ``cpu``, ``cuda``, ``cuda:N``, ``mps``, or ``auto``: the first GPU, else the
                processor. All but the processor need torch.

        Raises:
            WeightsRejected: weights are missing or do not have the SHA-256 of their manifest.
            BackendUnusable: the backend cannot run here.
        """
        # Here, because both bring a network library, which commands that grade nothing need not wait for.
        import detector.predict
        from classifier.predict import Grader

        folders = model_folders(
            models, detector_weights=detector_weights, classifier_weights=classifier_weights
        )
        device = resolve_device(device)
        backend = resolve_backend(backend, device=device)
        if threads is not None:
            _limit_threads(threads, backend)
        # ONNX Runtime prepares networks outside of Python's lock; torch is loaded by one thread alone.
        with ThreadPoolExecutor(3 if backend is Backend.ONNX else 1) as pool:
            facts = pool.submit(
                ModelFacts.read,
                detector_weights=folders["detector"],
                classifier_weights=folders["classifier"],
                backend=backend,
                device=device,
            )
            finder = pool.submit(
                detector.predict.LevelDetector.load,
                folders["detector"],
                device=device,
                backend=backend,
                threads=threads,
            )
            grader = pool.submit(
                Grader.load, folders["classifier"], device=device, backend=backend, threads=threads
            )
            several = (threads or available_threads()) > 1
            provenance = facts.result().provenance
            return cls(finder.result(), grader.result(), provenance, several)

    @property
    def facts(self) -> ModelFacts:
        """What a run says of these models."""
        return ModelFacts(self.provenance, getattr(self.grader, "any_severe_pull", 0.0))

    def predict(self, path: str | Path, *, series_table: Path | None = None) -> tuple[StudyPrediction, ...]:
        """Grade every study under a path, in memory.

        Args:
            path: an RSNA images folder, one study, any tree of DICOM files, or a zip of one of these.
            series_table: ``study_id, series_id, series_description``; RSNA names are looked for otherwise.

        Raises:
            DicomRejected: no study was found, or the archive was refused.
        """
        with opened_input(Path(path)) as (folder, refused):
            entries = find_all_studies([folder], series_table=series_table)
            # Of which study a member is that was refused, nobody knows: each says so.
            entries = tuple(replace(entry, rejections=(*refused, *entry.rejections)) for entry in entries)
            return tuple(self.predict_entry(entry)[0] for entry in entries)

    def predict_entry(
        self, entry: StudyEntry, *, on_stage: Callable[[str], None] | None = None
    ) -> tuple[StudyPrediction, Study | None]:
        """Load and grade one study that was found; never raises for what is wrong with the study.

        Args:
            entry: what ``find_all_studies`` found.
            on_stage: called with ``reading``, ``detection`` and ``grading`` when each begins.

        Returns:
            The prediction, and the study for pictures, its slices decoded once; None when it could not be
            loaded.

        Raises:
            BackendUnusable: ONNX Runtime refuses a network, which is known when it is first used.
        """
        on_stage = on_stage or (lambda _: None)
        try:
            on_stage("reading")
            study = entry.load()
        except DicomRejected as rejected:
            return self.facts.rejected(entry.study_id, rejected.rejection, rejected.rejections), None
        except Exception as error:  # one study must never end a batch
            return self.facts.rejected(entry.study_id, failure_of(error, "reading", entry.study_id)), None
        cache = PixelCache(study)
        return self._predict(cache, on_stage)

    def predict_study(self, study: Study) -> StudyPrediction:
        """Grade a loaded study; a failure inside a stage becomes a rejection with the level prior.

        Slices that were looked at and cannot be decoded join the study's rejections.

        Raises:
            BackendUnusable: ONNX Runtime refuses a network, which is known when it is first used.
        """
        return self._predict(PixelCache(study), lambda _: None)[0]

    def _predict(self, cache: PixelCache, on_stage: Callable[[str], None]) -> tuple[StudyPrediction, Study]:
        """The prediction, and the study as it was read: with T1 and T2 exchanged where the images say so."""
        study, levels = cache.study, None
        stage = "detection"
        on_stage(stage)
        try:
            study, levels = find_levels(self.detector, study)
            stage = "grading"
            on_stage(stage)
            study, grades, measurements, doubts = self._graded(study, levels)
        except BackendUnusable:  # no study's fault
            raise
        except Exception as error:  # one study must never end a batch
            failure = failure_of(error, stage, study.study_id)
            rejected = self.facts.rejected(
                study.study_id, failure, (*study.rejections, *cache.rejections), levels
            )
            return rejected, study
        rejections = (*study.rejections, *cache.rejections)
        prediction = StudyPrediction(
            study.study_id,
            grades,
            levels,
            (
                *levels.flags,
                *study.flags,
                *missing_series(study, levels, grades),
                *doubts,
                *self._known(study),
            ),
            rejections,
            series=series_rows(study, levels, grades, rejections),
            provenance=self.provenance,
            measurements=measurements,
        )
        return prediction, study

    def _known(self, study: Study) -> tuple[str, ...]:
        """A flag where the models have seen the study before."""
        seen = study.study_id in known_studies() and have_seen_rsna(self.provenance.models)
        return (Flag.KNOWN_STUDY,) if seen else ()

    def _graded(
        self, study: Study, levels: SpineLevels
    ) -> tuple[Study, Mapping[Target, Grade], tuple[Measured, ...], tuple[str, ...]]:
        """The study with what its images leave in doubt, grades, measurements, and flags of the images."""
        with beside(self.has_threads) as thread:
            measured = thread.begin(_measured, study, levels)
            doubted = thread.begin(with_images_doubted, study, levels)
            degraded = thread.begin(is_degraded, study)
            grades = self.grader.grade(study, levels)
            measurements, failed = measured()
            study = doubted()
            measurements = without_doubtful_fat(study, measurements)
            flags = (*doubts_of_images(study, grades, degraded=degraded()), *failed)
            return study, grades, measurements, flags


def find_levels(detector: LevelFinder, study: Study) -> tuple[Study, SpineLevels]:
    """The levels, and the study as it was read: with T1 and T2 exchanged where the images say so."""
    levels = detector.predict(study)
    if (seen := kinds_as_seen(study, levels)) is not study:
        study, levels = seen, detector.predict(seen)
    return study.with_unused(levels.turned, TURNED), levels


def failure_of(error: Exception, stage: str, study_id: str) -> Rejection:
    """What is said of a study that failed within the program: one study must never end a batch."""
    # The type only: messages of foreign code may quote headers or paths.
    return Rejection(Reason.FAILED, f"{stage} failed ({type(error).__name__})", study_id)


def _measured(study: Study, levels: SpineLevels) -> tuple[tuple[Measured, ...], tuple[str, ...]]:
    """What can be measured, and a flag where that failed: grades are worth more than their millimetres."""
    try:
        return measure_study(study, levels), ()
    except Exception:
        return (), (Flag.MEASURING_FAILED,)


def _limit_threads(threads: int, backend: Backend) -> None:
    import cv2

    cv2.setNumThreads(threads)
    if backend is Backend.TORCH:
        import torch

        torch.set_num_threads(threads)
