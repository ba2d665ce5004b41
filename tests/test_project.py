"""The project as a whole: one-way imports, exact pins, a package list that matches the folders."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("data_prep", "detector", "classifier", "pipeline")
ALLOWED = {
    "data_prep": set(),
    "detector": {"data_prep"},
    "classifier": {"data_prep"},
    "pipeline": {"data_prep", "detector", "classifier"},
}


def imports_of(package: str) -> Iterator[tuple[Path, str]]:
    for path in sorted((ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((path, alias.name.split(".")[0]) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path} imports relatively"
                yield path, (node.module or "").split(".")[0]


def pins_of(requirements: Path) -> dict[str, str]:
    lines = [line for line in requirements.read_text().splitlines() if line and line[0] not in "#-"]
    return dict(line.split("==") for line in lines)


def ranges() -> dict[str, SpecifierSet]:
    """Package → versions that the wheel accepts, with every extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    parsed = [Requirement(item) for group in groups for item in group]
    return {item.name: item.specifier for item in parsed if item.name != "lumbar"}


def test_files_that_the_order_of_the_suite_names_are_there() -> None:
    text = (ROOT / "tests" / "conftest.py").read_text(encoding="utf-8")
    named = re.findall(r'^    "([\w/]+\.py)",$', text, re.MULTILINE)
    assert len(named) > 20
    assert [place for place in named if not (ROOT / "tests" / place).is_file()] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_go_one_way(package: str) -> None:
    for path, name in imports_of(package):
        if name in PACKAGES:
            assert name in ALLOWED[package] | {package}, f"{path.relative_to(ROOT)} imports {name}"


def test_data_prep_needs_no_network_library() -> None:
    modules = sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in (ROOT / "data_prep").rglob("*.py")
    )
    code = f"import importlib, sys\nfor m in {modules}: importlib.import_module(m)\n"
    code += "print([m for m in ('torch', 'ultralytics', 'onnxruntime', 'timm') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_every_imported_package_is_pinned_exactly() -> None:
    pins = pins_of(ROOT / "requirements.txt") | pins_of(ROOT / "requirements-dev.txt")
    assert all(re.fullmatch(r"[0-9][0-9a-z.]*", version) for version in pins.values())
    distributions = packages_distributions()
    for package in PACKAGES:
        for path, name in imports_of(package):
            if name in PACKAGES or name in sys.stdlib_module_names:
                continue
            found = {item.lower() for item in distributions.get(name, [])}
            assert found & {pin.lower() for pin in pins}, f"{path.relative_to(ROOT)}: {name} is not pinned"


def test_the_wheel_accepts_what_is_pinned_and_tested() -> None:
    """And every range has a lower bound."""
    pins = pins_of(ROOT / "requirements.txt") | pins_of(ROOT / "requirements-dev.txt")
    # The same library; ultralytics asks for the one with windows.
    pins["opencv-python-headless"] = pins["opencv-python"]
    for name, accepted in ranges().items():
        assert pins[name] in accepted, f"{name}=={pins[name]} is tested, but {accepted} is accepted"
        assert any(item.operator == ">=" for item in accepted), name


def test_grading_needs_no_training_libraries() -> None:
    """The wheel without extras imports none of these for `lumbar predict --help` and for the pipeline."""
    names = ("torch", "ultralytics", "timm", "sklearn", "pandera", "ray", "fastapi", "pynetdicom", "nibabel")
    names += ("scipy", "pandas", "matplotlib", "highdicom", "onnx")
    parts = (
        "cli",
        "grade",
        "commands.grading_steps",
        "results.report.study_report",
        "results.pictures.montage",
    )
    code = f"import sys, classifier.predict, {', '.join(f'pipeline.{part}' for part in parts)}\n"
    code += f"print([name for name in {names} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_the_package_list_has_every_folder_with_code() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for package in PACKAGES
        for path in (ROOT / package).rglob("__init__.py")
    }
    assert set(listed) == found
