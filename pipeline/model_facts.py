"""What a run says of its models, known without building a network, and where they run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

from classifier.prior import prior_grade
from data_prep.base.backend import Backend, BackendUnusable, resolve_backend
from data_prep.base.manifest import read_told, read_verified, verify_manifest
from data_prep.levels import SpineLevels
from data_prep.problems import Rejection
from data_prep.vocabulary import TARGETS, Flag
from pipeline.models import model_folders
from pipeline.prediction import Provenance, StudyPrediction
from pipeline.series_seen import series_rows


@dataclass(frozen=True)
class ModelFacts:
    """What a run says of its models, known without building a network.

    Attributes:
        provenance: hashes, configuration and versions that are written beside the results.
        any_severe_pull: of submissions, see ``classifier.any_severe``.
        uncalibrated: graders whose probabilities nobody has fitted to patients that they did not learn from.
    """

    provenance: Provenance
    any_severe_pull: float = 0.0
    uncalibrated: tuple[str, ...] = ()

    @classmethod
    def read(
        cls,
        *,
        detector_weights: Path | None = None,
        classifier_weights: Path | None = None,
        backend: Backend | str = Backend.AUTO,
        device: str = "cpu",
    ) -> ModelFacts:
        """Of the models that ``Pipeline.load`` would load; every file is checked against its manifest.

        Raises:
            WeightsRejected: weights are missing or do not have the SHA-256 of their manifest.
            BackendUnusable: the backend cannot run here.
        """
        import detector.config
        import detector.predict
        from classifier.calibration import Calibration
        from classifier.config import GraderName
        from classifier.storage import graders_of, read_grader

        folders = model_folders(detector_weights=detector_weights, classifier_weights=classifier_weights)
        read_verified(folders["detector"], detector.predict.LEADING_WEIGHTS)
        config = detector.config.read_config(folders["detector"])
        graders = {
            name: read_grader(folders["classifier"], name) for name in graders_of(folders["classifier"])
        }
        hashes = {
            f"{stage}/{name}": digest
            for stage, folder in folders.items()
            for name, digest in verify_manifest(folder).items()
        }
        backend = resolve_backend(backend, device=resolve_device(device))
        configuration = {"detector": asdict(config), "backend": backend.value}
        pull = graders[GraderName.SPINAL].calibration.any_severe_pull
        uncalibrated = tuple(
            name.value for name, stored in graders.items() if stored.calibration == Calibration()
        )
        return cls(
            Provenance(hashes, configuration, learned=read_told(folders["classifier"])), pull, uncalibrated
        )

    def rejected(
        self,
        study_id: str,
        rejection: Rejection,
        others: tuple[Rejection, ...] = (),
        levels: SpineLevels | None = None,
    ) -> StudyPrediction:
        """What is known of a study that was rejected: the level prior, and why."""
        return StudyPrediction(
            study_id,
            {target: prior_grade(target, Flag.STUDY_REJECTED) for target in TARGETS},
            levels,
            (Flag.STUDY_REJECTED,),
            (*others, rejection),
            rejected=True,
            series=series_rows(None, None, {}, others),
            provenance=self.provenance,
        )


def resolve_device(text: str) -> str:
    """The device of a command line as torch spells it; torch is asked about what is no processor alone.

    Raises:
        BackendUnusable: it needs torch, which is not installed.
        DeviceUnusable: there is no such device here.
    """
    name = text.strip().lower()
    if name == "cpu" or (name == "auto" and find_spec("torch") is None):
        return "cpu"
    if find_spec("torch") is None:
        raise BackendUnusable(
            f"device {text!r} needs torch, which is not installed: pip install 'lumbar[train]', "
            "or use --device cpu"
        )
    from classifier.learn.devices import resolve_device as of_torch

    return str(of_torch(name))
