"""Which tests are slow, and where the development data lie; tests that need them skip without them."""

from __future__ import annotations

import gc
import hashlib
import os
import pickle
import secrets
import shutil
import socketserver
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import settings

from tests.kept import KEPT_VARIABLE, Kept, compute_once
from tests.left_behind import left_behind, state_of_process

# A busy machine is no failure.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# Said before numpy, torch and Ray are imported. Workers of the suite share the processors: threads that wait
# burn them. No cluster of a test may listen on more than the loopback address, or to who has no token; Ray is
# told once, at its import, and ultralytics imports it in any training.
os.environ |= {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_USAGE_STATS_ENABLED": "0",
}

# The program and its tests are compiled once, not by each process for itself, which takes it five seconds.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# With torch loaded, a full collection takes half a second, and by default there are many.
gc.set_threshold(100_000, 50, 100)

# Of these, a test takes seconds: it trains, runs the command line, starts a browser, an archive or a cluster.
_SLOW = (
    "benchmarks/",
    "classifier/learn/",
    "classifier/test_backends.py",
    "classifier/test_no_shortcuts.py",
    "classifier/test_predict.py",
    "data_prep/phantom/",
    "data_prep/exchange/",
    "detector/learn/test_train.py",
    "detector/learn/test_several_devices.py",
    "detector/learn/test_external_studies.py",
    "detector/test_",
    "hostile/",
    "notebooks/",
    "pipeline/app/",
    "pipeline/batch/test_engines.py",
    "pipeline/batch/test_ray_engine.py",
    "pipeline/commands/",
    "pipeline/export/",
    "pipeline/results/dicom/",
    "pipeline/results/pictures/",
    "pipeline/results/report/",
    "pipeline/service/",
    "pipeline/test_",
    "pipeline/training/",
    "pipeline/viewers/",
    "security/",
    "test_readme.py",
)

# Of those, whole files that take less than five seconds.
_QUICK = ("pipeline/test_grade.py", "pipeline/test_models.py")

# What takes longest, longest first: what is long and begins last leaves the other workers idle at the end.
_LONGEST = (
    "pipeline/app/test_app.py",
    "pipeline/service/test_service_orthanc.py",
    "pipeline/test_formats.py",
    "pipeline/batch/test_ray_engine.py",
    "pipeline/viewers/test_ohif.py",
    "pipeline/test_privacy_errors.py",
    "pipeline/training/test_training.py",
    "pipeline/test_cli.py",
    "pipeline/results/report/test_report.py",
    "pipeline/test_exchanged_names.py",
    "pipeline/commands/test_known_studies.py",
    "pipeline/results/dicom/test_other_tools.py",
    "pipeline/test_container.py",
    "pipeline/test_missing_series.py",
    "pipeline/service/test_receiver.py",
    "notebooks/test_notebooks.py",
    "pipeline/results/dicom/test_dicom_results.py",
    "pipeline/commands/test_detector.py",
    "pipeline/batch/test_engines.py",
    "detector/learn/test_train.py",
    "security/test_interruption.py",
    "pipeline/service/test_tls.py",
    "pipeline/test_determinism.py",
    "detector/learn/test_several_devices.py",
    "detector/test_backends.py",
    "pipeline/export/test_export.py",
)

_SHARED = Path(__file__).resolve().parents[2] / "shared"


# Tests that fail and are not mended yet: faults, or tests that no longer fit. They run, and may fail without
# failing the suite; whoever mends one takes its line out.
_KNOWN_FAILURES = Path(__file__).with_name("known_failures.txt")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what ``make quick`` leaves out, and what is known to fail.

    Slow tests come first, so that all workers end together.
    """
    here = Path(__file__).parent
    places = {place: number for number, place in enumerate(_LONGEST)}
    order = {}
    known = set(_KNOWN_FAILURES.read_text(encoding="utf-8").split())
    for item in items:
        if item.nodeid.partition("[")[0] in known:
            item.add_marker(pytest.mark.xfail(reason="listed in tests/known_failures.txt", strict=False))
        place = item.path.relative_to(here).as_posix()
        if place.startswith(_SLOW) and not place.startswith(_QUICK):
            item.add_marker(pytest.mark.slow)
        order[item] = (places.get(place, len(places)), item.get_closest_marker("slow") is None)
    items.sort(key=order.__getitem__)


def pytest_collection_finish() -> None:
    """Modules stay: nobody, ultralytics in every training foremost, need look through them for garbage."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def kept_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What all workers share."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "kept"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def kept_arrays(kept_folder: Path) -> Kept:
    """In a folder that all workers share."""
    return Kept(kept_folder)


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """Files of tests run in any order in one process: what one leaves there, another one fails by."""
    before = state_of_process()
    yield
    assert not (left := left_behind(before, state_of_process())), left


_SMALL_PX = 10_000  # a picture with fewer is rendered sooner than it is looked up


@pytest.fixture(scope="session", autouse=True)
def slices_rendered_once(kept_arrays: Kept) -> Iterator[None]:
    """A slice of a synthetic patient is rendered once for all tests and workers."""
    import data_prep.phantom.study as phantoms

    render = phantoms.render_tissue

    def rendered(body: Any, plane: Any, *more: Any) -> Any:
        arguments = (body, plane, *more)
        if plane.shape[0] * plane.shape[1] < _SMALL_PX:
            return render(*arguments)
        return kept_arrays.get(hashlib.sha256(pickle.dumps(arguments)), lambda: render(*arguments))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phantoms, "render_tissue", rendered)
        yield


class _WrittenOnce:
    """``_write_study`` that copies what it has written before; in other processes it is ``_write_study``."""

    def __init__(self, write: Callable[..., Any], kept: Path) -> None:
        self._write, self._kept = write, kept

    def __call__(self, seed: int, *, images: Path, make: Any, **more: Any) -> Any:
        content = pickle.dumps((seed, make.args, make.keywords, more))
        kept = self._kept / hashlib.sha256(content).hexdigest()
        with FileLock(f"{kept}.lock"):
            if not kept.is_dir():
                unfinished = Path(tempfile.mkdtemp(dir=self._kept))
                (unfinished / "images").mkdir()
                rows = self._write(seed, images=unfinished / "images", make=make, **more)
                (unfinished / "rows").write_bytes(pickle.dumps(rows))
                unfinished.rename(kept)
        shutil.copytree(kept / "images", images, dirs_exist_ok=True)
        return pickle.loads((kept / "rows").read_bytes())

    def __reduce__(self) -> tuple[Any, ...]:
        return resolve_name, ("data_prep.phantom.files:_write_study",)


@pytest.fixture(scope="session", autouse=True)
def phantoms_written_once(kept_folder: Path) -> Iterator[Callable[..., Any]]:
    """The files of a synthetic patient are written once for all tests and workers. Gives what writes them."""
    import data_prep.phantom.files as files

    write = files._write_study
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_write_study", _WrittenOnce(write, kept_folder))
        yield write


@pytest.fixture(scope="session", autouse=True)
def networks_computed_once(kept_arrays: Kept, kept_folder: Path) -> Iterator[Callable[..., Any]]:
    """A network is computed once for all tests on the same input. Gives what computes in any case.

    Many tests load a bundle anew, and look at one study in many forms; processes of ``warm_program`` do, too.
    """
    import data_prep.base.networks as networks

    compute = networks.CompiledNetwork._output
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, "_ready", networks._ready)
        patch.setattr(networks.CompiledNetwork, "_output", compute)
        compute_once(kept_arrays)
        patch.setenv(KEPT_VARIABLE, str(kept_folder))
        yield compute


@pytest.fixture(scope="module")
def really_computed(networks_computed_once: Callable[..., Any]) -> Iterator[None]:
    """Networks compute whatever they are given: for tests of nothing else than that."""
    import data_prep.base.networks as networks

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks.CompiledNetwork, "_output", networks_computed_once)
        yield


@pytest.fixture(scope="session", autouse=True)
def disk_is_not_waited_for() -> Iterator[None]:
    """What a file system does when the power fails is tested nowhere; thousands of files are written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def servers_end_at_once() -> Iterator[None]:
    """Servers of the standard library, of which tests start a hundred, look twice a second whether to end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socketserver.BaseServer.serve_forever, "__defaults__", (0.02,))
        yield


@pytest.fixture(scope="session", autouse=True)
def commands_built_once() -> Iterator[None]:
    """Typer makes all commands anew for every call of one, which takes longer than many of them."""
    import typer.testing

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.testing, "_get_command", cache(typer.testing._get_command))
        yield


@pytest.fixture(scope="session")
def training_imported() -> Iterator[None]:
    """What ultralytics imports while it trains; and it looks for no garbage, which takes it seconds."""
    import torch._inductor
    import ultralytics.models.yolo.pose
    from ultralytics.engine.trainer import BaseTrainer

    assert ultralytics.models.yolo.pose and torch._inductor
    gc.collect()
    gc.freeze()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseTrainer, "_clear_memory", lambda *_: None)
        yield


def _existing(folder: Path) -> Path:
    if not folder.is_dir():
        pytest.skip(f"needs development data: {folder.relative_to(_SHARED.parent)}")
    return folder


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of development data beside the checkout."""
    return _existing(_SHARED)


@pytest.fixture(scope="session")
def real_rsna() -> Path:
    """The real RSNA 2024 tables, with the images of studies 4003253 and 100206310."""
    return _existing(_SHARED / "real" / "rsna2024")


@pytest.fixture(scope="session")
def spider_dir() -> Path:
    """Sagittal T2 slices of 28 SPIDER patients with masks and level points."""
    return _existing(_SHARED / "real" / "spider_t2_space")
