"""``lumbar export``: detectors and graders as ONNX files, and a manifest that says how to use them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from classifier import BUNDLED_WEIGHTS as BUNDLED_GRADERS
from classifier.calibration import Calibration, JointCalibration
from classifier.config import GraderName
from classifier.prior import level_prior
from classifier.room_evidence import RoomEvidence, read_room_evidence
from classifier.storage import StoredGrader, load_grader, member_stem
from data_prep import crops
from data_prep.base.files import write_json, write_whole
from data_prep.base.graph import OPSET
from data_prep.base.manifest import (
    DEFAULT_BUNDLE,
    MANIFEST_NAME,
    WeightsRejected,
    read_verified,
    verify_manifest,
)
from data_prep.base.version import git_revision, version_of
from data_prep.problems import LumbarError
from data_prep.vocabulary import CONDITIONS, LEVELS, SEVERITIES, SeriesKind, Target
from detector import BUNDLED_WEIGHTS as BUNDLED_DETECTORS
from detector.look import canonical
from detector.look.network import network_from_bytes
from detector.look.refiner_network import refiner_from_bytes
from detector.spec import REFINERS, SPECS, DetectorKind, DetectorSpec, RefinerSpec
from pipeline import __version__
from pipeline.export.onnx_models import (
    STRIDE,
    ExportedModel,
    detector_model,
    grader_model,
    largest_difference,
    refiner_model,
)

FORMAT = "lumbar-export/1"
TOLERANCE = 1e-3
_VERSIONED = ("torch", "ultralytics", "timm", "onnx", "onnxruntime")
_SHOWN_IN = {
    DetectorKind.SAGITTAL: (SeriesKind.SAGITTAL_T2, SeriesKind.SAGITTAL_T1),
    DetectorKind.AXIAL: (SeriesKind.AXIAL_T2,),
    DetectorKind.FORAMEN: (SeriesKind.SAGITTAL_T1,),
}
_ORIENTATION = {
    "sagittal": "head up, front of the body left",
    "axial": "front up, the patient's right on the image's left",
}
_CROP_WINDOW = {
    "black_percentile": crops.BLACK_PERCENTILE,
    "white_percentile": crops.WHITE_PERCENTILE,
    "of": "every third row and column of all slices that exist, together",
    "then": "cut to 0 to 1",
}


# Stage, ``detector`` or ``graders``, → folder of weights; one that is not there is not exported.
WeightsSource = Mapping[str, Path]


class ExportFailed(LumbarError):
    """ONNX Runtime does not give what torch gives. The message says which network and by how much."""


def find_weights(run: Path | None) -> WeightsSource:
    """The weights of a ``lumbar train`` run, of a folder of weights, or the bundled ones for None.

    Raises:
        WeightsRejected: there are none.
    """
    if run is None:
        return {"detector": BUNDLED_DETECTORS[DEFAULT_BUNDLE], "graders": BUNDLED_GRADERS[DEFAULT_BUNDLE]}
    for folder in (run / "weights", run):
        parts = {stage: folder / stage for stage in ("detector", "graders")}
        if found := {stage: part for stage, part in parts.items() if (part / MANIFEST_NAME).is_file()}:
            return found
    if any((run / f"{kind.value}.safetensors").is_file() for kind in DetectorKind):
        return {"detector": run}
    if any((run / f"{name.value}.safetensors").is_file() for name in GraderName):
        return {"graders": run}
    raise WeightsRejected(
        f"no weights in '{run.name}': give a run of `lumbar train` that is finished, its folder weights, "
        "or a folder of `lumbar detector bundle` or `lumbar classifier calibrate`"
    )


def export_weights(
    source: WeightsSource, out: Path, *, progress: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Write every network as ``{name}.onnx``, then ``manifest.json``.

    Returns:
        The manifest.

    Raises:
        WeightsRejected: weights are missing or are not those of their manifest.
        ExportFailed: ``out`` holds a manifest of something else; or a graph gives something else than torch,
            and there is then no manifest.
    """
    checked = find_spec("onnxruntime") is not None
    made_from = _hashes(source)
    _remove_earlier(out)
    files, models, differences = {}, {}, {}
    for name, model, description in _models(source):
        graph = model.to_onnx()
        if checked:
            differences[name] = largest_difference(model, graph)
            if not differences[name] <= TOLERANCE:
                raise ExportFailed(f"{name}: ONNX Runtime differs from torch by {differences[name]:.2g}")
        write_whole(out / f"{name}.onnx", graph)
        files[f"{name}.onnx"] = hashlib.sha256(graph).hexdigest()
        ports = {
            "inputs": [port.to_dict() for port in model.inputs],
            "outputs": [model.output.to_dict() | description.pop("output")],
        }
        models[name] = {"file": f"{name}.onnx"} | ports | description
        progress(name)
    manifest = {
        "format": FORMAT,
        "files": files,
        "made_from": made_from,
        "versions": {"lumbar": __version__, "onnx_opset": OPSET}
        | {name: found for name in _VERSIONED if (found := version_of(name))},
        "git_revision": git_revision(),
        "checked_with_onnxruntime": {"tolerance": TOLERANCE, "largest_difference": differences}
        if checked
        else None,
        "not_in_the_graphs": "reading DICOM, cutting slices and crops, joining candidates into one numbered "
        "chain, calibration: see preprocessing and calibration, and the project's source",
        "models": models,
    }
    write_json(out / MANIFEST_NAME, manifest, indent=1, ensure_ascii=False)
    return manifest


def _remove_earlier(out: Path) -> None:
    """Remove the manifest of an earlier export and what it lists: some may not be written again.

    Raises:
        ExportFailed: the manifest is of something else, such as of weights, which are nothing without it.
    """
    path = out / MANIFEST_NAME
    if not path.exists():
        return
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        is_ours = manifest["format"] == FORMAT
        names = [str(name) for name in manifest["files"]] if is_ours else []
    except (OSError, ValueError, KeyError, TypeError):
        is_ours = False
    if not is_ours:
        raise ExportFailed(f"'{out.name}' has a {MANIFEST_NAME} of something else: choose another folder")
    for name in names:
        if Path(name).name == name and name.endswith(".onnx"):
            (out / name).unlink(missing_ok=True)
    path.unlink()


def count_models(source: WeightsSource) -> int:
    """How many networks ``export_weights`` writes: a file of weights each."""
    return sum(len([*folder.glob("*.safetensors")]) for folder in source.values())


def _models(source: WeightsSource) -> Iterator[tuple[str, ExportedModel, dict[str, Any]]]:
    if (folder := source.get("detector")) is not None:
        for kind, spec in SPECS.items():
            if (folder / f"{kind.value}.safetensors").is_file():
                content = read_verified(folder, f"{kind.value}.safetensors")
                model = detector_model(network_from_bytes(spec, content), spec)
                yield kind.value, model, _detector_description(spec)
        for refiner in REFINERS:
            if (folder / f"{refiner.stem}.safetensors").is_file():
                content = read_verified(folder, f"{refiner.stem}.safetensors")
                model = refiner_model(refiner_from_bytes(refiner, content), refiner)
                yield refiner.stem, model, _refiner_description(refiner)
    if (folder := source.get("graders")) is not None:
        rooms = read_room_evidence(folder)
        for name in GraderName:
            if not (folder / f"{name.value}.safetensors").is_file():
                continue
            stored = load_grader(folder, name)
            for number, member in enumerate(stored.members, start=1):
                model = grader_model(member.network, member.config)
                described = _grader_description(member, stored.calibration)
                described |= {"member": number, "members": len(stored.members)}
                if stored.joint is not None:
                    described["joined"] = _joined(stored.joint)
                if rooms is not None and name is GraderName.FORAMINAL:
                    described["room"] = _room(rooms)
                yield member_stem(name, number), model, described


def _detector_description(spec: DetectorSpec) -> dict[str, Any]:
    rows = ["box_centre_x_px", "box_centre_y_px", "box_width_px", "box_height_px"]
    rows += [f"score {name}" for name in spec.class_names]
    for name in spec.keypoints:
        rows += [f"{name}_x_px", f"{name}_y_px", f"{name}_visible"]
    view = "axial" if spec.kind is DetectorKind.AXIAL else "sagittal"
    return {
        "stage": "detector",
        "output": {
            "rows": rows,
            "classes": list(spec.class_names),
            "keypoints": list(spec.keypoints),
            "units": "pixels of the padded image, zero-based, at pixel centres; scores 0 to 1, each class by "
            "itself; no non-maximum suppression",
        },
        "preprocessing": {
            "series": [kind.value for kind in _SHOWN_IN[spec.kind]],
            "orientation": _ORIENTATION[view],
            "mm_per_px": spec.mm_per_px,
            "largest_side_px": spec.max_canvas_px,
            "window": {
                "black_percentile": canonical.BLACK_PERCENTILE,
                "white_percentile": canonical.WHITE_PERCENTILE,
                "of": "every second row and column of the resampled slice",
                "then": "cut to whole numbers 0 to 255, divided by 255",
            },
            "padding": {"multiple_px": STRIDE, "value": 0, "place": "the image in the middle"},
        },
    }


def _refiner_description(spec: RefinerSpec) -> dict[str, Any]:
    view = "axial" if spec.series_kind is SeriesKind.AXIAL_T2 else "sagittal"
    return {
        "stage": "second look",
        "moves": f"points of {spec.group.value} conditions that were seen, within their slice",
        "output": {"units": "mm rightwards and downwards as the crop is shown", "limit_mm": spec.limit_mm},
        "preprocessing": {
            "series": [spec.series_kind.value],
            "centre": "the point that was seen, on its slice",
            "orientation": _ORIENTATION[view],
            "right_side": "mirrored onto the left: columns of axial crops",
            "size_px": spec.size_px,
            "size_mm": spec.size_mm,
            "smoothed_to_mm": spec.resolution_mm,
            "seen_height_mm": spec.seen_height_mm,
            "window": _CROP_WINDOW,
        },
    }


def _grader_description(stored: StoredGrader, calibration: Calibration) -> dict[str, Any]:
    """Of one member; the calibration is that of all members together."""
    config, kind = stored.config, stored.config.name.series_kind
    conditions = [condition for condition in CONDITIONS if condition.group is config.group]
    crop = config.crop
    return {
        "stage": "grader",
        "conditions": [condition.value for condition in conditions],
        "output": {"classes": [severity.value for severity in SEVERITIES]},
        "preprocessing": {
            "series": [kind.value],
            "centre": "the target's point, in the middle of the middle slice",
            "orientation": _ORIENTATION["axial" if kind is SeriesKind.AXIAL_T2 else "sagittal"],
            "right_side": "mirrored onto the left: columns of axial crops, slice order of sagittal ones",
            "slices": crop.slices,
            "slice_step_mm": crop.slice_step_mm,
            "size_px": crop.size_px,
            "size_mm": crop.size_mm,
            "mm_per_px": crop.step_mm,
            "smoothed_to_mm": crop.resolution_mm,
            "seen_height_mm": crop.seen_height_mm,
            "window": _CROP_WINDOW,
        },
        "calibration": _calibration(calibration),
        "level_prior": {
            level.value: dict(
                zip(
                    [severity.column for severity in SEVERITIES],
                    map(float, level_prior(Target(conditions[0], level))),
                    strict=True,
                )
            )
            for level in LEVELS
        },
    }


def _calibration(calibration: Calibration) -> dict[str, Any]:
    return {
        "formula": "p = (1 - prior_share) * softmax(logits / temperature + bias + log(prior)) "
        "+ prior_share * prior; prior: level_prior of the target's level; logits: mean over the members",
        **calibration.to_dict(),
        "any_severe_pull_is": "of submissions to the competition alone; p does not change",
    }


def _joined(joint: JointCalibration) -> dict[str, Any]:
    return {
        "with": GraderName.SPINAL.value,
        "formula": "p = softmax(weights[0] * logits of that grader + weights[1] * logits of this one + bias "
        "+ log(prior)), of a canal that both see, in place of either calibration",
        **joint.to_dict(),
    }


def _room(rooms: RoomEvidence) -> dict[str, Any]:
    return {
        "formula": "p = softmax(weight * logits + bias + slope * height + log(prior)), in place of the "
        "calibration, of a foramen with a point on sagittal T1; height in mm as lumbar measures it "
        "(foramen_height), 0 where no room is seen",
        **rooms.to_dict(),
    }


def _hashes(source: WeightsSource) -> dict[str, str]:
    return {
        f"{stage}/{name}": digest
        for stage, folder in source.items()
        for name, digest in verify_manifest(folder).items()
    }
